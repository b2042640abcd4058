//! A real local network in one call, taken down whatever happens: its `dev` process, its nodes, and those that a test
//! started again. Only processes that work in this network's own folder are ever signalled.

mod client;
mod compare;
mod disk;
mod hand_made;
mod owner;
mod process;
mod scenario;
mod someone;
mod spy;
mod tree;
mod two_sides;
mod wait;
mod watch;

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use commonhold_cheats::{Kind, Lie};
use serde_json::Value;

pub(crate) use self::{
    client::{Finished, Home, Running, bytes_placed},
    compare::{assert_same, contents},
    disk::live_bytes,
    hand_made::{HandMadeVault, in_ms},
    owner::{Owner, salted_segment_of_noise, segment_of_noise},
    process::{has_ended, mortal, peak_bytes},
    scenario::assert_is_of,
    someone::{NOBODY, Someone},
    spy::{Spy, claimed_by, hex_id, keys_of},
    tree::{Tree, noise, seed, words},
    two_sides::{Cable, Side, Sides, TwoSides},
    wait::{eventually, poll_until},
    watch::{Counters, Stored, Watch},
};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_commonhold");
/// The passphrase of every home that tests make.
pub(crate) const PASSPHRASE: &str = "a passphrase for tests alone";
/// More than a loaded machine needs to start any of these networks; then something is wrong.
const READY_MAX: Duration = Duration::from_secs(90);
/// Lines of each node's log that are shown when a network does not come up; what nodes say by default, and whom they meet.
const NODE_LINES: usize = 20;
const NODE_LOG: &str = "info,commonhold_node::node::bootstrap=debug,commonhold_network::swarm::events=debug";

/// What a network is to be.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) nodes: usize,
    /// As many as nodes if none.
    pub(crate) domains: Option<usize>,
    /// `K/N`, pinned for every home.
    pub(crate) coding: Option<&'a str>,
    /// A config to lay over that of every node.
    pub(crate) overlay: Option<&'a str>,
}

/// A running network; gone when dropped.
pub(crate) struct Network {
    folder: tempfile::TempDir,
    /// How many nodes `dev` has started: it waits for those.
    founders: usize,
    coding: Option<String>,
    dev: Child,
    started_again: Vec<(usize, Child)>,
    pub(crate) ready_after: Duration,
}

