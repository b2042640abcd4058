//! Promise: a client or a node that is killed at any moment leaves nothing half-made behind. A put that is run again
//! does not send again what was placed, and a node that starts again holds all that it had answered for, even without
//! its index, and nothing that it does not answer for.

use std::{fs, path::Path, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::harness::{
    Finished, Home, Network, PROGRAM, Setup, Spy, Stored, Tree, Watch, assert_same, claimed_by, eventually, hex_id,
    mortal, noise, poll_until, seed,
};

const MIB: u64 = 1 << 20;
/// The source of an interrupted put, incompressible. Twice that travels, as n is 2k.
const BYTES: u64 = 128 * MIB;
/// A full segment has 16 MiB but for a chunk that did not fit, and is cut in four.
const FULL_SHARD_LEAST: u64 = (16 * MIB - MIB / 2) / 4 - MIB / 16;
/// So that what is dropped is gone for all to see, and not in the trash.
const NO_TRASH: &str = "[pledge]\ntrash = \"1 s\"\n";

/// How often a node is killed while it receives.
const KILLS: u64 = 5;

#[test]
fn a_put_that_is_cut_off_goes_on_where_it_was() {
    let setup = Setup { nodes: 8, coding: Some("4/8"), overlay: Some(NO_TRASH), ..Setup::default() };
    let network = Network::start(&setup);
    let mut before = Tree::new(network.scratch().join("before"), 1);
    before.small_files(20);
    let (home, phrase) = network.new_home("home");
    home.put(before.path(), "/before");
    let mut expected = vec!["before".to_owned()];

    let received = || network.figures("/traffic/shard_bytes_received");
    for (number, (signal, sent_of_hundred)) in
        [("KILL", 3), ("KILL", 30), ("INT", 50), ("KILL", 70)].into_iter().enumerate()
    {
        let name = format!("cut-off-{number}");
        let path = format!("/{name}");
        let tree = large_tree(&network, number as u64);
        let held = || network.figures("/shards/held");
        let (held_before, received_before) = (held(), received());

        let what = cut_off(&network, &home, &tree, &path, signal, 2 * BYTES * sent_of_hundred / 100);
        match signal {
            "INT" => drop(what.expect_code(130).expect_said(&["interrupted"])),
            _ => assert_eq!(what.code, None, "{}", what.stderr),
        }
        // Nothing of it is to be seen: not here, and not by somebody else.
        assert_eq!(home.names("/"), expected);
        assert_eq!(network.cold_home(&format!("cold-{number}"), &phrase, &[3]).names("/"), expected);

        let sent_before = settled(received) - received_before;
        let held_bytes = (held() - held_before) * FULL_SHARD_LEAST;
        home.put(tree.path(), &path);
        let sent_again = received() - received_before - sent_before;
        eprintln!(
            "{signal} at {sent_of_hundred}%: {} MiB sent and {} MiB of it held, then {} MiB",
            sent_before / MIB,
            held_bytes / MIB,
            sent_again / MIB
        );
        // Twice the bytes, a little for trees, and nothing that some node holds: only what was sent by half is again.
        let due = 2 * BYTES + BYTES / 50 - held_bytes;
        assert!(sent_again <= due, "{sent_again} bytes were sent again, of which {due} were due");

        only_what_is_recorded_is_held(&network, &home);
        let back = network.scratch().join("back");
        network.cold_home(&format!("reader-{number}"), &phrase, &[4]).get(&path, &back).expect_code(0);
        assert_same(tree.path(), &back);
        // This much data is looked at no more.
        fs::remove_dir_all(&back).unwrap();
        fs::remove_dir_all(tree.path()).unwrap();
        expected.push(name);
    }
    assert_eq!(home.names("/"), expected);
    assert_eq!(fs::read_dir(home.dir.join("spool")).unwrap().count(), 0, "what is placed is spooled no more");

    // It is not run again, but something else is put: what nobody wants any more is dropped.
    let tree = large_tree(&network, 9);
    cut_off(&network, &home, &tree, "/never", "KILL", BYTES);
    assert!(fs::read_dir(home.dir.join("spool")).unwrap().count() > 0, "nothing was under way");
    settled(received);
    home.put(before.path(), "/other");
    only_what_is_recorded_is_held(&network, &home);
    assert_eq!(fs::read_dir(home.dir.join("spool")).unwrap().count(), 0);
    assert!(!home.names("/").contains(&"never".to_owned()));
}

fn large_tree(network: &Network, number: u64) -> Tree {
    let mut tree = Tree::new(network.scratch().join(format!("source-{number}")), 2 + number);
    for part in 0..4 {
        tree.file(format!("part-{part}"), &noise(100 * (1 + number) + part, (BYTES / 4) as usize));
    }
    tree
}

/// Puts a tree, and sends a signal once nodes have received so many bytes of it.
fn cut_off(network: &Network, home: &Home, tree: &Tree, path: &str, signal: &str, bytes: u64) -> Finished {
    let received = || network.figures("/traffic/shard_bytes_received");
    let start = received();
    let mut put = home.spawn(["put", tree.path().to_str().unwrap(), path]);
    let enough = poll_until(Duration::from_secs(60), || (received() - start > bytes).then_some(()));
    assert!(enough.is_some() && !put.has_ended(), "the put was not caught half-way");
    put.signal(signal);
    put.finish()
}

/// Each shard on any node is one that a record of the vault names.
fn only_what_is_recorded_is_held(network: &Network, home: &Home) {
    let segments = home.json(["segments"]);
    let of_segment = |segment: &Value| segment["holders"].as_array().unwrap().iter().filter(|id| !id.is_null()).count();
    let recorded: usize = segments["segments"].as_array().unwrap().iter().map(of_segment).sum();
    let mut held = 0;
    let same = poll_until(Duration::from_secs(30), || {
        held = network.figures("/shards/held");
        (held == recorded as u64).then_some(())
    });
    assert!(same.is_some(), "{held} shards are held, {recorded} are recorded");
}

/// A figure, once it no longer rises: nodes go on to receive what was in the sockets of a client that is gone.
fn settled(figure: impl Fn() -> u64) -> u64 {
    let mut last = figure();
    let mut same = 0;
    let still = poll_until(Duration::from_secs(60), || {
        let now = figure();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same >= 10).then_some(now)
    });
    still.expect("bytes keep coming from a client that is gone")
}

