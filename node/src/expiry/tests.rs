use std::{path::Path, sync::Mutex};

use bytes::Bytes;
use commonhold_protocol::{
    Coding, Manifest, NetworkName, Record, ShardIndex, ShardRoot, SigningKey, Timestamp,
    ask::{Outcome, Refusal},
};
use commonhold_storage_engine::{prove::root_of, store::StoreOptions};

use super::*;
use crate::{
    clock::{Clock, turned::Hands},
    holder::HeldShards,
    records::RecordStore,
    steward::Sender,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const START: Timestamp = Timestamp(1_800_000_000_000);
/// The lease runs for this long.
const LEASE_MS: u64 = 2 * DAY_MS;
const TRASH_MS: u64 = 7 * DAY_MS;
const IN_2038: Timestamp = Timestamp(2_147_483_648_000);
/// More than stewards, so that those of different keys differ.
const NODES: u8 = 12;
const SEGMENTS: u8 = 10;

/// What each node says of the vault's lease; nobody else says anything.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<BTreeMap<NodeId, Unverified<Lease>>>>);

impl Witnesses for Said {
    async fn closest(&self, key: [u8; 32]) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = (1..=NODES).map(node).collect();
        nodes.sort_by_key(|node| node.distance(&key));
        nodes
    }

    async fn lease(&self, node: NodeId, _: VaultId) -> Option<Unverified<Lease>> {
        self.0.lock().unwrap().get(&node).cloned()
    }
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes(*blake3::hash(&[number]).as_bytes())
}

fn network() -> NetworkName {
    "test".parse().unwrap()
}

fn owner() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn vault() -> VaultId {
    VaultId::from_bytes(owner().public())
}

fn lease(counter: u64, valid_until: Timestamp) -> Unverified<Lease> {
    Verified::sign(Lease { vault: vault(), counter, valid_until }, &owner(), &network()).to_unverified()
}

fn sender() -> Sender {
    Sender { node: node(1), domain: Domain::new("1"), is_steward: false }
}

/// A node that begins to run in this folder.
fn watch(folder: &Path, hands: &Hands, said: &Said) -> ExpiryWatch<Said> {
    let clock = Arc::new(Clock::of(hands.clone()));
    let options = StoreOptions {
        pledge_bytes: 1 << 30,
        keep_free_bytes: 0,
        vault_bytes_max: 1 << 30,
        other_bytes: Arc::default(),
        network: network(),
    };
    let (store, _) = ShardStore::open(folder, options).unwrap();
    let (records, _) = RecordStore::open(&folder.join("records"), 64 << 20).unwrap();
    let holdings = Arc::new(HeldShards { store: store.clone(), drain: Arc::default() });
    let steward = Arc::new(Steward::new(network(), None, records, holdings, clock).unwrap());
    let neighbours = Arc::new(Neighbours::new(node(0), Some("0"), true));
    for number in 1..=NODES {
        neighbours.heard_about(node(number), true, Some(number.to_string()));
    }
    let times =
        Times { rules: Rules::default(), trash: Duration::from_millis(TRASH_MS), present: Duration::from_secs(3600) };
    ExpiryWatch::new(said.clone(), store, steward, neighbours, times, Arc::default(), folder.join("ended"))
}

