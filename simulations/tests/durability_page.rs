//! `docs/durability.md` is what `make durability` writes: where a change makes other figures, this fails until the page is
//! made anew. The scenarios here are those that take seconds; the rest of the page comes from the same code.

#[path = "../examples/durability/formulas.rs"]
mod formulas;
#[path = "../examples/durability/rows.rs"]
mod rows;

use std::{fs, path::Path};

use commonhold_protocol::Coding;
use commonhold_simulations::{Scenario, run};
use rayon::prelude::*;

/// Between them they have nights, sessions, incidents of both kinds, cheats, full disks, and a repair of fixed time.
const QUICK: [&str; 4] = ["campus", "full-disks", "cheats", "storj-churn"];

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/durability.md")).expect("it is there")
}

fn assert_has(page: &str, what: &str) {
    assert!(page.contains(what), "docs/durability.md is stale, make durability: it lacks\n{what}");
}

#[test]
fn the_page_has_what_the_scenarios_come_to() {
    let (page, folder) = (page(), Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios"));
    QUICK.par_iter().for_each(|name| {
        let scenario = Scenario::load(&folder.join(name).with_extension("toml")).expect("it ships");
        let report = run(&scenario, scenario.seed);
        assert_has(&page, &rows::loss(name, &report));
        assert_has(&page, &rows::cost(name, &report));
    });
}

#[test]
fn the_page_has_what_follows_from_formulas() {
    let page = page();
    for unfilled in ["SWEPT", "OLD_TRAFFIC", "OLD_LOST", "NEW_LOST", "AUDITS_OF_THE_FULL"] {
        assert!(!page.contains(unfilled), "{unfilled}");
    }
    assert_has(&page, &formulas::borders().expect("it can be written"));
    assert_has(&page, &formulas::audits_and_choices().expect("it can be written"));
    let full = formulas::audits_of_the_full(Coding::new(20, 40).expect("a coding"));
    assert_has(&page, &format!("{full:.2} bytes for each byte stored and month at 20/40"));
}
