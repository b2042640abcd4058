//! The loop for processors with AVX2: a product with a constant is two look-ups in 16-byte tables, one for each half
//! of a byte ("Screaming Fast Galois Field Arithmetic Using Intel SIMD Instructions", Plank et al., FAST 2013).

use std::{arch::x86_64::*, ops::Range};

use super::lagrange::product;

/// Rows whose sums stay in registers: 8 of 16, beside the two halves of the input, the mask and the tables.
pub(super) const ROWS_MAX: usize = 8;

/// The products of a factor with the 16 low halves of a byte, then with the 16 high ones.
#[repr(align(32))]
pub(super) struct Nibbles([u8; 32]);

impl Nibbles {
    pub(super) fn of(factor: u8) -> Self {
        Self(std::array::from_fn(|at| product(factor, if at < 16 { at as u8 } else { (at as u8 - 16) << 4 })))
    }
}

/// Multiplies whole 32-byte vectors of `column`; gives the place of the first byte that is left over.
#[target_feature(enable = "avx2")]
pub(super) fn multiply(tables: &[Nibbles], inputs: &[&[u8]], outputs: &mut [&mut [u8]], column: Range<usize>) -> usize {
    match outputs.len() {
        1 => rows::<1>(tables, inputs, outputs, column),
        2 => rows::<2>(tables, inputs, outputs, column),
        3 => rows::<3>(tables, inputs, outputs, column),
        4 => rows::<4>(tables, inputs, outputs, column),
        5 => rows::<5>(tables, inputs, outputs, column),
        6 => rows::<6>(tables, inputs, outputs, column),
        7 => rows::<7>(tables, inputs, outputs, column),
        8 => rows::<8>(tables, inputs, outputs, column),
        rows => unreachable!("a group has 1 to {ROWS_MAX} rows, not {rows}"),
    }
}

#[target_feature(enable = "avx2")]
fn rows<const ROWS: usize>(
    tables: &[Nibbles],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    column: Range<usize>,
) -> usize {
    assert!(outputs.len() == ROWS && tables.len() == inputs.len() * ROWS);
    assert!(inputs.iter().all(|input| input.len() >= column.end));
    assert!(outputs.iter().all(|output| output.len() >= column.end));
    let mask = _mm256_set1_epi8(0x0f);
    let mut at = column.start;
    while at + 32 <= column.end {
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for (input, factors) in inputs.iter().zip(tables.as_chunks::<ROWS>().0) {
            // SAFETY: at + 32 <= column.end <= input.len(), asserted above.
            let x = unsafe { _mm256_loadu_si256(input.as_ptr().add(at).cast()) };
            let low = _mm256_and_si256(x, mask);
            let high = _mm256_and_si256(_mm256_srli_epi64::<4>(x), mask);
            for row in 0..ROWS {
                // SAFETY: a table has 32 bytes: 16 at 0 and 16 at 16.
                let (low_table, high_table) = unsafe {
                    let table = factors[row].0.as_ptr();
                    (_mm_load_si128(table.cast()), _mm_load_si128(table.add(16).cast()))
                };
                let low_products = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(low_table), low);
                let high_products = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(high_table), high);
                sums[row] = _mm256_xor_si256(sums[row], _mm256_xor_si256(low_products, high_products));
            }
        }
        for row in 0..ROWS {
            // SAFETY: at + 32 <= column.end <= outputs[row].len(), asserted above.
            unsafe { _mm256_storeu_si256(outputs[row].as_mut_ptr().add(at).cast(), sums[row]) };
        }
        at += 32;
    }
    at
}
