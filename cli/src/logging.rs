//! Logs go to stderr, never to stdout: what is on stdout is the command's result.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging; `default` is what is logged if `RUST_LOG` does not say.
pub(crate) fn start(default: &str) {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new(default)),
        _ => EnvFilter::new(default),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
