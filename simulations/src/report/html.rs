//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.

pub use super::plots::PlotError;
use super::{Report, plots};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;vertical-align:top;text-align:left;\
    border-bottom:1px solid #ddd}svg{max-width:100%;height:auto;margin:1rem 0}\
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
        let traffic = &self.repair.node_bytes_per_day;
        let parts = [(5.0, traffic.p5), (50.0, traffic.p50), (95.0, traffic.p95), (99.0, traffic.p99)];
        let parts: Vec<(f64, f64)> = parts.iter().map(|(part, bytes)| (*part, bytes / 1e6)).collect();
        let traffic = plots::bars("Repair traffic of a node", "percentile of nodes", "MB a day", &parts, 4.0)?;
        Ok(page(&format!("commonhold: {}", self.name), &format!("<table>\n{rows}</table>\n{alive}\n{traffic}")))
    }
}
