//! How long a holder may take to answer a challenge.

/// The rate at which an answer's bytes have to come: a tenth of a slow disk's.
const BYTES_PER_SECOND: u64 = 5_000_000;
/// What a challenge costs besides: each of its groups may be a seek of a busy disk.
const SLACK_MS: u64 = 2_000;
/// Each repetition of a pinned challenge may take this many times longer, as a power of two: a link with 20% loss and
/// 200 ms carries about 20 kB/s, and its node is slow, not a cheat. Time gains a cheat nothing that its data did not
/// lose already, since it is the same groups that it is asked for.
const PATIENCE_SHIFT: u32 = 2;

/// Milliseconds within which an answer of `bytes` bytes has to be there, over a link with this round trip, if the
/// challenge was asked `asked_before` times before.
///
/// The round trip counts twice: a connection may have to be opened first.
pub fn deadline_ms(round_trip_ms: u64, bytes: u64, asked_before: u32) -> u64 {
    let once = SLACK_MS
        .saturating_add(round_trip_ms.saturating_mul(2))
        .saturating_add(bytes.saturating_mul(1000) / BYTES_PER_SECOND);
    once.saturating_mul(1 << (PATIENCE_SHIFT * asked_before.min(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE_BYTES: u64 = 32 * 17_024;

    #[test]
    fn the_deadline_is_the_round_trip_and_the_bytes_at_5_megabytes_a_second() {
        assert_eq!(deadline_ms(0, 0, 0), SLACK_MS);
        assert_eq!(deadline_ms(100, 0, 0), SLACK_MS + 200);
        assert_eq!(deadline_ms(0, 5_000_000, 0), SLACK_MS + 1_000);
        assert_eq!(deadline_ms(u64::MAX, u64::MAX, u32::MAX), u64::MAX);
    }

    /// 20% loss and 200 ms: by Mathis' formula 1460 B / 0.2 s * 1.22 / sqrt(0.2) = 20 kB/s.
    #[test]
    fn a_node_on_a_poor_link_makes_it_before_it_counts_as_failed() {
        let needs_ms = CHALLENGE_BYTES * 1000 / 20_000;
        assert!(needs_ms > deadline_ms(200, CHALLENGE_BYTES, 0), "else the test shows nothing");
        assert!(needs_ms < deadline_ms(200, CHALLENGE_BYTES, 2), "one repetition is left to spare");
    }
}
