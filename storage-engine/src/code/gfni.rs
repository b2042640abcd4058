//! The loops for processors with GFNI: a product with a constant is an 8×8 bit matrix, which one instruction applies
//! to every byte of a vector.
//!
//! `gf2p8mulb` cannot be used: its field is that of AES (0x11B), and ours is 0x11D.

use std::{arch::x86_64::*, ops::Range};

use super::lagrange::product;

/// Rows whose sums stay in registers: with two vectors each, 20 of 32 with AVX-512; with one, 10 of 16 with AVX2.
pub(super) const ROWS_MAX: usize = 10;

/// The bit matrix of `x -> factor * x`, as `gf2p8affineqb` takes it: the row that gives bit i is byte 7 - i.
pub(super) fn affine(factor: u8) -> u64 {
    let products: [u8; 8] = std::array::from_fn(|bit| product(factor, 1 << bit));
    (0..8).fold(0, |matrix, bit| {
        let row = (0..8).fold(0u8, |row, column| row | (products[column] >> bit & 1) << column);
        matrix | u64::from(row) << (8 * (7 - bit))
    })
}

/// Expands to one function per vector width that picks the code for the number of rows.
macro_rules! by_rows {
    ($rows:expr, $multiply:ident($($argument:expr),*)) => {
        match $rows {
            1 => $multiply::<1>($($argument),*),
            2 => $multiply::<2>($($argument),*),
            3 => $multiply::<3>($($argument),*),
            4 => $multiply::<4>($($argument),*),
            5 => $multiply::<5>($($argument),*),
            6 => $multiply::<6>($($argument),*),
            7 => $multiply::<7>($($argument),*),
            8 => $multiply::<8>($($argument),*),
            9 => $multiply::<9>($($argument),*),
            10 => $multiply::<10>($($argument),*),
            rows => unreachable!("a group has 1 to {ROWS_MAX} rows, not {rows}"),
        }
    };
}

/// Multiplies whole 64-byte vectors of `column`; gives the place of the first byte that is left over.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
pub(super) fn multiply_512(tables: &[u64], inputs: &[&[u8]], outputs: &mut [&mut [u8]], column: Range<usize>) -> usize {
    by_rows!(outputs.len(), rows_512(tables, inputs, outputs, column))
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn rows_512<const ROWS: usize>(
    tables: &[u64],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    column: Range<usize>,
) -> usize {
    assert!(outputs.len() == ROWS && tables.len() == inputs.len() * ROWS);
    assert!(inputs.iter().all(|input| input.len() >= column.end));
    assert!(outputs.iter().all(|output| output.len() >= column.end));
    let mut at = column.start;
    while at + 128 <= column.end {
        let mut low = [_mm512_setzero_si512(); ROWS];
        let mut high = [_mm512_setzero_si512(); ROWS];
        for (input, factors) in inputs.iter().zip(tables.as_chunks::<ROWS>().0) {
            // SAFETY: at + 128 <= column.end <= input.len(), asserted above.
            let (x, y) = unsafe {
                let from = input.as_ptr().add(at);
                (_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(64).cast()))
            };
            for row in 0..ROWS {
                let factor = _mm512_set1_epi64(factors[row] as i64);
                low[row] = _mm512_xor_si512(low[row], _mm512_gf2p8affine_epi64_epi8::<0>(x, factor));
                high[row] = _mm512_xor_si512(high[row], _mm512_gf2p8affine_epi64_epi8::<0>(y, factor));
            }
        }
        for row in 0..ROWS {
            // SAFETY: at + 128 <= column.end <= outputs[row].len(), asserted above.
            unsafe {
                let to = outputs[row].as_mut_ptr().add(at);
                _mm512_storeu_si512(to.cast(), low[row]);
                _mm512_storeu_si512(to.add(64).cast(), high[row]);
            }
        }
        at += 128;
    }
    if at + 64 <= column.end {
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for (input, factors) in inputs.iter().zip(tables.as_chunks::<ROWS>().0) {
            // SAFETY: at + 64 <= column.end <= input.len(), asserted above.
            let x = unsafe { _mm512_loadu_si512(input.as_ptr().add(at).cast()) };
            for row in 0..ROWS {
                let factor = _mm512_set1_epi64(factors[row] as i64);
                sums[row] = _mm512_xor_si512(sums[row], _mm512_gf2p8affine_epi64_epi8::<0>(x, factor));
            }
        }
        for row in 0..ROWS {
            // SAFETY: at + 64 <= column.end <= outputs[row].len(), asserted above.
            unsafe { _mm512_storeu_si512(outputs[row].as_mut_ptr().add(at).cast(), sums[row]) };
        }
        at += 64;
    }
    at
}

/// Multiplies whole 32-byte vectors of `column`; gives the place of the first byte that is left over.
#[target_feature(enable = "avx2,gfni")]
pub(super) fn multiply_256(tables: &[u64], inputs: &[&[u8]], outputs: &mut [&mut [u8]], column: Range<usize>) -> usize {
    by_rows!(outputs.len(), rows_256(tables, inputs, outputs, column))
}

#[target_feature(enable = "avx2,gfni")]
fn rows_256<const ROWS: usize>(
    tables: &[u64],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    column: Range<usize>,
) -> usize {
    assert!(outputs.len() == ROWS && tables.len() == inputs.len() * ROWS);
    assert!(inputs.iter().all(|input| input.len() >= column.end));
    assert!(outputs.iter().all(|output| output.len() >= column.end));
    let mut at = column.start;
    while at + 32 <= column.end {
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for (input, factors) in inputs.iter().zip(tables.as_chunks::<ROWS>().0) {
            // SAFETY: at + 32 <= column.end <= input.len(), asserted above.
            let x = unsafe { _mm256_loadu_si256(input.as_ptr().add(at).cast()) };
            for row in 0..ROWS {
                let factor = _mm256_set1_epi64x(factors[row] as i64);
                sums[row] = _mm256_xor_si256(sums[row], _mm256_gf2p8affine_epi64_epi8::<0>(x, factor));
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
