//! Nodes come and go.

use commonhold_policy::life::{Action, Event, Life};
use commonhold_protocol::ShardIndex;

use super::{GONE, Held, ON, OUTAGE, What, World};

impl World<'_> {
    /// A node leaves for good, its disk with it; a newcomer takes its place in the network, not its shards.
    pub(super) fn leaves(&mut self, node: u32) {
        if self.nodes.flags[node as usize] & GONE != 0 {
            return;
        }
        let operator = self.nodes.operator[node as usize];
        let together = if self.population(node).one_disk {
            self.members.iter().copied().filter(|other| self.nodes.operator[*other as usize] == operator).collect()
        } else {
            vec![node]
        };
        for node in together {
            self.leaves_alone(node);
        }
    }

    pub(super) fn leaves_alone(&mut self, node: u32) {
        let at = node as usize;
        self.nodes.flags[at] |= GONE;
        self.nodes.gone_at[at] = self.now;
        self.tally.left += 1;
        let here = self.now as f64 - self.nodes.disk[at].born.max(0.0);
        let moved = u64::from(self.nodes.moved.of(node)) * self.shard_bytes;
        self.tally.node_traffic(moved, here);

        let population = self.nodes.population[at];
        let newcomer = self.newcomer(population);
        // In its place, so that all others stay the stewards that they are.
        let place = self.nodes.place[at];
        self.members.swap_remove(place as usize);
        self.nodes.place[newcomer as usize] = place;

        if self.population(node).cheat.is_none() {
            let held = self.held(node);
            std::hint::black_box(held.iter().fold(0, |all, shard| all ^ self.truth[shard.segment as usize].alive));
            for shard in held {
                self.shard_died(shard.segment, shard.index);
            }
        }
        match self.nodes.life[at].life() {
            Life::Up => self.live(node, Event::Silent { heard_at: self.moment() }, u64::MAX),
            // Its timer may not have been set, since it was to return before.
            Life::Suspect { .. } => self.live(node, Event::Timer, u64::MAX),
            Life::Lost { .. } => self.shards_lost(node),
        }
        self.steward_goes(node);
        self.room_grew(newcomer);
    }

    /// The end of a session.
    pub(super) fn off(&mut self, node: u32) {
        let population = self.population(node);
        if self.nodes.flags[node as usize] & GONE != 0 {
            return;
        }
        let lasts = match (&population.offline, &population.night) {
            (Some(offline), _) => offline.get_ref().draw(&mut self.rng),
            (None, Some(night)) => night.get_ref().asleep.ms(),
            (None, None) => return,
        };
        let returns = self.later(lasts);
        self.queue.push(returns, What::On { node });
        let was_on = self.is_online(node);
        self.nodes.flags[node as usize] &= !ON;
        if was_on {
            self.steward_goes(node);
            self.live(node, Event::Silent { heard_at: self.moment() }, returns);
        }
    }

    /// The begin of a session.
    pub(super) fn on(&mut self, node: u32) {
        let population = self.population(node);
        if self.nodes.flags[node as usize] & GONE != 0 {
            return;
        }
        self.nodes.flags[node as usize] |= ON;
        let ends = match &population.online {
            Some(online) => {
                let lasts = online.get_ref().draw(&mut self.rng);
                self.later(lasts)
            }
            None => self.falls_asleep(node),
        };
        self.queue.push(ends, What::Off { node });
        self.came_or_not(node);
    }

    /// A node is cut off from outside until `until`.
    pub(super) fn outage(&mut self, node: u32, until: u64) {
        let was_on = self.is_online(node);
        self.nodes.flags[node as usize] |= OUTAGE;
        self.steward_goes(node);
        self.queue.push(until, What::OutageEnds { node });
        // If it was off already, its timer may not have been set, since it was to return before.
        self.live(node, if was_on { Event::Silent { heard_at: self.moment() } } else { Event::Timer }, until);
    }

    pub(super) fn outage_ends(&mut self, node: u32) {
        if self.nodes.flags[node as usize] & GONE == 0 {
            self.nodes.flags[node as usize] &= !OUTAGE;
            self.came_or_not(node);
        }
    }

    fn came_or_not(&mut self, node: u32) {
        let event = if self.is_online(node) { Event::Seen } else { Event::Timer };
        self.live(node, event, u64::MAX);
    }

    /// Tells the node's life of `event`. A timer after `returns` is void when it comes, and is not set.
    pub(super) fn live(&mut self, node: u32, event: Event, returns: u64) {
        let now = self.moment();
        for action in self.nodes.life[node as usize].handle(now, event) {
            match action {
                Action::Timer { at } if at.0 < returns => self.queue.push(at.0, What::LifeTimer { node }),
                // Suspects still stand: no shard is touched before its holder is lost.
                Action::Timer { .. } | Action::Suspect | Action::Returned { was_lost: false } => {}
                Action::Lost => self.given_up(node),
                Action::Returned { was_lost: true } => self.returned(node),
            }
        }
    }

    /// The network counts a node's shards as lost.
    fn given_up(&mut self, node: u32) {
        let at = node as usize;
        if self.nodes.flags[at] & GONE != 0 {
            self.tally.detected((self.now - self.nodes.gone_at[at]) as f64);
        } else {
            self.tally.given_up_wrongly += 1;
        }
        self.shards_lost(node);
    }

    fn shards_lost(&mut self, node: u32) {
        let at = node as usize;
        let gone = self.nodes.flags[at] & GONE != 0;
        let held = self.held(node);
        if gone {
            self.pool.clear(&mut self.nodes.disk[at].held);
        }
        for (number, shard) in held.iter().enumerate() {
            self.look_ahead_at(&held, number);
            let segment = shard.segment as usize;
            if self.truth[segment].lost {
                continue;
            }
            if gone {
                self.segments[segment].health.lost_shard(ShardIndex(shard.index), node);
            } else {
                self.segments[segment].health.lost(node);
            }
            if self.has_cheats {
                self.watch(shard.segment);
            }
            self.assess(shard.segment);
        }
    }

    /// A node is back that was counted as lost: what was not rebuilt meanwhile counts again, the rest is surplus.
    fn returned(&mut self, node: u32) {
        let held = self.held(node);
        let mut kept = Vec::with_capacity(held.len());
        for shard in held {
            if self.truth[shard.segment as usize].lost {
                continue;
            }
            if self.counts_again(shard.segment, shard.index, node) {
                kept.push(shard);
            } else {
                self.tally.surplus_shards += 1;
                self.nodes.disk[node as usize].free_bytes += self.shard_bytes;
            }
            self.assess(shard.segment);
        }
        self.pool.replace(&mut self.nodes.disk[node as usize].held, &kept);
        self.room_grew(node);
    }

    /// All shards on a node's disk.
    pub(super) fn held(&self, node: u32) -> Vec<Held> {
        self.pool.shards(&self.nodes.disk[node as usize].held)
    }
}
