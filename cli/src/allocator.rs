//! What glibc's allocator is told, once, before there are threads. Other allocators are left as they are.

/// Has all threads allocate from one arena: a node allocates little and mostly from one thread, and further arenas cost
/// it 8 MiB (measured with 100,000 shards and 20,000 records: 38 MiB instead of 46). And has large pieces always come from
/// the system and go back to it: left alone, the allocator takes them from the heap once one was freed, which costs 3 MiB
/// more (sled's histograms are large, and hardly ever touched).
pub(crate) fn small() {
    #[cfg(target_env = "gnu")]
    set(&[(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 256 << 10), (libc::M_TRIM_THRESHOLD, 256 << 10)]);
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
        // SAFETY: `mallopt` only sets a parameter of the allocator; no other thread runs yet.
        unsafe {
            libc::mallopt(*parameter, *value);
        }
    }
}
