//! A local network of real node processes, for `dev` and `demo`: started together, ended together.
//!
//! The nodes are this very executable. They die with us, however we die; nodes that were added or started again by
//! hand live on their own, and are ended with the rest when the network is stopped. Nothing here decides what a node
//! does.

mod error;
mod layout;
mod process;
mod ready;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use commonhold_client_sdk::{
    self as sdk, ClientConfig, ClientSection, Home, NetworkSection, Phrase, parameters::Wanted,
};
use commonhold_node::data_dir;

pub(crate) use self::error::LocalNetworkError;
use self::{
    error::IoContext,
    layout::Layout,
    process::{Life, NodeProcess},
};
use crate::interrupt::Stop;

/// Other nodes named in a node's config: enough that some of them live.
const BOOTSTRAP_MAX: usize = 16;

/// What a local network is to be.
pub(crate) struct Setup<'a> {
    /// New or empty.
    pub(crate) dir: &'a Path,
    pub(crate) nodes: u16,
    /// As many as there are nodes if none.
    pub(crate) domains: Option<u16>,
    /// Wanted for the client's vault.
    pub(crate) coding: Option<Wanted>,
    /// A node config to lay over that of every node.
    pub(crate) overlay: Option<&'a Path>,
    /// Of the client's vault.
    pub(crate) passphrase: &'a str,
}

/// A node of a local network.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct LocalNode {
    pub(crate) number: u16,
    pub(crate) folder: PathBuf,
    pub(crate) address: String,
}

impl LocalNode {
    /// `node-07`.
    pub(crate) fn name(&self) -> String {
        layout::node_name(self.number)
    }
}

/// A running local network; ended when dropped.
pub(crate) struct LocalNetwork {
    layout: Layout,
    processes: Vec<NodeProcess>,
    nodes: Vec<LocalNode>,
    phrase: Option<Phrase>,
    /// Tells `--add` that somebody is there to end what it starts.
    _lock: fs::File,
}

impl LocalNetwork {
    /// Starts a network and returns when it can store.
    pub(crate) fn start(setup: &Setup<'_>, stop: &Stop) -> Result<Self, LocalNetworkError> {
        let (layout, lock) = Layout::create(setup.dir, setup.domains, setup.overlay)?;
        let mut network = Self { layout, processes: Vec::new(), nodes: Vec::new(), phrase: None, _lock: lock };
        // On an early return, dropping it ends what was started.
        network.start_nodes(setup.nodes, stop)?;
        network.make_client(setup)?;
        network.wait_until_it_stores(setup, stop)?;
        Ok(network)
    }

    fn start_nodes(&mut self, count: u16, stop: &Stop) -> Result<(), LocalNetworkError> {
        self.spawn(0, &[])?;
        let first = ready::address(&mut self.processes[0], stop)?;
        for number in 1..count {
            self.spawn(number, std::slice::from_ref(&first))?;
        }
        self.nodes = listening(&mut self.processes, stop)?;
        self.name_others()?;
        ready::all_know_each_other(&mut self.processes, usize::from(count), stop)
    }

    /// Names some of the others in each node's config, so that one that is started again finds the network though
    /// the first node may be dead.
    fn name_others(&self) -> Result<(), LocalNetworkError> {
        for (position, node) in self.nodes.iter().enumerate() {
            let others = self.nodes.iter().cycle().skip(position + 1).take(self.nodes.len() - 1);
            let addresses: Vec<String> = others.take(BOOTSTRAP_MAX).map(|node| node.address.clone()).collect();
            self.layout.write_config(node.number, &node.folder, &addresses)?;
        }
        Ok(())
    }

    fn spawn(&mut self, number: u16, bootstrap: &[String]) -> Result<(), LocalNetworkError> {
        let folder = self.layout.write_node(number, bootstrap)?;
        self.processes.push(NodeProcess::spawn(number, folder, Life::EndsWithUs)?);
        Ok(())
    }

    fn make_client(&mut self, setup: &Setup<'_>) -> Result<(), LocalNetworkError> {
        let config = self.client_config(setup.coding);
        let phrase = sdk::create(&self.client_home(), &config, setup.passphrase)?;
        self.phrase = Some(phrase);
        Ok(())
    }

    /// The config of a client of this network.
    pub(crate) fn client_config(&mut self, coding: Option<Wanted>) -> ClientConfig {
        ClientConfig {
            network: NetworkSection { name: self.layout.network().to_owned(), key: None },
            client: ClientSection {
                bootstrap: self.living().into_iter().map(|node| node.address).collect(),
                coding: coding.map(|coding| coding.to_string()),
                ..ClientSection::default()
            },
        }
    }

    fn wait_until_it_stores(&mut self, setup: &Setup<'_>, stop: &Stop) -> Result<(), LocalNetworkError> {
        ready::client_sees(&self.client_home(), setup.passphrase, usize::from(setup.nodes), stop)
    }

