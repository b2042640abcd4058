//! How a command ends when it does not just end well: the exit code, what failed, and what to do about it.
//!
//! All exit codes and help texts are here and in [`advice`]; the libraries know neither.

mod advice;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use commonhold_client_sdk as sdk;
use commonhold_fuse_mount::{MountError, OptionError};
use commonhold_node as node;
use serde::Serialize;

use crate::{commands::demo::DemoError, escape, figures, local_network::LocalNetworkError, output::Output};

/// The exit codes, which scripts rely on; 0 is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    DoneInPart = 3,
    Unavailable = 4,
    NoNetwork = 5,
    Conflict = 6,
    WrongSecret = 7,
    Interrupted = crate::interrupt::INTERRUPTED as isize,
}

/// Why a command did not do all that it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Vault(#[from] sdk::Error),
    #[error("cannot write to stdout: {0}")]
    Output(#[source] io::Error),
    #[error("no folder for the vault's keys: neither COMMONHOLD_HOME nor HOME is set")]
    NoHome,
    #[error("no passphrase: COMMONHOLD_PASSPHRASE is not set, and there is no terminal to ask on")]
    NoPassphrase,
    #[error("the passphrase is empty")]
    PassphraseEmpty,
    #[error("the two passphrases differ")]
    PassphrasesDiffer,
    #[error("COMMONHOLD_PASSPHRASE is not UTF-8 text")]
    PassphraseNotText,
    #[error("cannot read the recovery phrase from stdin: {0}")]
    PhraseUnreadable(#[source] io::Error),
    #[error("{} has no name of its own", path.display())]
    NeedsTarget { path: PathBuf, argument: &'static str },
    #[error("{} could not be {verb}", figures::count(*count, "file or folder", "files or folders"))]
    DoneInPart { count: u64, verb: &'static str },
    #[error("{failed} of the checks failed")]
    ChecksFailed { failed: usize, no_network: bool },
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("the runtime does not start: {0}")]
    Runtime(#[source] io::Error),
    #[error("{name:?} is not a command")]
    NoSuchCommand { name: String },
    #[error(transparent)]
    Mount(MountError),
    #[error(transparent)]
    MountOption(#[from] OptionError),
    #[error(transparent)]
    LocalNetwork(#[from] LocalNetworkError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("{value:?}: {reason}")]
    NodeOption { value: String, reason: String },
    #[error(transparent)]
    NodeConfig(#[from] node::ConfigError),
    #[error(transparent)]
    NodeInit(#[from] node::InitError),
    #[error(transparent)]
    NodeStatus(#[from] node::StatusError),
    #[error(transparent)]
    NodeRun(#[from] node::NodeError),
    #[error(transparent)]
    NodeFsck(#[from] node::FsckError),
    #[error(transparent)]
    Scenario(#[from] commonhold_simulations::ScenarioError),
    #[error("{}, {source}", path.display())]
    Sweep { path: PathBuf, source: commonhold_simulations::sweep::SweepError },
    #[error(transparent)]
    Plot(#[from] commonhold_simulations::report::html::PlotError),
    #[error(transparent)]
    NodeDataDir(#[from] node::data_dir::DataDirError),
    #[error("shards that stay for now: {left}; the node goes on trying")]
    NotDrained { left: u64 },
    #[error("shards damaged or missing: {lost}; they are no longer served")]
    ShardsLost { lost: u64 },
}

/// What is wrong with the vault is told as everywhere else.
impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        match error {
            MountError::Vault(error) => Self::Vault(error),
            error => Self::Mount(error),
        }
    }
}

/// A segment that cannot be read, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct UnavailableJson {
    segment: String,
    reachable: usize,
    needed: usize,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    error: &'a str,
    help: &'a str,
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<UnavailableJson>>,
}

/// An error as one JSON object on stderr.
pub(crate) fn print_json(code: u8, error: &str, help: &str, segments: Option<Vec<UnavailableJson>>) {
    let object = ErrorJson { error, help, code, segments };
    // Nobody to tell is no reason to fail once more.
    if let Ok(text) = serde_json::to_string(&object) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

impl Failure {
    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self, output: &Output) -> ExitCode {
        if self.reader_left() {
            // As in `commonhold ls | head`: whoever reads has had enough, and all is well.
            return ExitCode::SUCCESS;
        }
        let (code, help) = self.advice();
        let message = self.to_string();
        if output.is_json() {
            print_json(code as u8, &message, &help, self.unavailable());
        } else {
            let mut text = format!("error: {}\n", escape::text(message.trim_end()));
            if !help.is_empty() {
                text.push_str(&format!("help: {}\n", escape::text(&help)));
            }
            let _ = io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(code as u8)
    }

    /// What failed and what to do, for a report that goes on.
    pub(crate) fn told(&self) -> (String, String) {
        (self.to_string(), self.advice().1)
    }

    fn reader_left(&self) -> bool {
        match self {
            Self::Output(error) | Self::Vault(sdk::Error::Output(error)) => error.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }

    fn unavailable(&self) -> Option<Vec<UnavailableJson>> {
        let Self::Vault(sdk::Error::Unavailable { segments }) = self else { return None };
        let json = |segment: &sdk::UnavailableSegment| UnavailableJson {
            segment: format!("{:#}", segment.segment),
            reachable: segment.reachable,
            needed: segment.needed,
        };
        Some(segments.iter().map(json).collect())
    }
}

#[cfg(test)]
mod tests {
    use commonhold_protocol::SegmentId;

    use super::*;

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(Failure::Output(closed()).reader_left());
        assert!(Failure::Vault(sdk::Error::Output(closed())).reader_left());
        assert!(!Failure::Output(io::ErrorKind::StorageFull.into()).reader_left());
    }

    #[test]
    fn unavailable_segments_are_named_whole_in_json() {
        let segment = SegmentId::from_bytes([0xab; 32]);
        let segments = vec![sdk::UnavailableSegment { segment, reachable: 3, needed: 7 }];
        let json = Failure::from(sdk::Error::Unavailable { segments }).unavailable();
        let text = serde_json::to_string(&json).expect("JSON");
        assert_eq!(text, format!(r#"[{{"segment":"{}","reachable":3,"needed":7}}]"#, "ab".repeat(32)));
    }
}
