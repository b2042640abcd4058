//! Whose question is next: peers have their turns one after another, however many questions each of them has waiting.
//! And no peer keeps the node busy for more than a small part of the time, though it be the only one that asks: what it
//! has us do, it could do with a thousand nodes at once, and on the same machine may run much else.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use commonhold_protocol::NodeId;

/// Questions that are worked on at once.
pub(crate) const AT_ONCE: usize = 32;
/// Those of one peer: most of the work is done on threads of their own, and one peer's shall not crowd out all others.
pub(crate) const AT_ONCE_PER_PEER: usize = 4;

/// Work for one peer may take this part of the time of one processor, ...
const SHARE_PARTS: u32 = 32;
/// ... once it has used up what it did not ask for before.
const WORK_SAVED: Duration = Duration::from_millis(125);
/// Peers whose work is remembered; those that have used nothing of what is saved are forgotten beyond it.
const SHARES_MAX: usize = 1024;

/// What waits, by who wants it, and what is being done.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    waiting: BTreeMap<NodeId, VecDeque<T>>,
    /// Those that have something waiting and are below their limit, in the order of their turns.
    order: VecDeque<NodeId>,
    count: usize,
    running: BTreeMap<NodeId, usize>,
    running_all: usize,
    /// When the work that was done for a peer is within its share.
    free_at: BTreeMap<NodeId, Instant>,
    /// Those that have something waiting, and have used up their share until then.
    resting: BTreeSet<(Instant, NodeId)>,
}

impl<T> Turns<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            order: VecDeque::new(),
            count: 0,
            running: BTreeMap::new(),
            running_all: 0,
            free_at: BTreeMap::new(),
            resting: BTreeSet::new(),
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.count
    }

    /// One more that waits.
    pub(crate) fn push(&mut self, from: NodeId, wanted: T, now: Instant) {
        self.waiting.entry(from).or_default().push_back(wanted);
        self.count += 1;
        self.line_up(from, now);
    }

    /// When there may be something to do though nobody asks anything more; none if nobody rests.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at)
    }

    /// The next to be done. [`Self::done`] must follow.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(NodeId, T)> {
        while let Some((at, from)) = self.resting.first().copied()
            && at <= now
        {
            self.resting.pop_first();
            self.line_up(from, now);
        }
        if self.running_all >= AT_ONCE {
            return None;
        }
        let from = self.order.pop_front()?;
        let waiting = self.waiting.get_mut(&from)?;
        let wanted = waiting.pop_front()?;
        if waiting.is_empty() {
            self.waiting.remove(&from);
        }
        self.count -= 1;
        *self.running.entry(from).or_default() += 1;
        self.running_all += 1;
        self.line_up(from, now);
        Some((from, wanted))
    }

    /// One of this peer's is done, and took so long.
    pub(crate) fn done(&mut self, from: NodeId, took: Duration, now: Instant) {
        let saved_from = now.checked_sub(WORK_SAVED * SHARE_PARTS).unwrap_or(now);
        if self.free_at.len() >= SHARES_MAX {
            self.free_at.retain(|_, at| *at > saved_from);
        }
        let free_at = self.free_at.entry(from).or_insert(saved_from);
        *free_at = (*free_at).max(saved_from) + took * SHARE_PARTS;
        let Some(running) = self.running.get_mut(&from) else { return };
        *running -= 1;
        if *running == 0 {
            self.running.remove(&from);
        }
        self.running_all -= 1;
        self.line_up(from, now);
    }

    fn line_up(&mut self, from: NodeId, now: Instant) {
        let running = self.running.get(&from).copied().unwrap_or(0);
        if running >= AT_ONCE_PER_PEER || !self.waiting.contains_key(&from) || self.order.contains(&from) {
            return;
        }
        match self.free_at.get(&from) {
            // It may rest until an earlier moment already: it is looked at again then.
            Some(at) if *at > now => {
                self.resting.insert((*at, from));
            }
            _ => self.order.push_back(from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn one_question_is_not_held_up_by_hundreds_of_another_peer() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        for number in 0..300 {
            turns.push(node(1), number, now);
        }
        let taken: Vec<_> = std::iter::from_fn(|| turns.next(now)).collect();
        assert_eq!(taken, (0..AT_ONCE_PER_PEER as i32).map(|number| (node(1), number)).collect::<Vec<_>>());
        turns.push(node(2), 1000, now);
        assert_eq!(turns.next(now), Some((node(2), 1000)), "it does not wait for the other peer's");
        turns.done(node(1), Duration::ZERO, now);
        turns.push(node(2), 1001, now);
        assert_eq!(turns.next(now), Some((node(1), 4)));
        assert_eq!(turns.next(now), Some((node(2), 1001)));
        assert_eq!(turns.next(now), None);
        assert_eq!(turns.waiting(), 295);
    }

    #[test]
    fn everything_is_done_once_and_no_more_than_are_allowed_at_once() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        for number in 0..1000_u32 {
            turns.push(node((number % 20) as u8), number, now);
        }
        let (mut running, mut done) = (VecDeque::new(), Vec::new());
        loop {
            while let Some((from, number)) = turns.next(now) {
                running.push_back(from);
                done.push(number);
            }
            assert!(running.len() <= AT_ONCE);
            let Some(from) = running.pop_front() else { break };
            turns.done(from, Duration::ZERO, now);
        }
        done.sort_unstable();
        assert_eq!(done, (0..1000).collect::<Vec<_>>());
        assert!(turns.waiting() == 0 && turns.running.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn one_peer_alone_keeps_the_node_busy_for_a_small_part_of_the_time() {
        let (mut turns, start) = (Turns::new(), Instant::now());
        let (took, span) = (Duration::from_millis(10), Duration::from_secs(160));
        let (mut now, mut work) = (start, Duration::ZERO);
        while now < start + span {
            turns.push(node(1), (), now);
            while turns.next(now).is_some() {
                now += took;
                work += took;
                turns.done(node(1), took, now);
            }
            // Meanwhile anybody else is served at once.
            turns.push(node(2), (), now);
            assert_eq!(turns.next(now), Some((node(2), ())));
            turns.done(node(2), Duration::ZERO, now);
            now = turns.wakes_at().unwrap_or(now).max(now + Duration::from_millis(1));
        }
        let fair = span / SHARE_PARTS + WORK_SAVED;
        assert!(work > fair / 2 && work < fair + fair / 10, "{work:?} of work in {span:?}, {fair:?} are its share");
    }
}
