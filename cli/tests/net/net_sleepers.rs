//! Promise: a node that sleeps each night, for longer than the grace time, is repaired once at most and not every night,
//! whether its machine is suspended or switched off. What it is given by day is its own the next night too.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::harness::{Counters, Network, Setup, Stored, Tree, Watch, noise, poll_until};

const NODES: usize = 10;
/// A laptop whose lid is closed, and a machine that is switched off.
const SUSPENDED: usize = 3;
const SWITCHED_OFF: usize = 6;
/// A night of eight hours and a grace time of four, in seconds.
const NIGHT: Duration = Duration::from_secs(8);
/// The first night lasts until something is rebuilt, which is later where the first in rank sleep too; so long at most.
const FIRST_NIGHT_MAX: Duration = Duration::from_secs(60);
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"4 s\"\n\n[repair]\ntop-up = \"1 s\"\n";
const NIGHTS: u64 = 4;
/// What was lost in the first night is made good in some ten seconds; the rest is for a loaded machine.
const WHOLE_MAX: Duration = Duration::from_secs(90);

#[test]
fn who_sleeps_each_night_is_repaired_once_and_not_every_night() {
    let mut network =
        Network::start(&Setup { nodes: NODES, coding: Some("4/8"), overlay: Some(TIMES), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    let (home, _) = network.new_home("home");
    let mut counters = Counters::of(["/audits/lost_holders", "/audits/shards_rebuilt", "/audits/bytes_sent"]);
    let mut once = 0;
    for night in 1..=NIGHTS {
        // By day something is stored, with them as with all others.
        let name = format!("day-{night}");
        tree.file(&name, &noise(night, 3 << 20));
        home.put(&tree.path().join(&name), &format!("/{name}"));
        let stored = Stored::in_vault(&home);
        let watch = Watch::on(&network);
        watch.whole_again(&stored, Instant::now(), WHOLE_MAX);
        let ids = watch.ids();
        let sleepers: Vec<_> =
            ids.into_iter().filter(|id| matches!(watch.number(*id), Some(SUSPENDED | SWITCHED_OFF))).collect();
        let claims = watch.claims(&stored);
        let alone = claims
            .values()
            .filter(|of| sleepers.iter().any(|id| of.contains(id)) && of.iter().all(|id| sleepers.contains(id)));
        let alone = alone.count();
        let [_, rebuilt_before, sent_before] = counters.now(&network);

        network.freeze(SUSPENDED);
        network.stop(SWITCHED_OFF);
        thread::sleep(NIGHT);
        if night == 1 {
            let awake: Vec<usize> = (0..NODES).filter(|node| ![SUSPENDED, SWITCHED_OFF].contains(node)).collect();
            let rebuilt = || network.figures_of(&awake, "/audits/shards_rebuilt") > rebuilt_before;
            let given_up = poll_until(FIRST_NIGHT_MAX, || rebuilt().then_some(()));
            assert!(given_up.is_some(), "nothing was rebuilt all night, so this shows nothing");
        }
        network.thaw(SUSPENDED);
        network.start_again(SWITCHED_OFF, NODES as u64 - 1);

        let watch = Watch::on(&network);
        let took = watch.whole_again(&stored, Instant::now(), WHOLE_MAX);
        let [lost_holders, rebuilt, sent] = counters.now(&network);
        eprintln!(
            "night {night}: they alone held {alone} shards; whole {took:.1?} after they woke; holders given up so far: \
             {lost_holders}, shards rebuilt so far: {rebuilt}, bytes sent this night: {}",
            sent - sent_before
        );
        assert!(alone > 0, "they hold nothing, so this shows nothing");
        if night == 1 {
            assert!(lost_holders > 0, "the night was shorter than the grace time");
            let missed = alone as u64;
            assert!(rebuilt - rebuilt_before <= missed, "{missed} shards were missed, and rebuilt more than once");
            once = rebuilt;
        } else {
            assert_eq!(rebuilt, once, "repaired again in night {night}");
        }
    }
}
