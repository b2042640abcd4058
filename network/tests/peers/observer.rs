//! An observer hears of all that moves between two peers, in the order in which it moves, whichever side began.

use std::{
    fmt::{self, Debug, Write},
    sync::{Arc, Mutex},
};

use commonhold_network::{Observer, PeerConfig, Way};
use commonhold_protocol::{
    SegmentId, ShardIndex,
    ask::{Request, Response},
    shard_stream::{GroupRange, ShardReply, ShardRequest},
};

use crate::harness::{Node, PATIENCE, client_config, config, manifest, network, noise, start_observed};

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn note(&self, way: Way, what: &impl Debug) {
        let way = if matches!(way, Way::From(_)) { "from" } else { "to" };
        self.0.lock().unwrap().push(format!("{way} {}", first_word(what)));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The name of an enum's variant.
fn first_word(what: &impl Debug) -> String {
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
    let _ = write!(word, "{what:?}");
    word.0
}

impl Observer for Heard {
    fn request(&self, way: Way, request: &Request) {
        self.note(way, request);
    }

    fn response(&self, way: Way, response: &Response) {
        self.note(way, response);
    }

    fn shard_request(&self, way: Way, request: &ShardRequest) {
        self.note(way, request);
    }

    fn shard_reply(&self, way: Way, reply: &ShardReply) {
        self.note(way, reply);
    }

    fn shard_bytes(&self, way: Way, bytes: &[u8]) {
        self.note(way, &bytes.len());
    }
}

async fn observed(config: PeerConfig) -> (Node, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    (start_observed(config, heard.clone()).await, heard)
}

#[tokio::test]
async fn both_sides_hear_of_each_message() {
    let network = network();
    let (holder, by_holder) = observed(config(&network, 1)).await;
    let (asker, by_asker) = observed(client_config(&network, 2)).await;
    holder.introduce_to(&asker.peer);
    // What the one hears as sent, the other hears as received.
    let both_heard = |sent: &[&str]| {
        let (sent_by_asker, heard_by_holder) = (by_asker.take(), by_holder.take());
        assert_eq!(sent_by_asker, sent);
        let turned = sent.iter().map(|what| match what.split_once(' ').unwrap() {
            ("to", what) => format!("from {what}"),
            (_, what) => format!("to {what}"),
        });
        assert_eq!(heard_by_holder, turned.collect::<Vec<_>>());
    };
    let ask = |request| asker.peer.ask(holder.id(), request, PATIENCE);
    ask(Request::About).await.unwrap();
    both_heard(&["to About", "from About"]);
    ask(Request::FetchRecords { segments: vec![SegmentId::from_bytes([1; 32])] }).await.unwrap();
    both_heard(&["to FetchRecords", "from Refused"]);

    let manifest = manifest(&network, 1, 4096);
    let store = || asker.peer.store_shard(holder.id(), manifest.to_unverified(), ShardIndex(0), None, noise(4096, 1));
    store().await.unwrap();
    both_heard(&["to Store", "from Go", "to 4096", "from Stored"]);
    store().await.unwrap();
    both_heard(&["to Store", "from Stored"]);
    let ranges = || vec![GroupRange::whole(4096)];
    asker.peer.read_shard(holder.id(), manifest.id(), ShardIndex(0), ranges(), false).await.unwrap();
    both_heard(&["to Read", "from Range", "from 4096"]);
    asker.peer.read_shard(holder.id(), manifest.id(), ShardIndex(1), ranges(), false).await.unwrap_err();
    both_heard(&["to Read", "from Refused"]);
}
