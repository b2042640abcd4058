//! What to do about each failure, and its exit code.
//!
//! The matches are exhaustive on purpose: an error that is new to the libraries does not compile until it has advice.

use std::{io, path::Path};

use commonhold_client_sdk::Error;
use commonhold_fuse_mount::{MountError, OptionError};

use super::{Code, Failure};
use crate::{commands::demo::DemoError, local_network::LocalNetworkError};

impl Failure {
    /// The exit code, and what to do.
    pub(super) fn advice(&self) -> (Code, String) {
        let (code, help) = match self {
            Self::Vault(error) => return vault(error),
            Self::Mount(error) => return mount(error),
            Self::Demo(error) => return demo(error),
            Self::LocalNetwork(error) => return local_network(error),
            Self::Output(_) => (Code::Failed, "check the disk or the program that reads the output"),
            Self::NoHome => (Code::Usage, "set COMMONHOLD_HOME to a folder of your own"),
            Self::NoPassphrase => (Code::Failed, "set COMMONHOLD_PASSPHRASE, or run this in a terminal"),
            Self::PassphraseEmpty => (Code::Failed, "choose a passphrase of several words"),
            Self::PassphrasesDiffer => (Code::Failed, "nothing was made; run the command again"),
            Self::PassphraseNotText => (Code::Failed, "set it to a passphrase of UTF-8 text"),
            Self::PhraseUnreadable(_) => (Code::Failed, "pass the 24 words on stdin, as in `… --recover < phrase.txt`"),
            Self::NeedsTarget { argument, .. } => {
                return (Code::Usage, format!("say where the copy is to be made: add {argument}"));
            }
            Self::DoneInPart { verb, .. } => {
                let help = format!("all the others were {verb}; the failed ones are named above, with the reason");
                return (Code::DoneInPart, help);
            }
            Self::ChecksFailed { no_network: true, .. } => (Code::NoNetwork, "see the advice beside each failed check"),
            Self::ChecksFailed { .. } => (Code::Failed, "see the advice beside each failed check"),
            Self::File { source, .. } => return (Code::Failed, io_help(source)),
            Self::Signals(_) | Self::Runtime(_) => {
                (Code::Failed, "the system may be out of file descriptors or memory")
            }
            Self::NoSuchCommand { .. } => (Code::Usage, "`commonhold --help` lists the commands"),
            Self::MountOption(OptionError::ReadOnly(_)) => {
                (Code::Usage, "leave it out; `commonhold put` stores files in the vault")
            }
            Self::MountOption(OptionError::Unknown(_)) => (Code::Usage, "`commonhold mount --help` lists the options"),
            Self::NodeOption { .. } => (Code::Usage, "`commonhold node init --help` says what is expected"),
            Self::NodeConfig(_) => (Code::Failed, "`commonhold node init` writes a config with every key explained"),
            Self::NodeInit(_) => (Code::Failed, "choose another folder with --dir, or keep the node that is there"),
            Self::NodeStatus(_) => (Code::Failed, "check --config; the node's log says more"),
            Self::NodeRun(_) => (Code::Failed, "check the config and the data folder; RUST_LOG=debug says more"),
            Self::NodeFsck(_) => (Code::Failed, "stop the node before the check; nothing was changed"),
            Self::Scenario(_) => {
                (Code::Failed, "docs/simulations.md explains every key; simulations/scenarios has examples")
            }
            Self::Sweep { .. } => {
                (Code::Failed, "docs/simulations.md explains [sweep]; simulations/scenarios has examples")
            }
            Self::Plot(_) => (Code::Failed, "the figures are there without --html"),
            Self::NodeDataDir(_) => (Code::Failed, "it has to be the node's operator who does this"),
            Self::NotDrained { .. } => {
                (Code::DoneInPart, "add nodes or room for them; `commonhold node drain` says again how far it is")
            }
            Self::ShardsLost { .. } => (Code::Failed, "check the disk; the network repairs what was lost"),
        };
        (code, help.to_owned())
    }
}

