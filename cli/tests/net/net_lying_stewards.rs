//! Promise: of a record's eight stewards one honest one is enough. Seven that lie, in whatever way, hide no head, end no
//! lease and keep nobody from reading; they prevent no repair and cause none. What eight of them can do, or four, is
//! stated here too: it is the table in `ARCHITECTURE.md`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use commonhold_cheats::Lie;
use commonhold_policy::{Domain, stewards};
use commonhold_protocol::{NodeId, SegmentId, ask::Request};

use super::harness::{
    HandMadeVault, Home, Network, Owner, Setup, Spy, Tree, eventually, hex_id, in_ms, keys_of, noise, poll_until,
};

/// In a network of eight, the stewards of all things are the same.
const EIGHT: usize = 8;
/// The stewards' times in seconds instead of days and months.
const TIMES: &str = "[audit]\nevery = \"5 s\"\ngrace = \"4 s\"\nprove = \"4 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                     [lease]\ngrace = \"2 s\"\nuptime = \"1 s\"\n\n[pledge]\ntrash = \"1 s\"\n";
/// Seven liars that say they are at work, and seven ranks before ours, are waited for, about two seconds each; the rest is
/// for a loaded machine.
const REPAIR_MAX: Duration = Duration::from_secs(120);

fn start(nodes: usize) -> Network {
    Network::start(&Setup { nodes, coding: Some("2/4"), overlay: Some(TIMES), ..Setup::default() })
}

/// A file for each put.
fn file(network: &Network, name: &str) -> PathBuf {
    Tree::new(network.scratch().join("source"), 1).file(name, &noise(name.len() as u64, 300_000))
}

fn put(network: &Network, home: &Home, name: &str) {
    home.put(&file(network, name), &format!("/{name}"));
}

fn assert_read(network: &Network, name: &str, back: &Path) {
    let source = network.scratch().join("source").join(name);
    assert!(fs::read(source).unwrap() == fs::read(back).unwrap(), "{name} is another");
}

#[test]
fn seven_liars_of_eight_hide_no_head_and_no_record() {
    let mut network = start(EIGHT);
    let liars: Vec<usize> = (1..EIGHT).collect();
    for lie in [Lie::Drops, Lie::Old, Lie::MakesUp] {
        network.make_liars(&liars, lie);
        let (home, phrase) = network.new_home(&format!("home-{}", lie.name()));
        // The first is what a liar with an old head serves for ever.
        for name in ["first", "second", "third"] {
            put(&network, &home, name);
        }
        let cold = network.cold_home(&format!("cold-{}", lie.name()), &phrase, &[1]);
        assert_eq!(cold.names("/"), ["first", "second", "third"], "{lie:?}");
        // Without a word in the head on who holds what, only records say it.
        Owner::among(&network, keys_of(&phrase), &[0]).forget_hints();
        let unhinted = network.cold_home(&format!("unhinted-{}", lie.name()), &phrase, &[1]);
        // False claims that came first are in the way until the record's trial is over, four seconds here.
        let (mut tries, began) = (0, Instant::now());
        let read = poll_until(REPAIR_MAX, || {
            tries += 1;
            let back = network.scratch().join(format!("back-{}-{tries}", lie.name()));
            (unhinted.get("/", &back).code == Some(0)).then_some(back)
        });
        let back = read.unwrap_or_else(|| panic!("{lie:?}: not read in {REPAIR_MAX:?}"));
        eprintln!("{lie:?}: read by the records of one honest steward of eight in {:?}", began.elapsed());
        for name in ["first", "second", "third"] {
            assert_read(&network, name, &back.join(name));
        }
    }
}

/// Liars are quick: whoever believed those that answer first would believe them.
#[test]
fn an_honest_steward_is_waited_for_when_the_seven_that_were_quicker_know_too_little() {
    let mut network = start(EIGHT);
    let liars: Vec<usize> = (1..EIGHT).collect();
    network.make_liars(&liars, Lie::Old);
    network.make_liars(&[0], Lie::Late);
    let (home, phrase) = network.new_home("home");
    for name in ["first", "second"] {
        put(&network, &home, name);
    }
    assert_eq!(network.cold_home("cold", &phrase, &[1]).names("/"), ["first", "second"]);
    let back = network.scratch().join("back");
    network.make_liars(&liars, Lie::Drops);
    Owner::among(&network, keys_of(&phrase), &[0]).forget_hints();
    network.cold_home("unhinted", &phrase, &[1]).get("/second", &back).expect_code(0);
    assert_read(&network, "second", &back);
}

