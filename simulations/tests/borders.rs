//! The border that audits cannot push: holders that are one in truth, on one disk or in one domain, and holders that
//! store nothing and fetch on demand. From which part of the nodes on is data lost, and what is seen of it before?

use std::path::Path;

use commonhold_policy::placement::CANDIDATES;
use commonhold_simulations::{Report, Scenario, chain::binomial_tail, run};

const NODES: u32 = 2_000;
const SEGMENTS: u32 = 4_000;

/// A network in which the part `share` of the nodes is of a second population, with `more` said of it, and `rest` of all.
fn network(coding: &str, share: f64, more: &str, rest: &str) -> Report {
    let text = format!(
        "name = \"n\"\nsource = \"assumed\"\nduration = \"30 d\"\n[network]\nnodes = {NODES}\nsegments = {SEGMENTS}\n\
         coding = \"{coding}\"\n[[population]]\nname = \"honest\"\nshare = {}\nlifetime = {{ law = \"never\" }}\n\
         [[population]]\nname = \"one in truth\"\nshare = {share}\nlifetime = {{ law = \"never\" }}\n{more}\n{rest}",
        1.0 - share
    );
    run(&Scenario::parse(&text, Path::new("n.toml"), Path::new(".")).expect("a good scenario"), 3)
}

const CODINGS: [(&str, u8, u8); 2] = [("10/20", 10, 20), ("20/40", 20, 40)];
/// Below the border, about at it, and beyond.
const SHARES: [f64; 4] = [0.05, 0.3, 0.45, 0.6];

/// More than n - k of a segment's shards are theirs: as likely as the binomial says, since placement does not know them.
fn assert_lost_as_by_chance(report: &Report, k: u8, n: u8, share: f64) {
    let expected = binomial_tail(n, n - k + 1, share);
    let error = (expected * (1.0 - expected) / f64::from(SEGMENTS)).sqrt();
    let found = report.durability.counted.value;
    println!("{k}/{n}, {share}: {found:.5} against {expected:.5}");
    // Without replacement there are a little fewer at the ends than the binomial has.
    assert!((found - expected).abs() < 4.0 * error + 0.03 * expected, "{k}/{n}, {share}: {found} against {expected}");
}

#[test]
fn who_fetches_on_demand_is_never_found_and_data_is_lost_where_too_few_others_are_left() {
    for (coding, k, n) in CODINGS {
        for share in SHARES {
            let report = network(coding, share, "cheat = { kind = \"fetch-on-demand\" }", "");
            assert_eq!(report.cheats.map(|cheats| cheats.found), Some(0), "{coding}, {share}");
            assert_lost_as_by_chance(&report, k, n, share);
        }
    }
}

const GOES: &str = "[[incident]]\nat = \"5 d\"\npopulation = \"one in truth\"\n";

#[test]
fn nodes_on_one_disk_in_many_domains_take_with_them_what_chance_gave_them() {
    for (coding, k, n) in CODINGS {
        for share in SHARES {
            let report = network(coding, share, "one-disk = true\nper-operator = 2000", GOES);
            assert_lost_as_by_chance(&report, k, n, share);
        }
    }
}

/// Nodes of one domain get one shard of each segment while others enough are among the candidates.
#[test]
fn nodes_in_one_domain_get_one_shard_of_each_segment_while_there_are_others() {
    let k = 10;
    for share in [0.6, 0.85, 0.9, 0.93] {
        let report = network("10/20", share, "per-domain = 2000", GOES);
        // Fewer than k others are found.
        let expected = binomial_tail(CANDIDATES, CANDIDATES - k + 1, share);
        let error = (expected * (1.0 - expected) / f64::from(SEGMENTS)).sqrt();
        let found = report.durability.counted.value;
        println!("one domain, {share}: {found:.5} against {expected:.5}");
        assert!((found - expected).abs() < 4.0 * error + 0.05 * expected, "{share}: {found} against {expected}");
    }
}
