//! Promise: no plaintext, no name and no key is in any node's folder, nor in anything that a node hears or says once it
//! is decrypted: what clients ask and store, and what nodes ask each other when they sweep, audit, announce and hand on.
//! And whoever comes with a wrong passphrase, a wrong phrase, a damaged vault file or an older state is
//! told which of these it is.

mod needles;
mod recorder;

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use commonhold_client_sdk::Phrase;
use commonhold_storage_engine::{
    frame::{Compressor, DEFAULT_LEVEL},
    seal::seal,
};

use self::{needles::Needles, recorder::Recorder};
use super::harness::{
    Finished, Network, PASSPHRASE, PROGRAM, Setup, Tree, eventually, keys_of, mortal, noise, poll_until, words,
};

/// Seconds instead of days and hours: in these, nodes ask each other nearly all that they ever ask while nobody dies.
const TIMES: &str = "[audit]\nevery = \"4 s\"\ngrace = \"60 s\"\n\n[pledge]\nannounce = \"2 s\"\n";
/// Kinds of messages that a node hears within these times: of clients that write and read, of nodes that meet and sweep, of
/// stewards that audit, and of holders that announce what they hold.
const HEARD: &str = "KeepRecords KeepHead FetchHeads FetchRecords Store bytes Read About FetchDigests Digests Audit \
                     Audited Announce Standings";
/// The same of those that it says.
const SAID: &str =
    "Kept Heads Records Go Stored Range bytes About FetchDigests Digests Audit Audited Announce Standings";
/// The same of a node that hands on what it holds.
const HEARD_DRAINING: &str = "Go Stored Records Kept";
const SAID_DRAINING: &str = "Store FetchRecords KeepRecords Release";
/// An audit and a round of announcing take seconds; the rest is for a loaded machine.
const KINDS_MAX: Duration = Duration::from_secs(60);

