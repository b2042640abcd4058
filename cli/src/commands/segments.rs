//! `segments [PATH]`: the segments that hold a path, and how many of their shards are well.

use commonhold_client_sdk::SegmentHealth;

use crate::{
    args,
    exit::Failure,
    figures,
    output::{Output, columns},
};

pub(super) fn run(args: &args::Segments, output: &Output) -> Result<(), Failure> {
    let path = args.path.as_ref().map(|path| super::vault_path(path)).transpose()?;
    let vault = super::open(&args.entry)?;
    let segments = vault.segments(path.as_ref())?;
    if output.is_json() {
        return output.json(&segments);
    }
    let mut rows = vec![["SEGMENT", "LENGTH", "CODE", "SHARDS", "STEWARDS", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(segments.iter().map(row));
    columns(&rows, &[1]).iter().try_for_each(|line| output.line(line))?;
    let unavailable = segments.iter().filter(|segment| segment.healthy < usize::from(segment.k)).count();
    let below = segments.iter().filter(|segment| segment.healthy < usize::from(segment.n)).count();
    output.remark(&format!(
        "{}, {below} below full strength, {unavailable} unavailable",
        figures::count(segments.len() as u64, "segment", "segments")
    ));
    Ok(())
}

fn row(segment: &SegmentHealth) -> Vec<String> {
    vec![
        figures::short_id(&segment.id).to_owned(),
        figures::size(segment.length),
        format!("{}/{}", segment.k, segment.n),
        format!("{} of {}", segment.healthy, segment.n),
        segment.stewards.to_string(),
        state(segment.healthy, usize::from(segment.k), usize::from(segment.n)),
    ]
}

/// In words: how many more holders may go before the segment cannot be read.
fn state(healthy: usize, k: usize, n: usize) -> String {
    if healthy < k {
        format!("unavailable: {healthy} shards reachable, {k} needed")
    } else if healthy < n {
        format!("degraded: {} more may be lost", healthy - k)
    } else {
        "whole".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_says_what_may_still_be_lost() {
        assert_eq!(state(14, 7, 14), "whole");
        assert_eq!(state(9, 7, 14), "degraded: 2 more may be lost");
        assert_eq!(state(7, 7, 14), "degraded: 0 more may be lost");
        assert_eq!(state(6, 7, 14), "unavailable: 6 shards reachable, 7 needed");
    }
}
