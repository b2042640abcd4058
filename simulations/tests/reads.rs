//! How far the share of reads that work can be trusted.

use std::path::Path;

use commonhold_simulations::{Scenario, confidence::share_interval, report::Estimate, run};

/// Twenty nodes that are on for half of the time, days on end, and hold all segments between them: at one moment most can
/// be read, at another few.
fn scenario(runs: u32) -> Scenario {
    let text = format!(
        "name = \"n\"\nsource = \"assumed\"\nduration = \"100 d\"\nruns = {runs}\n[network]\nnodes = 20\n\
         segments = 100\ncoding = \"4/6\"\n[audit]\ngrace = \"1 year\"\n[[population]]\nname = \"a\"\n\
         lifetime = {{ law = \"never\" }}\nonline = {{ law = \"exponential\", mean = \"2 d\" }}\n\
         offline = {{ law = \"exponential\", mean = \"2 d\" }}\n"
    );
    Scenario::parse(&text, Path::new("n.toml"), Path::new(".")).expect("a good scenario")
}

/// Reads of one moment are no independent ones. They were taken as such where nothing was lost, and four of five intervals
/// did not hold what many runs found.
#[test]
fn nine_of_ten_intervals_and_more_hold_what_many_runs_find() {
    const SEEDS: u64 = 200;
    for runs in [1, 2, 10] {
        let scenario = scenario(runs);
        let found: Vec<Estimate> = (0..SEEDS)
            .map(|seed| {
                let report = run(&scenario, seed);
                assert_eq!(report.durability.lost, 0);
                report.availability
            })
            .collect();
        let truth = found.iter().map(|estimate| estimate.value).sum::<f64>() / SEEDS as f64;
        let holding = |low: f64, high: f64| (low..=high).contains(&truth);
        let held = found.iter().filter(|estimate| holding(estimate.low, estimate.high)).count();
        let independent = found.iter().filter(|estimate| {
            let reads = f64::from(runs) * 200.0 * 100.0;
            let (low, high) = share_interval(estimate.value * reads, reads);
            holding(low, high)
        });
        let independent = independent.count();
        println!("{runs} runs: {truth:.4}, {held} of {SEEDS} hold it; {independent} would if reads were independent");
        assert!(held >= 175, "{held} of {SEEDS} hold {truth}, {runs} runs");
        assert!(independent < 80, "{independent} of {SEEDS}: here reads are independent, which says nothing");
    }
}
