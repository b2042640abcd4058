//! Promise: a node at its pledge, and one whose disk is full, refuse politely. A put goes to others, or fails and says
//! why when nobody has room; nothing that was stored is lost, and no node takes more than it pledged.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use commonhold_network::TransferError;
use commonhold_protocol::{Manifest, Unverified, Verified, ask::Refusal};

use super::harness::{HandMadeVault, Network, Setup, Spy, Tree, assert_same, eventually, hex_id, noise, poll_until};

const MIB: u64 = 1 << 20;
/// A pledge that a few large segments fill.
const SMALL: &str = "[pledge]\ndisk = \"24 MiB\"\n";

#[test]
fn a_put_goes_where_there_is_room_or_says_that_there_is_none() {
    let network = Network::start(&Setup { nodes: 6, coding: Some("3/6"), overlay: Some(SMALL), ..Setup::default() });
    let mut small = Tree::new(network.scratch().join("small"), 1);
    small.small_files(100);
    let mut large = Tree::new(network.scratch().join("large"), 2);
    large.file("noise", &noise(3, 120 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(small.path(), "/small");

    // Six pledges of 24 MiB cannot hold 240 MiB.
    let source = large.path().to_str().unwrap();
    home.run(["put", source, "/large"]).expect_code(1).expect_said(&["pledge is used up", "commonhold peers"]);
    assert_eq!(home.names("/"), ["small"]);
    within_pledge(&network, 24 * MIB);

    // With room elsewhere the same put succeeds, and the full ones keep what they have.
    network.add(6, Some("[pledge]\ndisk = \"1 GiB\"\n"));
    home.run(["put", source, "/large"]).expect_code(0);
    within_pledge(&network, 24 * MIB);
    read_back(&network, &phrase, &[(&small, "/small"), (&large, "/large")], "grown");
}

/// All six nodes are needed: with one that says nothing any more, a put fails. What the others took they are told to
/// drop.
#[test]
fn a_put_that_cannot_be_placed_is_taken_back() {
    // A shard of 4 MiB takes a while, so that the node is frozen before it has its own.
    let overlay = "[pledge]\ntrash = \"1 s\"\ndownload = \"16 Mbit/s\"\n";
    let network = Network::start(&Setup { nodes: 6, coding: Some("3/6"), overlay: Some(overlay), ..Setup::default() });
    let (home, _) = network.new_home("home");
    let mut before = Tree::new(network.scratch().join("before"), 1);
    before.small_files(20);
    home.put(before.path(), "/before");
    let held = || network.figures_of(&[0, 1, 2, 3, 4], "/shards/held");
    let received = || network.figures_of(&[0, 1, 2, 3, 4], "/traffic/shard_bytes_received");
    let (held_before, received_before) = (held(), received());

    let mut source = Tree::new(network.scratch().join("source"), 2);
    source.file("noise", &noise(3, 12 << 20));
    let put = home.spawn(["put", source.path().to_str().unwrap(), "/lost"]);
    // It has said by then that it is there, and has room.
    let begun = poll_until(Duration::from_secs(60), || (received() > received_before).then_some(()));
    network.freeze(5);
    assert!(begun.is_some(), "nothing was sent");
    put.finish().expect_code(1).expect_said(&["5 shards placed, 6 needed", "nothing of this command is visible"]);

    // Five shards of 4 MiB were there, and so were their claims.
    assert!(received() - received_before >= 5 * 4 * MIB);
    let gone = poll_until(Duration::from_secs(30), || (held() == held_before).then_some(()));
    assert!(gone.is_some(), "{} shards are held, {held_before} were before", held());
    assert!(fs::read_dir(home.dir.join("spool")).unwrap().next().is_none(), "there is nothing to go on with");
    network.thaw(5);
    eventually("the vault can be read", || home.run(["ls", "/"]).code == Some(0));
    assert_eq!(home.names("/"), ["before"]);
}

/// The six nodes of the beginning use no more than this: by their own word, and by that of the file system.
fn within_pledge(network: &Network, bytes_max: u64) {
    for node in 0..6 {
        let used = network.figure(node, "/pledge/used_bytes");
        assert!(used <= bytes_max, "node {node} says that it uses {used} bytes");
        let data = ["volumes", "records", "index"].map(|folder| network.node_dir(node).join(folder));
        let on_disk: u64 = data.iter().map(|folder| blocks_below(folder)).sum();
        assert!(on_disk <= bytes_max, "node {node} takes {on_disk} bytes of its disk");
    }
}

/// Bytes on disk, holes not counted.
fn blocks_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.map(|entry| {
        // A file of the index may go while we look.
        let entry = entry.unwrap();
        let Ok(metadata) = entry.metadata() else { return 0 };
        if metadata.is_dir() {
            blocks_below(&entry.path())
        } else {
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
        }
    });
    sizes.sum()
}

#[test]
fn a_node_whose_disk_is_full_refuses_and_lives() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a small disk");
        return;
    }
    let mut network = Network::start(&Setup { nodes: 7, coding: Some("3/6"), ..Setup::default() });
    let mut before = Tree::new(network.scratch().join("before"), 1);
    before.small_files(100);
    before.file("noise", &noise(2, 10 << 20));
    let mut after = Tree::new(network.scratch().join("after"), 3);
    after.file("noise", &noise(4, 60 << 20));
    let (home, phrase) = network.new_home("home");

    // Node 6 moves to a disk of 48 MiB, and thinks that it may use all of it and more.
    network.stop(6);
    let disk = SmallDisk::mount_over(network.node_dir(6), "48m");
    let config_path = network.node_dir(6).join("node.toml");
    let mut config: toml::Table = fs::read_to_string(&config_path).unwrap().parse().unwrap();
    config["pledge"].as_table_mut().unwrap().insert("keep-free".to_owned(), "0 B".into());
    fs::write(&config_path, config.to_string()).unwrap();
    network.start_again(6, 6);
    home.put(before.path(), "/before");
    let (spy, id) = (Spy::on(&network), hex_id(&network.node_id(6)));
    let (manifest, shards) = segment(&spy);
    let offer = |index: u8| spy.store(id, manifest.clone(), index, shards[usize::from(index)].clone());
    offer(0).unwrap();
    let held = network.figure(6, "/shards/held");

    // Somebody else fills that disk to the last byte. From then on it refuses, says why, and hands out what it has.
    let ballast = network.node_dir(6).join("ballast");
    fill(&ballast);
    for index in [1, 2] {
        let refused = offer(index).unwrap_err();
        let polite = |refusal| matches!(refusal, Refusal::DiskFull | Refusal::PledgeFull);
        assert!(matches!(refused, TransferError::Refused { refusal, .. } if polite(refusal)), "{refused}");
    }
    let segment = manifest.clone().verify(&spy.network).unwrap().id();
    assert_eq!(spy.whole_shard(id, segment, 0).as_ref(), Ok(&shards[0]));
    assert!(spy.first_group(id, segment, 1).is_err(), "what it refused is there");
    home.run(["put", after.path().to_str().unwrap(), "/after"]).expect_code(0);
    assert!(network.status(6).is_some(), "the node has not survived its full disk");
    read_back(&network, &phrase, &[(&before, "/before"), (&after, "/after")], "full");

    // It is killed while the disk is full. With room again it starts, has lost nothing, and takes shards.
    network.kill(6);
    fs::remove_file(&ballast).unwrap();
    network.start_again(6, 6);
    assert!(network.figure(6, "/shards/held") >= held);
    offer(1).unwrap();
    let mut later = Tree::new(network.scratch().join("later"), 5);
    later.file("noise", &noise(6, 4 << 20));
    home.put(later.path(), "/later");
    read_back(&network, &phrase, &[(&before, "/before"), (&after, "/after"), (&later, "/later")], "roomy");
    network.kill(6);
    drop(disk);
}