impl Network {
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let folder = tempfile::Builder::new().prefix("commonhold-net-").tempdir().unwrap();
        let dir = folder.path().join("net");
        let mut command = process::mortal(PROGRAM);
        command.args(["dev", "--nodes", &setup.nodes.to_string(), "--dir"]).arg(&dir);
        if let Some(domains) = setup.domains {
            command.args(["--domains", &domains.to_string()]);
        }
        if let Some(coding) = setup.coding {
            command.args(["--coding", coding]);
        }
        if let Some(overlay) = setup.overlay {
            let path = folder.path().join("overlay.toml");
            fs::write(&path, overlay).unwrap();
            command.arg("--config").arg(path);
        }
        command.env("COMMONHOLD_PASSPHRASE", PASSPHRASE).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(fs::File::create(folder.path().join("dev.log")).unwrap());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", NODE_LOG);
        }
        let started = Instant::now();
        let mut dev = command.spawn().unwrap();
        let lines = BufReader::new(dev.stdout.take().unwrap()).lines();
        let mut network = Self {
            folder,
            founders: setup.nodes,
            coding: setup.coding.map(str::to_owned),
            dev,
            started_again: Vec::new(),
            ready_after: Duration::ZERO,
        };
        let (ready, is_ready) = sync_channel(1);
        std::thread::spawn(move || {
            // Reads to the end, so that `dev` never waits for a reader.
            for line in lines.map_while(Result::ok) {
                if line == "ready" {
                    let _ = ready.try_send(());
                }
            }
        });
        match is_ready.recv_timeout(READY_MAX) {
            Ok(()) => network.ready_after = started.elapsed(),
            Err(RecvTimeoutError::Timeout) => panic!("not ready after {READY_MAX:?}: {}", network.last_words()),
            Err(RecvTimeoutError::Disconnected) => panic!("`dev` has ended: {}", network.last_words()),
        }
        network
    }

    /// What `dev` had to say.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("dev.log")).unwrap_or_default()
    }

    /// The same, and the last that each node had. Asks the nodes, and waits for those that are frozen.
    fn last_words(&self) -> String {
        let mut said = self.log();
        for node in self.nodes() {
            let log = fs::read_to_string(self.node_dir(node).join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(NODE_LINES)..].join("\n");
            write!(said, "\n-- node {node}: {:?}\n{last}", self.status(node)).unwrap();
        }
        said
    }

    /// A place for a test's own files, beside the network's.
    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The folder that was given to `dev`.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("net")
    }

    /// A node's folder: config and data.
    pub(crate) fn node_dir(&self, node: usize) -> PathBuf {
        self.dir().join(format!("node-{node:02}"))
    }

    /// The numbers of all nodes that were ever made here.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        let names = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut numbers: Vec<usize> =
            names.filter_map(|name| name.to_str()?.strip_prefix("node-")?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The network's name.
    pub(crate) fn name(&self) -> String {
        let config = fs::read_to_string(self.dir().join("client/config.toml")).unwrap();
        let config: toml::Table = config.parse().unwrap();
        config["network"]["name"].as_str().unwrap().to_owned()
    }

    /// Where a running node can be dialled.
    pub(crate) fn address(&self, node: usize) -> String {
        let path = self.node_dir(node).join("addr");
        fs::read_to_string(path).unwrap().lines().next().unwrap().to_owned()
    }

    /// The home that `dev` made.
    pub(crate) fn dev_home(&self) -> Home {
        Home::at(self.dir().join("client"), Vec::new())
    }

    /// A new vault in a home of its own, and its phrase.
    pub(crate) fn new_home(&self, name: &str) -> (Home, String) {
        let home = Home::at(self.folder.path().join(name), self.init_arguments(&self.running()));
        let phrase = home.init();
        (home, phrase)
    }

    /// The same vault in another home that knows nothing but the phrase and the addresses of some nodes.
    pub(crate) fn cold_home(&self, name: &str, phrase: &str, bootstrap: &[usize]) -> Home {
        let home = self.blank_home(name, bootstrap);
        home.recover(phrase).expect_code(0);
        home
    }

    /// A home without a vault.
    pub(crate) fn blank_home(&self, name: &str, bootstrap: &[usize]) -> Home {
        Home::at(self.folder.path().join(name), self.init_arguments(bootstrap))
    }

    fn init_arguments(&self, bootstrap: &[usize]) -> Vec<String> {
        let mut arguments = vec!["--network".to_owned(), self.name()];
        arguments.extend(bootstrap.iter().flat_map(|node| ["--bootstrap".to_owned(), self.address(*node)]));
        arguments.extend(self.coding.iter().flat_map(|coding| ["--coding".to_owned(), coding.clone()]));
        arguments
    }

    /// The nodes that answer.
    pub(crate) fn running(&self) -> Vec<usize> {
        self.nodes().into_iter().filter(|node| self.status(*node).is_some()).collect()
    }

    /// What a node's status page says; none if the node does not run.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        let status = commonhold_node::status_of(&self.node_dir(node)).ok()?;
        Some(serde_json::to_value(status).unwrap())
    }

    /// One number of a node's status, by its path in the JSON; of a node that must run.
    pub(crate) fn figure(&self, node: usize, path: &str) -> u64 {
        let status = self.status(node).unwrap_or_else(|| panic!("node {node} does not run"));
        status.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {status}"))
    }

    /// The sum of a figure over all running nodes.
    pub(crate) fn figures(&self, path: &str) -> u64 {
        let statuses = self.nodes().into_iter().filter_map(|node| self.status(node));
        statuses.map(|status| status.pointer(path).and_then(Value::as_u64).unwrap()).sum()
    }

    /// The same over some nodes, which must run.
    pub(crate) fn figures_of(&self, nodes: &[usize], path: &str) -> u64 {
        nodes.iter().map(|node| self.figure(*node, path)).sum()
    }

    /// The files of all volumes, of nodes that do not run too.
    fn volumes(&self) -> Vec<PathBuf> {
        let folders = self.nodes().into_iter().map(|node| self.node_dir(node).join("volumes"));
        folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// Bytes that they take on the disk, with what is reserved for shards to come.
    pub(crate) fn volume_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let taken = |path: PathBuf| fs::metadata(path).map_or(0, |found| found.blocks() * 512);
        self.volumes().into_iter().map(taken).sum()
    }

    /// `node drain`, not yet run.
    pub(crate) fn drain_command(&self, node: usize, options: &[&str]) -> Command {
        let mut command = process::mortal(PROGRAM);
        command.args(["--json", "node", "drain", "--config"]).arg(self.node_dir(node).join("node.toml")).args(options);
        command.stdin(Stdio::null());
        command
    }

    /// `node drain`, to its end.
    pub(crate) fn drain(&self, node: usize, options: &[&str]) -> Finished {
        Finished::of(&mut self.drain_command(node, options))
    }

    /// Changes a key in the config of a node, for its next start.
    pub(crate) fn configure(&self, node: usize, section: &str, key: &str, value: impl Into<toml::Value>) {
        let path = self.node_dir(node).join("node.toml");
        let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        config[section].as_table_mut().unwrap().insert(key.to_owned(), value.into());
        fs::write(path, config.to_string()).unwrap();
    }

    /// A node's id, in hex.
    pub(crate) fn node_id(&self, node: usize) -> String {
        let status = self.status(node).unwrap_or_else(|| panic!("node {node} does not run"));
        status["node"].as_str().unwrap().to_owned()
    }

    /// Ends a node as a power cut would. It is gone when this returns.
    pub(crate) fn kill(&mut self, node: usize) {
        self.end(node, "KILL");
    }

    /// Asks a node to stop, and waits until it has, in order.
    #[track_caller]
    pub(crate) fn stop(&mut self, node: usize) {
        match self.end(node, "TERM") {
            Some(how) => assert!(how.success(), "node {node} ended with {how}"),
            None if node < self.founders => {
                let ended = format!("node-{node:02} has ended (");
                let told = || self.log().lines().find_map(|line| Some(line.strip_prefix(&ended)?.to_owned()));
                let told = poll_until(READY_MAX, told).unwrap_or_else(|| panic!("`dev` does not say how {ended}"));
                assert!(told.starts_with("exit code 0)"), "{ended}{told}");
            }
            // Nobody waits for those that were added; but their last words are known.
            None => assert!(self.has_stopped(node), "node {node} ended in the middle of something"),
        }
    }

    /// Whether a node's last words are that it has stopped.
    pub(crate) fn has_stopped(&self, node: usize) -> bool {
        let log = fs::read_to_string(self.node_dir(node).join("log")).unwrap();
        log.lines().next_back().is_some_and(|line| line.ends_with("the node has stopped"))
    }

    /// Ends `dev` by a signal; says how it ended.
    pub(crate) fn end_dev(&mut self, signal: &str) -> ExitStatus {
        process::signal(self.dev.id(), signal);
        let ended = poll_until(READY_MAX, || self.dev.try_wait().unwrap());
        ended.unwrap_or_else(|| panic!("`dev` still runs {READY_MAX:?} after {signal}: {}", self.log()))
    }

    /// The process of a running node.
    pub(crate) fn pid(&self, node: usize) -> u32 {
        process::working_in(&self.node_dir(node)).unwrap_or_else(|| panic!("node {node} does not run"))
    }

    /// Freezes a node: it is there, and says nothing any more. Like one whose cable was pulled, and unlike one that was
    /// killed, whose connections the kernel closes.
    pub(crate) fn freeze(&self, node: usize) {
        process::signal(self.pid(node), "STOP");
    }

    /// Lets a frozen node go on.
    pub(crate) fn thaw(&self, node: usize) {
        process::signal(self.pid(node), "CONT");
    }

    /// Ends a node by a signal; how, if it was one of ours, which we have to wait for.
    #[track_caller]
    fn end(&mut self, node: usize, signal: &str) -> Option<ExitStatus> {
        let pid = self.pid(node);
        process::signal(pid, signal);
        eventually(&format!("node {node} ends on {signal}"), || process::has_ended(pid));
        let all = std::mem::take(&mut self.started_again);
        let (ended, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(number, _)| *number == node);
        self.started_again = others;
        let mut how = None;
        for (_, mut child) in ended {
            let status = child.wait().unwrap();
            if child.id() == pid {
                how = Some(status);
            }
        }
        how
    }

    /// Starts a node again that was ended, and returns once it answers and knows `others` other nodes.
    pub(crate) fn start_again(&mut self, node: usize, others: u64) {
        self.launch(node);
        self.await_node(node, others);
    }

    /// Starts a node again without waiting for it.
    pub(crate) fn launch(&mut self, node: usize) {
        self.launch_with(node, &[]);
    }

    /// The same with some variables in its environment.
    pub(crate) fn launch_with(&mut self, node: usize, environment: &[(&str, &str)]) {
        let mut command = process::mortal(PROGRAM);
        command.args(["node", "run"]).envs(environment.iter().copied());
        self.launch_as(node, command);
    }

    /// Starts a node that was ended as one that cheats, and returns once it answers and knows `others` other nodes.
    pub(crate) fn start_cheat(&mut self, node: usize, kind: Kind, others: u64) {
        self.launch_cheat(node, kind.name());
        self.await_node(node, others);
    }

    /// Makes stewards that lie of nodes, whether they run or not, and returns once each of them knows all others.
    pub(crate) fn make_liars(&mut self, nodes: &[usize], lie: Lie) {
        let others = self.running().into_iter().filter(|node| !nodes.contains(node)).count() + nodes.len() - 1;
        for node in nodes {
            if self.status(*node).is_some() {
                self.stop(*node);
            }
            self.launch_cheat(*node, lie.name());
        }
        for node in nodes {
            self.await_node(*node, others as u64);
        }
    }

    fn launch_cheat(&mut self, node: usize, name: &str) {
        let program = Path::new(PROGRAM).with_file_name("examples").join("cheats");
        assert!(program.is_file(), "{} is built with the tests: is this still where?", program.display());
        let mut command = process::mortal(program);
        command.arg(name);
        self.launch_as(node, command);
    }

    fn launch_as(&mut self, node: usize, mut command: Command) {
        let folder = self.node_dir(node);
        let log = fs::OpenOptions::new().append(true).create(true).open(folder.join("log")).unwrap();
        command.arg("--config").arg(folder.join("node.toml")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.started_again.push((node, command.spawn().unwrap()));
    }

    /// Waits until a node answers and knows `others` other nodes.
    pub(crate) fn await_node(&self, node: usize, others: u64) {
        eventually(&format!("node {node} runs and knows {others} others"), || {
            let known = self.status(node).and_then(|status| status["nodes_known"].as_u64());
            known.is_some_and(|known| known >= others)
        });
    }

    /// Lets a node that does not run listen on another port from now on.
    pub(crate) fn move_node(&self, node: usize) {
        fs::remove_file(self.node_dir(node).join("listen")).unwrap();
    }

    /// Lets a node that does not run enter the network by another address from now on.
    pub(crate) fn set_bootstrap(&self, node: usize, address: &str) {
        let path = self.node_dir(node).join("node.toml");
        let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let section = config["node"].as_table_mut().unwrap();
        section.insert("bootstrap".to_owned(), toml::Value::Array(vec![address.into()]));
        fs::write(path, config.to_string()).unwrap();
    }

    /// `dev --add`.
    pub(crate) fn add(&self, count: usize, overlay: Option<&str>) {
        let mut command = Command::new(PROGRAM);
        command.args(["dev", "--add", &count.to_string(), "--dir"]).arg(self.dir());
        if let Some(overlay) = overlay {
            let path = self.folder.path().join("added.toml");
            fs::write(&path, overlay).unwrap();
            command.arg("--config").arg(path);
        }
        Finished::of(&mut command).expect_code(0);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("`dev` said: {}", self.last_words());
        }
        let _ = self.dev.kill();
        let _ = self.dev.wait();
        for (_, child) in &mut self.started_again {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Nodes that were added live on their own.
        for node in self.nodes() {
            if let Some(pid) = process::working_in(&self.node_dir(node)) {
                process::signal(pid, "KILL");
            }
        }
        if std::thread::panicking() && std::env::var_os("COMMONHOLD_KEEP").is_some() {
            let kept = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()).keep();
            eprintln!("the network's folder is kept: {}", kept.display());
        }
    }
}