#[test]
fn nodes_see_nothing_that_they_should_not() {
    let mut network =
        Network::start(&Setup { nodes: 5, coding: Some("3/6"), overlay: Some(TIMES), ..Setup::default() });
    // With a sixth node that writes down all that it says and hears, each segment has a shard there.
    let recorder = Recorder::join(&network, TIMES);
    eventually("all nodes know the recorder", || (0..5).all(|node| network.figure(node, "/nodes_known") >= 5));

    // Each secret is noise, which no compressor hides: if it lay anywhere unsealed, it would lie there as it is.
    let name: Vec<u8> = noise(1, 200).into_iter().filter(|byte| !matches!(byte, b'/' | 0)).collect();
    let (inline, single, attribute) = (noise(2, 3000), noise(3, 20_000), hex::encode(noise(4, 100)));
    let (large, text, target) = (noise(5, 10 << 20), words(6, 5 << 20), hex::encode(noise(7, 100)));
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file(Path::new("a folder").join(std::ffi::OsStr::from_bytes(&name)), &inline);
    let attributed = tree.file("single", &single);
    tree.file("large", &large);
    tree.file("text", &text);
    std::os::unix::fs::symlink(&target, tree.path().join("link")).unwrap();
    let set = Command::new("setfattr").args(["-n", "user.secret", "-v", &attribute]).arg(attributed).status().unwrap();
    assert!(set.success());

    let (home, phrase) = network.new_home("home");
    let keys = keys_of(&phrase);
    home.put(tree.path(), "/x");
    home.run(["mv", "/x/single", "/moved"]).expect_code(0);
    home.run(["rm", "/x/text"]).expect_code(0);
    home.names("/x");
    home.run(["segments"]).expect_code(0);
    assert_eq!(home.cat("/moved"), single);
    // Half of the holders are away, so whoever reads needs what the recorder holds.
    for node in [2, 3, 4] {
        network.kill(node);
    }
    let reader = network.cold_home("cold", &phrase, &[0, 1]);
    reader.get("/x", &network.scratch().join("back")).expect_code(0);
    for node in [2, 3, 4] {
        network.launch(node);
    }
    for node in [2, 3, 4] {
        network.await_node(node, 5);
    }
    records(&recorder, HEARD, SAID);
    // To a seventh node it hands on all that it holds.
    network.add(1, None);
    let mut drain = mortal(PROGRAM);
    drain.args(["node", "drain", "--config"]).arg(recorder.folder().join("node.toml"));
    Finished::of(&mut drain).expect_code(0);
    records(&recorder, HEARD_DRAINING, SAID_DRAINING);

    let secret = Phrase::parse(&phrase).unwrap().secret().unwrap();
    let derived = |context| blake3::derive_key(context, secret.as_bytes());
    let frame = Compressor::new(DEFAULT_LEVEL).unwrap().frame(&single);
    let sealed = seal(frame, single.len() as u32, keys.convergence());
    let mut secrets = Needles::default();
    secrets.add("a file in a tree's leaf", &inline[..64]);
    secrets.add("a file of one chunk", &single[5000..5064]);
    secrets.add("the middle of a large file", &large[5 << 20..(5 << 20) + 64]);
    secrets.add("text", &text[1000..1064]);
    secrets.add("a name", &name);
    secrets.add("a link's target", target.as_bytes());
    secrets.add("an attribute", attribute.as_bytes());
    secrets.add("the passphrase", PASSPHRASE.as_bytes());
    secrets.add("the phrase", phrase.as_bytes());
    secrets.add("the vault's secret", secret.as_bytes());
    secrets.add("the vault's secret in hex", hex::encode(secret.as_bytes()).as_bytes());
    secrets.add("the signing key", &derived("commonhold 2026 vault signing key v1"));
    secrets.add("the convergence key", keys.convergence().as_bytes());
    secrets.add("the dedup key", &derived("commonhold 2026 vault dedup key v1"));
    secrets.add("the head key", keys.head_key().as_bytes());
    secrets.add("the chunker's seed", &derived("commonhold 2026 vault chunker seed v1"));
    secrets.add("a chunk's key", sealed.key.as_bytes());
    // What must be there, or the search would find nothing whatever it looked for.
    let mut controls = Needles::default();
    controls.add("the vault's id", keys.vault_id().as_bytes());
    controls.add("a sealed chunk", &sealed.bytes[100..164]);

    let recorded = recorder.everything();
    assert!(recorded.len() > 2 << 20, "the recorder wrote down {} bytes", recorded.len());
    assert_eq!(secrets.in_bytes(&recorded), Vec::<&str>::new(), "said or heard by the recording node");
    assert!(controls.in_bytes(&recorded).contains(&"the vault's id"), "the recorder did not hear what it must have");
    let mut control = Vec::new();
    for folder in network.nodes().iter().map(|node| network.node_dir(*node)).chain([recorder.folder().to_owned()]) {
        assert_eq!(secrets.in_folder(&folder), Vec::<String>::new(), "in a node's folder");
        control.extend(controls.in_folder(&folder));
    }
    for what in ["the vault's id", "a sealed chunk"] {
        assert!(control.iter().any(|found| found.starts_with(what)), "{what} is in no node's folder: {control:?}");
    }
    // What the client itself keeps in files holds none of it in the open either.
    for folder in [&home.dir, &reader.dir] {
        assert_eq!(secrets.in_folder(folder), Vec::<String>::new(), "in a client's home");
    }
}

/// Waits until the recorder has heard and said a message of each of these kinds: who records nothing proves nothing.
fn records(recorder: &Recorder, heard: &str, said: &str) {
    let wanted = [("heard", heard), ("said", said)].into_iter();
    let wanted: Vec<String> =
        wanted.flat_map(|(way, kinds)| kinds.split(' ').map(move |kind| format!("{way} {kind}"))).collect();
    let missing = || -> Vec<&String> {
        let recorded = recorder.kinds();
        wanted.iter().filter(|kind| !recorded.contains_key(*kind)).collect()
    };
    let complete = poll_until(KINDS_MAX, || missing().is_empty().then_some(()));
    assert!(complete.is_some(), "no {:?} among {:?}", missing(), recorder.kinds());
}

