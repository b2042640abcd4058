//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.

pub use super::plots::PlotError;
use super::{Report, Spread, plots};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;vertical-align:top;text-align:left;\
    border-bottom:1px solid #ddd}th,td:first-child{white-space:nowrap}svg{max-width:100%;height:auto;margin:.5rem 0;display:block}\
    @media(prefers-color-scheme:dark){body{background:#fff}}";

/// Text that is not markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
    )
}

/// A distribution as a curve: what part is below of what.
fn spread(title: &str, unit: &str, spread: &Spread, per_unit: f64) -> Result<String, PlotError> {
    if spread.count == 0 {
        return Ok(format!("<p>{}: none seen.</p>", escape(title)));
    }
    // The very largest would squeeze all others: it ends at one of a hundred.
    let twentieths = spread.twentieths[..20].iter().zip(0..).map(|(value, number)| (*value, f64::from(number) * 5.0));
    let points: Vec<(f64, f64)> =
        twentieths.chain([(spread.p99, 99.0)]).map(|(value, part)| (value / per_unit, part)).collect();
    plots::curve(title, unit, "% are below", &points)
}

/// Lengths of time, of which `day` are a day, in a unit that suits the longest.
fn times(title: &str, lengths: &Spread, day: f64) -> Result<String, PlotError> {
    let units = [("days", 1.0), ("hours", 24.0), ("minutes", 1440.0), ("seconds", 86_400.0)];
    let longest = lengths.p99 / day;
    let (unit, per_day) = units.into_iter().find(|(_, per_day)| longest * per_day >= 3.0).unwrap_or(units[3]);
    spread(title, unit, lengths, day / per_day)
}

impl Report {
    /// The page.
    pub fn html(&self) -> Result<String, PlotError> {
        let rows: String = self
            .rows()
            .iter()
            .map(|(name, value)| format!("<tr><th>{}<td>{}\n", escape(name), escape(value)))
            .collect();
        let alive: Vec<(f64, f64)> =
            self.alive_at_end.iter().map(|(alive, count)| (f64::from(*alive), *count as f64)).collect();
        let title = format!("Shards alive at the end (k = {}, n = {})", self.settings.k, self.settings.n);
        let alive = plots::bars(&title, "shards alive", "segments", &alive, 1.0)?;
        let repair = &self.repair;
        let traffic = spread("Repair traffic of a node", "MB a day", &repair.node_bytes_per_day, 1e6)?;
        let detect = times("Time until a loss is detected", &repair.detect_hours, 24.0)?;
        let thin = times("Time below n, until the repair ended", &repair.thin_hours, 24.0)?;
        let cheats = match &self.cheats {
            Some(cheats) => times("Time until a false shard is found", &cheats.found_days, 1.0)?,
            None => String::new(),
        };
        let plots = format!("<div>\n{alive}\n{traffic}\n{detect}\n{thin}\n{cheats}</div>");
        Ok(page(&format!("commonhold: {}", self.name), &format!("<table>\n{rows}</table>\n{plots}")))
    }
}