#[test]
fn eight_liars_hide_the_newest_head_but_not_from_whoever_has_seen_it() {
    let mut network = start(EIGHT);
    let all: Vec<usize> = (0..EIGHT).collect();
    network.make_liars(&all, Lie::Old);
    let (home, phrase) = network.new_home("home");
    for name in ["first", "second"] {
        put(&network, &home, name);
    }
    home.run(["ls", "/"]).expect_code(4).expect_said(&["older state of this vault than this machine has seen"]);
    // Nothing tells a new machine that there was more.
    assert_eq!(network.cold_home("cold", &phrase, &[0]).names("/"), ["first"]);
}

#[test]
fn four_that_refuse_stop_a_write_and_say_so_and_three_do_not() {
    let mut network = start(EIGHT);
    let (home, phrase) = network.new_home("home");
    network.make_liars(&[0, 1, 2], Lie::Rejects);
    put(&network, &home, "first");
    // Whoever reads by the head alone needs no steward's word on who holds what, from the first put on.
    assert!(
        Owner::among(&network, keys_of(&phrase), &[3, 4, 5]).named_in_head() >= 3,
        "holders are hinted and not named"
    );
    network.make_liars(&[3], Lie::Rejects);
    let path = file(&network, "second");
    let put = home.run(["put", path.to_str().unwrap(), "/second"]);
    assert_eq!(put.code, Some(1), "{}", put.stderr);
    // What was there before is read as ever.
    let back = network.scratch().join("first");
    network.cold_home("cold", &phrase, &[0]).get("/first", &back).expect_code(0);
    assert_read(&network, "first", &back);
}

/// A vault whose lease runs out in a moment, and was renewed meanwhile at all stewards.
fn renewed<'s>(spy: &'s Spy, nodes: &[NodeId]) -> HandMadeVault<'s> {
    let mut vault = HandMadeVault::new(spy);
    let soon = vault.lease(1, in_ms(4_000));
    vault.place(nodes, &soon);
    let year = vault.lease(2, in_ms(365 * 24 * 60 * 60 * 1000));
    for node in nodes {
        spy.keep(*node, Request::KeepLease { lease: year.clone() }).unwrap();
    }
    vault
}

/// Those that lie serve the lease that has run out.
#[test]
fn seven_liars_of_eight_end_no_lease_and_eight_do() {
    let mut network = start(EIGHT);
    let liars: Vec<usize> = (1..EIGHT).collect();
    network.make_liars(&liars, Lie::Old);
    let nodes: Vec<NodeId> = (0..EIGHT).map(|node| hex_id(&network.node_id(node))).collect();
    let spy = Spy::on(&network);
    let vault = renewed(&spy, &nodes);
    eventually("all others have asked for the lease, and one told them", || {
        let asked = |node: &usize| network.figure(*node, "/expiry/asked") > 0;
        liars.iter().all(asked) && network.figures("/expiry/ended") == 0
    });
    assert_eq!(network.figures("/expiry/vaults_freed") + network.figures("/expiry/trashed"), 0);
    vault.assert_reads(&spy);

    network.make_liars(&[0], Lie::Old);
    let spy = Spy::on(&network);
    let vault = renewed(&spy, &nodes);
    eventually("eight stewards end a lease", || network.figures("/expiry/vaults_freed") == EIGHT as u64);
    let (node, segment, index, _) = &vault.shards[0];
    assert!(spy.whole_shard(*node, *segment, *index).is_err());
}

/// The stewards of a segment among the nodes of a network, nearest first.
fn stewards_of(network: &Network, segment: &SegmentId) -> Vec<usize> {
    let nodes = network.running();
    let ids: Vec<NodeId> = nodes.iter().map(|node| hex_id(&network.node_id(*node))).collect();
    let apart: Vec<_> = ids.iter().map(|id| (*id, Domain::new(id.to_string()))).collect();
    let chosen = stewards::choose(segment.as_bytes(), &apart);
    chosen.iter().map(|id| nodes[ids.iter().position(|other| other == id).unwrap()]).collect()
}

/// More than eight, so that there are holders that are no stewards, and room for what is to be rebuilt.
const ELEVEN: usize = EIGHT + 3;

/// A segment of four shards, of whose eight stewards the first in rank lie.
struct LiedAbout {
    segment: SegmentId,
    stewards: Vec<NodeId>,
    /// Holds its first shard, and is no steward of it.
    doomed: usize,
    shard_bytes: u64,
    keep: Request,
}

