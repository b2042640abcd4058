//! The command line: names, options and their help. Scripts rely on it, so what is there stays as it is.
//!
//! Only what exists is listed. Parsing decides nothing but what was asked for.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use commonhold_client_sdk::parameters::Wanted;
use commonhold_protocol::NetworkName;

/// The exit codes, for the help and the manual.
pub(crate) const EXIT_CODES: [(&str, &str); 9] = [
    ("0", "done"),
    ("1", "failed"),
    ("2", "usage: the command line is wrong"),
    ("3", "done in part: files that could not be read or restored, or shards not handed on, are named"),
    ("4", "data unavailable: too few shards, no head, or only an older state of the vault is reached"),
    ("5", "no network: no node can be reached"),
    ("6", "conflict that cannot be merged, or a head that cannot be read"),
    ("7", "wrong passphrase or recovery phrase, or no vault of that phrase is known"),
    ("130", "interrupted"),
];

/// What is read from the environment, for the help and the manual.
pub(crate) const ENVIRONMENT: [(&str, &str); 3] = [
    ("COMMONHOLD_HOME", "the folder of the vault's keys and config (default: ~/.local/share/commonhold)"),
    ("COMMONHOLD_PASSPHRASE", "the passphrase; asked for on the terminal if it is not set"),
    ("RUST_LOG", "what to log to stderr, as in `info` or `commonhold_network=debug`"),
];

fn after_help() -> String {
    let rows = |rows: &[(&str, &str)]| -> String {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        rows.iter().map(|(name, text)| format!("  {name:width$}  {text}\n")).collect()
    };
    format!("Exit codes:\n{}\nEnvironment:\n{}", rows(&EXIT_CODES), rows(&ENVIRONMENT))
}

/// Store files, encrypted and erasure-coded, on disks that volunteers lend.
#[derive(Debug, Parser)]
#[command(name = "commonhold", version, after_help = after_help(), max_term_width = 110, propagate_version = true)]
pub(crate) struct Arguments {
    /// Print facts as JSON on stdout, errors as JSON on stderr; no progress.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no remarks; errors and results only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The tour: a local network, a folder stored, nodes killed, the folder read back and compared.
    Demo(Demo),
    /// Run a local network of node processes, until stopped.
    Dev(Dev),
    /// Make a vault and its config, and print the recovery phrase; or recover a vault from its phrase.
    Init(Init),
    /// Pledge disk space to the network, and serve it.
    Node(Node),
    /// Store a file or folder in the vault.
    Put(Put),
    /// Copy a file or folder out of the vault.
    Get(Get),
    /// Write a file of the vault to stdout.
    Cat(Cat),
    /// List a folder of the vault.
    Ls(Ls),
    /// Remove a file or folder from the vault.
    Rm(Rm),
    /// Move or rename a file or folder in the vault.
    Mv(Mv),
    /// Make a folder in the vault.
    Mkdir(Mkdir),
    /// Count files and bytes in the vault.
    Du(Du),
    /// Give the space back that nothing in the vault uses any more.
    Prune(Prune),
    /// Show the vault as a read-only drive in a folder, until stopped or unmounted.
    Mount(Mount),
    /// Take a drive away; also one whose process has died.
    Umount(Umount),
    /// What the vault is, how much is in it, and how well it is kept.
    Status(Status),
    /// The nodes that can be reached, and the space they offer.
    Peers(Peers),
    /// The segments that hold a path (or all), and who holds their shards.
    Segments(Segments),
    /// Check this machine's set-up and the network, with advice.
    Doctor(Doctor),
    /// Simulate a network over years, from a scenario file: what is lost, and what it costs.
    Simulate(Simulate),
    /// Print a completion script for a shell.
    Completions(Completions),
    /// Print the manual page.
    Man(Man),
}

/// How a client command enters the network.
#[derive(Debug, Args)]
pub(crate) struct Entry {
    /// Address of a node to enter the network by, ending in /p2p/ID; for when all known nodes are gone.
    #[arg(long, value_name = "ADDR")]
    pub(crate) bootstrap: Vec<String>,
}

/// `demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The folder to store; a sample is made if there is none.
    pub(crate) dir: Option<PathBuf>,
}

/// `dev`
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The folder of the network: new or empty, or with `--add` that of the running one.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=512), conflicts_with = "add")]
    pub(crate) nodes: u16,
    /// How many failure domains to spread the nodes over; as many as there are nodes if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512), conflicts_with = "add")]
    pub(crate) domains: Option<u16>,
    /// The coding of the client's vault, as for `init`.
    #[arg(long, value_name = "K/N|TARGET", conflicts_with = "add")]
    pub(crate) coding: Option<Wanted>,
    /// A node config to lay over that of every node.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Add this many fresh nodes to the network that runs in DIR, and return when they have joined.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) add: Option<u16>,
}

/// `init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Address of a node to enter the network by, ending in /p2p/ID; kept in the config.
    #[arg(long, value_name = "ADDR")]
    pub(crate) bootstrap: Vec<String>,
    /// Pin the coding: K of N shards restore a segment. Or name a target, such as `9-nines`: of all segments, at most
    /// 10^-9 lost in a year, and each put takes the cheapest coding that is enough. Chosen from the size of the network
    /// if not given.
    #[arg(long, value_name = "K/N|TARGET")]
    pub(crate) coding: Option<Wanted>,
    /// Recover a vault: its 24 words are read from stdin.
    #[arg(long)]
    pub(crate) recover: bool,
    /// The name of the network.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(crate) network: NetworkName,
    /// A file with the key of a private network (64 hex digits).
    #[arg(long, value_name = "FILE")]
    pub(crate) network_key: Option<PathBuf>,
}

