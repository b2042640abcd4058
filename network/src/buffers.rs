//! Memory that the bytes of shards are read into, used again and again: memory that is new has to be zeroed first, and
//! comes from the system a page fault at a time, which together cost a receiver as much as checking what it receives.

use std::sync::{Mutex, OnceLock};

use bytes::Bytes;

use crate::shared::lock;

/// Shorter buffers come from the allocator, which keeps them at hand.
const LEAST_BYTES: usize = 64 << 10;
/// Bytes kept for what comes next: as many as are under way at a busy node.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Buffers that nobody uses now; all of them are shared by the process.
#[derive(Default)]
struct Kept {
    free: Vec<Box<[u8]>>,
    bytes: usize,
}

fn kept() -> &'static Mutex<Kept> {
    static KEPT: OnceLock<Mutex<Kept>> = OnceLock::new();
    KEPT.get_or_init(Mutex::default)
}

/// A buffer to be filled, with whatever was in it before.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

impl Buffer {
    /// A buffer of `length` bytes, which the caller has bounded.
    pub(crate) fn take(length: usize) -> Self {
        if length < LEAST_BYTES {
            return Self { bytes: vec![0; length].into(), length };
        }
        let capacity = length.next_power_of_two();
        let mut kept = lock(kept());
        let fitting = kept.free.iter().rposition(|buffer| buffer.len() == capacity);
        let bytes = fitting.map(|at| kept.free.swap_remove(at));
        kept.bytes -= bytes.as_ref().map_or(0, |bytes| bytes.len());
        drop(kept);
        Self { bytes: bytes.unwrap_or_else(|| vec![0; capacity].into()), length }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The same bytes to share; the memory is used again when the last part of them is gone.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut kept = lock(kept());
        if bytes.len() >= LEAST_BYTES && kept.bytes + bytes.len() <= KEPT_BYTES_MAX {
            kept.bytes += bytes.len();
            kept.free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_used_again_and_never_beyond_its_length() {
        // A size that no other test of this process takes.
        let length = (4 << 20) - 5;
        let mut first = Buffer::take(length);
        first.as_mut_slice().fill(7);
        let address = first.as_mut_slice().as_ptr();
        let (shared, part) = {
            let shared = first.freeze();
            let part = shared.slice(10..20);
            (shared, part)
        };
        drop(shared);
        let mut other = Buffer::take(length);
        assert_ne!(other.as_mut_slice().as_ptr(), address, "a part of the first is still in use");
        assert_eq!(part, [7; 10].as_slice());
        drop(part);
        let mut again = Buffer::take(length - 1);
        assert_eq!(again.as_mut_slice().as_ptr(), address);
        assert_eq!(again.as_ref().len(), length - 1);
    }

    #[test]
    fn no_more_is_kept_than_is_allowed() {
        let many: Vec<Buffer> = (0..40).map(|_| Buffer::take(1 << 20)).collect();
        drop(many);
        assert!(lock(kept()).bytes <= KEPT_BYTES_MAX);
    }
}
