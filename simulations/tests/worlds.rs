//! What a simulated network does: each claim a scenario in which it could fail.

use std::path::Path;

use commonhold_simulations::{Report, Scenario, run};

fn network(nodes: u32, segments: u32, coding: &str, days: u32, rest: &str) -> Report {
    report(nodes, segments, coding, days, rest, 1)
}

fn report(nodes: u32, segments: u32, coding: &str, days: u32, rest: &str, seed: u64) -> Report {
    let text = format!(
        "name = \"n\"\nsource = \"assumed\"\nduration = \"{days} d\"\nruns = 2\n[network]\nnodes = {nodes}\n\
         segments = {segments}\ncoding = \"{coding}\"\n{rest}"
    );
    run(&Scenario::parse(&text, Path::new("n.toml"), Path::new(".")).expect("a good scenario"), seed)
}

const CHURN: &str = "[[population]]\nname = \"a\"\nlifetime = { law = \"exponential\", mean = \"90 d\" }\n\
    online = { law = \"exponential\", mean = \"8 h\" }\noffline = { law = \"exponential\", mean = \"4 h\" }\n";

#[test]
fn the_same_seed_gives_the_same_bytes_however_many_cores() {
    let bytes = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| serde_json::to_string(&report(100, 100, "7/14", 60, CHURN, seed)).expect("JSON"))
    };
    let one = bytes(1, 1);
    assert_eq!(one, bytes(3, 1));
    assert_ne!(one, bytes(1, 2));
}

/// Each statement of a source begins with its mark, as in "seen as an abstract: ...; assumed: ...".
#[test]
fn all_that_ships_can_be_read_and_marks_each_statement_of_its_source() {
    let mut count = 0;
    for entry in std::fs::read_dir("scenarios").expect("the scenarios") {
        let path = entry.expect("an entry").path();
        let scenario = Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"));
        for statement in scenario.source.split(';').map(str::trim) {
            let (mark, said) = statement.split_once(": ").unwrap_or_default();
            let mark = mark.split(' ').next().unwrap_or_default();
            let is_marked = ["seen", "remembered", "computed", "assumed"].contains(&mark);
            assert!(is_marked && !said.is_empty(), "{path:?}: {statement:?}");
        }
        count += 1;
    }
    assert!(count >= 8);
}

/// Were a night longer than the grace time a loss each day, every node would be rebuilt thirty times a month.
#[test]
fn sleepers_are_given_up_once_at_most() {
    let rest = "[audit]\ngrace = \"6 h\"\n[[population]]\nname = \"a\"\nlifetime = { law = \"never\" }\n\
        night = { asleep = \"8 h\" }\n";
    let report = network(60, 50, "7/14", 60, rest);
    let nodes = 2 * 60;
    assert!((1..=nodes).contains(&report.repair.given_up_wrongly), "{:?}", report.repair);
    assert!((report.nodes_online - 2.0 / 3.0).abs() < 0.05, "{}", report.nodes_online);
}

/// An outage shorter than the grace time makes data unreadable for its time, and costs no repair.
#[test]
fn a_region_that_is_off_for_less_than_the_grace_time_costs_nothing() {
    let rest = "[[population]]\nname = \"a\"\nlifetime = { law = \"never\" }\nregions = [\"x\", \"y\"]\n\
        [[incident]]\nat = \"5 d\"\nregion = \"x\"\nlasts = \"LASTS\"\n";
    let short = network(200, 100, "10/14", 20, &rest.replace("LASTS", "11 h"));
    assert_eq!((short.repair.repairs, short.durability.lost), (0, 0));
    assert!(short.availability.value < 1.0);
    let long = network(200, 100, "10/14", 20, &rest.replace("LASTS", "3 d"));
    assert!(long.repair.given_up_wrongly > 0, "{:?}", long.repair);
    assert_eq!(long.durability.lost, 0, "the disks are still there");
}

