//! Nodes in two network namespaces with a cable between them, which can be pulled, and can be a poor one. That takes root.
//! Everything is taken down when dropped.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Finished, Home, PASSPHRASE, PROGRAM, eventually, mortal, process};

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    A,
    B,
}

/// What lies between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cable {
    Good,
    /// Once it has turned poor, each frame takes so long, and so many of a hundred are lost, either way.
    TurnsPoor {
        delay_ms: u32,
        loss_percent: u32,
    },
}

/// What the two sides are to be.
pub(crate) struct Sides<'a> {
    /// How many nodes are on each.
    pub(crate) nodes: [usize; 2],
    /// Each side is one failure domain, or else each node.
    pub(crate) side_is_domain: bool,
    /// What stands in every node's config besides: first what belongs to its section `[pledge]`, if anything.
    pub(crate) config: &'a str,
    pub(crate) cable: Cable,
}

pub(crate) struct TwoSides {
    folder: tempfile::TempDir,
    /// Of the network, and of the namespaces.
    name: String,
    /// Carries the frames of a cable that can turn poor.
    wire: Option<Child>,
    nodes: Vec<(Side, PathBuf, Child)>,
}

impl TwoSides {
    /// A network on two sides; none without root.
    pub(crate) fn set_up(sides: &Sides<'_>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("commonhold-two-sides-").tempdir().unwrap();
        let name = format!("dev-{:08x}", rand::random::<u32>());
        let mut lab = Self { folder, name, wire: None, nodes: Vec::new() };
        let [a, b] = [lab.space(Side::A), lab.space(Side::B)];
        for space in [&a, &b] {
            ip(&["netns", "add", space]);
            ip(&["-n", space, "link", "set", "lo", "up"]);
        }
        match sides.cable {
            Cable::Good => {
                ip(&["-n", &a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &b])
            }
            Cable::TurnsPoor { delay_ms, loss_percent } => lab.lay_a_wire(delay_ms, loss_percent),
        }
        for (space, side) in [(&a, Side::A), (&b, Side::B)] {
            ip(&["-n", space, "addr", "add", &format!("{}/24", address_of(side)), "dev", "cable"]);
            ip(&["-n", space, "link", "set", "cable", "up"]);
        }
        for number in 0..sides.nodes.iter().sum() {
            let side = if number < sides.nodes[0] { Side::A } else { Side::B };
            lab.start_node(number, side, sides);
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

    /// A switch in user space over two TAP devices, since the kernel may have no netem: `wire.c`.
    fn lay_a_wire(&mut self, delay_ms: u32, loss_percent: u32) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/harness/two_sides/wire.c");
        let program = self.folder.path().join("wire");
        Finished::of(Command::new("cc").args(["-O2", "-o"]).args([&program, &source])).expect_code(0);
        // In microseconds and parts of a million; no jitter, no limit of the rate.
        let port = |name: &str| format!("{name}:{}:0:{}:0", delay_ms * 1000, loss_percent * 10_000);
        let middle = format!("{}-wire", self.name);
        ip(&["netns", "add", &middle]);
        let mut wire = mortal("ip");
        wire.args(["netns", "exec", &middle]).arg(&program).args([port("end-a"), port("end-b")]);
        self.wire = Some(wire.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        for (end, side) in [("end-a", Side::A), ("end-b", Side::B)] {
            let exists = || {
                let mut show = Command::new("ip");
                show.args(["-n", &middle, "link", "show", end]).stdout(Stdio::null()).stderr(Stdio::null());
                show.status().unwrap().success()
            };
            eventually("the wire has its ends", exists);
            let space = self.space(side);
            ip(&["-n", &middle, "link", "set", end, "netns", &space]);
            ip(&["-n", &space, "link", "set", end, "name", "cable"]);
        }
    }

    fn start_node(&mut self, number: usize, side: Side, sides: &Sides<'_>) {
        let folder = self.folder.path().join(format!("node-{number:02}"));
        fs::create_dir(&folder).unwrap();
        let bootstrap = self.addresses().first().map(|address| format!("{address:?}")).unwrap_or_default();
        let domain = if sides.side_is_domain { format!("side-{side:?}") } else { format!("node-{number:02}") };
        let config = format!(
            "[node]\ndomain = \"{domain}\"\nlisten = [\"/ip4/{}/tcp/0\"]\nbootstrap = [{bootstrap}]\n\
             [network]\nname = \"{}\"\n[dashboard]\nlisten = \"127.0.0.1:0\"\n[pledge]\nkeep-free = \"64 MiB\"\n{}",
            address_of(side),
            self.name,
            sides.config,
        );
        let path = folder.join("node.toml");
        fs::write(&path, config).unwrap();
        let child = self.run_node(side, &folder);
        self.nodes.push((side, folder.clone(), child));
        eventually("a node listens", || folder.join("addr").exists());
    }

    fn run_node(&self, side: Side, folder: &Path) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = self.inside(side);
        command.args([PROGRAM, "node", "run", "--config"]).arg(folder.join("node.toml")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    /// What a node has logged.
    pub(crate) fn log(&self, number: usize) -> String {
        fs::read_to_string(self.nodes[number].1.join("log")).unwrap()
    }

    /// Addresses of the nodes, one each.
    fn addresses(&self) -> Vec<String> {
        let read = |(_, folder, _): &(Side, PathBuf, Child)| fs::read_to_string(folder.join("addr")).ok();
        self.nodes.iter().filter_map(read).map(|text| text.lines().next().unwrap().to_owned()).collect()
    }

    /// What all nodes of one side say of themselves.
    pub(crate) fn statuses(&self, side: Side) -> Vec<serde_json::Value> {
        let there = self.nodes.iter().filter(|(of, ..)| *of == side);
        there.map(|(_, folder, _)| self.status(side, folder).expect("the node runs")).collect()
    }

    /// The sum of a figure over the nodes of one side.
    pub(crate) fn figures(&self, side: Side, path: &str) -> u64 {
        let figure = |status: serde_json::Value| status.pointer(path).and_then(serde_json::Value::as_u64).unwrap();
        self.statuses(side).into_iter().map(figure).sum()
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

    fn home(&self, side: Side) -> PathBuf {
        self.folder.path().join(format!("home-{side:?}"))
    }

    /// A command of the one home on that side, not yet run.
    fn client_command(&self, side: Side, arguments: &[&str]) -> Command {
        let mut command = self.inside(side);
        command.arg(PROGRAM).args(arguments).stdin(Stdio::null());
        command.env("COMMONHOLD_HOME", self.home(side));
        command.env("COMMONHOLD_PASSPHRASE", PASSPHRASE);
        command
    }

    /// Runs a command of the one home on that side.
    pub(crate) fn client(&self, side: Side, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.client_command(side, arguments))
    }

    /// The same as a machine that has the keys, and remembers nothing.
    pub(crate) fn client_without_memory(&self, side: Side, arguments: &[&str]) -> Finished {
        let fresh = tempfile::tempdir_in(self.folder.path()).unwrap();
        let home = Home::at(self.home(side), Vec::new()).without_memory(fresh.path().join("home"));
        Finished::of(self.client_command(side, arguments).env("COMMONHOLD_HOME", &home.dir)).expect_code(0)
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

    /// From now on the cable is a poor one.
    pub(crate) fn turn_poor(&self) {
        process::signal(self.wire.as_ref().expect("it can turn poor").id(), "USR1");
    }

    /// Ends a node and starts it again.
    pub(crate) fn restart(&mut self, number: usize) {
        let (side, folder, child) = &mut self.nodes[number];
        process::signal(child.id(), "TERM");
        child.wait().unwrap();
        let (side, folder) = (*side, folder.clone());
        self.nodes[number].2 = self.run_node(side, &folder);
        eventually("it answers again", || self.status(side, &folder).is_some());
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
        let mut spaces = vec![self.space(Side::A), self.space(Side::B)];
        if let Some(wire) = &mut self.wire {
            let _ = wire.kill();
            let _ = wire.wait();
            spaces.push(format!("{}-wire", self.name));
        }
        for space in spaces {
            let _ = Command::new("ip").args(["netns", "del", &space]).status();
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
