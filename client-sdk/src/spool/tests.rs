use commonhold_protocol::Coding;
use commonhold_storage_engine::{
    chunk_ref::ChunkKey,
    keys::{VaultKeys, VaultSecret},
    seal::Sealed,
    segment::CodedSegment,
};

use super::*;
use crate::{
    any_bytes::tests::golden,
    table::tests::{fields, segment as placed},
};

struct Fixture {
    _folder: tempfile::TempDir,
    home: Home,
    seal: Arc<LocalSeal>,
    keys: VaultKeys,
    network: NetworkName,
}

/// A coded segment, its chunks and its plain bytes.
struct Segment {
    manifest: Verified<Manifest>,
    chunks: Vec<PackedChunk>,
    shards: Vec<Bytes>,
    bytes: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path().join("home"));
        home.create().expect("a home");
        let secret = VaultSecret::from_bytes([3; 32]);
        Self {
            _folder: folder,
            home,
            seal: Arc::new(LocalSeal::of(&secret)),
            keys: VaultKeys::derive(&secret),
            network: "test".parse().expect("a name"),
        }
    }

    fn device(&self) -> Device {
        self.home.lock_device().expect("a device")
    }

    fn open(&self, device: &Device, taken_over: &[usize]) -> (Spool, Vec<Spooled>) {
        Spool::open(&self.home, device, taken_over, self.seal.clone(), &self.network)
    }

    fn segment(&self, number: u8, length: usize) -> Segment {
        let bytes: Vec<u8> = (0..length).map(|at| (at / 251) as u8 ^ at as u8 ^ number).collect();
        let mut builder = SegmentBuilder::new(self.keys.vault_id(), [number; 16]);
        let sealed = Sealed { bytes: bytes.clone(), key: ChunkKey::from_bytes([number; 32]), plain_length: 9 };
        builder.push(&sealed).expect("room");
        let CodedSegment { manifest, shards } = builder.finish(Coding::new(3, 6).expect("a coding")).expect("coded");
        let manifest = Verified::sign(manifest, self.keys.signing(), &self.network);
        Segment { manifest, chunks: placed(number, 20).chunks, shards, bytes }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.home.spool_dir())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files
    }
}

fn write(spool: &Spool, segment: &Segment) -> Slot {
    spool.write(&segment.manifest, &segment.chunks, &segment.shards).expect("room")
}

fn note(slot: &mut Slot, shards: &[(u8, u8)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(slot.note(shards.iter().map(|(index, node)| (ShardIndex(*index), node_id(*node)))));
}

fn node_id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn assert_found(spooled: &Spooled, segment: &Segment) {
    assert!(spooled.is_whole);
    assert_eq!(spooled.manifest.to_bytes(), segment.manifest.to_bytes());
    assert!(spooled.chunks.iter().map(fields).eq(segment.chunks.iter().map(fields)));
    let again = spooled.segment().expect("readable").finish(segment.manifest.coding).expect("coded");
    assert_eq!(again.shards, segment.shards);
    assert_eq!(again.manifest.roots, segment.manifest.roots);
}

#[test]
fn what_is_under_way_is_found_again_with_those_it_was_sent_to() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, found) = fixture.open(&device, &[]);
    assert!(found.is_empty());
    let segments = [fixture.segment(1, 100_000), fixture.segment(2, 1)];
    let mut slots: Vec<Slot> = segments.iter().map(|segment| write(&spool, segment)).collect();
    note(&mut slots[0], &[(0, 10), (1, 11), (2, 12)]);
    // The second time around only what is new is noted; a shard that moved counts where it was sent last.
    note(&mut slots[0], &[(1, 11), (2, 13)]);
    drop((slots, spool));

    let (_spool, found) = fixture.open(&device, &[]);
    assert_eq!(found.len(), 2);
    found.iter().zip(&segments).for_each(|(spooled, segment)| assert_found(spooled, segment));
    let slot = &found[0].slot;
    assert_eq!(slot.nodes().collect::<Vec<_>>(), [10, 11, 12, 13].map(node_id));
    assert_eq!(slot.sent(), [(0, 10), (1, 11), (2, 13)].map(|(i, node)| (ShardIndex(i), node_id(node))).into());
    assert_eq!(found[1].slot.nodes().count(), 0);
}