#[test]
fn a_node_that_was_killed_holds_what_it_had_answered_for() {
    let mut random = StdRng::seed_from_u64(seed());
    // One node more than each segment has shards, so that a put goes on without the victim.
    let mut network = Network::start(&Setup { nodes: 9, coding: Some("5/8"), ..Setup::default() });
    let (home, phrase) = network.new_home("home");
    let victim = 2;
    let id = network.node_id(victim);
    let mut tree = Tree::new(network.scratch().join("source"), 7);
    tree.small_files(500);

    // Killed in the middle of receiving, again and again, each time at another moment.
    let (mut claimed, mut caught) = (0, 0);
    for round in 0..KILLS {
        tree.file(format!("large-{round}"), &noise(round, 192 << 20));
        let received = || network.figure(victim, "/traffic/shard_bytes_received");
        // Of each put it receives about 34 MiB, in shards of 3.2 MiB of which four come at a time.
        let enough = received() + random.random_range(1..24 * MIB);
        let mut put = home.spawn(["put", tree.path().to_str().unwrap(), &format!("/x-{round}")]);
        let receiving = poll_until(Duration::from_secs(60), || (received() >= enough || put.has_ended()).then_some(()));
        assert!(receiving.is_some(), "the put of round {round} hangs");
        caught += u64::from(!put.has_ended());
        network.kill(victim);
        put.finish().expect_code(0);
        // What is looked at no more.
        fs::remove_file(tree.path().join(format!("large-{round}"))).unwrap();
        network.start_again(victim, 8);
        claimed = holds_what_it_claims(&network, &home, victim, &id);
    }
    assert!(caught >= KILLS / 2, "only {caught} of {KILLS} puts were under way when the node was killed");
    assert!(claimed > 0, "it was never caught after it had answered for anything");

    // Neither without its index, nor with a broken one, is anything lost.
    let records = network.figure(victim, "/records/segments");
    for (name, hurt) in [("removed", remove as fn(&Path)), ("garbled", garble)] {
        network.kill(victim);
        for index in ["index", "records/index"].map(|index| network.node_dir(victim).join(index)) {
            assert!(index.is_dir(), "is this still where the indexes lie?");
            hurt(&index);
        }
        let report = fsck(&network, victim).expect_code(0).json();
        let shards = report["shards"].as_u64().unwrap();
        assert!(shards >= claimed as u64, "{name}: {report}");
        assert_eq!(report["damaged"], 0, "{name}: {report}");
        network.start_again(victim, 8);
        assert_eq!(network.figure(victim, "/shards/held"), shards, "{name}");
        assert!(network.figure(victim, "/records/segments") >= records, "{name}");
        assert_eq!(holds_what_it_claims(&network, &home, victim, &id), claimed, "{name}");
    }
    // It starts without its index on its own, too. What it had stored when it was killed, and could not say so any more,
    // it announces to the stewards: then it answers for all that it holds.
    network.kill(victim);
    remove(&network.node_dir(victim).join("index"));
    network.configure(victim, "pledge", "announce", "4 s");
    network.start_again(victim, 8);
    assert!(holds_what_it_claims(&network, &home, victim, &id) >= claimed);
    let (watch, stored) = (Watch::on(&network), Stored::in_vault(&home));
    let answered_for = || watch.claims(&stored).into_values().filter(|holders| holders.contains(&hex_id(&id))).count();
    let held = || network.figure(victim, "/shards/held");
    eventually("it answers for all that it holds", || answered_for() as u64 == held());
    eprintln!("{claimed} shards were answered for when it was killed, then all {}", held());

    let back = network.scratch().join("back");
    let large = format!("/x-{0}/large-{0}", KILLS - 1);
    network.cold_home("cold", &phrase, &[victim]).get(&large, &back).expect_code(0);
    assert!(fs::read(back).unwrap() == noise(KILLS - 1, 192 << 20), "other bytes than were stored");
}

/// Reads every shard that the records say a node holds from that node; gives how many there are.
fn holds_what_it_claims(network: &Network, home: &Home, node: usize, id: &str) -> usize {
    let segments: Value = home.json(["segments"]);
    let claimed = claimed_by(&segments, id);
    let spy = Spy::on(network);
    for (segment, index) in &claimed {
        let whole = spy.whole_shard(hex_id(id), *segment, *index);
        assert!(whole.is_ok(), "shard {index} of {segment}, which node {node} claims: {whole:?}");
    }
    claimed.len()
}

fn fsck(network: &Network, node: usize) -> Finished {
    let mut command = mortal(PROGRAM);
    command.args(["--json", "node", "fsck", "--config"]).arg(network.node_dir(node).join("node.toml"));
    Finished::of(&mut command)
}

fn remove(index: &Path) {
    fs::remove_dir_all(index).unwrap();
}

fn garble(index: &Path) {
    let mut files = 0;
    for file in fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let bytes: Vec<u8> = fs::read(&file).unwrap().iter().map(|byte| byte ^ 0x55).collect();
        fs::write(&file, bytes).unwrap();
        files += 1;
    }
    assert!(files > 0, "no files in {}", index.display());
}