/// The exit code and help of what the vault reports.
fn vault(error: &Error) -> (Code, String) {
    let (code, help) = match error {
        Error::NoVault { .. } => (
            Code::Failed,
            "make one with `commonhold init`, recover one with `commonhold init --recover`, or set COMMONHOLD_HOME",
        ),
        Error::VaultExists { .. } => {
            (Code::Failed, "nothing was changed; set COMMONHOLD_HOME to another folder to make a second vault")
        }
        Error::Config { .. } => (Code::Failed, "correct the file; `commonhold doctor` checks it"),
        Error::Io { source, .. } => return (Code::Failed, io_help(source)),
        Error::Output(_) => (Code::Failed, "check the disk or the program that reads the output"),
        Error::NoRandomness => (Code::Failed, "the system is not usable for keys; check /dev/urandom and the kernel"),
        Error::PassphraseUnusable => (Code::Failed, "choose a shorter passphrase"),
        Error::WrongPassphrase => (
            Code::WrongSecret,
            "check COMMONHOLD_PASSPHRASE; with the recovery phrase, `commonhold init --recover` in a new home sets a \
             new passphrase",
        ),
        Error::WrongPhrase { .. } => (Code::WrongSecret, "compare each of the 24 words, in order, with your note"),
        Error::UnknownVault { .. } => (
            Code::WrongSecret,
            "check the words, --network and --bootstrap; a vault that nothing was ever stored in cannot be recovered",
        ),
        Error::VaultFileDamaged { .. } => (
            Code::Failed,
            "restore this file from a copy, or run `commonhold init --recover` in a new home with the recovery phrase",
        ),
        Error::TooManyWriters { .. } => (Code::Failed, "wait for some of them to end"),
        Error::Contended { .. } => (
            Code::Conflict,
            "nothing of this command is visible in the vault; run it again when fewer devices write, what was placed is \
             not sent again",
        ),
        Error::Network(_) => (Code::NoNetwork, "check this machine's network and its limit of open files"),
        Error::NoNetwork { .. } => (
            Code::NoNetwork,
            "check the connection; `--bootstrap ADDR` enters by a node that is known to run, `commonhold doctor` says \
             more",
        ),
        Error::TooFewHolders { .. } => (
            Code::Failed,
            "wait for more nodes (`commonhold peers` lists them), or pin a smaller coding: `coding = \"K/N\"` under \
             [client] in config.toml, beside the vault file",
        ),
        Error::OutOfReach(_) => (
            Code::Failed,
            "wait for more nodes (`commonhold peers` lists them with their domains), or want less: `coding` under \
             [client] in config.toml, beside the vault file, takes a lower target, or K/N",
        ),
        Error::NotPlaced { .. } => (
            Code::Failed,
            "nothing of this command is visible in the vault; run it again when nodes have space (`commonhold peers`): \
             this segment was taken back and is sent again, others that were placed are not",
        ),
        Error::NotRecorded { .. } => (
            Code::Failed,
            "nothing of this command is visible in the vault; run it again when more nodes answer: this segment was \
             taken back and is sent again, others that were placed are not",
        ),
        Error::Unavailable { .. } => (
            Code::Unavailable,
            "the data is not lost while its nodes may come back: try again later; `commonhold segments` shows who \
             holds it",
        ),
        Error::Damaged { .. } => {
            (Code::Failed, "no wrong byte was written out; please report this, with the log of RUST_LOG=debug")
        }
        Error::NoHead { .. } => (
            Code::Unavailable,
            "the nodes that keep it may come back: try again later, or enter by other nodes with --bootstrap ADDR",
        ),
        // Others went on from a state without what this machine has seen: to write now would make that final.
        Error::OlderHead { seen, offered } if !seen.covers(offered) => (
            Code::Conflict,
            "what this machine has seen may be kept by nodes that are away: try again later, or enter by other nodes \
             with --bootstrap ADDR; nothing was changed",
        ),
        Error::OlderHead { .. } => {
            (Code::Unavailable, "the nodes that keep the newer state may be away: try again later; nothing was changed")
        }
        Error::HeadDamaged { .. } => {
            (Code::Conflict, "a newer version of commonhold may have written it: update this one; nothing was changed")
        }
        Error::HeadNotKept { .. } => {
            (Code::Failed, "run the command again when more nodes answer; what was placed is not sent again")
        }
        Error::HeadTooLarge { .. } => {
            (Code::Failed, "store fewer and larger folders in this vault, or use a second vault")
        }
        Error::NotFound { path } => {
            let above = path.split_last().map(|(above, _)| above.to_string()).unwrap_or_default();
            return (Code::Failed, format!("`commonhold ls {}` shows what is there", quoted(&above)));
        }
        Error::Exists { .. } => {
            (Code::Failed, "choose another path, remove it first, or add --overwrite where it is taken")
        }
        Error::TargetExists { .. } => (Code::Failed, "choose another DEST, or add --overwrite to replace it"),
        Error::NotAFolder { .. } => (Code::Failed, "name a folder here, or a path whose parents are folders"),
        Error::NotAFile { .. } => (Code::Failed, "name a file here; `commonhold get` copies folders"),
        Error::IntoItself { .. } => (Code::Failed, "choose a path outside of it"),
        Error::BadPath { .. } => (Code::Usage, "write a path of the vault as /folder/name"),
        Error::TreeDamaged { .. } => {
            (Code::Failed, "nothing was changed; please report this, with the log of RUST_LOG=debug")
        }
        Error::BadAddress { .. } => (
            Code::Usage,
            "copy the address from the node's `addr` file or its `commonhold node status`, as in \
             /ip4/203.0.113.7/tcp/4400/p2p/12D3KooW…",
        ),
        Error::Interrupted => (
            Code::Interrupted,
            "nothing half-made is visible; run it again to go on, what was placed is not sent again",
        ),
        Error::Stopped => (Code::Failed, "run the command again; RUST_LOG=debug says more"),
    };
    (code, help.to_owned())
}