impl LiedAbout {
    fn store(network: &mut Network, lie: Lie, liars: usize) -> Self {
        let spy = Spy::on(network);
        let mut vault = HandMadeVault::new(&spy);
        let coded = vault.segment(4);
        let segment = coded.manifest.id();
        let shard_bytes = coded.manifest.shard_length();
        let stewards = stewards_of(network, &segment);
        network.make_liars(&stewards[..liars], lie);
        let doomed = network.running().into_iter().find(|node| !stewards.contains(node)).unwrap();
        let id = |node: usize| hex_id(&network.node_id(node));
        let holders: Vec<NodeId> = [doomed, stewards[EIGHT - 1], stewards[0], stewards[1]].map(id).into();
        let stewards: Vec<NodeId> = stewards.into_iter().map(id).collect();
        let year = vault.lease(1, in_ms(365 * 24 * 60 * 60 * 1000));
        let record = vault.place_on(coded, &holders, &year);
        let keep = Request::KeepRecords { records: vec![record], lease: Some(year) };
        Self { segment, stewards, doomed, shard_bytes, keep }
    }

    fn tell(&self, spy: &Spy, stewards: &[NodeId]) {
        for steward in stewards {
            spy.keep(*steward, self.keep.clone()).unwrap();
        }
    }

    /// Waits until the last in rank of its stewards, which is honest, sees so many healthy shards; says how long.
    fn await_healthy(&self, spy: &Spy, healthy: u8) -> Duration {
        let (last, began, mut seen) = (self.stewards[EIGHT - 1], Instant::now(), 0);
        let reached = poll_until(REPAIR_MAX, || {
            seen = spy.health(last, &[self.segment])[0].map_or(0, |report| report.healthy);
            (seen == healthy).then_some(began.elapsed())
        });
        reached.unwrap_or_else(|| panic!("{seen} shards are healthy and not {healthy}, after {REPAIR_MAX:?}"))
    }
}

/// A shard is lost for good, and the only honest steward is the last in rank. All but it begin to lie, and to call for
/// repairs, when it has proof of every shard.
fn repaired_by_the_last(lie: Lie) {
    let mut network = start(ELEVEN);
    let lied_about = LiedAbout::store(&mut network, lie, EIGHT - 1);
    let spy = Spy::on(&network);
    let (liars, honest) = lied_about.stewards.split_at(EIGHT - 1);
    lied_about.tell(&spy, honest);
    let proven = lied_about.await_healthy(&spy, 4);
    lied_about.tell(&spy, liars);
    let audited = network.figures("/audits/held");
    eventually("all is audited again and again", || network.figures("/audits/held") >= audited + 40);
    assert_eq!(network.figures("/audits/bytes_sent"), 0, "{lie:?}: nothing was lost, whatever liars say");
    network.kill(lied_about.doomed);
    let noticed = lied_about.await_healthy(&spy, 3);
    let repaired = lied_about.await_healthy(&spy, 4);
    eprintln!(
        "{lie:?}: all proven after {proven:.1?}; a loss seen after {noticed:.1?} and repaired {repaired:.1?} later"
    );
    // Whoever calls for repairs does not have it done again and again: once, and once more if the first try failed.
    let sent = network.figures("/audits/bytes_sent");
    let once = lied_about.shard_bytes;
    assert!((once..=2 * once).contains(&sent), "{lie:?}: {sent} bytes were sent for a shard of {once}");
}

#[test]
fn seven_liars_of_eight_that_drop_records_prevent_no_repair() {
    repaired_by_the_last(Lie::Drops);
}

#[test]
fn seven_liars_of_eight_that_serve_old_records_prevent_no_repair() {
    repaired_by_the_last(Lie::Old);
}

#[test]
fn seven_liars_of_eight_that_make_up_claims_and_call_for_repairs_prevent_none_and_cause_none() {
    repaired_by_the_last(Lie::MakesUp);
}

/// Several times what it takes where one of them is honest.
const UNREPAIRED: Duration = Duration::from_secs(25);

#[test]
fn eight_liars_hide_a_record_and_prevent_its_repair() {
    let mut network = start(ELEVEN);
    let lied_about = LiedAbout::store(&mut network, Lie::Drops, EIGHT);
    let spy = Spy::on(&network);
    lied_about.tell(&spy, &lied_about.stewards);
    for node in network.running() {
        assert_eq!(spy.record(hex_id(&network.node_id(node)), lied_about.segment), None);
    }
    network.kill(lied_about.doomed);
    let rebuilt = || (network.figures("/audits/shards_rebuilt") > 0).then_some(());
    assert_eq!(poll_until(UNREPAIRED, rebuilt), None, "who repaired it?");
}