#[test]
fn notes_go_on_behind_those_that_were_found() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, _) = fixture.open(&device, &[]);
    note(&mut write(&spool, &fixture.segment(1, 5000)), &[(0, 10)]);
    drop(spool);
    for (round, nodes) in [(1, vec![10, 21]), (2, vec![10, 21, 22])] {
        let (_spool, mut found) = fixture.open(&device, &[]);
        note(&mut found[0].slot, &[(0, 10), (round, 20 + round)]);
        assert_eq!(found[0].slot.nodes().collect::<Vec<_>>(), nodes.into_iter().map(node_id).collect::<Vec<_>>());
    }
}

#[test]
fn a_freed_slot_is_overwritten_and_nothing_of_the_last_segment_is_left() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, _) = fixture.open(&device, &[]);
    let mut slot = write(&spool, &fixture.segment(1, 200_000));
    note(&mut slot, &[(0, 10), (1, 11)]);
    slot.free().expect("freed");
    // Longer, and shorter, than what was there.
    for (number, length) in [(2, 300_000), (3, 50), (4, 150_000)] {
        let segment = fixture.segment(number, length);
        let mut slot = write(&spool, &segment);
        note(&mut slot, &[(4, number)]);
        assert_eq!(fixture.files().len(), 1, "the file is used again");
        let copy = tempfile::tempdir().expect("a folder");
        fs::copy(&fixture.files()[0], copy.path().join("copy")).expect("copied");
        let file = fs::File::open(copy.path().join("copy")).expect("open");
        let read = read(&file, &fixture.seal, &fixture.network).expect("readable").expect("a segment");
        assert_eq!((read.manifest.to_bytes(), read.is_whole), (segment.manifest.to_bytes(), true));
        assert_eq!(read.sent, [(ShardIndex(4), node_id(number))]);
        slot.free().expect("freed");
    }
    drop(spool);
    assert!(fixture.files().is_empty(), "what is free takes no room");
    let (_spool, found) = fixture.open(&device, &[]);
    assert!(found.is_empty());
}

#[test]
fn what_was_given_up_is_found_to_be_dropped_and_not_to_be_gone_on_with() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, _) = fixture.open(&device, &[]);
    let mut slot = write(&spool, &fixture.segment(1, 5000));
    note(&mut slot, &[(0, 10)]);
    slot.give_up().expect("written");
    drop((slot, spool));
    let (_spool, found) = fixture.open(&device, &[]);
    assert!(!found[0].is_whole);
    assert_eq!(found[0].slot.nodes().collect::<Vec<_>>(), [node_id(10)]);
}

/// A kill leaves the beginning of what was written; a power cut may leave anything.
#[test]
fn a_damaged_slot_is_never_gone_on_with() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, _) = fixture.open(&device, &[]);
    let segment = fixture.segment(1, 5000);
    note(&mut write(&spool, &segment), &[(0, 10)]);
    drop(spool);
    let path = &fixture.files()[0];
    let whole = fs::read(path).expect("readable");
    let segment_at = whole.len() - SENT_BYTES - segment.bytes.len();
    let found = |bytes: &[u8]| {
        fs::write(path, bytes).expect("written");
        let (spool, found) = fixture.open(&device, &[]);
        // Or it would be removed as free.
        std::mem::forget(spool);
        found.into_iter().map(|spooled| (spooled.is_whole, spooled.slot.sent.len())).next()
    };
    assert_eq!(found(&whole), Some((true, 1)));
    for at in (0..segment_at).step_by(13).chain([8, 12, 15, 16, segment_at - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        assert_eq!(found(&damaged), None, "byte {at} of the header or the description");
    }
    for at in (segment_at..whole.len() - SENT_BYTES).step_by(97).chain([segment_at]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        assert_eq!(found(&damaged), Some((false, 1)), "byte {at}: who has shards is known all the same");
    }
    for cut in 0..whole.len() {
        let expected = match cut {
            _ if cut < segment_at => None,
            _ if cut < segment_at + segment.bytes.len() => Some((false, 0)),
            _ => Some((true, 0)),
        };
        assert_eq!(found(&whole[..cut]), expected, "cut at {cut}");
    }
    let mut endless = whole[..16].to_vec();
    endless[12..].fill(0xff);
    assert_eq!(found(&endless), None, "no memory is taken for a length that cannot be");
}

