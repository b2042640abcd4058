//! Promise: whatever a power cut leaves of what a put had under way, the next put goes on, and nothing wrong is stored.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::harness::{Network, Setup, Tree, assert_same, noise, poll_until, seed};

const MIB: u64 = 1 << 20;
/// Six segments, of which some are under way and some placed when the put is killed.
const BYTES: u64 = 96 * MIB;

/// What an unsynced file may be after a power cut.
type Damage = fn(&mut StdRng, &mut Vec<u8>);

#[test]
fn a_put_goes_on_whatever_is_left_of_its_spool() {
    let mut random = StdRng::seed_from_u64(seed());
    let network = Network::start(&Setup { nodes: 8, coding: Some("4/8"), ..Setup::default() });
    let (home, phrase) = network.new_home("home");
    let received = || network.figures("/traffic/shard_bytes_received");
    let kinds: [(&str, Damage); 6] = [
        ("cut off", |random, bytes| bytes.truncate(random.random_range(0..bytes.len()))),
        ("emptied", |_, bytes| bytes.clear()),
        ("zeroed", |random, bytes| zero_pages(random, bytes)),
        ("flipped", |random, bytes| flip_bits(random, bytes)),
        ("its end is zeros", |random, bytes| {
            let from = random.random_range(0..bytes.len());
            bytes[from..].fill(0);
        }),
        ("notes of nobody", |_, bytes| bytes.extend([0; 33 * 20])),
    ];
    for (number, (kind, damage)) in kinds.into_iter().enumerate() {
        let mut tree = Tree::new(network.scratch().join(format!("source-{number}")), number as u64);
        tree.small_files(30);
        tree.file("large", &noise(random.random(), BYTES as usize));
        let path = format!("/{number}");

        let enough = received() + random.random_range(BYTES / 4..BYTES);
        let mut put = home.spawn(["put", tree.path().to_str().unwrap(), &path]);
        let caught = poll_until(Duration::from_secs(60), || (received() > enough).then_some(()));
        assert!(caught.is_some() && !put.has_ended(), "the put was not caught half-way");
        put.signal("KILL");
        put.finish();
        let slots = slots(&home.dir.join("spool"));
        assert!(!slots.is_empty(), "nothing was under way");
        for slot in &slots {
            let mut bytes = fs::read(slot).unwrap();
            if !bytes.is_empty() {
                damage(&mut random, &mut bytes);
            }
            fs::write(slot, bytes).unwrap();
        }
        eprintln!("{kind}: {} slots", slots.len());

        home.put(tree.path(), &path);
        let back = network.scratch().join("back");
        network.cold_home(&format!("cold-{number}"), &phrase, &[3]).get(&path, &back).expect_code(0);
        assert_same(tree.path(), &back);
        assert_eq!(
            fs::read_dir(home.dir.join("spool")).unwrap().count(),
            0,
            "{kind}: what is placed is spooled no more"
        );
        fs::remove_dir_all(&back).unwrap();
        fs::remove_dir_all(tree.path()).unwrap();
    }
    assert_eq!(home.names("/"), ["0", "1", "2", "3", "4", "5"]);
    // Each segment that the vault refers to has as many holders as a put promises.
    for segment in home.json(["segments"])["segments"].as_array().unwrap() {
        let claimed = segment["healthy"].as_u64().unwrap() + segment["suspect"].as_u64().unwrap();
        assert!(claimed >= 7, "{segment}");
    }
}

fn slots(spool: &Path) -> Vec<PathBuf> {
    fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Half of the pages never reached the disk.
fn zero_pages(random: &mut StdRng, bytes: &mut [u8]) {
    bytes.chunks_mut(4096).filter(|_| random.random()).for_each(|page| page.fill(0));
}

fn flip_bits(random: &mut StdRng, bytes: &mut [u8]) {
    for _ in 0..20 {
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= 1 << random.random_range(0..8);
    }
}