/// A node that holds a shard of each of some segments, keeps their records, and has been up for two days: the vault's
/// lease just ends.
struct World {
    folder: tempfile::TempDir,
    hands: Hands,
    said: Said,
    watch: ExpiryWatch<Said>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hands = Hands::at(START);
        let said = Said::default();
        let world = Self { watch: watch(folder.path(), &hands, &said), folder, hands, said };
        world.keep_lease(1, START.after_ms(LEASE_MS));
        for salt in 0..SEGMENTS {
            world.hold(salt);
        }
        world.pass(LEASE_MS);
        world
    }

    /// The node is switched off for a while, and comes back.
    async fn restart(mut self, away_ms: u64) -> Self {
        self.watch.write_down(0).await;
        self.killed(away_ms)
    }

    /// The same without a chance to write anything down.
    fn killed(self, away_ms: u64) -> Self {
        let Self { folder, hands, said, watch: stopped } = self;
        let now = stopped.steward.clock().now();
        drop(stopped);
        drop(hands);
        let hands = Hands::at(now.after_ms(away_ms));
        let world = Self { watch: watch(folder.path(), &hands, &said), folder, hands, said };
        world.pass(0);
        world
    }

    fn hold(&self, salt: u8) {
        let shards: Vec<Bytes> = (0..2).map(|index| Bytes::from(vec![salt ^ index; 40_000])).collect();
        let roots: Vec<ShardRoot> = shards.iter().map(|shard| root_of(shard).0).collect();
        let coding = Coding::new(1, 2).unwrap();
        let manifest = Manifest { vault: vault(), salt: [salt; 16], coding, length: 40_000, roots };
        let manifest = Verified::sign(manifest, &owner(), &network());
        let mut writer = self.watch.store.begin(&manifest, ShardIndex(0)).unwrap();
        writer.write(&shards[0]).unwrap();
        self.watch.store.commit(writer.finish().unwrap()).unwrap();
        assert_eq!(self.keep_record(&manifest), Ok(()));
    }

    fn keep_record(&self, manifest: &Verified<Manifest>) -> Outcome {
        let record = Record { manifest: manifest.to_unverified(), claims: Vec::new(), drop: None };
        let request = Request::KeepRecords { records: vec![record], lease: None };
        match self.watch.steward.answer(&sender(), request) {
            Response::Kept(outcomes) => outcomes[0],
            other => panic!("{other:?}"),
        }
    }

    fn keep_lease(&self, counter: u64, valid_until: Timestamp) {
        self.watch.steward.keep_lease(&sender(), lease(counter, valid_until)).unwrap();
    }

    /// All other nodes say that it is this lease.
    fn all_say(&self, counter: u64, valid_until: Timestamp) {
        let all = (1..=NODES).map(|number| (node(number), lease(counter, valid_until)));
        *self.said.0.lock().unwrap() = all.collect();
    }

    /// Time goes by for all; the others' clocks are heard, and are right.
    fn pass(&self, ms: u64) {
        self.hands.pass(ms);
        for number in 1..=NODES {
            let clock = self.watch.steward.clock();
            clock.witness(Domain::new(number.to_string()), clock.now());
        }
    }

    fn over(&self) {
        self.pass(Rules::default().grace_ms + 1);
    }

    async fn rounds(&mut self, count: u32) -> ExpirySnapshot {
        for _ in 0..count {
            self.watch.round().await;
        }
        self.watch.figures.snapshot()
    }

    #[track_caller]
    fn assert_kept(&self) {
        assert_eq!(self.watch.store.used().shards, u64::from(SEGMENTS));
        assert_eq!(self.watch.steward.records().counts().segments, u64::from(SEGMENTS));
    }
}

#[tokio::test]
async fn what_all_stewards_call_over_goes_to_the_trash_and_then_its_space_comes_back() {
    let mut world = World::new();
    world.all_say(1, START.after_ms(LEASE_MS));
    world.pass(Rules::default().grace_ms - 1);
    assert_eq!(world.rounds(3).await, ExpirySnapshot::default(), "the grace time is not over");
    world.pass(2);
    let figures = world.rounds(1).await;
    assert_eq!((figures.ended, figures.trashed, figures.vaults_freed), (1, 1, 0));
    world.assert_kept();
    world.pass(TRASH_MS - 1);
    assert_eq!(world.rounds(3).await.asked, 1, "the trash waits, and asks nobody");
    world.assert_kept();
    world.pass(1);
    let figures = world.rounds(1).await;
    assert_eq!((figures.asked, figures.vaults_freed, figures.shards_freed), (2, 1, SEGMENTS.into()));
    assert_eq!(world.watch.store.used().shards, 0);
    let kept = world.watch.steward.records().counts();
    assert_eq!((kept.segments, kept.leases), (0, 1), "the lease stays: others wait for our word");
    // A year later nobody does.
    world.pass(366 * DAY_MS);
    world.rounds(1).await;
    assert_eq!(world.watch.steward.records().counts().leases, 0);
}

