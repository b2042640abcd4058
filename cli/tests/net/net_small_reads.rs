//! Promise: who reads a little moves a little, however large the segment is that it lies in: the chunk that was asked
//! for and its proofs, and of the trees what leads there. And who stores a little places a little.

use commonhold_storage_engine::chunk::Chunker;

use super::harness::{Network, Setup, bytes_placed, keys_of, noise};

const FILE_BYTES: usize = 40 << 20;
const READ_BYTES: usize = 4096;
const READS: usize = 5;
/// What may be read besides the chunk: on both its ends what is left of a chunk group, the proofs, and the nodes of the
/// trees from the head down to the file.
const BESIDE_BYTES_MAX: u64 = 128 << 10;
/// What a put of next to nothing may place: all shards of a segment with the folder in it, and of the table of segments
/// the node that changed, which names some hundred chunks.
const SMALL_PUT_BYTES_MAX: u64 = 128 << 10;
/// A slow machine makes a reader ask others for the same; even that is far from a segment of 16 MiB.
const READ_BYTES_MAX: u64 = 4 << 20;

#[test]
fn a_small_read_fetches_a_chunk_and_a_small_put_places_little() {
    // Nothing but our own reads is to be counted.
    let rare = "[audit]\nevery = \"30 d\"\n";
    let network = Network::start(&Setup { nodes: 6, coding: Some("3/6"), overlay: Some(rare), ..Setup::default() });
    let (home, phrase) = network.new_home("home");
    let content = noise(1, FILE_BYTES);
    let source = network.scratch().join("large");
    std::fs::write(&source, &content).unwrap();
    home.put(&source, "/large");

    let chunks = chunks(&content, keys_of(&phrase).chunker_seed());
    let sent = || network.figures("/traffic/shard_bytes_sent");
    let mut beside = Vec::new();
    for read in 0..READS {
        let (start, length) = chunks[(2 * read + 1) * chunks.len() / (2 * READS)];
        let offset = start + length / 2;
        // One that knows the keys and some addresses, and nothing that was read before.
        let reader = home.without_memory(network.scratch().join(format!("reader-{read}")));
        let before = sent();
        let range = [offset, READ_BYTES].map(|number| number.to_string());
        let got = reader.run(["cat", "/large", "--offset", &range[0], "--length", &range[1]]).expect_code(0);
        assert!(got.stdout == content[offset..offset + READ_BYTES], "other bytes than were stored");
        let moved = sent() - before;
        eprintln!("{moved} bytes were sent for a chunk of {length}");
        assert!(moved >= length as u64, "{moved} bytes for a chunk of {length}: is this still how it is counted?");
        assert!(moved < READ_BYTES_MAX, "{moved} bytes were sent for {READ_BYTES}");
        beside.push(moved - length as u64);
    }
    beside.sort_unstable();
    let usual = beside[READS / 2];
    assert!(usual < BESIDE_BYTES_MAX, "{usual} bytes are read besides a chunk");

    let tiny = network.scratch().join("tiny");
    std::fs::write(&tiny, noise(2, 100)).unwrap();
    let received = || network.figures("/traffic/shard_bytes_received");
    let before = received();
    let placed = bytes_placed(&home.put(&tiny, "/tiny"));
    let taken = received() - before;
    eprintln!("{placed} bytes were placed for a file of 100, {taken} received");
    assert!(placed > 0 && placed < SMALL_PUT_BYTES_MAX, "{placed} bytes were placed for a file of 100");
    // By the word of those who took it, too, and of one that came too late to be counted.
    assert!((placed..SMALL_PUT_BYTES_MAX).contains(&taken), "{taken} bytes were received, {placed} were placed");
    assert_eq!(home.cat("/tiny"), noise(2, 100));
}

/// Where the chunks of a file start, and how long they are.
fn chunks(content: &[u8], seed: u64) -> Vec<(usize, usize)> {
    let mut chunker = Chunker::new(content, seed);
    let (mut chunks, mut at) = (Vec::new(), 0);
    while let Some(chunk) = chunker.next_chunk().unwrap() {
        chunks.push((at, chunk.len()));
        at += chunk.len();
    }
    chunks
}