#[test]
fn wrong_secrets_and_older_states_are_told_apart() {
    let mut network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(20);
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/one");

    let mut wrong = home.command(["ls", "/"]);
    wrong.env("COMMONHOLD_PASSPHRASE", "another passphrase");
    Finished::of(&mut wrong).expect_code(7).expect_said(&["wrong passphrase"]);

    let blank = network.blank_home("blank", &[0]);
    let swapped: Vec<&str> = phrase.split(' ').rev().collect();
    blank.recover(&swapped.join(" ")).expect_code(7).expect_said(&["not a recovery phrase"]);
    blank.recover("abandon abandon about").expect_code(7).expect_said(&["not a recovery phrase"]);
    // A phrase as it should be, of a vault that nothing was ever stored in.
    let (_, other_phrase) = network.new_home("other");
    blank.recover(&other_phrase).expect_code(7).expect_said(&["no vault with this recovery phrase"]);
    assert!(!blank.dir.join("vault").exists(), "a failed recovery leaves no vault behind");
    // The same home takes the right one.
    blank.recover(&phrase).expect_code(0);
    blank.recover(&phrase).expect_code(1).expect_said(&["holds a vault already"]);

    let damaged = home.without_memory(network.scratch().join("damaged"));
    let mut bytes = fs::read(damaged.dir.join("vault")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(damaged.dir.join("vault"), bytes).unwrap();
    damaged.run(["ls", "/"]).expect_code(1).expect_said(&["vault is damaged"]);

    // All nodes are set back to an older state, as if an attacker had kept it.
    let nodes = network.nodes();
    let aside = |node: usize, name: &str| -> PathBuf { network.scratch().join(format!("{name}-{node}")) };
    let older: Vec<PathBuf> = nodes.iter().map(|node| aside(*node, "older")).collect();
    let newer: Vec<PathBuf> = nodes.iter().map(|node| aside(*node, "newer")).collect();
    exchange(&mut network, &older, None);
    home.run(["put", tree.path().to_str().unwrap(), "/two", "--bootstrap", &network.address(0)]).expect_code(0);
    exchange(&mut network, &newer, Some(&older));
    let bootstrap = network.address(0);
    let entered = ["--bootstrap", bootstrap.as_str()];
    for command in [vec!["ls", "/"], vec!["put", tree.path().to_str().unwrap(), "/three"], vec!["rm", "/one"]] {
        let refused = home.run(command.iter().chain(&entered));
        refused.expect_code(4).expect_said(&["older state of this vault"]);
    }
    // Who has never seen the newer state cannot know; and once it is back, it is taken again.
    assert_eq!(network.cold_home("without memory", &phrase, &[0]).names("/"), ["one"]);
    exchange(&mut network, &older, Some(&newer));
    let bootstrap = network.address(0);
    let listed = home.json(["ls", "/", "--bootstrap", &bootstrap]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
}

/// Ends all nodes, keeps copies of their folders at `keep`, puts those at `take` in their place, and starts them.
fn exchange(network: &mut Network, keep: &[PathBuf], take: Option<&[PathBuf]>) {
    let nodes = network.nodes();
    let copy = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-aT").args([from, to]).status().unwrap().success());
    };
    for (node, keep) in nodes.iter().zip(keep) {
        network.kill(*node);
        let _ = fs::remove_dir_all(keep);
        copy(&network.node_dir(*node), keep);
    }
    for (node, take) in nodes.iter().zip(take.into_iter().flatten()) {
        fs::remove_dir_all(network.node_dir(*node)).unwrap();
        copy(take, &network.node_dir(*node));
    }
    // Each listens at another port than before, so that the first ones find nobody: they are found by the later ones.
    let (first, others) = nodes.split_first().unwrap();
    network.start_again(*first, 0);
    let bootstrap = network.address(*first);
    for node in others {
        network.set_bootstrap(*node, &bootstrap);
        network.launch(*node);
    }
    for node in &nodes {
        network.await_node(*node, nodes.len() as u64 - 1);
    }
}
