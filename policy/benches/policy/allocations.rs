//! An allocator that counts, per thread, how often it is asked and for how many bytes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static COUNTED: Cell<Allocations> = const { Cell::new(Allocations { count: 0, bytes: 0 }) };
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocations {
    /// How often; growing what is there counts as well.
    pub(crate) count: u64,
    /// How many bytes in all, whether given back or not.
    pub(crate) bytes: u64,
}

/// The system's allocator, counted.
pub(crate) struct Counting;

fn count(bytes: usize) {
    // `try_with`: a thread that ends allocates after its counters are gone.
    let _ = COUNTED.try_with(|counted| {
        let Allocations { count, bytes: before } = counted.get();
        counted.set(Allocations { count: count + 1, bytes: before + bytes as u64 });
    });
}

// SAFETY: every call is handed to the system's allocator unchanged; counting allocates nothing (a const thread local
// without a destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What `work` returns, and what it asked for on this thread.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, Allocations) {
    let before = COUNTED.get();
    let result = work();
    let after = COUNTED.get();
    (result, Allocations { count: after.count - before.count, bytes: after.bytes - before.bytes })
}
