//! One module per command, or per family: arguments become calls of the library, reports become text.

pub(crate) mod demo;

mod cat;
mod changes;
mod dev;
mod doctor;
mod du;
mod get;
mod init;
mod ls;
mod mount;
mod node;
mod peers;
mod prune;
mod put;
mod segments;
mod shell;
mod simulate;
mod status;

use std::{ffi::OsStr, path::PathBuf};

use commonhold_client_sdk::{CommitReport, Home, OpenOptions, Vault, VaultPath};

use crate::{
    args::{Command, Entry},
    exit::Failure,
    figures,
    output::Output,
    passphrase,
};

/// Runs a command.
pub(crate) fn run(command: Command, output: &Output) -> Result<(), Failure> {
    // A node's log is its life; of all else only warnings are of interest unless RUST_LOG asks for more.
    crate::logging::start(if matches!(command, Command::Node(_)) { "info" } else { "error" });
    match command {
        Command::Demo(args) => demo::run(&args, output),
        Command::Dev(args) => dev::run(&args, output),
        Command::Init(args) => init::run(args, output),
        Command::Node(args) => node::run(args.command, output),
        Command::Put(args) => put::run(&args, output),
        Command::Get(args) => get::run(&args, output),
        Command::Cat(args) => cat::run(&args, output),
        Command::Ls(args) => ls::run(&args, output),
        Command::Rm(args) => changes::remove(&args, output),
        Command::Mv(args) => changes::rename(&args, output),
        Command::Mkdir(args) => changes::make_folder(&args, output),
        Command::Du(args) => du::run(&args, output),
        Command::Prune(args) => prune::run(&args, output),
        Command::Mount(args) => mount::run(&args, output),
        Command::Umount(args) => mount::unmount(&args),
        Command::Status(args) => status::run(&args, output),
        Command::Peers(args) => peers::run(&args, output),
        Command::Segments(args) => segments::run(&args, output),
        Command::Doctor(args) => doctor::run(&args, output),
        Command::Simulate(args) => simulate::run(&args, output),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::manual(&args),
    }
}

/// The home that the environment names.
fn home() -> Result<Home, Failure> {
    Home::locate().ok_or(Failure::NoHome)
}

/// Opens the vault of this home and enters the network.
fn open(entry: &Entry) -> Result<Vault, Failure> {
    crate::allocator::keep_freed();
    let home = home()?;
    // Before anybody is asked for a passphrase in vain.
    home.config()?;
    let passphrase = passphrase::existing()?;
    let options = OpenOptions { bootstrap: entry.bootstrap.clone() };
    Ok(Vault::open(&home, &passphrase, &options)?)
}

/// A path of the vault.
fn vault_path(text: &OsStr) -> Result<VaultPath, Failure> {
    Ok(VaultPath::parse(text)?)
}

/// Remarks on what a change of the vault met with.
fn remark_on_commit(output: &Output, report: &CommitReport) {
    let CommitReport { head_kept, head_asked, conflicts, .. } = report;
    if head_kept < head_asked {
        let asked = figures::count(*head_asked as u64, "node", "nodes");
        output.remark(&format!("the new state of the vault is kept by {head_kept} of {asked} asked"));
    }
    if let Some(remark) = remark_on_missing(report.figures.shards_missing) {
        output.remark(&remark);
    }
    for copy in conflicts {
        output.warning(&format!("two devices changed the same path; the other version is kept as {copy}"));
    }
}

/// Shards that nobody holds yet are no failure: enough others are held, and stewards rebuild these at once where they are a
/// quarter of the parity, else after `[repair] top-up` or with the next that is lost.
fn remark_on_missing(shards: u64) -> Option<String> {
    let count = figures::count(shards, "shard", "shards");
    let them = if shards == 1 { "it" } else { "them" };
    (shards > 0).then(|| {
        format!(
            "{count} found no place yet; the network fills {them} in by itself, the sooner the more are missing, where \
             it has nodes for {them}"
        )
    })
}

/// Opens a file failure with the path it is about.
fn file_failure(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.into();
    move |source| Failure::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_nobody_holds_yet_are_remarked_on() {
        assert_eq!(remark_on_missing(0), None);
        let said = |shards| remark_on_missing(shards).unwrap_or_default();
        assert!(said(1).starts_with("1 shard found no place yet; the network fills it in by itself"), "{}", said(1));
        assert!(said(3).starts_with("3 shards found no place yet; the network fills them in by itself"), "{}", said(3));
    }
}
