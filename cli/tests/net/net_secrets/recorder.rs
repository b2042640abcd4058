//! A node as shipped, but run by the test itself and watched: it writes down every message that it sees, after
//! transport decryption and decoding.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use commonhold_node::{Config, Node, Observer};
use commonhold_protocol::{
    Lease, Manifest, NodeId, ShardIndex, Unverified,
    ask::{Request, Response},
};
use tokio::sync::oneshot;

use crate::harness::{Network, eventually};

/// A running node that is watched; stopped when dropped.
pub(crate) struct Recorder {
    folder: PathBuf,
    record: Arc<Record>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Record(Mutex<Vec<u8>>);

impl Record {
    fn note(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }
}

impl Observer for Record {
    fn asked(&self, _: NodeId, request: &Request) {
        self.note(&request.to_bytes());
    }

    fn answered(&self, _: NodeId, response: &Response) {
        self.note(&response.to_bytes());
    }

    fn offered(&self, _: NodeId, manifest: &Unverified<Manifest>, _: ShardIndex, lease: Option<&Unverified<Lease>>) {
        self.note(&manifest.to_bytes());
        lease.into_iter().for_each(|lease| self.note(&lease.to_bytes()));
    }

    fn received(&self, _: NodeId, piece: &[u8]) {
        self.note(piece);
    }

    fn sent(&self, _: NodeId, encoded: &[u8]) {
        self.note(encoded);
    }
}

impl Recorder {
    /// Starts one that joins the network, and waits until it knows all other nodes.
    pub(crate) fn join(network: &Network) -> Self {
        let folder = network.scratch().join("recorder");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("node.toml");
        let text = format!(
            "[node]\nname = \"recorder\"\ndomain = \"recorder\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n\
             bootstrap = [\"{}\"]\n[network]\nname = \"{}\"\n[pledge]\nkeep-free = \"64 MiB\"\n\
             [dashboard]\nlisten = \"127.0.0.1:0\"\n",
            network.address(0),
            network.name()
        );
        fs::write(&path, &text).unwrap();
        let config = Config::load(&path).unwrap();
        let record = Arc::new(Record::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let (data, watching) = (folder.clone(), record.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stopped = async {
                let _ = stopped.await;
            };
            runtime.block_on(Node::run_observed(config, data, watching, stopped)).unwrap();
        });
        let recorder = Self { folder, record, stop: Some(stop), thread: Some(thread) };
        let others = network.nodes().len() as u64;
        eventually("the recorder knows the others", || {
            commonhold_node::status_of(&recorder.folder).is_ok_and(|status| status.nodes_known >= others)
        });
        recorder
    }

    /// Everything that it saw so far.
    pub(crate) fn heard(&self) -> Vec<u8> {
        self.record.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked, the test has failed already.
            let _ = thread.join();
        }
    }
}
