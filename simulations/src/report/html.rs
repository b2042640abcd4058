//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.

pub use super::plots::PlotError;
use super::{Report, Spread, plots};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;vertical-align:top;text-align:left;\
    border-bottom:1px solid #ddd}svg{max-width:100%;height:auto;margin:.5rem 0;display:block}\
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
fn spread(title: &str, unit: &str, spread: &Spread, show: impl Fn(f64) -> f64) -> Result<String, PlotError> {
    // The very largest would squeeze all others: it ends at one of a hundred.
    let twentieths = spread.twentieths[..20].iter().zip(0..).map(|(value, number)| (*value, f64::from(number) * 5.0));
    let points: Vec<(f64, f64)> =
        twentieths.chain([(spread.p99, 99.0)]).map(|(value, part)| (show(value), part)).collect();
    plots::curve(title, unit, "% are below", &points)
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
        let megabytes = |bytes: f64| bytes / 1e6;
        let (repair, hours) = (&self.repair, |hours: f64| hours);
        let traffic = spread("Repair traffic of a node", "MB a day", &repair.node_bytes_per_day, megabytes)?;
        let detect = spread("Time until a loss is detected", "hours", &repair.detect_hours, hours)?;
        let thin = spread("Time below n, until the repair ended", "hours", &repair.thin_hours, hours)?;
        let cheats = match &self.cheats {
            Some(cheats) if cheats.found > 0 => {
                spread("Time until a false shard is found", "days", &cheats.found_days, |days| days)?
            }
            _ => String::new(),
        };
        let plots = format!("<div>\n{alive}\n{traffic}\n{detect}\n{thin}\n{cheats}</div>");
        Ok(page(&format!("commonhold: {}", self.name), &format!("<table>\n{rows}</table>\n{plots}")))
    }
}