#[test]
fn another_vaults_or_networks_slot_is_not_read() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, _) = fixture.open(&device, &[]);
    write(&spool, &fixture.segment(1, 500));
    drop(spool);
    let kept = fs::read(&fixture.files()[0]).expect("readable");
    let other_seal = Arc::new(LocalSeal::of(&VaultSecret::from_bytes([4; 32])));
    let other_network: NetworkName = "other".parse().expect("a name");
    for (seal, network) in [(&other_seal, &fixture.network), (&fixture.seal, &other_network)] {
        fs::write(fixture.home.spool_dir().join("0-0"), &kept).expect("written");
        assert!(Spool::open(&fixture.home, &device, &[], seal.clone(), network).1.is_empty());
    }
}

#[test]
fn slots_of_devices_that_were_taken_over_become_ours() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.device(), fixture.device());
    let segments = [fixture.segment(1, 500), fixture.segment(2, 600)];
    for (device, segment) in [&first, &second].into_iter().zip(&segments) {
        write(&fixture.open(device, &[]).0, segment);
    }
    assert_eq!(fixture.open(&first, &[]).1.len(), 1, "the second device still writes");
    let (_spool, found) = fixture.open(&first, &[second.number]);
    assert_eq!(found.len(), 2);
    found.iter().zip(&segments).for_each(|(spooled, segment)| assert_found(spooled, segment));
    assert!(fixture.open(&second, &[]).1.is_empty());
}

#[test]
fn neither_keys_nor_tags_stand_in_a_slot() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, _) = fixture.open(&device, &[]);
    let segment = fixture.segment(1, 500);
    write(&spool, &segment);
    let slot = fs::read(&fixture.files()[0]).expect("readable");
    for chunk in &segment.chunks {
        assert!(!slot.windows(32).any(|window| window == chunk.key.as_bytes()));
        assert!(!slot.windows(16).any(|window| window == chunk.tag));
    }
}

#[test]
fn without_room_there_is_no_slot_and_no_rest_of_one() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let (spool, _) = fixture.open(&device, &[]);
    fs::remove_dir(fixture.home.spool_dir()).expect("removed");
    let segment = fixture.segment(1, 500);
    assert!(spool.write(&segment.manifest, &segment.chunks, &segment.shards).is_none());
}

/// What a put of version 1 had under way is gone on with for ever.
#[test]
fn golden_slot_of_version_1() {
    let fixture = Fixture::new();
    let device = fixture.device();
    let segment = fixture.segment(1, 300);
    let chunks = Bytes::from(pack(&segment.chunks));
    let plain = prost::Message::encode_to_vec(&DescriptionWire { manifest: segment.manifest.to_bytes(), chunks });
    let description = fixture.seal.seal_with(&[5; 24], PURPOSE, &plain).expect("sealed");
    let header = [b"CHSPOOL1", &1_u32.to_le_bytes()[..], &(description.len() as u32).to_le_bytes()].concat();
    let notes = [&[0][..], &[10; 32], &[2], &[11; 32]].concat();
    let today = [&header, &description, &segment.bytes, &notes].map(Vec::as_slice).concat();
    let path = golden("spool_v1.bin", &today);
    assert!(fs::read(&path).expect("the golden file") == today, "today's encoding is another");

    fs::create_dir_all(fixture.home.spool_dir()).expect("made");
    fs::copy(path, fixture.home.spool_dir().join("0-0")).expect("copied");
    let (spool, found) = fixture.open(&device, &[]);
    assert_eq!(found.len(), 1);
    assert_found(&found[0], &segment);
    assert_eq!(found[0].slot.sent(), [(0, 10), (2, 11)].map(|(i, node)| (ShardIndex(i), node_id(node))).into());
    // What is written today is the same but for the nonce.
    note(&mut write(&spool, &segment), &[(0, 10), (2, 11)]);
    let slot = fs::read(fixture.home.spool_dir().join("0-1")).expect("readable");
    let (head, tail) = slot.split_at(header.len() + description.len());
    assert_eq!((&head[..header.len()], tail), (&header[..], &today[head.len()..]));
    assert_eq!(fixture.seal.open(PURPOSE, &head[header.len()..]).expect("opens"), plain);
}
