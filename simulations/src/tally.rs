//! What a run counts, and how runs are put together.

/// How thin a watched segment was, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Thin {
    /// Shards that were alive at first.
    pub(crate) alive: u8,
    /// How often each of their holders was to leave, in a millisecond.
    pub(crate) hazard: f64,
    /// Milliseconds until it was repaired, or lost.
    pub(crate) lasted: f64,
}

/// A time in which a watched segment was thin, and what might have happened in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    /// From fewer than n on.
    pub(crate) below_n: Thin,
    /// From the threshold on, or less; none if it did not come that far down.
    pub(crate) at_threshold: Option<Thin>,
    /// Shards that count at its end and are not there: no audit has found them yet.
    pub(crate) false_shards: u8,
    /// It ended before a repair did: in a loss, or with the run.
    pub(crate) cut: bool,
}

/// The counts of a run, or of several.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    /// Segments that were ever placed.
    pub(crate) segments: u64,
    pub(crate) unplaced: u64,
    pub(crate) lost: u64,
    /// Milliseconds that segments existed, all added up.
    pub(crate) at_risk_ms: f64,
    /// Reads that failed, of those that were tried at one moment: for each moment.
    pub(crate) reads: Vec<(u64, u64)>,
    /// Nodes that were on, of those looked at.
    pub(crate) online_sampled: (u64, u64),
    pub(crate) left: u64,
    pub(crate) given_up_wrongly: u64,
    pub(crate) surplus_shards: u64,
    pub(crate) shards_died: u64,
    pub(crate) repairs: u64,
    pub(crate) repairs_failed: u64,
    pub(crate) shards_rebuilt: u64,
    pub(crate) repair_bytes: u64,
    pub(crate) cheats_found: u64,
    /// Pairs of a steward and a holder that it trusts no more.
    pub(crate) disqualified: u64,
    /// Milliseconds from a cheat's first shard to the first that is found.
    pub(crate) cheats_first_found: Vec<f32>,
    /// Milliseconds from a shard's being taken to its being found.
    pub(crate) cheat_delays: Vec<f32>,
    /// Milliseconds from leaving to being given up.
    pub(crate) detections: Vec<f32>,
    pub(crate) windows: Vec<Window>,
    /// Watched segments that were to be expected to be lost with the many that left at once.
    pub(crate) lost_at_once: f64,
    /// Segments whose windows are watched.
    pub(crate) watched: u64,
    /// Bytes of repair traffic per node and day.
    pub(crate) traffic: Vec<f32>,
    /// Segments by the shards that are alive at the end.
    pub(crate) alive_at_end: Vec<u64>,
    pub(crate) standing_at_end: u64,
    /// Shards that nodes hold, of segments that are lost too.
    pub(crate) shards_held: u64,
    /// Shards of segments that are not lost, on disks that are there.
    pub(crate) shards_on_disks: u64,
    pub(crate) nodes_at_end: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            events: 0,
            segments: 0,
            unplaced: 0,
            lost: 0,
            at_risk_ms: 0.0,
            reads: Vec::new(),
            online_sampled: (0, 0),
            left: 0,
            given_up_wrongly: 0,
            surplus_shards: 0,
            shards_died: 0,
            repairs: 0,
            repairs_failed: 0,
            shards_rebuilt: 0,
            repair_bytes: 0,
            cheats_found: 0,
            disqualified: 0,
            cheats_first_found: Vec::new(),
            cheat_delays: Vec::new(),
            detections: Vec::new(),
            windows: Vec::new(),
            lost_at_once: 0.0,
            watched: 0,
            traffic: Vec::new(),
            alive_at_end: vec![0; 256],
            standing_at_end: 0,
            shards_held: 0,
            shards_on_disks: 0,
            nodes_at_end: 0,
        }
    }
}

impl Tally {
    pub(crate) fn node_traffic(&mut self, bytes: u64, here_ms: f64) {
        // Of a node that was there for an hour, a rate per day says little.
        if here_ms >= 3.6e6 {
            self.traffic.push((bytes as f64 / (here_ms / crate::scenario::DAY_MS)) as f32);
        }
    }

    pub(crate) fn detected(&mut self, ms: f64) {
        self.detections.push(ms as f32);
    }

    /// Adds the counts of another run; its windows and its reads stay with it.
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.segments += other.segments;
        self.unplaced += other.unplaced;
        self.lost += other.lost;
        self.at_risk_ms += other.at_risk_ms;
        self.online_sampled.0 += other.online_sampled.0;
        self.online_sampled.1 += other.online_sampled.1;
        self.left += other.left;
        self.given_up_wrongly += other.given_up_wrongly;
        self.surplus_shards += other.surplus_shards;
        self.shards_died += other.shards_died;
        self.repairs += other.repairs;
        self.repairs_failed += other.repairs_failed;
        self.shards_rebuilt += other.shards_rebuilt;
        self.repair_bytes += other.repair_bytes;
        self.cheats_first_found.extend(&other.cheats_first_found);
        self.cheat_delays.extend(&other.cheat_delays);
        self.cheats_found += other.cheats_found;
        self.disqualified += other.disqualified;
        self.detections.extend(&other.detections);
        self.lost_at_once += other.lost_at_once;
        self.watched += other.watched;
        self.traffic.extend(&other.traffic);
        for (sum, count) in self.alive_at_end.iter_mut().zip(&other.alive_at_end) {
            *sum += count;
        }
        self.standing_at_end += other.standing_at_end;
        self.shards_held += other.shards_held;
        self.shards_on_disks += other.shards_on_disks;
        self.nodes_at_end += other.nodes_at_end;
    }
}
