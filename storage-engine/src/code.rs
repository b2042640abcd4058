//! Reed–Solomon coding: from k data shards to n, and back from any k of them.
//!
//! The code is that of `reed-solomon-erasure`: GF(2^8) with polynomial 0x11D, Vandermonde matrix made systematic.
//! Shards can be read with any tool that uses this common construction; equality with that crate, byte for byte, is
//! a property test. What differs is the hot loop: it is chosen for the processor at run time ([`Kernel`]), and goes
//! through the shards in columns that stay in cache. Nothing here allocates shards or knows of segments.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni;
mod kernel;
mod lagrange;
mod plan;
mod portable;

use std::sync::{Arc, Mutex, PoisonError};

use commonhold_protocol::{Coding, ShardIndex};

pub use self::kernel::Kernel;
use self::{lagrange::Points, plan::Plan};

/// Prepared codings that the process keeps: a put uses one for its full segments and at most k for small ones.
/// The largest (127 of 255, AVX2 tables) takes half a MiB, a usual one 20 KiB.
const CACHE_MAX: usize = 32;

/// Why shards cannot be coded as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Fewer than k shards to restore from.
    #[error("{have} shards, {need} are needed")]
    TooFew {
        /// Shards given.
        have: usize,
        /// Shards needed.
        need: usize,
    },
    /// Not the number of shards that the coding has.
    #[error("{have} shards where the coding has {need}")]
    Count {
        /// Shards given.
        have: usize,
        /// Shards that the coding has.
        need: usize,
    },
    /// An index that the coding does not have.
    #[error("shard {index} of a coding of {n}")]
    Index {
        /// The index.
        index: ShardIndex,
        /// Shards in all.
        n: u8,
    },
    /// The same index twice.
    #[error("shard {index} is given twice")]
    Repeated {
        /// The index.
        index: ShardIndex,
    },
    /// Shards of different lengths.
    #[error("a shard of {bytes} bytes among shards of {expected}")]
    Length {
        /// Bytes of the odd one.
        bytes: usize,
        /// Bytes of the others.
        expected: usize,
    },
}

/// Codes and restores shards of one coding. Cheap to make and to clone: what it prepares is shared.
#[derive(Clone)]
pub struct Coder(Arc<Prepared>);

struct Prepared {
    coding: Coding,
    kernel: Kernel,
    /// What makes shards k to n of shards 0 to k.
    parity: Plan,
}

impl Coder {
    /// The coder of `coding`, with the fastest loop that this processor has.
    pub fn new(coding: Coding) -> Self {
        Self::with_kernel(coding, Kernel::detect())
    }

    /// The coder of `coding` with a certain loop, for tests and benches.
    ///
    /// # Panics
    /// If this processor does not have the loop.
    pub fn with_kernel(coding: Coding, kernel: Kernel) -> Self {
        static CACHE: Mutex<Vec<Coder>> = Mutex::new(Vec::new());
        let wanted = |coder: &Self| coder.0.coding == coding && coder.0.kernel == kernel;
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache.iter().position(wanted) {
            // Most recently used last.
            cache[found..].rotate_left(1);
            return cache[cache.len() - 1].clone();
        }
        drop(cache);
        let coder = Self::prepare(coding, kernel);
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_MAX {
            cache.remove(0);
        }
        cache.push(coder.clone());
        coder
    }

    fn prepare(coding: Coding, kernel: Kernel) -> Self {
        let data = Points::new(0..coding.k());
        let rows = (coding.k()..coding.n()).map(|index| data.row(index)).collect();
        let parity = Plan::new(kernel, coding.k().into(), rows);
        Self(Arc::new(Prepared { coding, kernel, parity }))
    }

    /// The coding.
    pub fn coding(&self) -> Coding {
        self.0.coding
    }

    /// Fills the n - k `parity` shards from the k `data` shards; all are of one length.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodeError> {
        let coding = self.0.coding;
        for (have, need) in [(data.len(), coding.k()), (parity.len(), coding.parity())] {
            if have != usize::from(need) {
                return Err(CodeError::Count { have, need: need.into() });
            }
        }
        check_lengths(data[0].len(), data.iter().copied(), parity)?;
        self.0.parity.run(data, parity);
        Ok(())
    }

    /// Fills `out` with the `wanted` shards, from at least k that are `present`; all are of one length. The same
    /// byte range of the shards does as well as whole ones.
    pub fn reconstruct(
        &self,
        present: &[(ShardIndex, &[u8])],
        wanted: &[ShardIndex],
        out: &mut [&mut [u8]],
    ) -> Result<(), CodeError> {
        let (n, k) = (self.0.coding.n(), usize::from(self.0.coding.k()));
        let mut given: [Option<&[u8]>; 256] = [None; 256];
        for &(index, shard) in present {
            check_index(index, n)?;
            if given[usize::from(index.0)].replace(shard).is_some() {
                return Err(CodeError::Repeated { index });
            }
        }
        wanted.iter().try_for_each(|&index| check_index(index, n))?;
        if present.len() < k {
            return Err(CodeError::TooFew { have: present.len(), need: k });
        }
        if out.len() != wanted.len() {
            return Err(CodeError::Count { have: out.len(), need: wanted.len() });
        }
        check_lengths(present[0].1.len(), present.iter().map(|(_, shard)| *shard), out)?;

        // What is there already needs no arithmetic.
        let mut missing = Vec::new();
        let mut missing_out: Vec<&mut [u8]> = Vec::new();
        for (index, out) in wanted.iter().zip(out) {
            match given[usize::from(index.0)] {
                Some(shard) => out.copy_from_slice(shard),
                None => {
                    missing.push(index.0);
                    missing_out.push(out);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let known = (0..n).filter_map(|index| given[usize::from(index)].map(|shard| (index, shard)));
        let (points, inputs): (Vec<u8>, Vec<&[u8]>) = known.take(k).unzip();
        let points = Points::new(points);
        let rows = missing.into_iter().map(|index| points.row(index)).collect();
        Plan::new(self.0.kernel, k, rows).run(&inputs, &mut missing_out);
        Ok(())
    }
}

fn check_index(index: ShardIndex, n: u8) -> Result<(), CodeError> {
    if index.0 < n { Ok(()) } else { Err(CodeError::Index { index, n }) }
}

fn check_lengths<'a>(
    expected: usize,
    mut inputs: impl Iterator<Item = &'a [u8]>,
    outputs: &[&mut [u8]],
) -> Result<(), CodeError> {
    let odd = inputs.find(|input| input.len() != expected).map(<[u8]>::len);
    match odd.or_else(|| outputs.iter().map(|output| output.len()).find(|length| *length != expected)) {
        Some(bytes) => Err(CodeError::Length { bytes, expected }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
