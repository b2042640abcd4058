//! `kill -9`: what was acknowledged before it is there after it. The process that is killed is this test binary, run
//! once more.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use commonhold_protocol::ShardIndex;

use crate::harness::{KIB, open, segment_of};

const FOLDER: &str = "COMMONHOLD_TEST_KILLED_STORE";
const FIRST: &str = "COMMONHOLD_TEST_FIRST_SEED";

fn segment(seed: u64) -> crate::harness::Segment {
    segment_of(1, seed, (1 + seed as usize % 40) * 4 * KIB, 1)
}

/// Stores, and removes one in four right away, and says each once it is done; for ever. Does nothing as a test.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let (store, _) = open(&folder);
    for seed in first.. {
        let segment = segment(seed);
        segment.store(&store, 0).unwrap();
        println!("\nstored {seed}");
        if seed.is_multiple_of(4) {
            store.remove(segment.manifest.id(), ShardIndex(0)).unwrap();
            println!("\nremoved {seed}");
        }
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut held: Vec<u64> = Vec::new();
    for round in 0..6_u64 {
        let first = round * 1000;
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::victim", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        // Killed after a different number of steps each time, right in the middle of the next.
        let mut acknowledged = 0;
        for line in lines {
            match line.split_once(' ') {
                Some(("stored", seed)) => held.push(seed.parse().unwrap()),
                Some(("removed", seed)) => held.retain(|held| held.to_string() != seed),
                _ => continue,
            }
            acknowledged += 1;
            if acknowledged == 25 + 17 * round {
                victim.kill().unwrap();
            }
        }
        victim.wait().unwrap();
        let last = *held.last().unwrap();
        let (store, report) = open(folder.path());
        assert_eq!((report.quarantined, report.lost_volumes), (0, vec![]), "round {round}");
        // The one that was on its way may be there, or not; the one that was being removed as well.
        if !store.holds(&segment(last).leaf(0)).unwrap() && last.is_multiple_of(4) {
            held.pop();
        }
        for &seed in &held {
            segment(seed).assert_held(&store, 0);
        }
        let known: Vec<_> = held.iter().map(|&seed| segment(seed).leaf(0)).collect();
        let under_way: Vec<_> = (last..last + 3).map(|seed| segment(seed).leaf(0)).collect();
        for leaf in store.iter_held().map(|held| held.unwrap().leaf) {
            if known.contains(&leaf) {
                continue;
            }
            assert!(under_way.contains(&leaf), "round {round}: {leaf:?} was never stored, or had been removed");
            store.remove(leaf.segment, leaf.index).unwrap();
        }
        assert_eq!(store.used().shards, held.len() as u64);
    }
}
