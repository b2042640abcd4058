//! `prune`: gives back the space of segments in which nothing is used any more.

use std::sync::Arc;

use commonhold_client_sdk::{Progress, PruneOptions, PruneReport};

use crate::{args, exit::Failure, figures, interrupt, output::Output, reporter::Reporter};

pub(super) fn run(args: &args::Prune, output: &Output) -> Result<(), Failure> {
    let vault = super::open(&args.entry)?;
    let progress = Arc::new(Progress::default());
    interrupt::interrupts(&progress).map_err(Failure::Signals)?;
    let reporter = Reporter::start(output, "prune", &progress);
    let pruned = vault.prune(&PruneOptions { dry_run: args.dry_run }, &progress);
    drop(reporter);
    let report = pruned?;
    if args.dry_run {
        // What was asked for are facts.
        output.facts(&report, || lines(&report))?;
    } else {
        output.done(&report, || lines(&report))?;
    }
    if let Some(commit) = &report.commit {
        super::remark_on_commit(output, commit);
    }
    if report.unheard > 0 {
        output.warning(&format!(
            "no node has heard yet that {} dropped; the next prune tells them again",
            match report.unheard {
                1 => "1 segment is".to_owned(),
                unheard => format!("{} segments are", figures::grouped(unheard)),
            }
        ));
    }
    Ok(())
}

fn lines(report: &PruneReport) -> Vec<String> {
    let mut lines = vec![match (report.segments, report.dry_run) {
        (0, _) => "nothing to give back: every segment is used".to_owned(),
        (segments, dry_run) => format!(
            "{} with {} of data {}: {} on the disks of the nodes that hold them",
            figures::count(segments, "segment", "segments"),
            figures::size(report.segment_bytes),
            if dry_run { "would be given back" } else { "given back" },
            figures::size(report.shard_bytes),
        ),
    }];
    if report.segments > 0 && !report.dry_run {
        lines.push(
            "nodes keep what was dropped for a while (7 days if they set nothing else), then it is gone".to_owned(),
        );
    }
    if report.repeated > 0 {
        let segments = figures::count(report.repeated, "segment", "segments");
        lines.push(format!("{segments} of earlier prunes: nodes were told again, in case they were away"));
    }
    if report.partly_used > 0 {
        lines.push(format!(
            "{} unused in {} of which other parts are used: they stay, since segments are not rewritten yet",
            figures::size(report.bytes_left_dead),
            figures::count(report.partly_used, "segment", "segments"),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> PruneReport {
        PruneReport {
            dry_run: false,
            segments: 0,
            segment_bytes: 0,
            shard_bytes: 0,
            partly_used: 0,
            bytes_left_dead: 0,
            repeated: 0,
            unheard: 0,
            commit: None,
        }
    }

    #[test]
    fn what_was_done_is_told_in_plain_words() {
        assert_eq!(lines(&report()), ["nothing to give back: every segment is used"]);
        let some = PruneReport { segments: 3, segment_bytes: 24 << 20, shard_bytes: 48 << 20, ..report() };
        assert_eq!(
            lines(&some),
            [
                "3 segments with 24.0 MiB of data given back: 48.0 MiB on the disks of the nodes that hold them",
                "nodes keep what was dropped for a while (7 days if they set nothing else), then it is gone",
            ]
        );
        let dry = PruneReport { dry_run: true, segments: 1, partly_used: 2, bytes_left_dead: 1 << 20, ..some };
        assert_eq!(
            lines(&dry),
            [
                "1 segment with 24.0 MiB of data would be given back: 48.0 MiB on the disks of the nodes that hold them",
                "1.0 MiB unused in 2 segments of which other parts are used: they stay, since segments are not rewritten yet",
            ]
        );
        let again = PruneReport { repeated: 5, ..report() };
        assert_eq!(lines(&again)[1], "5 segments of earlier prunes: nodes were told again, in case they were away");
    }
}
