//! How two stewards find out where they differ, and which records a node lets go that is no steward of them any more.
//!
//! Stewards compare ranges of keys by digest: equal ones are done with one comparison, others are split
//! ([`split`]) until they are small enough to list, and [`differences`] of the lists are what is exchanged.

use commonhold_protocol::NodeId;
pub use commonhold_protocol::ask::{Entry, Range, RangeDigest};

use crate::stewards::STEWARDS;

/// Ranges with at most so many entries on either side are listed rather than split: a list of them is one message.
pub const LIST_MAX: u64 = 256;
/// A range is split into so many.
pub const PARTS: usize = 16;
/// A steward that does not answer is left alone for a quarter of the grace time, within these, ...
const LEFT_ALONE_MS: std::ops::RangeInclusive<u64> = 5_000..=60_000;
/// ... for twice as long each further time, up to a twelfth of the grace time, and an hour.
const LEFT_ALONE_MS_MAX: u64 = 60 * 60 * 1000;

/// How long a steward is left alone that has not answered `times` times in a row, in milliseconds: each try is a long wait,
/// and one that is back connects by itself.
pub fn left_alone_ms(grace_ms: u64, times: u32) -> u64 {
    let first = (grace_ms / 4).clamp(*LEFT_ALONE_MS.start(), *LEFT_ALONE_MS.end());
    let most = (grace_ms / 12).clamp(first, LEFT_ALONE_MS_MAX);
    first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(most)
}

/// About equal parts of a range, ascending and without gaps: [`PARTS`], or one if it is too narrow to be split. Ends
/// where the first 16 bytes of keys end, which ids, being hashes, never fill.
pub fn split(range: &Range) -> Vec<Range> {
    let head = |key: &[u8; 32]| u128::from_be_bytes(std::array::from_fn(|i| key[i]));
    let (first, last) = (head(&range.first), head(&range.last));
    let step = last.saturating_sub(first) / PARTS as u128;
    if step == 0 {
        return vec![*range];
    }
    let mut parts = Vec::with_capacity(PARTS);
    let mut start = range.first;
    for part in 1..PARTS as u128 {
        let next = first + step * part;
        let mut end = [0xff; 32];
        end[..16].copy_from_slice(&(next - 1).to_be_bytes());
        parts.push(Range { first: start, last: end });
        start = [0; 32];
        start[..16].copy_from_slice(&next.to_be_bytes());
    }
    parts.push(Range { first: start, last: range.last });
    parts
}

/// What to do about a range of which both digests are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Both keep the same.
    Equal,
    /// List the entries and compare them.
    List,
    /// Split, and compare the parts.
    Split,
}

/// Compares the digests of two stewards for one range.
pub fn compare(range: &Range, ours: &RangeDigest, theirs: &RangeDigest) -> Step {
    if ours == theirs {
        Step::Equal
    } else if ours.count.max(theirs.count) <= LIST_MAX || split(range).len() == 1 {
        Step::List
    } else {
        Step::Split
    }
}

/// Where two stewards differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// To be sent: they do not have them, or have something else, which is merged.
    pub send: Vec<[u8; 32]>,
    /// To be asked for: we do not have them, or have something else.
    pub ask: Vec<[u8; 32]>,
}

/// The differences of two lists of one range. Ours is sorted by key; theirs is whatever was sent: entries outside of
/// the range or out of order are skipped.
pub fn differences(range: &Range, ours: &[Entry], theirs: &[Entry]) -> Differences {
    let mut found = Differences::default();
    let mut ours = ours.iter().filter(|entry| range.contains(&entry.key)).peekable();
    let mut last = None;
    for entry in theirs.iter().filter(|entry| range.contains(&entry.key)) {
        if last.is_some_and(|last| entry.key <= last) {
            continue;
        }
        last = Some(entry.key);
        while let Some(own) = ours.next_if(|own| own.key < entry.key) {
            found.send.push(own.key);
        }
        match ours.next_if(|own| own.key == entry.key) {
            Some(own) if own.version == entry.version => {}
            Some(_) => {
                found.send.push(entry.key);
                found.ask.push(entry.key);
            }
            None => found.ask.push(entry.key),
        }
    }
    found.send.extend(ours.map(|own| own.key));
    found
}

/// Whether a holder sends what it has of a record to the stewards that lack its claim. Not while most of those that
/// answered have it: they tell the others the whole record, where a holder has one claim of many, of which a steward
/// that has just come would conclude that all the other shards are lost. One liar that says that it has it changes
/// nothing.
pub fn renews(known: usize, answered: usize) -> bool {
    known * 2 <= answered
}

/// A record that is kept by a node which is no steward of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Milliseconds since the node noticed that it is no steward.
    pub for_ms: u64,
    /// Enough of its claims have passed an audit once ([`crate::admission::new_record`]).
    pub proven: bool,
    /// The owner's newest word is that it is not wanted.
    pub dropped: bool,
}

/// Whether a node lets go of a record whose steward it is no more. `stewards`: who they are now
/// ([`crate::stewards::choose`]). `has_it`: who answered since that it has all of it.
///
/// Believing that a node must have it, since it is a steward, would lose records; and where there are fewer than eight
/// stewards, nobody lets go. Nor before a grace time is over: newcomers go as quickly as they came. What has not
/// proven itself in time anybody may have made up, and is worth no copy beyond those of its stewards. A tombstone is small,
/// and stays until the lease is over: it keeps a steward that was away from bringing the record back.
pub fn lets_go(
    left: Left,
    stewards: &[NodeId],
    has_it: impl Fn(&NodeId) -> bool,
    grace_ms: u64,
    prove_ms: u64,
) -> bool {
    if left.dropped {
        false
    } else if left.proven {
        left.for_ms >= grace_ms && stewards.len() >= STEWARDS && stewards.iter().all(has_it)
    } else {
        left.for_ms >= prove_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_asked_less_and_less_often_but_each_hour() {
        let with_grace = |grace_ms: u64| [0, 1, 2, 3, 6, 7, 40, u32::MAX].map(|times| left_alone_ms(grace_ms, times));
        const MINUTE: u64 = 60_000;
        let default = [1, 1, 2, 4, 32, 60, 60, 60].map(|minutes| minutes * MINUTE);
        assert_eq!(with_grace(12 * 60 * MINUTE), default);
        assert_eq!(with_grace(0), [5_000; 8]);
        assert_eq!(with_grace(4 * MINUTE), [MINUTE; 8], "a quarter is more than a twelfth");
    }
}
