//! Randomly chosen nodes, and what is noted of them: nothing that follows hangs on either at once, so a node is chosen
//! long before it is looked at, and noted of long before that is added up. Their memory is fetched meanwhile.

use std::collections::VecDeque;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::memory::prefetch;

/// So many are chosen before they are needed, or noted before they are added up.
const AHEAD: usize = 128;

/// Places among the members, each as likely as any other.
#[derive(Debug, Default)]
pub(super) struct Draws(VecDeque<u32>);

impl Draws {
    /// A place of `places`, which are as many each time. Of a place to come, `fetch_place` is told at first, when the place is
    /// to be fetched, and `fetch_node` some time later, when the node there is.
    pub(super) fn next(
        &mut self,
        rng: &mut ChaCha8Rng,
        places: usize,
        fetch_place: impl Fn(u32),
        fetch_node: impl Fn(u32),
    ) -> u32 {
        while self.0.len() <= AHEAD {
            let place = rng.random_range(0..places) as u32;
            fetch_place(place);
            self.0.push_back(place);
        }
        fetch_node(self.0[AHEAD / 2]);
        self.0.pop_front().unwrap_or_default()
    }
}

/// Shards that nodes sent and received, or so many times the bytes of one.
#[derive(Debug, Default)]
pub(super) struct Moved {
    by_node: Vec<u32>,
    noted: Vec<(u32, u32)>,
}

impl Moved {
    /// One more node.
    pub(super) fn join(&mut self) {
        self.by_node.push(0);
    }

    pub(super) fn note(&mut self, node: u32, shards: u32) {
        prefetch(&self.by_node[node as usize]);
        self.noted.push((node, shards));
        if self.noted.len() >= AHEAD {
            self.add_up();
        }
    }

    /// All that a node sent and received.
    pub(super) fn of(&mut self, node: u32) -> u32 {
        self.add_up();
        self.by_node[node as usize]
    }

    fn add_up(&mut self) {
        for (node, shards) in self.noted.drain(..) {
            self.by_node[node as usize] += shards;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// The oracle draws when it is asked.
    #[test]
    fn places_come_as_they_were_drawn_and_each_was_fetched_before() {
        const PLACES: usize = 1000;
        let (mut rng, mut oracle) = (ChaCha8Rng::seed_from_u64(1), ChaCha8Rng::seed_from_u64(1));
        let (fetched, node_fetched) = (std::cell::RefCell::new(Vec::new()), std::cell::RefCell::new(Vec::new()));
        let mut draws = Draws::default();
        let mut drawn = Vec::new();
        for _ in 0..10 * AHEAD {
            let fetch_place = |place| fetched.borrow_mut().push(place);
            drawn.push(draws.next(&mut rng, PLACES, fetch_place, |place| node_fetched.borrow_mut().push(place)));
            assert_eq!(oracle.random_range(0..PLACES) as u32, drawn[drawn.len() - 1]);
        }
        assert_eq!(fetched.borrow()[..drawn.len()], drawn);
        assert_eq!(fetched.borrow().len(), drawn.len() + AHEAD);
        // The first few are needed too soon.
        assert_eq!(node_fetched.borrow()[..drawn.len() - AHEAD / 2], drawn[AHEAD / 2..]);
    }

    /// The oracle adds up at once.
    #[test]
    fn what_is_noted_is_added_up_when_it_is_asked_for() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (mut moved, mut oracle) = (Moved::default(), [0; 5]);
        (0..5).for_each(|_| moved.join());
        for step in 0..10 * AHEAD {
            let (node, shards) = (rng.random_range(0..5), rng.random_range(0..40));
            moved.note(node, shards);
            oracle[node as usize] += shards;
            if step % 37 == 0 {
                assert_eq!(moved.of(node), oracle[node as usize]);
            }
        }
        assert_eq!([0, 1, 2, 3, 4].map(|node| moved.of(node)), oracle);
    }
}
