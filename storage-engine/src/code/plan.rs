//! Rows of factors prepared for a kernel: in groups that fit its registers, in the form that it wants.
//!
//! This is the only place that calls a kernel, and so the only one that must know that the processor has it.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::{avx2, gfni};
use super::{kernel::Kernel, portable};

/// Bytes of each shard that are coded before the next column is begun: twenty inputs of it and one group of outputs
/// stay in a usual second-level cache, while the processor still sees runs worth reading ahead. (4 and 8 KiB measured
/// 10 to 30% slower with 20 of 40 shards of 820 KiB.)
const COLUMN_BYTES: usize = 16 << 10;

/// Rows of factors, ready to run.
pub(super) struct Plan {
    inputs: usize,
    groups: Vec<Group>,
}

/// Rows that are computed together, each in registers of its own.
struct Group {
    rows: Vec<Vec<u8>>,
    tables: Tables,
}

/// A group's factors as its kernel wants them, input by input.
enum Tables {
    #[cfg(target_arch = "x86_64")]
    Gfni512(Vec<u64>),
    #[cfg(target_arch = "x86_64")]
    Gfni256(Vec<u64>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Vec<avx2::Nibbles>),
    None,
}

impl Plan {
    /// Prepares `rows` of `inputs` factors each for `kernel`.
    ///
    /// # Panics
    /// If this processor does not have the kernel.
    pub(super) fn new(kernel: Kernel, inputs: usize, mut rows: Vec<Vec<u8>>) -> Self {
        assert!(kernel.is_supported(), "{kernel:?} is not a loop for this processor");
        assert!(inputs > 0 && rows.iter().all(|row| row.len() == inputs));
        let groups_count = rows.len().div_ceil(rows_max(kernel));
        // As even as can be: two groups of 8 keep more of the arithmetic units busy than one of 10 and one of 6.
        let groups = (0..groups_count).rev().map(|left| {
            let count = rows.len() / (left + 1);
            Group::new(kernel, rows.drain(..count).collect())
        });
        Self { inputs, groups: groups.collect() }
    }

    /// `outputs = rows × inputs`; all of one length.
    pub(super) fn run(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert_eq!(inputs.len(), self.inputs);
        assert_eq!(outputs.len(), self.groups.iter().map(|group| group.rows.len()).sum::<usize>());
        let length = inputs[0].len();
        assert!(inputs.iter().all(|input| input.len() == length));
        assert!(outputs.iter().all(|output| output.len() == length));
        for start in (0..length).step_by(COLUMN_BYTES) {
            let column = start..length.min(start + COLUMN_BYTES);
            let mut rest = &mut *outputs;
            for group in &self.groups {
                let (outputs, later) = rest.split_at_mut(group.rows.len());
                group.run(inputs, outputs, column.clone());
                rest = later;
            }
        }
    }
}

/// The most rows that a kernel's registers hold.
fn rows_max(kernel: Kernel) -> usize {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Gfni512 | Kernel::Gfni256 => gfni::ROWS_MAX,
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => avx2::ROWS_MAX,
        _ => usize::from(u8::MAX),
    }
}

impl Group {
    fn new(kernel: Kernel, rows: Vec<Vec<u8>>) -> Self {
        let tables = match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Gfni512 => Tables::Gfni512(by_input(&rows, gfni::affine)),
            #[cfg(target_arch = "x86_64")]
            Kernel::Gfni256 => Tables::Gfni256(by_input(&rows, gfni::affine)),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => Tables::Avx2(by_input(&rows, avx2::Nibbles::of)),
            _ => Tables::None,
        };
        Self { rows, tables }
    }

    fn run(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]], column: Range<usize>) {
        let done = match &self.tables {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Plan::new` makes these tables only where the processor has GFNI with AVX-512.
            Tables::Gfni512(tables) => unsafe { gfni::multiply_512(tables, inputs, outputs, column.clone()) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Plan::new` makes these tables only where the processor has GFNI with AVX2.
            Tables::Gfni256(tables) => unsafe { gfni::multiply_256(tables, inputs, outputs, column.clone()) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Plan::new` makes these tables only where the processor has AVX2.
            Tables::Avx2(tables) => unsafe { avx2::multiply(tables, inputs, outputs, column.clone()) },
            Tables::None => column.start,
        };
        if done < column.end {
            portable::multiply(&self.rows, inputs, outputs, done..column.end);
        }
    }
}

/// One table per factor: all rows' for the first input, then all rows' for the second.
#[cfg(target_arch = "x86_64")]
fn by_input<T>(rows: &[Vec<u8>], table: impl Fn(u8) -> T) -> Vec<T> {
    let inputs = rows.first().map_or(0, Vec::len);
    (0..inputs).flat_map(|input| rows.iter().map(move |row| row[input])).map(table).collect()
}
