use std::path::Path;

use super::super::{GONE, OUTAGE, World};
use super::*;
use crate::scenario::Scenario;

const NODES: u32 = 400;

/// 400 nodes, twenty an operator, and one incident.
fn scenario(incident: &str) -> Scenario {
    let text = format!(
        "name = \"n\"\nsource = \"assumed\"\nduration = \"30 d\"\n[network]\nnodes = {NODES}\nsegments = 1\n\
         [[population]]\nname = \"a\"\nlifetime = {{ law = \"never\" }}\nper-operator = 20\nregions = [\"x\", \"y\"]\n\
         [[incident]]\nat = \"5 d\"\n{incident}"
    );
    Scenario::parse(&text, Path::new("n.toml"), Path::new(".")).expect("a good scenario")
}

/// Those of the first nodes that have left.
fn gone(world: &World<'_>) -> Vec<u32> {
    let first = *world.scenario.network.nodes.get_ref();
    (0..first).filter(|node| world.nodes.flags[*node as usize] & GONE != 0).collect()
}

/// The operators of these nodes, none of which has left a node behind.
fn whole_operators(world: &World<'_>, nodes: &[u32]) -> BTreeSet<u32> {
    let operator = |node: &u32| world.nodes.operator[*node as usize];
    let operators: BTreeSet<u32> = nodes.iter().map(operator).collect();
    let first = *world.scenario.network.nodes.get_ref();
    let theirs = (0..first).filter(|node| operators.contains(&operator(node))).count();
    assert_eq!(theirs, nodes.len(), "an operator is struck in part");
    operators
}

#[test]
fn so_many_whole_operators_leave_as_it_says() {
    for count in [1, 3, 20] {
        let scenario = scenario(&format!("operators = {count}"));
        for seed in 0..20 {
            let mut world = World::new(&scenario, seed, 0);
            world.incident(0);
            assert_eq!(whole_operators(&world, &gone(&world)).len(), count, "seed {seed}");
        }
    }
}

#[test]
fn a_share_strikes_whole_operators_and_that_part_of_them_on_average() {
    let scenario = scenario("share = 0.3");
    let operators = (0..100).map(|seed| {
        let mut world = World::new(&scenario, seed, 0);
        world.incident(0);
        whole_operators(&world, &gone(&world)).len()
    });
    // Of 2000.
    let struck: usize = operators.sum();
    assert!((520..=680).contains(&struck), "{struck}");
}

/// The release has eaten disks of those that took it, and of nobody else.
#[test]
fn an_incident_of_another_strikes_only_whom_that_one_struck() {
    let scenario = scenario(
        "name = \"release\"\nnodes = 100\nlasts = \"3 d\"\n[[incident]]\nat = \"8 d\"\nof = \"release\"\nnodes = 30",
    );
    for seed in 0..20 {
        let mut world = World::new(&scenario, seed, 0);
        world.incident(0);
        let off = |node: &u32| world.nodes.flags[*node as usize] & OUTAGE != 0;
        assert_eq!((0..NODES).filter(off).count(), 100);
        world.incident(1);
        let gone = gone(&world);
        assert!(gone.len() == 30 && gone.iter().all(|node| world.nodes.flags[*node as usize] & OUTAGE != 0), "{seed}");
    }
}

#[test]
fn the_scenarios_that_ship_strike_whom_they_say() {
    let load = |name: &str| Scenario::load(&Path::new("scenarios").join(name)).expect("it ships");
    let servers = load("servers.toml");
    let mut world = World::new(&servers, 7, 0);
    world.incident(0);
    assert_eq!(whole_operators(&world, &gone(&world)).len(), 1);
    let release = load("bad-release.toml");
    let mut world = World::new(&release, 7, 0);
    world.incident(0);
    world.incident(1);
    let gone = gone(&world);
    // Two of a hundred, of those that stopped.
    assert!((20..=60).contains(&gone.len()), "{}", gone.len());
    assert!(gone.iter().all(|node| world.nodes.flags[*node as usize] & OUTAGE != 0));
}
