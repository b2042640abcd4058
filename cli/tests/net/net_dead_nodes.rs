//! Promise: of 14 nodes that hold a vault coded 7 of 14, any 7 may die. A client that knows nothing but the phrase
//! reads everything from the other 7, in bounded time. With 8 dead it says which segments lack how many shards; when
//! one node comes back, all is there again.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::harness::{Finished, Network, Setup, Tree, assert_same, noise, seed};

const NODES: usize = 14;
const SETS: usize = 20;
/// Recovering, finding and reading take well under a second here when all nodes are alive; each of the 7 dead may
/// cost a few seconds once, but they are tried at the same time.
const READ_MAX: Duration = Duration::from_secs(10);

/// Connections that a read of some segments may try at one dead node, together with what the nodes that live try meanwhile.
const KNOCKS_MAX: usize = 8;

#[test]
fn any_seven_of_fourteen_nodes_are_enough() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);

    let mut network = Network::start(&Setup { nodes: NODES, coding: Some("7/14"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(300);
    tree.file("large", &noise(2, 40 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");

    let mut dead = BTreeSet::new();
    let mut slowest = Duration::ZERO;
    for set in 0..SETS {
        let mut nodes: Vec<usize> = (0..NODES).collect();
        nodes.shuffle(&mut random);
        change_dead(&mut network, &mut dead, nodes[..7].iter().copied().collect());
        eprintln!("set {set}: {dead:?} are dead");

        let (cold, back) = (format!("cold-{set}"), network.scratch().join(format!("back-{set}")));
        // The addresses of a few nodes that were alive once, of which some are dead now.
        let alive = (0..NODES).find(|node| !dead.contains(node)).unwrap();
        let reader = network.cold_home(&cold, &phrase, &[alive]);
        let got = reader.get("/x", &back).expect_code(0);
        assert_same(tree.path(), &back);
        assert!(got.took < READ_MAX, "reading took {:?} with {dead:?} dead", got.took);
        slowest = slowest.max(got.took);
        std::fs::remove_dir_all(&back).unwrap();
    }
    eprintln!("the slowest read took {slowest:?}");

    // Nobody storms those that are dead: they are tried once or twice, however many segments they held.
    let knocks: Vec<Knocks> = dead.iter().map(|node| Knocks::at(&network.address(*node))).collect();
    // Who wrote it knows where all of them were.
    home.get("/x", &network.scratch().join("back-home")).expect_code(0);
    let counts: Vec<usize> = knocks.iter().map(Knocks::count).collect();
    eprintln!("the dead were knocked at {counts:?} times");
    assert!(counts.iter().any(|count| *count > 0), "nobody tried them: this counts nothing");
    assert!(counts.iter().all(|count| *count <= KNOCKS_MAX), "{counts:?}");

    let alive: Vec<usize> = (0..NODES).filter(|node| !dead.contains(node)).collect();
    let reader = network.cold_home("reader", &phrase, &[alive[0]]);
    let last = alive[random.random_range(1..alive.len())];
    network.kill(last);
    let back = network.scratch().join("back");
    let failed = reader.get("/x", &back).expect_code(4).expect_said(&["segment ", "6 shards reachable, 7 needed"]);
    assert!(failed.took < READ_MAX, "failing took {:?}", failed.took);
    let mut command = reader.command(["get", "/x", "--json", "--overwrite"]);
    command.arg(&back);
    let told = Finished::of(&mut command).expect_code(4);
    let told: serde_json::Value = serde_json::from_str(told.stderr.trim()).unwrap();
    let segments = told["segments"].as_array().unwrap();
    assert!(!segments.is_empty(), "{told}");
    for segment in segments {
        assert_eq!((segment["reachable"].as_u64(), segment["needed"].as_u64()), (Some(6), Some(7)), "{told}");
    }

    network.start_again(last, 6);
    let back = network.scratch().join("back again");
    reader.get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}

/// What seven nodes that never answer may cost, however many segments and questions there are. It is about four seconds
/// on a machine that has nothing else to do; one timeout of 4 or 5 seconds for each of them, or for each shard of a
/// segment, is more than this.
const SILENCE_MAX: Duration = Duration::from_secs(15);

#[test]
fn silent_nodes_cost_a_few_seconds_once() {
    let network = Network::start(&Setup { nodes: NODES, coding: Some("7/14"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(300);
    tree.file("large", &noise(2, 120 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let small = network.scratch().join("small");
    std::fs::write(&small, noise(3, 100_000)).unwrap();
    home.put(&small, "/small");
    for node in 0..7 {
        network.freeze(node);
    }
    // Two of the addresses are of those who are silent.
    let reader = network.blank_home("reader", &[0, 1, 7, 8]);
    let recovered = reader.recover(&phrase).expect_code(0);
    let [small_back, back] = ["small back", "back"].map(|name| network.scratch().join(name));
    let got_small = reader.get("/small", &small_back).expect_code(0);
    assert!(std::fs::read(&small_back).unwrap() == noise(3, 100_000));
    let got = reader.get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
    let took = [("recovering", recovered.took), ("a small file", got_small.took), ("everything", got.took)];
    eprintln!("{took:?}");
    for (what, took) in took {
        assert!(took < SILENCE_MAX, "{what} took {took:?}");
    }
}

/// Counts who comes to the address of a dead node, and turns them away.
struct Knocks(Arc<AtomicUsize>);

impl Knocks {
    fn at(address: &str) -> Self {
        let ["", "ip4", ip, "tcp", port, ..] = address.split('/').collect::<Vec<_>>()[..] else { panic!("{address}") };
        let listener = TcpListener::bind(format!("{ip}:{port}")).unwrap();
        let knocks = Arc::new(AtomicUsize::new(0));
        let counted = knocks.clone();
        thread::spawn(move || {
            for _ in listener.incoming() {
                counted.fetch_add(1, Relaxed);
            }
        });
        Self(knocks)
    }

    fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Kills those that live and shall be dead, and brings back those that are dead and shall live.
fn change_dead(network: &mut Network, dead: &mut BTreeSet<usize>, shall_be: BTreeSet<usize>) {
    for node in shall_be.difference(dead) {
        network.kill(*node);
    }
    let mut entry = (0..NODES).find(|node| !dead.contains(node) && !shall_be.contains(node));
    let back: Vec<usize> = dead.difference(&shall_be).copied().collect();
    for node in &back {
        // Those that it knew when it was killed may be dead by now.
        if let Some(entry) = entry {
            network.set_bootstrap(*node, &network.address(entry));
        }
        network.start_again(*node, 0);
        entry = entry.or(Some(*node));
    }
    for node in back {
        network.await_node(node, 6);
    }
    *dead = shall_be;
}
