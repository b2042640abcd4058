//! The settings that policy chooses are marked in a sweep, and no others are better in all that they cost.

use std::path::Path;

use commonhold_simulations::{Scenario, sweep};

/// Grace times and audit rates, in the network that ships, made smaller.
#[test]
fn policy_s_grace_time_and_audit_rate_are_on_the_frontier() {
    let text = std::fs::read_to_string("scenarios/grace-and-audits.toml").expect("it ships");
    let small = text.replace("nodes = 1000", "nodes = 400").replace("segments = 2000", "segments = 800");
    assert!(small != text);
    let scenario = Scenario::parse(&small, Path::new("small.toml"), Path::new(".")).expect("a good scenario");
    let points = sweep::run(&scenario, 1).expect("a sweep");
    assert_eq!(points.len(), 9);
    for row in sweep::table(&points) {
        println!("{}", row.join("  "));
    }
    let default: Vec<&sweep::Point> = points.iter().filter(|point| point.is_default).collect();
    let [default] = default.as_slice() else { panic!("{} points are marked", default.len()) };
    assert_eq!((default.report.settings.grace_hours, default.report.settings.audit_days), (12.0, 7.0));
    assert!(default.on_frontier, "{}", default.label);
    let rare = points.iter().find(|point| point.label.ends_with("grace 12 h audits 30 d")).expect("it was swept");
    let losses = |point: &sweep::Point| point.report.durability.found.per_year;
    assert!(losses(rare) > 10.0 * losses(default), "what no audit finds is as if it were there");
}
