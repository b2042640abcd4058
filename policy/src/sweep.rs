//! Which records a steward keeps, hands over and lets go, and how two stewards find out where they differ.
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

/// What a node does with a record that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// It is a steward: keep it, and send it to those.
    Keep {
        /// Stewards that are not known to have it.
        send_to: Vec<NodeId>,
    },
    /// It is no steward any more: keep it until those have it.
    HandOver {
        /// Stewards that are not known to have it, at least one unless there are fewer than [`STEWARDS`].
        send_to: Vec<NodeId>,
    },
    /// It is no steward any more, and all that are have the record.
    LetGo,
}

/// What `own` does with a record whose stewards are `stewards` ([`crate::stewards::choose`], ourselves among the
/// candidates). `confirmed`: who answered since with a record of the same version. Believing that a node must have
/// it, since it is a steward, would lose records; and while there are fewer than eight stewards, nobody lets go.
pub fn duty(own: &NodeId, stewards: &[NodeId], confirmed: impl Fn(&NodeId) -> bool) -> Duty {
    let send_to: Vec<NodeId> = stewards.iter().filter(|node| *node != own && !confirmed(node)).copied().collect();
    if stewards.contains(own) {
        Duty::Keep { send_to }
    } else if send_to.is_empty() && stewards.len() >= STEWARDS {
        Duty::LetGo
    } else {
        Duty::HandOver { send_to }
    }
}
