//! Whose question is next: peers have their turns one after another, however many questions each of them has waiting.

use std::collections::{BTreeMap, VecDeque};

use commonhold_protocol::NodeId;

/// Questions that are worked on at once.
pub(crate) const AT_ONCE: usize = 32;
/// Those of one peer: most of the work is done on threads of their own, and one peer's shall not crowd out all others.
pub(crate) const AT_ONCE_PER_PEER: usize = 4;

/// What waits, by who wants it, and what is being done.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    waiting: BTreeMap<NodeId, VecDeque<T>>,
    /// Those that have something waiting and are below their limit, in the order of their turns.
    order: VecDeque<NodeId>,
    count: usize,
    running: BTreeMap<NodeId, usize>,
    running_all: usize,
}

impl<T> Turns<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), order: VecDeque::new(), count: 0, running: BTreeMap::new(), running_all: 0 }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.count
    }

    /// One more that waits.
    pub(crate) fn push(&mut self, from: NodeId, wanted: T) {
        self.waiting.entry(from).or_default().push_back(wanted);
        self.count += 1;
        self.line_up(from);
    }

    /// The next to be done. [`Self::done`] must follow.
    pub(crate) fn next(&mut self) -> Option<(NodeId, T)> {
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
        self.line_up(from);
        Some((from, wanted))
    }

    /// One of this peer's is done.
    pub(crate) fn done(&mut self, from: NodeId) {
        let Some(running) = self.running.get_mut(&from) else { return };
        *running -= 1;
        if *running == 0 {
            self.running.remove(&from);
        }
        self.running_all -= 1;
        self.line_up(from);
    }

    fn line_up(&mut self, from: NodeId) {
        let running = self.running.get(&from).copied().unwrap_or(0);
        if running < AT_ONCE_PER_PEER && self.waiting.contains_key(&from) && !self.order.contains(&from) {
            self.order.push_back(from);
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
        let mut turns = Turns::new();
        for number in 0..300 {
            turns.push(node(1), number);
        }
        let taken: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(taken, (0..AT_ONCE_PER_PEER as i32).map(|number| (node(1), number)).collect::<Vec<_>>());
        turns.push(node(2), 1000);
        assert_eq!(turns.next(), Some((node(2), 1000)), "it does not wait for the other peer's");
        turns.done(node(1));
        turns.push(node(2), 1001);
        assert_eq!(turns.next(), Some((node(1), 4)));
        assert_eq!(turns.next(), Some((node(2), 1001)));
        assert_eq!(turns.next(), None);
        assert_eq!(turns.waiting(), 295);
    }

    #[test]
    fn everything_is_done_once_and_no_more_than_are_allowed_at_once() {
        let mut turns = Turns::new();
        for number in 0..1000_u32 {
            turns.push(node((number % 20) as u8), number);
        }
        let (mut running, mut done) = (VecDeque::new(), Vec::new());
        loop {
            while let Some((from, number)) = turns.next() {
                running.push_back(from);
                done.push(number);
            }
            assert!(running.len() <= AT_ONCE);
            let Some(from) = running.pop_front() else { break };
            turns.done(from);
        }
        done.sort_unstable();
        assert_eq!(done, (0..1000).collect::<Vec<_>>());
        assert!(turns.waiting() == 0 && turns.running.is_empty() && turns.order.is_empty());
    }
}