/// A segment of a vault of our own.
fn segment(spy: &Spy) -> (Unverified<Manifest>, Vec<Bytes>) {
    let vault = HandMadeVault::new(spy);
    let coded = vault.segment(6);
    (Verified::sign(coded.manifest, vault.keys.signing(), &spy.network).to_unverified(), coded.shards)
}

fn read_back(network: &Network, phrase: &str, stored: &[(&Tree, &str)], name: &str) {
    let reader = network.cold_home(&format!("cold-{name}"), phrase, &[0]);
    for (tree, path) in stored {
        let back = network.scratch().join(format!("back-{name}{}", path.replace('/', "-")));
        reader.get(path, &back).expect_code(0);
        assert_same(tree.path(), &back);
    }
}

/// Writes until the disk takes no more.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for piece in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; piece]).is_ok() {}
    }
}

/// A mounted tmpfs; unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty disk over a folder, and moves into it what was there.
    fn mount_over(path: PathBuf, size: &str) -> Self {
        let run = |program: &str, arguments: &[&OsStr]| {
            let status = Command::new(program).args(arguments).status().unwrap();
            assert!(status.success(), "{program} {arguments:?}");
        };
        let aside = path.with_extension("aside");
        run("cp", &["-a".as_ref(), path.as_os_str(), aside.as_os_str()]);
        let options = format!("size={size}");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs"]
                .map(OsStr::new)
                .into_iter()
                .chain([path.as_os_str()])
                .collect::<Vec<_>>(),
        );
        let disk = Self { path };
        run("cp", &["-aT".as_ref(), aside.as_os_str(), disk.path.as_os_str()]);
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failed test the node may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
