//! What is to happen, in order of time: a calendar of buckets, so that an event costs the same in a network of any
//! size (a binary heap of a million entries pays twenty cache misses for each).

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// Buckets of the calendar. A bucket is sorted when its time comes: small enough then to fit the cache.
const BUCKETS: u64 = 8192;

/// Something that happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<T> {
    /// Milliseconds since the start.
    pub(crate) at: u64,
    /// What.
    pub(crate) what: T,
}

#[derive(Debug, Clone, Copy)]
struct Late<T> {
    at: u64,
    /// Of the same moment, the first pushed comes first.
    sequence: u64,
    what: T,
}

impl<T> PartialEq for Late<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Late<T> {}

impl<T> PartialOrd for Late<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Late<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Events up to a horizon. Those of one moment come out in the order in which they were pushed.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    buckets: Vec<Vec<Event<T>>>,
    bucket_ms: u64,
    horizon_ms: u64,
    open: usize,
    /// The bucket that is open, latest first.
    current: Vec<Event<T>>,
    /// What was pushed into the open bucket.
    late: BinaryHeap<Reverse<Late<T>>>,
    sequence: u64,
}

impl<T: Copy> Queue<T> {
    /// An empty queue; what is later than `horizon_ms` never happens and is not kept.
    pub(crate) fn new(horizon_ms: u64) -> Self {
        let bucket_ms = horizon_ms / BUCKETS + 1;
        let buckets = (0..=horizon_ms / bucket_ms).map(|_| Vec::new()).collect();
        Self { buckets, bucket_ms, horizon_ms, open: 0, current: Vec::new(), late: BinaryHeap::new(), sequence: 0 }
    }

    /// `what` happens at `at`. A moment that has passed counts as now.
    pub(crate) fn push(&mut self, at: u64, what: T) {
        if at > self.horizon_ms {
            return;
        }
        let bucket = (at / self.bucket_ms) as usize;
        if bucket > self.open {
            self.buckets[bucket].push(Event { at, what });
        } else {
            self.sequence += 1;
            self.late.push(Reverse(Late { at, sequence: self.sequence, what }));
        }
    }

    /// What happens after `count` more, as far as that is in order already.
    pub(crate) fn ahead(&self, count: usize) -> Option<Event<T>> {
        self.current.len().checked_sub(count + 1).map(|at| self.current[at])
    }

    /// What happens next.
    pub(crate) fn pop(&mut self) -> Option<Event<T>> {
        loop {
            let late = match (self.current.last(), self.late.peek()) {
                (Some(current), Some(Reverse(late))) => late.at < current.at,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (None, None) => {
                    self.open = (self.open + 1..self.buckets.len()).find(|at| !self.buckets[*at].is_empty())?;
                    self.current = std::mem::take(&mut self.buckets[self.open]);
                    self.current.reverse();
                    // Stable: of one moment, the first pushed stays last, and is popped first.
                    self.current.sort_by_key(|event| Reverse(event.at));
                    continue;
                }
            };
            return if late {
                self.late.pop().map(|Reverse(late)| Event { at: late.at, what: late.what })
            } else {
                self.current.pop()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle is a list that is searched for the earliest, first pushed.
        #[test]
        fn events_come_in_order_of_time_then_of_pushing(
            horizon in 1u64..200_000,
            pushes in prop::collection::vec((0u64..220_000, any::<bool>()), 1..400),
        ) {
            let mut queue = Queue::new(horizon);
            let mut oracle: Vec<(u64, usize)> = Vec::new();
            let mut now = 0;
            for (number, (ahead, pops)) in pushes.into_iter().enumerate() {
                let at = now + ahead / 7;
                queue.push(at, number);
                if at <= horizon {
                    oracle.push((at, number));
                }
                if pops && let Some(event) = queue.pop() {
                    now = event.at;
                    let first = oracle.iter().copied().min().expect("the oracle has it too");
                    prop_assert_eq!((event.at, event.what), first);
                    oracle.retain(|one| *one != first);
                }
            }
            oracle.sort_unstable();
            let rest: Vec<(u64, usize)> =
                std::iter::from_fn(|| queue.pop()).map(|event| (event.at, event.what)).collect();
            prop_assert_eq!(rest, oracle);
        }
    }
}
