//! Errors of scenarios: the file, the line, what is allowed.

use std::path::{Path, PathBuf};

use toml::Spanned;

/// Why a scenario cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large.
    #[error("{}: too large: at most {bytes_max} bytes are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most bytes.
        bytes_max: u64,
    },
    /// Something in it is missing, unknown or not allowed.
    #[error("{}, line {line}: {allowed}", path.display())]
    NotAllowed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what is allowed.
        allowed: String,
    },
}

const SPAN: &str = "a length of time, as in \"180 d\", \"12 h\" or \"500 ms\"";
const RATE: &str = "a data rate, as in \"20 Mbit/s\"";
const SIZE: &str = "a size, as in \"200 GiB\"";
const SHARE: &str = "a share from 0 to 1, as in 0.25";
const COUNT: &str = "a whole number, 1 or more";
const LAW: &str = "a law, as in { law = \"exponential\", mean = \"180 d\" }";
const YES_OR_NO: &str = "true or false";

/// What each key may be, to be said where it is missing or of another type. A key that stands in two sections is here
/// for both.
const ALLOWED: [(&str, &str); 54] = [
    ("name", "a text, as in \"home volunteers\""),
    ("source", "a text that says where the figures come from, each seen, remembered, computed or assumed"),
    ("seed", "a whole number from 0"),
    ("runs", "1 to 10000"),
    ("duration", "a length of time, as in \"1 year\""),
    ("network", "a section [network] with `nodes` and `segments`"),
    ("audit", "a section [audit] with `every` and `grace`"),
    ("repair", "a section [repair] with `top-up`, `time` and `rate`"),
    ("sweep", "a section [sweep] with lists of values"),
    ("nodes", "4 to 10000000 nodes; in [[incident]], 1 or more of them"),
    ("segments", "1 to 100000000 segments"),
    ("segment-size", SIZE),
    ("coding", "k/n with 1 <= k < n <= 255, as in \"20/40\"; in [sweep] a list of them"),
    ("threshold", "k to n - 1 shards; in [sweep] a list of shares of n - k, as in [0.3, 0.5]"),
    ("renew-lost", YES_OR_NO),
    ("every", "a length of time, as in \"7 d\"; in [sweep] a list of them"),
    ("grace", "a length of time, as in \"12 h\"; in [sweep] a list of them"),
    ("top-up", "a length of time, as in \"7 d\"; in [sweep] a list of them"),
    ("time", LAW),
    ("rate", RATE),
    ("population", "one or more sections [[population]] with `name` and `lifetime`"),
    ("share", SHARE),
    ("lifetime", LAW),
    ("online", LAW),
    ("offline", LAW),
    ("law", "one of never, fixed, exponential, weibull, log-normal, pareto, empirical"),
    ("value", SPAN),
    ("mean", SPAN),
    ("shape", "a number above 0, as in 0.6"),
    ("scale", SPAN),
    ("median", SPAN),
    ("sigma", "a number above 0, as in 1.0"),
    ("minimum", SPAN),
    ("file", "a text file with one number of hours a line, ascending"),
    ("night", "{ asleep = \"8 h\", share = 0.5, zones = [-5, 0] }"),
    ("asleep", "a length of time below 22 h, as in \"8 h\""),
    ("zones", "a list of hours from UTC, -12 to 14"),
    ("upload", RATE),
    ("download", RATE),
    ("disk", SIZE),
    ("per-domain", COUNT),
    ("per-operator", COUNT),
    ("regions", "a list of names, as in [\"east\", \"west\"]"),
    ("one-disk", YES_OR_NO),
    ("cheat", "{ kind = \"drop\", lost = 0.05, answers = \"wrong\" } or { kind = \"fetch-on-demand\" }"),
    ("kind", "drop or fetch-on-demand"),
    ("lost", SHARE),
    ("answers", "what-it-has, wrong or nothing"),
    ("incident", "sections [[incident]] with `at`"),
    ("at", "a length of time from the start, as in \"90 d\""),
    ("lasts", SPAN),
    ("region", "the name of a region"),
    ("of", "the name of an incident that is before it"),
    ("operators", COUNT),
];

fn is_of_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// A scenario's text, to find lines in.
pub(super) struct Lines<'t> {
    origin: &'t Path,
    text: &'t str,
}

impl<'t> Lines<'t> {
    pub(super) fn new(origin: &'t Path, text: &'t str) -> Self {
        Self { origin, text }
    }

    /// What the parser refuses.
    pub(super) fn refused(&self, error: &toml::de::Error) -> ScenarioError {
        let message = error.message().trim_end();
        let at = error.span().map_or(0, |span| span.start);
        let key = self.key_before(at);
        let known = |wanted: &str| ALLOWED.iter().find(|(key, _)| *key == wanted).map(|(_, allowed)| *allowed);
        let told = match (message.strip_prefix("missing field `"), known(key)) {
            (Some(missing), _) => {
                let missing = missing.trim_end_matches('`');
                let allowed = known(missing).unwrap_or("it is needed");
                format!("`{missing}` is missing: {allowed}")
            }
            // What it says is allowed, or what keys there are.
            _ if message.contains("allowed") || message.starts_with("unknown ") || key.is_empty() => message.to_owned(),
            (None, Some(allowed)) => {
                // What the parser would have is said in its own words.
                let found = message.split(", expected").next().unwrap_or(message);
                format!("`{key}`: {found}: allowed is {allowed}")
            }
            (None, None) => format!("`{key}`: {message}"),
        };
        self.at(at, told)
    }

    /// The key whose value begins at `at`, or that begins there itself; nothing if there is none in the line before.
    fn key_before(&self, at: usize) -> &'t str {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let Some((until, _)) = line.rsplit_once('=') else {
            let here = self.text.get(at..).unwrap_or_default();
            return here.split(|c: char| !is_of_key(c)).next().unwrap_or_default();
        };
        until.trim_end().rsplit(|c: char| !is_of_key(c)).next().unwrap_or_default()
    }

    /// An error in the line in which `value` stands in quotes, the first of all if it stands nowhere.
    pub(super) fn where_it_says(&self, value: &str, allowed: String) -> ScenarioError {
        self.at(self.text.find(&format!("\"{value}\"")).unwrap_or_default(), allowed)
    }

    /// An error at `value` unless it `is_allowed`.
    pub(super) fn allow<T>(&self, is_allowed: bool, value: &Spanned<T>, allowed: &str) -> Result<(), ScenarioError> {
        if is_allowed { Ok(()) } else { Err(self.not_allowed(value, allowed)) }
    }

    /// An error at `value`.
    pub(super) fn not_allowed<T>(&self, value: &Spanned<T>, allowed: &str) -> ScenarioError {
        self.at(value.span().start, allowed.to_owned())
    }

    fn at(&self, at: usize, allowed: String) -> ScenarioError {
        let line = self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        ScenarioError::NotAllowed { path: self.origin.to_owned(), line, allowed }
    }
}