fn mount(error: &MountError) -> (Code, String) {
    let dir = |dir: &Path| quoted(&dir.to_string_lossy());
    let help = match error {
        MountError::NoDevice(_) => {
            "load the kernel's module (`modprobe fuse`); in a container, pass the device in: `--device /dev/fuse \
             --cap-add SYS_ADMIN`"
        }
        MountError::NoHelper => "install the package fuse3",
        MountError::OthersNotAllowed => {
            "have root add the line `user_allow_other` to /etc/fuse.conf, or leave out allow_other and allow_root"
        }
        MountError::Folder { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => "make the folder first",
            _ => return (Code::Failed, io_help(source)),
        },
        MountError::NotAFolder { .. } | MountError::NotEmpty { .. } => "choose an empty folder",
        MountError::Dead { dir: at } | MountError::Mounted { dir: at } => {
            return (Code::Failed, format!("`commonhold umount {}` takes it away", dir(at)));
        }
        MountError::NotMounted { .. } => "`findmnt -S commonhold` lists where vaults are mounted",
        MountError::InUse { dir: at } => {
            return (Code::Failed, format!("close what is open there; `fuser -vm {}` lists who uses it", dir(at)));
        }
        MountError::Refused { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => "only root, and with fusermount3 whoever owns the folder, may do that",
            _ => "the system's log (`dmesg`) may say more",
        },
        MountError::Vault(error) => return vault(error),
    };
    (Code::Failed, help.to_owned())
}

