//! Commands run by somebody who is not root.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Finished, Network, PASSPHRASE, PROGRAM};

/// Whom we run the client as where we are root, to whom modes mean nothing.
pub(crate) const NOBODY: u32 = 65534;

/// Somebody to whom modes matter: us, or if we are root, nobody.
pub(crate) struct Someone {
    /// A folder of theirs, with their home in it.
    pub(crate) folder: PathBuf,
    /// The program under test, where they get to it.
    pub(crate) program: PathBuf,
    uid: Option<u32>,
}

impl Someone {
    pub(crate) fn new(network: &Network) -> Self {
        let folder = network.scratch().join("someone");
        fs::create_dir(&folder).unwrap();
        if !rustix::process::geteuid().is_root() {
            return Self { folder, program: PROGRAM.into(), uid: None };
        }
        // The program may lie where only root gets to.
        let program = network.scratch().join("commonhold");
        fs::copy(PROGRAM, &program).unwrap();
        fs::set_permissions(network.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        Self { folder, program, uid: Some(NOBODY) }
    }

    /// A command of theirs, not yet run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.uid {
            None => Command::new(&self.program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command.args(Self::becoming(uid)).arg(&self.program);
                command
            }
        };
        command.args(arguments);
        self.with_home(&mut command);
        command
    }

    /// Gives a command what it takes to run as theirs.
    pub(crate) fn with_home(&self, command: &mut Command) {
        command.env("COMMONHOLD_HOME", self.folder.join("home")).env("COMMONHOLD_PASSPHRASE", PASSPHRASE);
        command.stdin(Stdio::null());
    }

    /// The arguments of `setpriv` that make a process theirs.
    pub(crate) fn becoming(uid: u32) -> Vec<String> {
        let uid = uid.to_string();
        let arguments = ["--reuid", &uid, "--regid", &uid, "--clear-groups", "--pdeathsig", "KILL", "--"];
        arguments.map(str::to_owned).into()
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.command(arguments))
    }

    /// Makes all that is in a folder theirs.
    pub(crate) fn give_away(folder: &Path) {
        if rustix::process::geteuid().is_root() {
            let id = format!("{NOBODY}:{NOBODY}");
            assert!(Command::new("chown").args(["-hR", &id]).arg(folder).status().unwrap().success());
        }
    }
}