/// Holders that store nothing and fetch on demand pass every audit: the border is where fewer than k others are left.
#[test]
fn fetching_on_demand_is_not_found_and_loses_data_beyond_its_border() {
    let rest = |share: f64| {
        format!(
            "[[population]]\nname = \"a\"\nshare = {}\nlifetime = {{ law = \"never\" }}\n[[population]]\nname = \"b\"\n\
             share = {share}\nlifetime = {{ law = \"never\" }}\ncheat = {{ kind = \"fetch-on-demand\" }}\n",
            1.0 - share
        )
    };
    let few = network(400, 300, "10/20", 60, &rest(0.1));
    assert_eq!((few.durability.lost, few.cheats.map(|cheats| cheats.found)), (0, Some(0)));
    let half = network(400, 300, "10/20", 60, &rest(0.6));
    assert!(half.durability.counted.value > 0.5, "{:?}", half.durability);
}

/// What drops its shards is found by audits within about a week each, and rebuilt elsewhere.
#[test]
fn dropped_shards_are_found_and_rebuilt() {
    let rest = "[[population]]\nname = \"a\"\nshare = 0.9\nlifetime = { law = \"never\" }\n[[population]]\nname = \"b\"\n\
        share = 0.1\nlifetime = { law = \"never\" }\ncheat = { kind = \"drop\", lost = 1.0 }\n";
    let report = network(300, 200, "10/20", 60, rest);
    let cheats = report.cheats.expect("there are some");
    assert!(cheats.found > 500 && (5.0..9.0).contains(&cheats.found_days.mean), "{cheats:?}");
    assert!(report.repair.shards_rebuilt > 300 && report.durability.lost == 0, "{:?}", report.repair);
}

/// A fifth of all nodes goes at once: no segment is lost, and how likely each was to be is told.
#[test]
fn what_strikes_many_is_expected_to_lose_what_chance_says_though_nothing_was_lost() {
    let rest =
        "[[population]]\nname = \"a\"\nlifetime = { law = \"never\" }\n[[incident]]\nat = \"5 d\"\nshare = 0.2\n";
    let found = network(2000, 200, "10/20", 10, rest).durability;
    let expected = commonhold_simulations::chain::binomial_tail(20, 11, 0.2) * 365.25 / 10.0;
    assert!(found.lost == 0 && found.found.is_extrapolation(), "{found:?}");
    let told = found.at_once.value;
    assert!((0.5..2.0).contains(&(told / expected)), "{told} against {expected}");
}

/// A steward that is to repair much waits for its budget, and its repairs for each other.
#[test]
fn repairs_wait_for_their_stewards_budgets() {
    let hours = |rate: &str| {
        let rest = format!(
            "[repair]\nrate = \"{rate}\"\n[[population]]\nname = \"a\"\nlifetime = {{ law = \"never\" }}\n\
             [[incident]]\nat = \"5 d\"\nshare = 0.2\n"
        );
        network(200, 2000, "10/20", 10, &rest)
    };
    let (ample, scarce) = (hours("80 Mbit/s"), hours("100 kbit/s"));
    let waited = |report: &Report| report.repair.thin_hours.p95 - report.settings.grace_hours;
    // Of all that was moved, each of 200 stewards moved its part.
    let bytes = scarce.repair.bytes as f64 / f64::from(scarce.runs) / 200.0;
    let expected = bytes / 12_500.0 / 3600.0;
    assert!((0.5..2.0).contains(&(waited(&scarce) / expected)), "{} h, {expected} h", waited(&scarce));
    assert!(waited(&ample) < 0.5, "{} h", waited(&ample));
}

