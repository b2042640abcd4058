//! `status`: what the vault is, how much is in it, and how well it is kept.

use commonhold_client_sdk::{Degraded, Outlook, VaultStatus};

use crate::{
    args,
    exit::Failure,
    figures,
    output::{Output, columns},
};

pub(super) fn run(args: &args::Status, output: &Output) -> Result<(), Failure> {
    let vault = super::open(&args.entry)?;
    let status = vault.status()?;
    output.facts(&status, || lines(&status))
}

fn date(ms: u64) -> String {
    figures::date(i64::try_from(ms / 1000).unwrap_or(i64::MAX))
}

fn lines(status: &VaultStatus) -> Vec<String> {
    let or_nothing = |ms: Option<u64>| ms.map_or_else(|| "nothing is stored yet".to_owned(), date);
    let rows = [
        ("vault", status.vault.clone()),
        ("network", status.network.clone()),
        (
            "nodes",
            format!("{} answer, with {} free", figures::grouped(status.nodes as u64), figures::size(status.free_bytes)),
        ),
        (
            "stored",
            format!(
                "{} with {} in all",
                figures::count(status.segments, "segment", "segments"),
                figures::size(status.segment_bytes)
            ),
        ),
        ("coding", status.coding.clone().unwrap_or_else(|| "chosen by the size of the network".to_owned())),
        ("last change", or_nothing(status.written_at_ms)),
        (
            "changes",
            format!(
                "{} by {}",
                figures::grouped(status.heads_written),
                figures::count(status.devices as u64, "device", "devices")
            ),
        ),
    ];
    let kept = [("kept until", or_nothing(status.kept_until_ms))];
    let kept = kept_well(&status.outlook, status.segments).into_iter().chain(kept);
    let rows: Vec<Vec<String>> =
        rows.into_iter().chain(kept).map(|(name, value)| vec![format!("{name}:"), value]).collect();
    columns(&rows, &[])
}

/// How well the files are kept, in plain words, and what is not known.
fn kept_well(outlook: &Outlook, segments: u64) -> Vec<(&'static str, String)> {
    if segments == 0 {
        return Vec::new();
    }
    let of = |count: u64| figures::count(count, "segment", "segments");
    let mut rows = Vec::new();
    let losses = |losses: u8| match losses {
        0 => "every file is there, and the next loss may be one too many".to_owned(),
        1 => "every file survives any 1 more loss".to_owned(),
        losses => format!("every file survives any {losses} more losses"),
    };
    rows.extend(outlook.losses_survived.map(|survived| ("safety", losses(survived))));
    if outlook.segments_unreadable > 0 {
        let count = of(outlook.segments_unreadable);
        rows.push(("danger", format!("{count} cannot be read unless lost nodes come back: see `commonhold segments`")));
    }
    if outlook.segments_unproven > 0 {
        let count = of(outlook.segments_unproven);
        rows.push((
            "not proven",
            format!("{count}: the stewards have yet to audit enough of the shards that are claimed"),
        ));
    }
    if outlook.segments_unknown > 0 {
        rows.push(("not known", format!("{}: no steward answers", of(outlook.segments_unknown))));
    }
    if let Some(Degraded { have, n, segments }) = outlook.degraded {
        let others = if segments > 1 { format!(" ({} in all)", of(segments)) } else { String::new() };
        rows.push(("strength", format!("degraded: {have} of {n}, no more nodes{others}")));
    } else if outlook.segments_lacking > 0 {
        let (lacking, repairing) = (of(outlook.segments_lacking), outlook.segments_repairing);
        rows.push(("strength", format!("{lacking} below full strength, {repairing} being repaired")));
    } else if outlook.segments_unknown < segments {
        rows.push(("strength", "no shard is missing".to_owned()));
    }
    let never = || "no steward knows of a repair".to_owned();
    rows.push(("last repaired", outlook.repaired_at_ms.map_or_else(never, date)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outlook: &Outlook) -> Vec<String> {
        kept_well(outlook, 9).into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn it_says_what_the_files_survive() {
        let whole = Outlook { losses_survived: Some(7), repaired_at_ms: Some(1_770_091_506_000), ..Outlook::default() };
        assert_eq!(
            said(&whole),
            [
                "safety: every file survives any 7 more losses",
                "strength: no shard is missing",
                "last repaired: 2026-02-03 04:05:06 UTC"
            ]
        );
        let degraded = Degraded { have: 15, n: 20, segments: 3 };
        let resting =
            Outlook { losses_survived: Some(1), segments_lacking: 3, degraded: Some(degraded), ..Outlook::default() };
        assert_eq!(
            said(&resting)[..2],
            [
                "safety: every file survives any 1 more loss",
                "strength: degraded: 15 of 20, no more nodes (3 segments in all)"
            ]
        );
        assert!(kept_well(&Outlook::default(), 0).is_empty(), "of an empty vault there is nothing to say");
    }

    #[test]
    fn it_says_what_it_does_not_know() {
        let partly = Outlook { segments_unknown: 2, ..Outlook::default() };
        assert_eq!(said(&partly)[0], "not known: 2 segments: no steward answers");
        let nothing = Outlook { segments_unknown: 9, ..Outlook::default() };
        assert_eq!(
            said(&nothing),
            ["not known: 9 segments: no steward answers", "last repaired: no steward knows of a repair"]
        );
    }

    #[test]
    fn it_promises_nothing_that_is_not_proven() {
        let outlook =
            Outlook { segments_unproven: 1, segments_unreadable: 2, segments_lacking: 2, ..Outlook::default() };
        let said = said(&outlook);
        assert!(said[0].starts_with("danger: 2 segments cannot be read"), "{said:?}");
        assert!(said[1].starts_with("not proven: 1 segment:"), "{said:?}");
        assert_eq!(said[2], "strength: 2 segments below full strength, 0 being repaired");
    }
}