    /// The network's name.
    pub(crate) fn network(&self) -> &str {
        self.layout.network()
    }

    /// The nodes that it was started with and those that it grew by, dead or alive.
    pub(crate) fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// Those of them that run.
    pub(crate) fn living(&mut self) -> Vec<LocalNode> {
        let runs = |process: &mut NodeProcess| (!process.has_ended()).then_some(process.number);
        let running: BTreeSet<u16> = self.processes.iter_mut().filter_map(runs).collect();
        self.nodes.iter().filter(|node| running.contains(&node.number)).cloned().collect()
    }

    /// Starts fresh nodes beside those that run, and returns when they know each other. They end with the network.
    pub(crate) fn grow(&mut self, count: u16, stop: &Stop) -> Result<(), LocalNetworkError> {
        let running: Vec<String> = self.living().into_iter().map(|node| node.address).collect();
        let (first, known) = (self.layout.next_number(), self.processes.len());
        for number in first..first.saturating_add(count) {
            self.spawn(number, &running[..running.len().min(BOOTSTRAP_MAX)])?;
        }
        let fresh = &mut self.processes[known..];
        self.nodes.extend(listening(fresh, stop)?);
        ready::all_know_each_other(fresh, running.len() + fresh.len(), stop)
    }

    /// The home of the client that was made for it.
    pub(crate) fn client_home(&self) -> Home {
        Home::at(self.layout.client_dir())
    }

    /// The recovery phrase of the client's vault, once.
    pub(crate) fn take_phrase(&mut self) -> Option<Phrase> {
        self.phrase.take()
    }

    /// Ends one node at once, as a power cut would.
    pub(crate) fn kill(&mut self, number: u16) -> Result<(), LocalNetworkError> {
        let process = self.processes.iter_mut().find(|process| process.number == number);
        process.map_or(Ok(()), NodeProcess::kill)
    }

    /// The nodes that have ended since the last call, and how.
    pub(crate) fn ended(&mut self) -> Vec<(LocalNode, String)> {
        let mut ended = Vec::new();
        for process in &mut self.processes {
            if let Some(how) = process.newly_ended()
                && let Some(node) = self.nodes.iter().find(|node| node.number == process.number)
            {
                ended.push((node.clone(), how));
            }
        }
        ended
    }
}

impl Drop for LocalNetwork {
    fn drop(&mut self) {
        process::stop_all(&mut self.processes, &self.layout.node_folders());
    }
}

/// Adds nodes to the network that runs in `dir`; they live on their own until that network is stopped.
pub(crate) fn add(
    dir: &Path,
    count: u16,
    overlay: Option<&Path>,
    stop: &Stop,
) -> Result<Vec<LocalNode>, LocalNetworkError> {
    let (layout, _numbers_lock) = Layout::open_running(dir, overlay)?;
    let running = running_addresses(&layout)?;
    if running.is_empty() {
        return Err(LocalNetworkError::NotRunning { dir: dir.to_owned() });
    }
    let first = layout.next_number();
    let mut added = Vec::new();
    let joined = join(&layout, first..first.saturating_add(count), &running, &mut added, stop);
    if joined.is_err() {
        for process in &mut added {
            // Half of them are of no use to anybody.
            let _ = process.kill();
        }
    }
    joined
}

fn join(
    layout: &Layout,
    numbers: std::ops::Range<u16>,
    running: &[String],
    added: &mut Vec<NodeProcess>,
    stop: &Stop,
) -> Result<Vec<LocalNode>, LocalNetworkError> {
    for number in numbers {
        let folder = layout.write_node(number, &running[..running.len().min(BOOTSTRAP_MAX)])?;
        added.push(NodeProcess::spawn(number, folder, Life::OfItsOwn)?);
    }
    let nodes = listening(added, stop)?;
    ready::all_know_each_other(added, running.len() + nodes.len(), stop)?;
    Ok(nodes)
}

/// Waits until each of these nodes listens.
fn listening(processes: &mut [NodeProcess], stop: &Stop) -> Result<Vec<LocalNode>, LocalNetworkError> {
    let node = |process: &mut NodeProcess| {
        let address = ready::address(process, stop)?;
        Ok(LocalNode { number: process.number, folder: process.folder.clone(), address })
    };
    processes.iter_mut().map(node).collect()
}

/// The addresses of the nodes that answer now.
fn running_addresses(layout: &Layout) -> Result<Vec<String>, LocalNetworkError> {
    let mut addresses = Vec::new();
    for folder in layout.node_folders() {
        if commonhold_node::status_of(&folder).is_ok()
            && let Some(text) = data_dir::read(&folder, data_dir::ADDRESS_FILE).doing("read", &folder)?
        {
            addresses.extend(text.lines().next().map(str::to_owned));
        }
    }
    Ok(addresses)
}
