//! The settings that policy chooses are marked in a sweep, and no others are better in all that they cost.

use std::path::Path;

use commonhold_simulations::{
    Scenario,
    sweep::{self, Point},
};

/// The points of a scenario that ships, made smaller, and policy's own among them.
fn swept(name: &str, smaller: &[(&str, &str)]) -> (Vec<Point>, Point) {
    let mut text = std::fs::read_to_string(format!("scenarios/{name}.toml")).expect("it ships");
    for (shipped, small) in smaller {
        assert!(text.contains(shipped), "{shipped}");
        text = text.replace(shipped, small);
    }
    let scenario = Scenario::parse(&text, Path::new("small.toml"), Path::new(".")).expect("a good scenario");
    let seed = std::env::var("SWEEP_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let points = sweep::run(&scenario, seed).expect("a sweep");
    for row in sweep::table(&points) {
        println!("{}", row.join("  "));
    }
    let default: Vec<&Point> = points.iter().filter(|point| point.is_default).collect();
    let [default] = default.as_slice() else { panic!("{} points are marked", default.len()) };
    let default = (*default).clone();
    (points, default)
}

#[test]
fn policy_s_coding_threshold_and_top_up_are_on_the_frontier() {
    let (points, default) = swept(
        "home-volunteers",
        &[("nodes = 2000", "nodes = 800"), ("segments = 4000", "segments = 2000"), ("runs = 10", "runs = 6")],
    );
    assert_eq!(points.len(), 48);
    let settings = &default.report.settings;
    assert_eq!((settings.k, settings.n, settings.threshold, settings.top_up_days), (20, 40, 35, 60.0));
    assert!(default.on_frontier, "{}", default.label);
    // Not that all are: a frontier of everything says nothing.
    let off = points.iter().filter(|point| !point.on_frontier).count();
    assert!(off > points.len() / 4, "{off} of {} are off it", points.len());
}

/// Volunteers some of whom lack a part of what they hold, and a third of whom is cut off for hours now and then.
#[test]
fn policy_s_grace_time_and_audit_rate_with_its_coding_and_threshold_are_on_the_frontier() {
    let (points, default) = swept(
        "grace-and-audits",
        &[("nodes = 1000", "nodes = 400"), ("segments = 2000", "segments = 800"), ("runs = 8", "runs = 12")],
    );
    assert_eq!(points.len(), 36);
    let settings = &default.report.settings;
    assert_eq!((settings.k, settings.n, settings.threshold), (20, 40, 35));
    assert_eq!((settings.grace_hours, settings.audit_days), (12.0, 7.0));
    assert!(default.on_frontier, "{}", default.label);
    let rare = points.iter().find(|point| point.label == "20/40/35 grace 12 h audits 30 d").expect("it was swept");
    let losses = |point: &Point| point.report.durability.found.per_year;
    assert!(losses(rare) > 2.0 * losses(&default), "what no audit finds is as if it were there");
}