/// A clock that was set to 2038 by an empty battery.
#[tokio::test]
async fn a_clock_in_2038_destroys_nothing() {
    let mut world = World::new();
    world.all_say(1, START.after_ms(LEASE_MS));
    world.hands.jump_to(IN_2038);
    assert_eq!(world.rounds(5).await, ExpirySnapshot::default());
    world.assert_kept();
    // Nor does it refuse what belongs to the vault, from the first round on.
    world.watch.times.rules.uptime_ms_min = u64::MAX;
    assert_eq!(world.rounds(1).await, ExpirySnapshot::default());
    world.watch.times.rules.uptime_ms_min = Rules::default().uptime_ms_min;
    // Also when it jumps only once all others were heard and the vault was judged.
    world.hands.jump_to(START.after_ms(LEASE_MS));
    world.over();
    assert_eq!(world.rounds(1).await.trashed, 1);
    let right = world.watch.steward.clock().now();
    world.hands.jump_to(IN_2038);
    let figures = world.rounds(5).await;
    assert_eq!((figures.ended, figures.vaults_freed), (0, 0));
    world.assert_kept();
    // Once it is right again, the time in the trash goes on.
    world.hands.jump_to(right);
    assert_eq!(world.rounds(1).await.trashed, 1);
    world.pass(TRASH_MS);
    assert_eq!(world.rounds(1).await.vaults_freed, 1);
}

/// Switched off for most of each day: it used to need a week without a break to give anything back.
#[tokio::test]
async fn a_node_that_never_runs_for_a_day_gives_back_the_space_of_an_ended_vault() {
    const UP_MS: u64 = DAY_MS / 4;
    let mut world = World::new().killed(2 * DAY_MS);
    world.all_say(1, START.after_ms(LEASE_MS));
    world.hands.jump_to(START.after_ms(LEASE_MS + Rules::default().grace_ms + 1));
    let mut freed_on = None;
    for day in 0..14 {
        world.pass(0);
        let at_start = world.rounds(1).await;
        world.pass(UP_MS);
        let figures = world.rounds(1).await;
        if day < 3 {
            assert_eq!((at_start.trashed, figures.trashed), (0, 0), "it has not been up for a day");
        }
        if figures.vaults_freed > 0 {
            freed_on = Some(day);
            break;
        }
        world = world.restart(DAY_MS - UP_MS).await;
    }
    assert_eq!(freed_on, Some(10), "a day of uptime, three days long; and a week in the trash");
    assert_eq!(world.watch.store.used().shards, 0);
}

#[tokio::test]
async fn after_more_than_a_day_away_the_first_day_begins_anew() {
    let world = World::new();
    world.all_say(1, START.after_ms(LEASE_MS));
    world.over();
    let mut world = world.restart(DAY_MS + 1).await;
    assert_eq!(world.rounds(3).await.trashed, 0);
    world.pass(DAY_MS - 1);
    assert_eq!(world.rounds(1).await.trashed, 0);
    // Also where nothing is written at the end: what was counted before the absence is not waited for.
    world.watch.write_down(DAY_MS / 24).await;
    let mut world = world.killed(DAY_MS / 2);
    assert_eq!(world.rounds(1).await.trashed, 0);
    world.pass(DAY_MS / 24);
    assert_eq!(world.rounds(1).await.trashed, 1);
}

