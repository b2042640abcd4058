//! The loop for any processor, and for the few bytes at the end that fill no vector: `reed-solomon-erasure`'s.

use std::ops::Range;

use reed_solomon_erasure::galois_8::{mul_slice, mul_slice_xor};

/// `outputs = rows × inputs`, for the bytes of `column`. `rows` has one factor per output and input.
pub(super) fn multiply(rows: &[Vec<u8>], inputs: &[&[u8]], outputs: &mut [&mut [u8]], column: Range<usize>) {
    for (row, output) in rows.iter().zip(outputs) {
        let output = &mut output[column.clone()];
        for (at, (factor, input)) in row.iter().zip(inputs).enumerate() {
            // The first product is written, the others are added: nothing need be zeroed.
            let add = if at == 0 { mul_slice } else { mul_slice_xor };
            add(*factor, &input[column.clone()], output);
        }
    }
}
