//! Measured lengths of time: a text file with one number of hours a line, ascending; `#` begins a comment.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use super::{FILE_BYTES_MAX, ScenarioError, error::Lines};
use crate::distribution::Distribution;

/// Reads a text file of a bounded size.
pub(super) fn read_text(path: &Path) -> Result<String, ScenarioError> {
    let unreadable = |source| ScenarioError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ScenarioError::TooLarge { path: path.to_owned(), bytes_max: FILE_BYTES_MAX });
    }
    Ok(text)
}

/// Fills in the measured values of `law`, if it has any; a file that is not there is an error of the scenario's line.
pub(super) fn fill(law: &mut Distribution, folder: &Path, lines: &Lines<'_>) -> Result<(), ScenarioError> {
    let Distribution::Empirical { file, values } = law else { return Ok(()) };
    let path = folder.join(&*file);
    let text = read_text(&path).map_err(|error| {
        lines.where_it_says(&file.to_string_lossy(), format!("`file`: {error}; allowed is a text file, hours a line"))
    })?;
    *values = Arc::new(parse(&text, &path)?);
    Ok(())
}

fn parse(text: &str, path: &Path) -> Result<Vec<f64>, ScenarioError> {
    let refused = |line: usize, allowed: String| ScenarioError::NotAllowed { path: path.to_owned(), line, allowed };
    let mut values: Vec<f64> = Vec::new();
    let mut last = 0.0;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let hours = line.parse::<f64>().ok().filter(|hours| *hours >= 0.0 && hours.is_finite());
        let Some(hours) = hours else {
            return Err(refused(number, format!("{line:?}: a number of hours is allowed, 0 or more, one a line")));
        };
        if hours < last {
            return Err(refused(number, format!("{hours} after {last}: hours must be sorted, ascending")));
        }
        last = hours;
        values.push(hours * 3.6e6);
    }
    if last == 0.0 {
        return Err(refused(1, "at least one number of hours above 0 is needed".to_owned()));
    }
    Ok(values)
}
