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
