//! Promise: a steward moves no more for repairs than its owner lends, however much is missing, and needs memory for
//! columns of shards, not for shards; and it knows over a restart when it repaired what.

use std::{
    fs,
    time::{Duration, Instant},
};

use commonhold_protocol::{Coding, Manifest, NodeId, SegmentId, Timestamp};
use commonhold_storage_engine::segment::CodedSegment;

use super::harness::{
    HandMadeVault, Network, Setup, Spy, Stored, Watch, hex_id, in_ms, peak_bytes, poll_until, salted_segment_of_noise,
};

const K: u8 = 3;
const N: u8 = 5;
/// A holder for each shard, a node that takes what is rebuilt, and the steward that repairs.
const NODES: usize = N as usize + 2;
const REPAIRER: usize = NODES - 1;
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n";
/// One segment more than a steward repairs at once, each as large as segments are.
const SEGMENTS: usize = 3;
const SEGMENT_BYTES: usize = (16 << 20) - (64 << 10);
/// What a budget has saved up at most: so many seconds' worth.
const SAVED_S: u64 = 600;
/// So many seconds' worth are missing then: less than other stewards wait for one that is at work, eight seconds.
const MISSING_S: u64 = 6;
/// Between the moment at which bytes are paid for and that at which they are seen to be moved.
const SLACK: Duration = Duration::from_secs(1);
/// Columns of two repairs at once, of 8 MiB each.
const COLUMNS_BYTES_MAX: u64 = 2 * (8 << 20);
/// What connections have on their way, and what the allocator keeps.
const OTHER_BYTES_MAX: u64 = 12 << 20;
/// Silence, grace, top-up and the repairs take some 15 seconds; the rest is for a loaded machine.
const WHOLE_MAX: Duration = Duration::from_secs(90);

#[test]
fn a_repair_keeps_to_its_limits_of_bandwidth_and_memory() {
    let mut network = Network::start(&Setup { nodes: NODES, overlay: Some(TIMES), ..Setup::default() });
    let ids: Vec<NodeId> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    // Of each segment one shard will be missing: k are read and one is sent.
    let shard_bytes = (SEGMENT_BYTES as u64).div_ceil(K.into());
    let needed = SEGMENTS as u64 * u64::from(K + 1) * shard_bytes;
    let rate = needed / (SAVED_S + MISSING_S);
    network.configure(REPAIRER, "pledge", "upload", format!("{} bit/s", rate * 8));
    network.stop(REPAIRER);
    network.start_again(REPAIRER, NODES as u64 - 1);

    let spy = Spy::on(&network);
    let mut vault = HandMadeVault::new(&spy);
    let year = vault.lease(1, in_ms(365 * 24 * 60 * 60 * 1000));
    let mut stored = Vec::new();
    for seed in 0..SEGMENTS as u64 {
        let coded = segment_for(&vault, ids[REPAIRER], &ids, seed);
        let manifest = &coded.manifest;
        stored.push(Stored { id: manifest.id(), coding: manifest.coding, shard_bytes: manifest.shard_length() });
        let record = vault.place_on(coded, &ids[..N.into()], &year);
        ids.iter().for_each(|steward| vault.keep(*steward, &record, &year).unwrap());
    }
    Watch::on(&network).whole_again(&stored, Instant::now(), WHOLE_MAX);

    let pid = network.pid(REPAIRER);
    // The kernel forgets the peak until now.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let idle = peak_bytes(pid).unwrap();
    network.kill(0);
    let (mut began, mut moved) = (Instant::now(), 0);
    let shards = SEGMENTS as u64 * u64::from(N);
    let whole = poll_until(WHOLE_MAX, || {
        let asked = Instant::now();
        moved = ["read", "sent"].map(|what| network.figure(REPAIRER, &format!("/audits/bytes_{what}"))).iter().sum();
        if moved == 0 {
            began = asked;
        }
        let allowed = rate * SAVED_S + (rate as f64 * (began.elapsed() + SLACK).as_secs_f64()) as u64;
        assert!(moved <= allowed, "{moved} bytes moved {:?} after the first, at {rate} a second", began.elapsed());
        (network.figures("/shards/held") == shards).then_some(())
    });
    assert!(whole.is_some(), "{} of {shards} shards are held", network.figures("/shards/held"));
    let (took, more) = (began.elapsed(), peak_bytes(pid).unwrap().saturating_sub(idle));
    eprintln!(
        "{moved} bytes moved in {took:.1?} at {rate} bytes a second with {} saved up; {idle} bytes of memory before, \
         {more} more at the most",
        rate * SAVED_S
    );
    assert!(moved > needed / 10 * 9, "{moved} of {needed} bytes: it was others who repaired");
    assert!(more <= COLUMNS_BYTES_MAX + OTHER_BYTES_MAX, "{more} bytes of memory more");

    // When that was it knows after a restart, too: nobody else does.
    let segments: Vec<SegmentId> = stored.iter().map(|segment| segment.id).collect();
    let repaired_at = || {
        let reports = spy.health(ids[REPAIRER], &segments).into_iter();
        reports.map(|report| report?.repaired_at).collect::<Option<Vec<Timestamp>>>()
    };
    let before = poll_until(WHOLE_MAX, repaired_at).expect("it has repaired all of them");
    network.stop(REPAIRER);
    network.start_again(REPAIRER, NODES as u64 - 2);
    let remembered = poll_until(WHOLE_MAX, repaired_at);
    assert_eq!(remembered, Some(before), "it does not know when it repaired what");
}

/// A segment of which `first` is the first steward among `nodes`.
fn segment_for(vault: &HandMadeVault<'_>, first: NodeId, nodes: &[NodeId], seed: u64) -> CodedSegment {
    let salt = std::iter::repeat_with(rand::random).find(|salt| {
        let segment = Manifest::segment_id(&vault.keys.vault_id(), salt);
        nodes.iter().min_by_key(|node| node.distance(segment.as_bytes())) == Some(&first)
    });
    let coding = Coding::new(K, N).unwrap();
    salted_segment_of_noise(&vault.keys, salt.unwrap(), seed, SEGMENT_BYTES, coding)
}
