//! `segments [PATH]`: the segments that hold a path, and how many of their shards are well, as their stewards say.

use commonhold_client_sdk::SegmentHealth;
use serde::Serialize;

use crate::{
    args,
    exit::Failure,
    figures,
    output::{Output, columns},
};

#[derive(Serialize)]
struct Segments {
    segments: Vec<SegmentHealth>,
}

pub(super) fn run(args: &args::Segments, output: &Output) -> Result<(), Failure> {
    let path = args.path.as_ref().map(|path| super::vault_path(path)).transpose()?;
    let vault = super::open(&args.entry)?;
    let segments = vault.segments(path.as_ref())?;
    if output.is_json() {
        return output.json(&Segments { segments });
    }
    let head = ["SEGMENT", "LENGTH", "CODE", "HEALTHY", "SUSPECT", "LOST", "STEWARDS", "STATE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(segments.iter().map(row));
    columns(&rows, &[1, 4, 5, 6]).iter().try_for_each(|line| output.line(line))?;
    let count = |is: fn(&SegmentHealth) -> bool| segments.iter().filter(|segment| is(segment)).count();
    output.remark(&format!(
        "{}, {} below full strength, {} unreadable, {} not known",
        figures::count(segments.len() as u64, "segment", "segments"),
        count(|segment| segment.lost > 0),
        count(|segment| segment.stewards > 0 && left(segment) < segment.k),
        count(|segment| segment.stewards == 0),
    ));
    let disagreed = count(|segment| segment.disagreeing > 0);
    if disagreed > 0 {
        output.remark(&format!(
            "stewards disagree about {}: the report in the middle is shown",
            figures::count(disagreed as u64, "segment", "segments")
        ));
    }
    Ok(())
}

fn row(segment: &SegmentHealth) -> Vec<String> {
    let known = |count: u8| if segment.stewards > 0 { count.to_string() } else { "-".to_owned() };
    vec![
        figures::short_id(&segment.id).to_owned(),
        figures::size(segment.length),
        format!("{}/{}", segment.k, segment.n),
        format!("{} of {}", known(segment.healthy), segment.n),
        known(segment.suspect),
        known(segment.lost),
        segment.stewards.to_string(),
        state(segment),
    ]
}

/// Shards that are there, or may be.
fn left(segment: &SegmentHealth) -> u8 {
    segment.healthy.saturating_add(segment.suspect)
}

/// In words: how many more holders may go before the segment cannot be read, and what is done about it.
fn state(segment: &SegmentHealth) -> String {
    let &SegmentHealth { k, healthy, suspect, lost, stewards, repairing, resting, .. } = segment;
    if stewards == 0 {
        return "not known: no steward answers".to_owned();
    }
    if left(segment) < k {
        return format!("unreadable: {} shards left, {k} needed", left(segment));
    }
    if healthy < k {
        return format!("not proven: {healthy} shards audited, {k} needed, {suspect} may be there");
    }
    if lost == 0 {
        return if suspect == 0 { "whole".to_owned() } else { format!("{suspect} away or not yet audited") };
    }
    let remedy = match (repairing, resting) {
        (true, _) => ", being repaired",
        (false, true) => ", no more nodes",
        (false, false) => "",
    };
    format!("degraded: {} more may be lost{remedy}", healthy - k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(healthy: u8, suspect: u8, lost: u8) -> SegmentHealth {
        SegmentHealth {
            id: "ab".repeat(32),
            k: 7,
            n: 14,
            length: 1,
            healthy,
            suspect,
            lost,
            stewards: 8,
            disagreeing: 0,
            repairing: false,
            resting: false,
            repaired_at_ms: None,
            holders: Vec::new(),
        }
    }

    #[test]
    fn a_state_says_what_may_still_be_lost() {
        assert_eq!(state(&segment(14, 0, 0)), "whole");
        assert_eq!(state(&segment(12, 2, 0)), "2 away or not yet audited");
        assert_eq!(state(&segment(9, 0, 5)), "degraded: 2 more may be lost");
        let being_repaired = SegmentHealth { repairing: true, ..segment(7, 0, 7) };
        assert_eq!(state(&being_repaired), "degraded: 0 more may be lost, being repaired");
        let resting = SegmentHealth { resting: true, ..segment(12, 0, 2) };
        assert_eq!(state(&resting), "degraded: 5 more may be lost, no more nodes");
        assert_eq!(state(&segment(0, 14, 0)), "not proven: 0 shards audited, 7 needed, 14 may be there");
        assert_eq!(state(&segment(4, 2, 8)), "unreadable: 6 shards left, 7 needed");
        assert_eq!(state(&SegmentHealth { stewards: 0, ..segment(0, 0, 0) }), "not known: no steward answers");
    }
}