/// From the departure that brings a segment down to its threshold: the grace time, and then the repair. What is above the
/// threshold waits for its top-up.
#[test]
fn what_is_urgent_is_repaired_once_the_departure_is_noticed() {
    let rest = "threshold = 10\n[audit]\ngrace = \"12 h\"\n[repair]\ntop-up = \"20 d\"\n\
        time = { law = \"fixed\", value = \"3 h\" }\n[[population]]\nname = \"a\"\n\
        lifetime = { law = \"exponential\", mean = \"60 d\" }\n";
    let repair = network(1000, 500, "7/14", 120, rest).repair;
    let (urgent, thin) = (repair.urgent_hours, repair.thin_hours);
    assert!(urgent.count > 300 && urgent.count < thin.count, "{urgent:?}");
    assert!((14.9..15.1).contains(&urgent.p50) && (14.0..15.1).contains(&urgent.mean), "{urgent:?}");
    assert!(urgent.p99 < 15.1 && thin.p50 > 100.0, "{urgent:?} {thin:?}");
}

/// In a small network a steward knows enough shards of a cheat to trust it with nothing more; in a large one it audits
/// one of them now and then.
#[test]
fn who_fails_audits_is_given_nothing_more() {
    let rest = "[repair]\ntop-up = \"1 d\"\n[[population]]\nname = \"a\"\nshare = 0.9\nlifetime = { law = \"never\" }\n\
        [[population]]\nname = \"b\"\nshare = 0.1\nlifetime = { law = \"never\" }\n\
        cheat = { kind = \"drop\", lost = 0.5 }\n";
    let whole = |report: &Report| {
        let all: u64 = report.alive_at_end.iter().map(|(_, segments)| segments).sum();
        report.alive_at_end.iter().find(|(alive, _)| *alive == 10).map_or(0.0, |(_, whole)| *whole as f64 / all as f64)
    };
    let small = network(60, 600, "5/10", 90, rest);
    let disqualified = small.cheats.expect("there are some").disqualified;
    // Two runs, six cheats, 59 stewards.
    assert!((300..=720).contains(&disqualified), "{disqualified}");
    assert!(whole(&small) > 0.99, "{:?}", small.alive_at_end);
    let large = network(3000, 600, "5/10", 90, rest);
    assert_eq!(large.cheats.map(|cheats| cheats.disqualified), Some(0));
}

/// A repair is done by the first of eight stewards that is on: where most are off, it begins later, and it is done.
#[test]
fn a_steward_that_is_off_is_followed_by_the_next() {
    let rest = |off: &str| {
        format!(
            "[audit]\ngrace = \"5 d\"\n[[population]]\nname = \"a\"\nlifetime = {{ law = \"never\" }}\n\
             online = {{ law = \"fixed\", value = \"1 d\" }}\noffline = {{ law = \"fixed\", value = \"{off}\" }}\n\
             [[incident]]\nat = \"10 d\"\nshare = 0.3\n"
        )
    };
    let minutes = |off| {
        let report = network(400, 200, "3/10", 30, &rest(off));
        (report.repair.thin_hours.p50 - report.settings.grace_hours) * 60.0
    };
    // A back-off of ten minutes for each that is off.
    let (seldom, often) = (minutes("1 h"), minutes("2 d"));
    assert!(seldom < 5.0 && (5.0..60.0).contains(&often), "{seldom} min, {often} min");
}

/// With fewer nodes than n a segment rests at what can be had, and is not repaired again and again.
#[test]
fn without_room_a_segment_rests() {
    let rest = "[[population]]\nname = \"a\"\nlifetime = { law = \"never\" }\n[[incident]]\nat = \"5 d\"\nshare = 0.2\n\
        lasts = \"10 d\"\n";
    let report = network(15, 40, "7/14", 14, rest);
    assert!(report.repair.failed == 0, "{:?}", report.repair);
    assert!(report.repair.repairs < 200, "{:?}", report.repair);
}

#[test]
fn the_page_is_whole_and_needs_nothing_else() {
    let page = network(100, 50, "7/14", 30, CHURN).html().expect("a page");
    assert!(page.matches("<svg").count() == 4 && page.ends_with("</html>\n"));
    for elsewhere in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
}