fn demo(error: &DemoError) -> (Code, String) {
    let help = match error {
        DemoError::Io { source, .. } => return (Code::Failed, io_help(source)),
        DemoError::Differs { .. } | DemoError::Missing { .. } => {
            "if the folder did not change meanwhile, please report this, with the log of RUST_LOG=debug"
        }
        DemoError::NothingStored { .. } => "name a folder with readable files in it, or none to use a sample",
        DemoError::Stalled { .. } | DemoError::Unknown { .. } => "please report this, with the log of RUST_LOG=debug",
    };
    (Code::Failed, help.to_owned())
}

fn local_network(error: &LocalNetworkError) -> (Code, String) {
    let help = match error {
        LocalNetworkError::NotEmpty { .. } => {
            "choose a new or empty folder; `--add N` adds nodes to a network that runs, `commonhold node run --config \
             DIR/node-07/node.toml` starts one node again"
        }
        LocalNetworkError::NotRunning { .. } => "start one with `commonhold dev --nodes N --dir DIR`",
        LocalNetworkError::Io { source, .. } => return (Code::Failed, io_help(source)),
        LocalNetworkError::State { .. } => "start afresh in another folder",
        LocalNetworkError::NodeConfig(_) => "correct the file given with --config",
        LocalNetworkError::NodeEnded { log, .. } => {
            return (Code::Failed, format!("its whole log is {}", log.display()));
        }
        LocalNetworkError::NotReady { .. } => "try fewer nodes; the file `log` in each node's folder says more",
        LocalNetworkError::Client(error) => return vault(error),
        LocalNetworkError::Interrupted => return (Code::Interrupted, "all that was started is ended".to_owned()),
    };
    (Code::Failed, help.to_owned())
}

fn io_help(error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the owner and mode of the file and of the folders above it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk, then run it again",
        io::ErrorKind::AlreadyExists => "choose another path",
        io::ErrorKind::ReadOnlyFilesystem => "choose a path on a disk that can be written",
        _ => "check the disk and the path, then run it again",
    };
    help.to_owned()
}

