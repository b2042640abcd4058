//! Which nodes are offered no shard for now, whatever room they say they have: without this, segments that rest would
//! try one that refuses again and again.

use std::collections::BTreeMap;

use commonhold_protocol::Timestamp;

/// The back-off is doubled with each refusal, up to this many times.
const DOUBLINGS_MAX: u32 = 6;

/// Nodes that said that they have room, and took nothing or gave something up.
#[derive(Debug, Clone)]
pub struct Refusals<N> {
    back_off_ms: u64,
    nodes: BTreeMap<N, Refused>,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    times: u32,
    /// Until then the node counts as full.
    until: Timestamp,
}

impl<N: Ord> Refusals<N> {
    /// None yet. `back_off_ms`: how long a node is left alone that refused for the first time
    /// ([`super::order::Times::back_off_ms`]).
    pub fn new(back_off_ms: u64) -> Self {
        Self { back_off_ms, nodes: BTreeMap::new() }
    }

    /// A node refused a shard: it is not offered another for a back-off, twice as long each time.
    pub fn refused(&mut self, node: N, now: Timestamp) {
        let back_off_ms = self.back_off_ms;
        let refused = self.of(node, now);
        refused.until = now.after_ms(back_off_ms << refused.times.min(DOUBLINGS_MAX));
        refused.times += 1;
    }

    /// A node gave a shard up: it is not offered another for one back-off. Its disk rots, or it is being emptied: it would
    /// soon give up what it is offered now, or be blamed for the next rot when that is audited.
    pub fn gave_up(&mut self, node: N, now: Timestamp) {
        let until = now.after_ms(self.back_off_ms);
        let refused = self.of(node, now);
        refused.until = refused.until.max(until);
    }

    /// True while a node is to be offered nothing.
    pub fn is_refusing(&self, node: &N, now: Timestamp) -> bool {
        self.nodes.get(node).is_some_and(|refused| now < refused.until)
    }

    fn of(&mut self, node: N, now: Timestamp) -> &mut Refused {
        // Who has not refused for that long starts anew.
        let forgotten_ms = self.back_off_ms << DOUBLINGS_MAX;
        self.nodes.retain(|_, refused| refused.until.after_ms(forgotten_ms) > now);
        self.nodes.entry(node).or_insert(Refused { times: 0, until: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after `now` a node is left alone, in back-offs of a second.
    fn alone_s(refusals: &Refusals<u8>, now: Timestamp) -> u64 {
        (0..).find(|s| !refusals.is_refusing(&1, now.after_ms(s * 1000))).unwrap()
    }

    #[test]
    fn who_refuses_again_and_again_is_left_alone_for_longer_and_longer() {
        let mut refusals = Refusals::new(1000);
        let mut now = Timestamp(0);
        let alone = [(); 8].map(|()| {
            refusals.refused(1, now);
            let alone = alone_s(&refusals, now);
            now = now.after_ms(alone * 1000);
            alone
        });
        assert_eq!(alone, [1, 2, 4, 8, 16, 32, 64, 64]);
        assert!(!refusals.is_refusing(&2, Timestamp(0)), "another one");
        now = now.after_ms(64_000);
        refusals.refused(1, now);
        assert_eq!(alone_s(&refusals, now), 1, "it took something for as long as that");
    }

    #[test]
    fn who_gave_something_up_is_left_alone_once_and_no_shorter_than_for_its_refusals() {
        let mut refusals = Refusals::new(1000);
        refusals.gave_up(1, Timestamp(0));
        refusals.gave_up(1, Timestamp(500));
        assert_eq!(alone_s(&refusals, Timestamp(500)), 1);
        refusals.refused(1, Timestamp(500));
        refusals.refused(1, Timestamp(500));
        refusals.gave_up(1, Timestamp(500));
        assert_eq!(alone_s(&refusals, Timestamp(500)), 2);
    }
}
