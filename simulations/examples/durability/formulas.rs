//! What the page has from formulas alone. `tests/durability_page.rs` holds the page to them.

use std::fmt::Write as _;

use commonhold_policy::{
    audit::{
        detection::detection_chance,
        schedule::{Rate, proven_group_bytes},
    },
    parameters,
    placement::CANDIDATES,
};
use commonhold_protocol::{Coding, manifest::SEGMENT_BYTES_MAX};
use commonhold_simulations::chain::binomial_tail;

/// A border is where so many of all segments are lost at once.
const BORDER: f64 = 1e-6;
const CODINGS: [(u8, u8); 3] = [(7, 14), (10, 20), (20, 40)];
const MONTH_MS: f64 = 30.0 * 86_400_000.0;

/// From which part of the nodes on those that are one in truth are a danger.
pub(crate) fn borders() -> Result<String, std::fmt::Error> {
    let mut page =
        String::from("| part of the nodes that is one in truth | 7/14 | 10/20 | 20/40 |\n|---|---|---|---|\n");
    for part in [0.05, 0.1, 0.2, 0.3, 0.4, 0.5] {
        let [a, b, c] = CODINGS.map(|(k, n)| binomial_tail(n, n - k + 1, part));
        writeln!(page, "| {:.0}% | {a:.1e} | {b:.1e} | {c:.1e} |", part * 100.0)?;
    }
    let [a, b, c] = CODINGS.map(|(k, n)| border(|part| binomial_tail(n, n - k + 1, part)));
    writeln!(page, "| **border: one of a million from** | **{a:.1}%** | **{b:.1}%** | **{c:.1}%** |")?;
    // Of the candidates fewer than k are others.
    let [a, b, c] = CODINGS.map(|(k, _)| border(|part| binomial_tail(CANDIDATES, CANDIDATES - k + 1, part)));
    writeln!(page, "| the same, if all of them are in one domain | {a:.1}% | {b:.1}% | {c:.1}% |")?;
    Ok(page)
}

/// From which percentage of the nodes on more than [`BORDER`] is lost.
fn border(lost: impl Fn(f64) -> f64) -> f64 {
    let tenths = (1..1000).find(|tenths| lost(f64::from(*tenths) / 1000.0) > BORDER);
    f64::from(tenths.unwrap_or(1000)) / 10.0
}

/// What audits find, and what policy chooses.
pub(crate) fn audits_and_choices() -> Result<String, std::fmt::Error> {
    let mut page = String::from("Audits of c chunk groups find a holder that lost the part f with 1 - (1 - f)^c:\n\n");
    writeln!(page, "| lost | 100 groups | 300 | 460 | groups for 99% |\n|---|---|---|---|---|")?;
    for lost in [0.001, 0.01, 0.05, 0.1, 0.5] {
        let [a, b, c] = [100, 300, 460].map(|groups| detection_chance(lost, groups) * 100.0);
        let needed = (1..).find(|groups| detection_chance(lost, *groups) >= 0.99).unwrap_or_default();
        writeln!(page, "| {:.1}% | {a:.1}% | {b:.1}% | {c:.1}% | {needed} |", lost * 100.0)?;
    }
    let choices = [4, 8, 12, 20, 54].map(|nodes| {
        parameters::choose(None, nodes)
            .map_or_else(|error| error.to_string(), |coding| format!("{nodes} nodes: {coding}"))
    });
    writeln!(
        page,
        "\nWhat policy chooses where nothing is pinned: {}, and 20/40 for all that are more.",
        choices.join(", ")
    )?;
    Ok(page)
}

/// What the audits of one that holds so much that it is asked for one group of each shard move, in bytes for each byte
/// stored and month.
pub(crate) fn audits_of_the_full(coding: Coding) -> f64 {
    let shard = coding.shard_length(SEGMENT_BYTES_MAX);
    let audits = MONTH_MS / Rate::default().every_ms as f64;
    let space = f64::from(coding.n()) / f64::from(coding.k());
    space * audits * proven_group_bytes(shard) as f64 / shard as f64
}
