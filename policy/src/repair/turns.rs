//! Whose turn it is among the repairs that one steward has to do: what is urgent first, then who came first.

use std::collections::VecDeque;

/// Repairs at once: each takes up to 8 MiB of memory.
pub const AT_ONCE: usize = 2;
/// Repairs that wait in each of the two queues; those beyond are ordered again later ([`super::order`]).
pub const WAITING_MAX: usize = 4096;

/// The segments that a steward repairs and those that wait for it, by whatever names them.
#[derive(Debug, Clone)]
pub struct Turns<S> {
    running: Vec<S>,
    urgent: VecDeque<S>,
    waiting: VecDeque<S>,
}

impl<S> Default for Turns<S> {
    fn default() -> Self {
        Self { running: Vec::new(), urgent: VecDeque::new(), waiting: VecDeque::new() }
    }
}

impl<S: Copy + Eq> Turns<S> {
    /// Waits for its turn; false if too many do so already.
    pub fn wait(&mut self, segment: S, urgent: bool) -> bool {
        let queue = if urgent { &mut self.urgent } else { &mut self.waiting };
        let fits = queue.len() < WAITING_MAX;
        if fits {
            queue.push_back(segment);
        }
        fits
    }

    /// A segment that waits is urgent now.
    pub fn hurry(&mut self, segment: &S) {
        let place = self.waiting.iter().position(|waiting| waiting == segment);
        // One that finds no place among the urgent keeps the one that it has.
        if self.urgent.len() < WAITING_MAX
            && let Some(segment) = place.and_then(|place| self.waiting.remove(place))
        {
            self.urgent.push_back(segment);
        }
    }

    /// The segment whose turn it is from now on, until [`Self::end`]; none while [`AT_ONCE`] have theirs. One that has
    /// its turn still, though it was stopped, gets the next only after that.
    pub fn take_next(&mut self) -> Option<S> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let running = &self.running;
        let next = [&mut self.urgent, &mut self.waiting].into_iter().find_map(|queue| {
            let place = queue.iter().position(|segment| !running.contains(segment))?;
            queue.remove(place)
        })?;
        self.running.push(next);
        Some(next)
    }

    /// True if it is the segment's turn.
    pub fn has(&self, segment: &S) -> bool {
        self.running.contains(segment)
    }

    /// All segments, whether they wait or have their turn.
    pub fn all(&self) -> Vec<S> {
        self.running.iter().chain(&self.urgent).chain(&self.waiting).copied().collect()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.urgent.is_empty() && self.waiting.is_empty()
    }

    /// How many have their turn.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The segment waits no more. Its turn, if it has it, goes on.
    pub fn leave(&mut self, segment: &S) {
        self.urgent.retain(|waiting| waiting != segment);
        self.waiting.retain(|waiting| waiting != segment);
    }

    /// The segment's turn is over; false if it had none.
    pub fn end(&mut self, segment: &S) -> bool {
        let place = self.running.iter().position(|running| running == segment);
        place.map(|place| self.running.swap_remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_are_first_and_no_more_than_two_have_their_turn() {
        let mut turns = Turns::default();
        for (segment, urgent) in [(1, false), (2, false), (3, true), (4, true)] {
            assert!(turns.wait(segment, urgent));
        }
        assert_eq!([turns.take_next(), turns.take_next(), turns.take_next()], [Some(3), Some(4), None]);
        assert!(turns.end(&4) && !turns.end(&4));
        assert_eq!((turns.take_next(), turns.take_next()), (Some(1), None));
        assert!(turns.has(&1) && !turns.has(&2));
    }

    #[test]
    fn who_leaves_waits_no_more_and_who_was_stopped_ends_before_it_begins_again() {
        let mut turns = Turns::default();
        turns.wait(1, true);
        assert_eq!(turns.take_next(), Some(1));
        turns.wait(1, true);
        turns.wait(2, false);
        turns.wait(3, false);
        turns.leave(&2);
        assert_eq!((turns.take_next(), turns.running()), (Some(3), 2));
        assert!(turns.end(&3));
        assert_eq!(turns.take_next(), None, "its first turn is not over");
        assert!(turns.end(&1));
        assert_eq!(turns.take_next(), Some(1));
    }

    #[test]
    fn who_becomes_urgent_is_before_all_who_are_not() {
        let mut turns = Turns::default();
        for (segment, urgent) in [(1, false), (2, false), (3, true)] {
            turns.wait(segment, urgent);
        }
        turns.hurry(&2);
        turns.hurry(&4);
        assert_eq!([turns.take_next(), turns.take_next(), turns.take_next()], [Some(3), Some(2), None]);
        assert_eq!(turns.all(), [3, 2, 1]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut turns = Turns::default();
        let taken = (0..2 * WAITING_MAX).filter(|segment| turns.wait(*segment, false)).count();
        assert_eq!(taken, WAITING_MAX);
        assert!(turns.wait(0, true), "the urgent have a queue of their own");
    }
}
