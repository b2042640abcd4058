//! A node as shipped, but run by the test itself and watched: it writes down every question and answer, every header of
//! a shard stream and all bytes of shards, those that it says as well as those that it hears, after transport decryption
//! and decoding.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Write},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use commonhold_node::{Config, Node, Observer, Way};
use commonhold_protocol::{
    ask::{Request, Response},
    shard_stream::{ShardReply, ShardRequest},
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

/// What was said and heard: all its bytes, and how many messages of each kind.
#[derive(Default)]
struct Record(Mutex<(Vec<u8>, BTreeMap<String, u64>)>);

impl Record {
    fn note(&self, way: Way, kind: String, bytes: &[u8]) {
        let way = if matches!(way, Way::From(_)) { "heard" } else { "said" };
        let mut record = self.lock();
        record.0.extend_from_slice(bytes);
        *record.1.entry(format!("{way} {kind}")).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, BTreeMap<String, u64>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of an enum's variant.
fn kind(message: &impl Debug) -> String {
    struct Word(String);
    impl Write for Word {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let end = text.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(text.len());
            self.0.push_str(&text[..end]);
            if end < text.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut word = Word(String::new());
    // Ends with an error after the first word.
    let _ = write!(word, "{message:?}");
    word.0
}

impl Observer for Record {
    fn request(&self, way: Way, request: &Request) {
        self.note(way, kind(request), &request.to_bytes());
    }

    fn response(&self, way: Way, response: &Response) {
        self.note(way, kind(response), &response.to_bytes());
    }

    fn shard_request(&self, way: Way, request: &ShardRequest) {
        self.note(way, kind(request), &request.to_bytes());
    }

    fn shard_reply(&self, way: Way, reply: &ShardReply) {
        self.note(way, kind(reply), &reply.to_bytes());
    }

    fn shard_bytes(&self, way: Way, bytes: &[u8]) {
        self.note(way, "bytes".to_owned(), bytes);
    }
}

impl Recorder {
    /// Starts one that joins the network, and waits until it knows all other nodes. `overlay` lies over its config.
    pub(crate) fn join(network: &Network, overlay: &str) -> Self {
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
        fs::write(&path, commonhold_node::config::overlay(&text, overlay, &path).unwrap()).unwrap();
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

    /// The bytes of everything that it said and heard so far.
    pub(crate) fn everything(&self) -> Vec<u8> {
        self.record.lock().0.clone()
    }

    /// How many messages of each kind it said and heard so far: `said Audit`, `heard Audited`.
    pub(crate) fn kinds(&self) -> BTreeMap<String, u64> {
        self.record.lock().1.clone()
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
