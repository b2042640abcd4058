//! What glibc's allocator is told. Other allocators are left as they are.

/// Has all threads allocate from one arena: a node allocates little and mostly from one thread, and further arenas cost
/// it 8 MiB (measured with 100,000 shards and 20,000 records: 38 MiB instead of 46). And, until [`keep_buffers`], has large
/// pieces come from the system: what opens the indexes allocates many that are hardly ever touched (sled's histograms),
/// and from the heap they would cost 3 MiB more.
pub(crate) fn small() {
    #[cfg(target_env = "gnu")]
    set(&[(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 256 << 10), (libc::M_TRIM_THRESHOLD, 256 << 10)]);
}

/// Keeps the buffers of a few shards when they are freed. To take each from the system cost nodes a tenth to a fifth of
/// their time while they were written to and read from.
pub(crate) fn keep_buffers() {
    #[cfg(target_env = "gnu")]
    set(&[(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, 4 << 20)]);
}

/// Gives back to the system what is free by now.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes the arenas' locks, and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps what is freed for what comes next: a client moves MiBs at a time through buffers of a few hundred KiB to a few
/// MiB, and those that go back to the system come again as fresh pages, each one a fault.
pub(crate) fn keep_freed() {
    #[cfg(target_env = "gnu")]
    set(&[(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, 64 << 20)]);
}

#[cfg(target_env = "gnu")]
fn set(parameters: &[(libc::c_int, libc::c_int)]) {
    for (parameter, value) in parameters {
        // SAFETY: `mallopt` takes the arena's lock and sets one number. Other threads may read it at that moment, old or new:
        // the allocator itself moves these thresholds so when a large piece is freed.
        unsafe {
            libc::mallopt(*parameter, *value);
        }
    }
}
