//! Nodes in two network namespaces with a cable between them. Everything is taken down when dropped.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::harness::{Finished, PASSPHRASE, PROGRAM, eventually, mortal};

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    A,
    B,
}

pub(crate) struct TwoSides {
    folder: tempfile::TempDir,
    /// Of the network, and of the namespaces.
    name: String,
    nodes: Vec<(Side, PathBuf, Child)>,
}

impl TwoSides {
    /// A network with so many nodes on each side; none without root.
    pub(crate) fn set_up(nodes_per_side: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("commonhold-two-sides-").tempdir().unwrap();
        let name = format!("dev-{:08x}", rand::random::<u32>());
        let mut lab = Self { folder, name, nodes: Vec::new() };
        let [a, b] = [lab.space(Side::A), lab.space(Side::B)];
        for space in [&a, &b] {
            ip(&["netns", "add", space]);
            ip(&["-n", space, "link", "set", "lo", "up"]);
        }
        ip(&["-n", &a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &b]);
        for (space, side) in [(&a, Side::A), (&b, Side::B)] {
            ip(&["-n", space, "addr", "add", &format!("{}/24", address_of(side)), "dev", "cable"]);
            ip(&["-n", space, "link", "set", "cable", "up"]);
        }
        for number in 0..2 * nodes_per_side {
            let side = if number < nodes_per_side { Side::A } else { Side::B };
            lab.start_node(number, side);
        }
        let others = lab.nodes.len() as u64 - 1;
        for (side, folder, _) in &lab.nodes {
            eventually("every node knows all others", || {
                let status = lab.status(*side, folder);
                status.is_some_and(|status| status["nodes_known"].as_u64().unwrap() >= others)
            });
        }
        Some(lab)
    }

    fn start_node(&mut self, number: usize, side: Side) {
        let folder = self.folder.path().join(format!("node-{number:02}"));
        fs::create_dir(&folder).unwrap();
        let bootstrap = self.addresses().first().map(|address| format!("{address:?}")).unwrap_or_default();
        let config = format!(
            "[node]\ndomain = \"side-{side:?}\"\nlisten = [\"/ip4/{}/tcp/0\"]\nbootstrap = [{bootstrap}]\n\
             [network]\nname = \"{}\"\n[pledge]\nkeep-free = \"64 MiB\"\n[dashboard]\nlisten = \"127.0.0.1:0\"\n",
            address_of(side),
            self.name
        );
        let path = folder.join("node.toml");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = self.inside(side);
        command.args([PROGRAM, "node", "run", "--config"]).arg(path).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes.push((side, folder.clone(), command.spawn().unwrap()));
        eventually("a node listens", || folder.join("addr").exists());
    }

    /// Addresses of the nodes, one each.
    fn addresses(&self) -> Vec<String> {
        let read = |(_, folder, _): &(Side, PathBuf, Child)| fs::read_to_string(folder.join("addr")).ok();
        self.nodes.iter().filter_map(read).map(|text| text.lines().next().unwrap().to_owned()).collect()
    }

    fn status(&self, side: Side, folder: &Path) -> Option<serde_json::Value> {
        let mut command = self.inside(side);
        command.args([PROGRAM, "--json", "node", "status", "--config"]).arg(folder.join("node.toml"));
        let output = command.output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    fn space(&self, side: Side) -> String {
        format!("{}-{side:?}", self.name)
    }

    /// A command in the namespace of one side.
    fn inside(&self, side: Side) -> Command {
        let mut command = mortal("ip");
        command.args(["netns", "exec", &self.space(side)]);
        command
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// A command of the one home on that side, not yet run.
    fn client_command(&self, side: Side, arguments: &[&str]) -> Command {
        let mut command = self.inside(side);
        command.arg(PROGRAM).args(arguments).stdin(Stdio::null());
        command.env("COMMONHOLD_HOME", self.folder.path().join(format!("home-{side:?}")));
        command.env("COMMONHOLD_PASSPHRASE", PASSPHRASE);
        command
    }

    /// Runs a command of the one home on that side.
    pub(crate) fn client(&self, side: Side, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.client_command(side, arguments))
    }

    /// Makes a vault on one side; gives its phrase.
    pub(crate) fn init(&self, side: Side, coding: &str) -> String {
        let mut command = self.client_command(side, &["init", "--coding", coding]);
        let made = Finished::of(self.entered(&mut command)).expect_code(0);
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// Takes the vault up on the other.
    pub(crate) fn recover(&self, side: Side, coding: &str, phrase: &str) {
        let mut command = self.client_command(side, &["init", "--recover", "--quiet", "--coding", coding]);
        let mut child = self.entered(&mut command).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(phrase.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn entered<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.args(["--network", &self.name]);
        for address in self.addresses() {
            command.args(["--bootstrap", &address]);
        }
        command
    }

    /// From now on nothing gets from one side to the other.
    pub(crate) fn pull_the_cable(&self) {
        ip(&["-n", &self.space(Side::A), "link", "set", "cable", "down"]);
    }

    pub(crate) fn plug_it_in(&self) {
        ip(&["-n", &self.space(Side::A), "link", "set", "cable", "up"]);
    }
}

impl Drop for TwoSides {
    fn drop(&mut self) {
        for (_, _, child) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
        }
        for side in [Side::A, Side::B] {
            let _ = Command::new("ip").args(["netns", "del", &self.space(side)]).status();
        }
        if std::thread::panicking() && std::env::var_os("COMMONHOLD_KEEP").is_some() {
            let kept = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()).keep();
            eprintln!("the network's folder is kept: {}", kept.display());
        }
    }
}

fn address_of(side: Side) -> &'static str {
    match side {
        Side::A => "10.78.0.1",
        Side::B => "10.78.0.2",
    }
}

fn ip(arguments: &[&str]) {
    Finished::of(Command::new("ip").args(arguments)).expect_code(0);
}