/// A path as it would be typed in a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%:,=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::PathBuf};

    use commonhold_client_sdk::{UnavailableSegment, VaultPath};
    use commonhold_protocol::{DeviceId, SegmentId, Version};

    use super::*;

    fn told(error: Error) -> (u8, String) {
        let failure = Failure::from(error);
        let (code, help) = failure.advice();
        (code as u8, format!("error: {failure}\nhelp: {help}"))
    }

    fn path(text: &str) -> VaultPath {
        VaultPath::parse(OsStr::new(text)).expect("a path")
    }

    #[test]
    fn unavailable_data_says_which_and_how_many() {
        let segment = SegmentId::from_bytes([0x5e; 32]);
        let (code, text) =
            told(Error::Unavailable { segments: vec![UnavailableSegment { segment, reachable: 6, needed: 7 }] });
        assert_eq!(code, 4);
        assert_eq!(
            text,
            "error: data unavailable: segment 5e5e5e5e5e5e5e5e: 6 shards reachable, 7 needed\n\
             help: the data is not lost while its nodes may come back: try again later; `commonhold segments` shows \
             who holds it"
        );
    }

    #[test]
    fn a_missing_path_says_where_to_look() {
        let (code, text) = told(Error::NotFound { path: path("/my photos/2024") });
        assert_eq!(code, 1);
        assert_eq!(
            text,
            "error: /my photos/2024: not in the vault\nhelp: `commonhold ls '/my photos'` shows what is there"
        );
    }

    #[test]
    fn a_home_without_a_vault_says_how_to_get_one() {
        let (code, text) = told(Error::NoVault { home: PathBuf::from("/home/ada/.local/share/commonhold") });
        assert_eq!(code, 1);
        assert_eq!(
            text,
            "error: no vault in /home/ada/.local/share/commonhold\n\
             help: make one with `commonhold init`, recover one with `commonhold init --recover`, or set \
             COMMONHOLD_HOME"
        );
    }

    /// `init` refuses a home that has a vault, so a smaller coding is pinned in its config.
    #[test]
    fn a_coding_too_large_for_the_network_says_where_a_smaller_one_is_pinned() {
        let (code, text) = told(Error::TooFewHolders { have: 3, need: 4 });
        assert_eq!(code, 1);
        assert_eq!(
            text,
            "error: 3 nodes can store here, 4 are needed\n\
             help: wait for more nodes (`commonhold peers` lists them), or pin a smaller coding: `coding = \"K/N\"` \
             under [client] in config.toml, beside the vault file"
        );
    }

    /// What could not be placed or recorded is dropped from its holders, so a second run sends it again.
    #[test]
    fn a_segment_that_was_taken_back_is_not_said_to_be_kept() {
        let segment = SegmentId::from_bytes([0x5e; 32]);
        for error in [
            Error::NotPlaced { segment, placed: 5, needed: 6, refusals: Vec::new() },
            Error::NotRecorded { segment, kept: 2, needed: 5 },
        ] {
            let (code, text) = told(error);
            assert_eq!(code, 1, "{text}");
            assert!(text.ends_with("this segment was taken back and is sent again, others that were placed are not"));
        }
    }

    #[test]
    fn each_kind_of_failure_has_the_code_that_scripts_rely_on() {
        let io = || io::Error::from(io::ErrorKind::PermissionDenied);
        for (error, code) in [
            (Error::Io { action: "read", path: PathBuf::from("/x"), source: io() }, 1),
            (Error::Exists { path: path("/x") }, 1),
            (Error::TargetExists { path: PathBuf::from("x") }, 1),
            (Error::TooFewHolders { have: 3, need: 4 }, 1),
            (Error::VaultFileDamaged { path: PathBuf::from("vault") }, 1),
            (Error::BadPath { path: "/..".to_owned(), reason: "no" }, 2),
            (Error::BadAddress { address: "here".to_owned() }, 2),
            (Error::NoHead { asked: 8 }, 4),
            (Error::NoNetwork { network: "main".to_owned(), tried: 3 }, 5),
            (Error::WrongPassphrase, 7),
            (Error::WrongPhrase { reason: "no".to_owned() }, 7),
            (Error::UnknownVault { network: "main".to_owned() }, 7),
            (Error::Interrupted, 130),
        ] {
            let text = error.to_string();
            assert_eq!(told(error).0, code, "{text}");
        }
        let in_part = Failure::DoneInPart { count: 2, verb: "stored" };
        assert_eq!(in_part.advice().0, Code::DoneInPart);
        assert_eq!(in_part.to_string(), "2 files or folders could not be stored");
    }

    /// A state that is merely older is merged with ours as soon as the newer one is back; one that went on without ours,
    /// or that we cannot read, is not.
    #[test]
    fn what_cannot_be_merged_has_a_code_of_its_own() {
        let version = |counters: &[(u8, u64)]| {
            Version::from_counters(counters.iter().map(|(device, counter)| (DeviceId([*device; 8]), *counter)))
        };
        let older = |offered| Error::OlderHead { seen: version(&[(1, 3), (2, 5)]), offered };
        assert_eq!(told(older(version(&[(1, 3), (2, 4)]))).0, 4);
        assert_eq!(told(older(version(&[(1, 3)]))).0, 4);
        for error in [
            older(version(&[(1, 4), (2, 4)])),
            older(version(&[(1, 3), (3, 1)])),
            Error::HeadDamaged { reason: "version 2 is not known here".to_owned() },
            Error::Contended { rounds: 8 },
        ] {
            let (code, text) = told(error);
            assert_eq!(code, 6, "{text}");
        }
        // Too many processes in one home are no conflict: each can be run later.
        assert_eq!(told(Error::TooManyWriters { home: PathBuf::from("home"), writers_max: 64 }).0, 1);
    }

    #[test]
    fn paths_in_help_can_be_pasted() {
        assert_eq!(quoted("/a/b.txt"), "/a/b.txt");
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