/// `node`
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

/// What a node's operator does.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Write a commented config and make the node's identity.
    Init(NodeInit),
    /// Run the node until SIGTERM or SIGINT.
    Run(NodeConfigFile),
    /// What the running node holds and has left.
    Status(NodeConfigFile),
    /// Hand all that the running node holds on to others, so that it can be switched off.
    Drain(NodeDrain),
    /// Check all that a stopped node holds, and rebuild its index.
    Fsck(NodeConfigFile),
}

/// `node init`
#[derive(Debug, Args)]
pub(crate) struct NodeInit {
    /// The folder for the config and the data.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// A name for people.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The name of the network.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(crate) network: NetworkName,
    /// A file with the key of a private network (64 hex digits).
    #[arg(long, value_name = "FILE")]
    pub(crate) network_key: Option<PathBuf>,
    /// Address of a node to join by, ending in /p2p/ID.
    #[arg(long, value_name = "ADDR")]
    pub(crate) bootstrap: Vec<String>,
    /// How much disk space to pledge, as in "200 GiB".
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<String>,
}

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NodeConfigFile {
    /// The node's config.
    #[arg(long, value_name = "FILE", default_value = "node.toml")]
    pub(crate) config: PathBuf,
}

/// `node drain`
#[derive(Debug, Args)]
pub(crate) struct NodeDrain {
    /// Which node.
    #[command(flatten)]
    pub(crate) node: NodeConfigFile,
    /// Let the node stay after all: it hands nothing more on, and takes shards again.
    #[arg(long)]
    pub(crate) cancel: bool,
}

/// `put`
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The file or folder to store.
    pub(crate) src: PathBuf,
    /// Where in the vault; /NAME of SRC if not given. The copy is made at this path itself, not in it.
    pub(crate) path: Option<OsString>,
    /// Replace what is at PATH.
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `get`
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The file or folder in the vault.
    pub(crate) path: OsString,
    /// Where to; ./NAME of PATH if not given. The copy is made at this path itself, not in it.
    pub(crate) dest: Option<PathBuf>,
    /// Replace what is at DEST.
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `cat`
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// The file in the vault.
    pub(crate) path: OsString,
    /// Skip this many bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) offset: u64,
    /// Write at most this many bytes.
    #[arg(long, value_name = "BYTES")]
    pub(crate) length: Option<u64>,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `ls`
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The folder (or file) in the vault.
    #[arg(default_value = "/")]
    pub(crate) path: OsString,
    /// Show mode, owner, size and time as well.
    #[arg(long, short)]
    pub(crate) long: bool,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `rm`
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The file or folder, with all that is in it.
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `mv`
#[derive(Debug, Args)]
pub(crate) struct Mv {
    /// The file or folder.
    pub(crate) from: OsString,
    /// Its new path.
    pub(crate) to: OsString,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `mkdir`
#[derive(Debug, Args)]
pub(crate) struct Mkdir {
    /// The new folder.
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `du`
#[derive(Debug, Args)]
pub(crate) struct Du {
    /// The folder or file in the vault.
    #[arg(default_value = "/")]
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `prune`
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Change nothing; say what would be given back.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `mount`
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// An empty folder.
    pub(crate) dir: PathBuf,
    /// Options as mount(8) has them, with commas between them: allow_other, allow_root (both make modes and owners
    /// count), default_permissions, noexec; ro is always so.
    #[arg(short = 'o', value_name = "OPTS")]
    pub(crate) options: Vec<String>,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `umount`
#[derive(Debug, Args)]
pub(crate) struct Umount {
    /// The folder that the vault is mounted at.
    pub(crate) dir: PathBuf,
}

/// `status`
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `peers`
#[derive(Debug, Args)]
pub(crate) struct Peers {
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `segments`
#[derive(Debug, Args)]
pub(crate) struct Segments {
    /// The file or folder in the vault.
    pub(crate) path: Option<OsString>,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `simulate`
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The scenario, a TOML file.
    pub(crate) scenario: PathBuf,
    /// The seed, above that of the scenario; the same seed gives the same output, byte for byte.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Simulate every combination of the values in the scenario's `[sweep]`, and mark those that are worth their cost.
    #[arg(long)]
    pub(crate) sweep: bool,
    /// Write a page with plots as well; it needs no other file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// `completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command (as in `put`, or `node run`); the page of the program if not given.
    pub(crate) command: Vec<String>,
}

/// A command line that clap refuses, or a request for help.
pub(crate) struct Refused {
    error: clap::Error,
    json: bool,
}

/// Reads this process's arguments.
pub(crate) fn parse() -> Result<Arguments, Refused> {
    let given: Vec<OsString> = std::env::args_os().collect();
    let json = given.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    Arguments::try_parse_from(given).map_err(|error| Refused { error, json })
}

/// The command line's definition, for completions and manual pages.
pub(crate) fn definition() -> clap::Command {
    Arguments::command()
}

impl Refused {
    /// Prints the help asked for, or what is wrong.
    pub(crate) fn report(self) -> ExitCode {
        let code = u8::try_from(self.error.exit_code()).unwrap_or(2);
        if self.json && self.error.use_stderr() {
            let message = self.error.to_string();
            let (message, help) = message.split_once("\n\n").unwrap_or((&message, ""));
            let message = message.trim_start_matches("error: ");
            crate::exit::print_json(code, message, help.trim(), None);
        } else {
            // A closed pipe is not worth a word.
            let _ = self.error.print();
        }
        ExitCode::from(code)
    }
}

#[cfg(test)]
mod tests;
