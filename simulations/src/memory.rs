//! The memory of a large network. What an event touches lies somewhere in gigabytes: a processor that waited for each line
//! of it, and looked up the page of each, would spend a simulated year on that.

/// Of most processors.
const LINE_BYTES: usize = 64;

/// Has the processor fetch the cache lines of `value`, to be there when they are needed. Nothing waits for them.
#[inline(always)]
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first = std::ptr::from_ref(value).cast::<i8>();
        // The first line may begin before it.
        let before = first.addr() % LINE_BYTES;
        for at in (0..size_of_val(value) + before).step_by(LINE_BYTES) {
            // SAFETY: a hint that reads no value, and never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_sub(before).wrapping_add(at)) };
        }
    }
    // Elsewhere it is fetched when it is needed.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, LINE_BYTES);
}

/// Has the system put what this process has allocated so far into huge pages, where it can: of a million small ones, hardly any
/// is where the processor looks it up at once. It takes a second for each GiB.
pub(crate) fn gather() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const HUGE_PAGE: usize = 2 << 20;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        // A line is `first-end rw-p offset device inode path`; what is not of a file has no path, or `[heap]`.
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (Some(range), Some("rw-p")) = (fields.next(), fields.next()) else { continue };
            let Some((first, end)) = range.split_once('-') else { continue };
            let parsed = [first, end].map(|address| usize::from_str_radix(address, 16));
            let [Ok(first), Ok(end)] = parsed else { continue };
            let (first, end) = (first.next_multiple_of(HUGE_PAGE), end / HUGE_PAGE * HUGE_PAGE);
            if fields.nth(3).is_none_or(|path| path == "[heap]") {
                // One by one: at the first that it cannot gather, the system would leave the rest as it is.
                for page in (first..end).step_by(HUGE_PAGE) {
                    // SAFETY: moves what is there to another page, at the same address.
                    unsafe { libc::madvise(page as *mut libc::c_void, HUGE_PAGE, libc::MADV_COLLAPSE) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_stays_as_it_was() {
        let small: Vec<Box<u64>> = (0..100_000).map(Box::new).collect();
        let large: Vec<u64> = (0..4_000_000).collect();
        gather();
        assert!(small.iter().map(|number| **number).eq(0..100_000));
        assert!(large.into_iter().eq(0..4_000_000));
    }
}
