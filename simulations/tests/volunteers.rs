//! What a population lends and when it is on: disks, links, nights, and how it cheats. Each is told in what it changes.

use std::path::Path;

use commonhold_policy::audit::{detection::contained_ms, schedule::Rate};
use commonhold_simulations::{Report, Scenario, run};

fn scenario(nodes: u32, segments: u32, coding: &str, lasts: &str, rest: &str) -> Scenario {
    let text = format!(
        "name = \"n\"\nsource = \"assumed\"\nduration = \"{lasts}\"\n[network]\nnodes = {nodes}\n\
         segments = {segments}\ncoding = \"{coding}\"\n{rest}"
    );
    Scenario::parse(&text, Path::new("n.toml"), Path::new(".")).expect("a good scenario")
}

fn network(nodes: u32, segments: u32, coding: &str, lasts: &str, rest: &str) -> Report {
    run(&scenario(nodes, segments, coding, lasts, rest), 1)
}

/// Forty nodes that stay, with room for so many shards of a segment of 7/14 each; a quarter of them is cut off for so
/// long that all it holds is rebuilt, where there is room.
fn with_room_for(shards: u64) -> Report {
    let shard_bytes = (16u64 << 20).div_ceil(7) + 1024;
    let rest = format!(
        "[[population]]\nname = \"a\"\nlifetime = {{ law = \"never\" }}\ndisk = \"{} B\"\n\
         [[incident]]\nat = \"5 d\"\nnodes = 10\nlasts = \"20 d\"\n",
        shards * shard_bytes
    );
    network(40, 80, "7/14", "20 d", &rest)
}

/// 80 segments are 1120 shards, 28 a node.
#[test]
fn a_full_disk_takes_no_shard() {
    let (few, ample) = (with_room_for(14), with_room_for(1000));
    let placed = |report: &Report| report.durability.segments - report.durability.unplaced;
    assert!((30..=40).contains(&placed(&few)), "{} found holders where there is room for 40", placed(&few));
    assert_eq!(placed(&ample), 80);
    // Of the nodes that stay, each has two shards' room left.
    let scarce = with_room_for(30);
    assert_eq!(placed(&scarce), 80);
    assert!((40..=80).contains(&scarce.repair.shards_rebuilt), "{:?}", scarce.repair);
    assert!(ample.repair.shards_rebuilt > 250, "{:?}", ample.repair);
}

/// With 100 kbit/s a shard of 1.6 MiB takes 134 s.
#[test]
fn a_repair_takes_the_time_of_the_uplinks() {
    let shard_seconds = f64::from(16 << 20) / 10.0 * 8.0 / 100e3;
    // Minutes that a repair takes once the departure is noticed; it has some shards to send.
    let minutes = |uplinks: &str| {
        let rest = format!(
            "[[population]]\nname = \"a\"\nlifetime = {{ law = \"never\" }}\n{uplinks}\
             [[incident]]\nat = \"5 d\"\npopulation = \"a\"\nnodes = 60\n"
        );
        let repair = network(400, 200, "10/20", "10 d", &rest).repair;
        assert!(repair.urgent_hours.count > 50, "{repair:?}");
        (repair.urgent_hours.p50 - 12.0) * 60.0
    };
    let fast = minutes("upload = \"100 Mbit/s\"\n");
    assert!(fast < 0.2, "{fast} min");
    let slow = minutes("upload = \"100 kbit/s\"\n") * 60.0 / shard_seconds;
    assert!((3.0..=7.0).contains(&slow), "the time of {slow} shards");
    // A steward reads from all at once, and waits for the slowest.
    let few_are_slow = "share = 0.9\nupload = \"100 Mbit/s\"\n[[population]]\nname = \"b\"\nshare = 0.1\n\
        lifetime = { law = \"never\" }\nupload = \"100 kbit/s\"\n";
    let read = minutes(few_are_slow) * 60.0 / shard_seconds;
    assert!((0.9..1.5).contains(&read), "the time of {read} shards");
}

/// A night is from about 23:00 to 7:00 of each node's own zone; the moments of a run of 200 days are all at midnight UTC.
#[test]
fn each_sleeps_by_the_clock_of_its_zone() {
    let online = |zones: &str| {
        let rest = format!(
            "[[population]]\nname = \"a\"\nlifetime = {{ law = \"never\" }}\n\
             night = {{ asleep = \"8 h\", zones = {zones} }}\n"
        );
        network(200, 10, "4/8", "200 d", &rest)
    };
    for (zones, awake) in [("[0]", 0.0), ("[5]", 0.0), ("[-5]", 1.0), ("[8]", 1.0), ("[-8, 0]", 0.5)] {
        let share = online(zones).nodes_online;
        assert!((share - awake).abs() < 0.1, "{zones}: {share} are on at midnight in Greenwich");
    }
    // Where all sleep at once nothing can be read.
    let reads = |zones| online(zones).availability.value;
    assert!(reads("[0]") < 0.1 && reads("[-8, 0, 8]") > 0.8, "{} {}", reads("[0]"), reads("[-8, 0, 8]"));
}

/// Audits every five seconds, and a tenth of the nodes that lacks this part of each of its shards.
fn with_a_tenth_that_drops(lost: f64, answers: &str) -> String {
    format!(
        "[audit]\nevery = \"5 s\"\n[[population]]\nname = \"a\"\nshare = 0.9\nlifetime = {{ law = \"never\" }}\n\
         [[population]]\nname = \"b\"\nshare = 0.1\nlifetime = {{ law = \"never\" }}\n\
         cheat = {{ kind = \"drop\", lost = {lost:?}, answers = \"{answers}\" }}\n"
    )
}

/// Whoever leaves out what it lost is asked three times more before it has failed; who answers wrongly has failed at
/// once. Where shards are audited every few seconds, the former takes longer than the audits.
#[test]
fn a_wrong_answer_is_found_out_at_the_first_challenge_and_one_that_leaves_out_after_its_repeats() {
    let found_seconds = |answers: &str| {
        let rest = with_a_tenth_that_drops(1.0, answers);
        let found = network(2000, 1000, "10/20", "5 min", &rest).cheats.expect("there are some").found_days;
        assert!(found.count > 1500, "{found:?}");
        found.mean * 86_400.0
    };
    let repeats = contained_ms(Rate { every_ms: 5_000 }) as f64 / 1000.0;
    let (wrong, leaves_out) = (found_seconds("wrong"), found_seconds("what-it-has"));
    assert!(repeats > 5.0 && (3.0..8.0).contains(&wrong), "{repeats} s, {wrong} s");
    let apart = leaves_out - wrong;
    assert!((apart / repeats - 1.0).abs() < 0.1, "{apart} s later, and the repeats take {repeats} s");
}

/// A steward that has found something asks for all that it knows of. Who answers nothing has failed all of that, if it lacks a
/// part of any.
#[test]
fn one_that_answers_nothing_is_found_with_more_at_a_time_than_one_that_leaves_out() {
    let found_of_each = |answers: &str| {
        let rest = with_a_tenth_that_drops(0.05, answers);
        let mut few = scenario(12, 32, "3/6", "1 min", &rest);
        *few.runs.get_mut() = 100;
        let found = run(&few, 1).cheats.expect("there are some");
        f64::from(found.found as u32) / f64::from(found.nodes_found as u32)
    };
    let (nothing, leaves_out) = (found_of_each("nothing"), found_of_each("what-it-has"));
    assert!(nothing > 1.3 * leaves_out, "{nothing} and {leaves_out} shards of each");
}
