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

/// What to say of a key that is missing.
const MISSING: [(&str, &str); 12] = [
    ("name", "a text, as in \"home volunteers\""),
    ("source", "a text that says where the figures come from, each seen, remembered or assumed"),
    ("duration", "a length of time, as in \"1 year\""),
    ("network", "a section [network] with `nodes` and `segments`"),
    ("nodes", "4 to 10000000 nodes"),
    ("segments", "1 to 100000000 segments"),
    ("population", "one or more sections [[population]] with `name` and `lifetime`"),
    ("lifetime", "a law, as in { law = \"exponential\", mean = \"180 d\" }"),
    ("law", "one of never, fixed, exponential, weibull, log-normal, pareto, empirical"),
    ("mean", "a length of time, as in \"180 d\""),
    ("asleep", "a length of time below 22 h, as in \"8 h\""),
    ("at", "a length of time from the start, as in \"90 d\""),
];

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
        let missing = MISSING.iter().find(|(key, _)| message == format!("missing field `{key}`"));
        let allowed = match missing {
            Some((key, allowed)) => format!("`{key}` is missing: {allowed}"),
            None => message.to_owned(),
        };
        self.at(error.span().map_or(0, |span| span.start), allowed)
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