/// A machine without a clock of its own believes, when it starts, that it is still the moment at which it was switched
/// off.
#[tokio::test]
async fn how_long_the_node_was_away_is_told_by_a_clock_that_others_confirm() {
    let mut world = World::new();
    world.all_say(1, START.after_ms(LEASE_MS));
    world.over();
    world.rounds(1).await;
    let mut world = world.restart(0).await;
    let true_now = world.watch.steward.clock().now().after_ms(60 * DAY_MS);
    for number in 1..=NODES {
        world.watch.steward.clock().witness(Domain::new(number.to_string()), true_now);
    }
    assert_eq!(world.rounds(3).await.vaults_freed, 0);
    world.hands.jump_to(true_now);
    world.rounds(3).await;
    world.assert_kept();
}

#[tokio::test]
async fn stewards_that_all_say_that_they_know_no_such_vault_destroy_nothing() {
    let mut world = World::new();
    world.over();
    let figures = world.rounds(50).await;
    assert_eq!((figures.ended, figures.trashed), (1, 0));
    assert!((3..20).contains(&figures.asked), "asked {} times in 50 rounds", figures.asked);
    world.assert_kept();
}

/// All eight of a vault's stewards lie about its lease; one honest steward of one of its segments is enough.
#[tokio::test]
async fn one_steward_of_a_segment_with_a_newer_lease_is_enough_to_keep_all() {
    let mut world = World::new();
    world.over();
    world.all_say(1, START.after_ms(LEASE_MS));
    let newer = IN_2038;
    let liars = stewards_of_the_vault(&world);
    let honest = (1..=NODES).map(node).find(|node| !liars.contains(node)).unwrap();
    world.said.0.lock().unwrap().insert(honest, lease(2, newer));
    // Whoever is asked is drawn by lot; in the trash it is asked again.
    for _ in 0..8 {
        world.rounds(1).await;
        world.pass(TRASH_MS);
    }
    world.assert_kept();
    assert_eq!(world.rounds(1).await.ended, 0);
}

fn stewards_of_the_vault(world: &World) -> Vec<NodeId> {
    let candidates: Vec<(NodeId, Domain)> =
        (1..=NODES).map(|number| (node(number), world.watch.neighbours.domain(node(number)))).collect();
    stewards::choose(vault().as_bytes(), &candidates)
}

#[tokio::test]
async fn a_renewal_that_comes_while_it_is_in_the_trash_saves_it() {
    let mut world = World::new();
    world.all_say(1, START.after_ms(LEASE_MS));
    world.over();
    assert_eq!(world.rounds(1).await.trashed, 1);
    assert!(world.watch.steward.has_ended(&vault()));
    world.keep_lease(2, IN_2038);
    assert!(!world.watch.steward.has_ended(&vault()));
    world.pass(TRASH_MS);
    let figures = world.rounds(3).await;
    assert_eq!((figures.ended, figures.trashed, figures.vaults_freed), (0, 0, 0));
    world.assert_kept();
}

#[tokio::test]
async fn of_an_ended_vault_nothing_new_is_taken_and_nothing_is_audited() {
    let mut world = World::new();
    world.over();
    world.rounds(1).await;
    let roots = vec![ShardRoot::from_bytes([9; 32]); 2];
    let coding = Coding::new(1, 2).unwrap();
    let manifest = Manifest { vault: vault(), salt: [99; 16], coding, length: 40_000, roots };
    let manifest = Verified::sign(manifest, &owner(), &network());
    assert_eq!(world.keep_record(&manifest), Err(Refusal::Expired));
    let held = world.watch.store.iter_held().next().unwrap().unwrap().leaf.segment;
    assert!(world.watch.steward.manifest(&held).is_none());
    world.keep_lease(2, IN_2038);
    assert_eq!(world.keep_record(&manifest), Ok(()));
    assert!(world.watch.steward.manifest(&held).is_some());
}

#[tokio::test]
async fn on_the_first_day_after_a_start_nothing_is_let_go() {
    let mut world = World::new();
    world.all_say(1, START.after_ms(LEASE_MS));
    world.watch.times.rules.uptime_ms_min = u64::MAX;
    world.over();
    let figures = world.rounds(5).await;
    assert_eq!((figures.ended, figures.asked, figures.trashed), (1, 0, 0));
    world.assert_kept();
}
