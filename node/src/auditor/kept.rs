//! What the auditor remembers over a restart, in one small file: what it thinks of holders, how long they stay away and
//! have been silent, the challenges that are pinned, what they failed to prove, when it last repaired what, and what waits
//! for a top-up. A steward that forgets would free every cheat of what it has not answered, rebuild what sleepers hold
//! anew, give nobody up, and top nothing up, whenever it restarts.

use std::{collections::BTreeMap, io, path::Path};

use commonhold_policy::{
    audit::{
        CHALLENGE_MAX, Sample,
        containment::{Containment, FAILED_MAX},
    },
    life::NodeLife,
    reputation::Reputation,
};
use commonhold_protocol::{NodeId, SegmentId, ShardIndex, Timestamp};

use super::{Auditor, WardNumber, ward::Ordered};
use crate::{
    data_dir::write_atomically,
    kept_file::{KeptFile, take},
};

/// Version 2 has repairs and absences, 3 what holders failed, 4 what waits for a top-up, 5 how long holders have been
/// silent. Holders with nothing but a few audits passed are left out where there is no room.
const FILE: KeptFile =
    KeptFile { magics: &[b"CHAUDIT1", b"CHAUDIT2", b"CHAUDIT3", b"CHAUDIT4", b"CHAUDIT5"], bytes_max: 4 << 20 };

/// The most repairs that are remembered, the last ones.
const REPAIRED_MAX: usize = 1 << 15;
/// The most segments of which it is remembered since when they wait for a top-up, those that have waited longest.
const WAITING_MAX: usize = 1 << 14;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq)]
struct Kept {
    holders: Vec<KeptHolder>,
    /// When shards of segments were last rebuilt here.
    repaired_at: BTreeMap<SegmentId, Timestamp>,
    /// Since when segments wait for a top-up.
    waits_since: BTreeMap<SegmentId, Timestamp>,
}

/// What is kept of a holder.
#[derive(Debug, Clone, PartialEq)]
struct KeptHolder {
    node: NodeId,
    reputation: Reputation,
    /// [`NodeLife::absence_ms`].
    absence_ms: u64,
    /// [`NodeLife::silent_ms`].
    silent_ms: u64,
    pinned: Vec<Sample>,
    failed: Vec<Sample>,
}

impl KeptHolder {
    /// True if it has answered for all that it was asked for.
    fn owes_nothing(&self) -> bool {
        !self.reputation.disqualified && self.pinned.is_empty() && self.failed.is_empty()
    }
}

impl Auditor {
    /// Takes up what the file says, if there is one.
    pub(super) async fn remember(&mut self) {
        let path = self.parts.kept.clone();
        let read =
            tokio::task::spawn_blocking(move || FILE.read(&path, decode).inspect_err(|error| complain(&path, error)));
        let Ok(Ok(kept)) = read.await else { return };
        self.repaired_at = kept.repaired_at;
        self.waits_since = kept.waits_since;
        let rate = self.schedule.rate();
        for KeptHolder { node, reputation, absence_ms, silent_ms, pinned, failed } in kept.holders {
            let number = self.meet(node);
            let known_since = reputation.known_since.min(self.now());
            if let Some(holder) = self.holders.get_mut(number) {
                holder.reputation = Reputation { known_since, ..reputation };
                holder.life = NodeLife::restore(self.grace_ms, absence_ms, silent_ms);
                holder.containment = Containment::restore(rate, pinned, failed);
            }
        }
    }

    /// Writes the file, if it would say something new.
    pub(super) async fn write_down(&mut self) {
        let clock = &self.parts.clock;
        // Who is cut off itself hears of nobody.
        let is_cut_off = self.is_cut_off();
        let known = self.holders.iter().map(|(_, node, holder)| KeptHolder {
            node: *node,
            reputation: Reputation { known_since: clock.by_system(holder.reputation.known_since), ..holder.reputation },
            absence_ms: holder.life.absence_ms(),
            silent_ms: if is_cut_off { 0 } else { holder.life.silent_ms() },
            pinned: holder.containment.pinned().to_vec(),
            // Who is trusted with nothing is asked for nothing.
            failed: holder.containment.failed().filter(|_| !holder.reputation.disqualified).cloned().collect(),
        });
        let says_something = |kept: &KeptHolder| {
            kept.reputation.audits > 0 || kept.absence_ms > 0 || kept.silent_ms > 0 || !kept.owes_nothing()
        };
        let holders = known.filter(says_something).collect();
        let waits =
            |(ward, order): (&WardNumber, &Ordered)| Some((self.wards.segment(*ward)?, order.machine.waits_since()?));
        let mut waits_since = self.waits_since.clone();
        waits_since.extend(self.orders.iter().filter_map(waits));
        waits_since.values_mut().for_each(|since| *since = clock.by_system(*since));
        let bytes = encode(Kept { holders, repaired_at: self.repaired_at.clone(), waits_since });
        let hash = blake3::hash(&bytes);
        if self.written.replace(hash) == Some(hash) {
            return;
        }
        let path = self.parts.kept.clone();
        let write = move || write_atomically(&path, &bytes).inspect_err(|error| complain(&path, error)).is_ok();
        if !matches!(tokio::task::spawn_blocking(write).await, Ok(true)) {
            self.written = None;
        }
    }
}

fn complain(path: &Path, error: &io::Error) {
    tracing::warn!(%error, path = %path.display(), "what is known of holders cannot be kept");
}

/// The last repairs, what waits longest, then the holders that matter most, as many as there is room for.
fn encode(Kept { mut holders, repaired_at, waits_since }: Kept) -> Vec<u8> {
    let mut bytes = KeptFile::begin();
    let mut repaired: Vec<(SegmentId, Timestamp)> = repaired_at.into_iter().collect();
    repaired.sort_by_key(|(segment, at)| (std::cmp::Reverse(*at), *segment));
    let mut waiting: Vec<(SegmentId, Timestamp)> = waits_since.into_iter().collect();
    waiting.sort_by_key(|(segment, since)| (*since, *segment));
    for (mut moments, most) in [(repaired, REPAIRED_MAX), (waiting, WAITING_MAX)] {
        moments.truncate(most);
        bytes.extend_from_slice(&(moments.len() as u32).to_le_bytes());
        for (segment, at) in moments {
            bytes.extend_from_slice(segment.as_bytes());
            bytes.extend_from_slice(&at.0.to_le_bytes());
        }
    }
    holders.sort_by_key(|kept| (kept.owes_nothing(), std::cmp::Reverse(kept.reputation.audits), kept.node));
    for kept in &holders {
        let before = bytes.len();
        encode_one(kept, &mut bytes);
        if bytes.len() > FILE.bytes_max {
            bytes.truncate(before);
        }
    }
    FILE.finish(&mut bytes);
    bytes
}

fn encode_one(kept: &KeptHolder, bytes: &mut Vec<u8>) {
    let Reputation { alpha, beta, audits, known_since, disqualified } = kept.reputation;
    bytes.extend_from_slice(kept.node.as_bytes());
    bytes.extend_from_slice(&alpha.to_le_bytes());
    bytes.extend_from_slice(&beta.to_le_bytes());
    bytes.extend_from_slice(&audits.to_le_bytes());
    bytes.extend_from_slice(&known_since.0.to_le_bytes());
    bytes.extend_from_slice(&kept.absence_ms.to_le_bytes());
    bytes.extend_from_slice(&kept.silent_ms.to_le_bytes());
    bytes.push(disqualified.into());
    // The counts are at most CHALLENGE_MAX, FAILED_MAX and CHALLENGE_MAX, by the machine that pins and remembers.
    bytes.push(kept.pinned.len() as u8);
    bytes.extend_from_slice(&(kept.failed.len() as u16).to_le_bytes());
    for sample in kept.pinned.iter().chain(&kept.failed) {
        bytes.extend_from_slice(sample.segment.as_bytes());
        bytes.push(sample.index.0);
        bytes.push(sample.groups.len() as u8);
        sample.groups.iter().for_each(|group| bytes.extend_from_slice(&group.to_le_bytes()));
    }
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (version, mut rest) = FILE.open(bytes)?;
    let mut kept = Kept::default();
    for (moments, first_version) in [(&mut kept.repaired_at, 2), (&mut kept.waits_since, 4)] {
        let count = if version < first_version { 0 } else { u32::from_le_bytes(take(&mut rest)?) };
        for _ in 0..count {
            let segment = SegmentId::from_bytes(take(&mut rest)?);
            moments.insert(segment, Timestamp(u64::from_le_bytes(take(&mut rest)?)));
        }
    }
    while !rest.is_empty() {
        kept.holders.push(decode_one(&mut rest, version)?);
    }
    Some(kept)
}

fn decode_one(rest: &mut &[u8], version: usize) -> Option<KeptHolder> {
    let node = NodeId::from_bytes(take(rest)?);
    let [alpha, beta] = [f64::from_le_bytes(take(rest)?), f64::from_le_bytes(take(rest)?)];
    let is_score = |part: f64| part.is_finite() && part >= 0.0;
    if !is_score(alpha) || !is_score(beta) {
        return None;
    }
    let audits = u32::from_le_bytes(take(rest)?);
    let known_since = Timestamp(u64::from_le_bytes(take(rest)?));
    let absence_ms = if version < 2 { 0 } else { u64::from_le_bytes(take(rest)?) };
    let silent_ms = if version < 5 { 0 } else { u64::from_le_bytes(take(rest)?) };
    let [disqualified, pinned] = take(rest)?;
    let failed = if version < 3 { 0 } else { u16::from_le_bytes(take(rest)?) };
    if disqualified > 1 || usize::from(pinned) > CHALLENGE_MAX || usize::from(failed) > FAILED_MAX {
        return None;
    }
    let reputation = Reputation { alpha, beta, audits, known_since, disqualified: disqualified == 1 };
    let mut samples = |count: usize| (0..count).map(|_| decode_sample(rest)).collect::<Option<_>>();
    let (pinned, failed) = (samples(pinned.into())?, samples(failed.into())?);
    Some(KeptHolder { node, reputation, absence_ms, silent_ms, pinned, failed })
}

fn decode_sample(rest: &mut &[u8]) -> Option<Sample> {
    let segment = SegmentId::from_bytes(take(rest)?);
    let [index, count] = take(rest)?;
    if count == 0 || usize::from(count) > CHALLENGE_MAX {
        return None;
    }
    let groups: Vec<u32> = (0..count).map(|_| take(rest).map(u32::from_le_bytes)).collect::<Option<_>>()?;
    groups.is_sorted_by(|a, b| a < b).then_some(Sample { segment, index: ShardIndex(index), groups })
}

/// Any bytes in the place of the file: no panic, and what is read is written as something that reads the same. For
/// tests and, by the feature `fuzzing`, for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub fn audits_of_any_bytes(bytes: &[u8]) {
    if let Some(all) = decode(bytes) {
        // In the order in which they are written.
        let sorted = decode(&encode(all.clone())).expect("what was written is read");
        assert_eq!((sorted.holders.len(), sorted.repaired_at), (all.holders.len(), all.repaired_at));
        assert_eq!(sorted.waits_since, all.waits_since);
        assert!(all.holders.iter().all(|kept| sorted.holders.contains(kept)));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use commonhold_policy::audit::{Outcome, schedule::Rate};
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::kept_file::{
        HEADER_BYTES,
        checks::{damage_is_noticed, file_of},
    };

    fn holder(number: u32, wrong: u32, pinned: usize, failed: usize) -> KeptHolder {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        let mut reputation = Reputation::new(Timestamp(u64::from(number)));
        (0..=wrong).for_each(|_| _ = reputation.count(Outcome::Wrong));
        let sample =
            |at| Sample { segment: SegmentId::from_bytes([at as u8; 32]), index: ShardIndex(3), groups: vec![1, 9] };
        let [pinned, failed] = [pinned, failed].map(|count| (0..count).map(sample).collect());
        let [absence_ms, silent_ms] = [20, 10].map(|bits| u64::from(number) << bits);
        KeptHolder { node: NodeId::from_bytes(id), reputation, absence_ms, silent_ms, pinned, failed }
    }

    fn kept(holders: &[KeptHolder]) -> Kept {
        let moment = |number: u8| (SegmentId::from_bytes([number; 32]), Timestamp(1_000 + u64::from(number)));
        let [repaired_at, waits_since] = [1..3, 4..5].map(|numbers| numbers.map(moment).collect());
        Kept { holders: holders.to_vec(), repaired_at, waits_since }
    }

    #[test]
    fn what_is_known_of_holders_and_repairs_is_remembered_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audits");
        assert_eq!(FILE.read(&path, decode).unwrap(), Kept::default());
        let all = [holder(1, 40, 0, 1), holder(2, 0, 32, FAILED_MAX), holder(3, 0, 0, 0)];
        assert!(all[0].reputation.disqualified && !all[1].reputation.disqualified);
        let mut turned = kept(&all);
        turned.holders.reverse();
        write_atomically(&path, &encode(turned)).unwrap();
        let back = FILE.read(&path, decode).unwrap();
        assert_eq!(back, kept(&all), "those that matter most come first");
        let KeptHolder { pinned, failed, .. } = back.holders[1].clone();
        let restored = Containment::restore(Rate::default(), pinned, failed);
        assert!(restored.is_pinned() && restored.pinned() == all[1].pinned && !restored.is_idle());
        assert!(restored.failed().eq(&all[1].failed));
    }

    #[test]
    fn a_damaged_file_is_refused_whatever_was_changed() {
        const MOMENTS_BYTES: usize = 4 + 2 * 40 + 4 + 40;
        let bytes = encode(kept(&[holder(1, 40, 2, 1), holder(2, 0, 0, 0)]));
        damage_is_noticed(&bytes, decode);
        let resummed = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            FILE.finish(&mut bytes);
            decode(&bytes)
        };
        let first = HEADER_BYTES + MOMENTS_BYTES;
        assert!(resummed(first, 99).is_some(), "another node");
        let [disqualified, pinned] = [first + 76, first + 77];
        assert_eq!((bytes[disqualified], bytes[pinned]), (1, 2));
        assert_eq!(resummed(disqualified, 2), None);
        assert_eq!(resummed(pinned, 33), None, "more than a challenge holds");
        assert_eq!(resummed(pinned + 2, 9), None, "more than are remembered");
        assert_eq!(resummed(pinned + 36, 0), None, "no group");
        assert_eq!(resummed(pinned + 37, 9), None, "groups that do not ascend");
        assert_eq!(resummed(HEADER_BYTES + 3, 0xff), None, "more repairs than there are bytes");
    }

    proptest! {
        #[test]
        fn noise_is_refused_or_read(bytes in vec(any::<u8>(), 0..1000)) {
            audits_of_any_bytes(&bytes);
            audits_of_any_bytes(&file_of(&FILE, &bytes));
        }

        /// With its sum put right, so that what is behind it is read.
        #[test]
        fn so_is_a_file_that_was_changed(pinned in 0..33_usize, changes in vec(any::<(Index, u8)>(), 0..4)) {
            let mut bytes = encode(kept(&[holder(1, 40, pinned, 2), holder(2, 0, 1, 0)]));
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            FILE.finish(&mut bytes);
            audits_of_any_bytes(&bytes);
        }
    }

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    /// `COMMONHOLD_WRITE_GOLDEN=1` writes the file if it is missing; one that is there never changes.
    #[test]
    fn a_file_of_version_5_is_read_and_still_written_so() {
        let all = kept(&[holder(1, 40, 0, 3), holder(2, 0, 2, 0), holder(3, 1, 0, 0)]);
        let path = golden("audits_v5.bin");
        if !path.exists() && std::env::var_os("COMMONHOLD_WRITE_GOLDEN").is_some() {
            fs::write(&path, encode(all.clone())).unwrap();
        }
        let golden = fs::read(&path).expect("the golden file");
        assert_eq!(decode(&golden).as_ref(), Some(&all));
        assert!(encode(all) == golden, "today's encoding is another");
    }

    #[test]
    fn files_of_versions_1_to_4_are_read() {
        let of = |number, wrong, pinned, failed| KeptHolder { silent_ms: 0, ..holder(number, wrong, pinned, failed) };
        let of_version_4 = kept(&[of(1, 40, 0, 3), of(2, 0, 2, 0), of(3, 1, 0, 0)]);
        assert_eq!(FILE.read(&golden("audits_v4.bin"), decode).unwrap(), of_version_4);
        let nothing_waits = |kept| Kept { waits_since: BTreeMap::new(), ..kept };
        assert_eq!(FILE.read(&golden("audits_v3.bin"), decode).unwrap(), nothing_waits(of_version_4));
        let mut holders = [of(1, 40, 0, 0), of(2, 0, 2, 0), of(3, 1, 0, 0)];
        assert_eq!(FILE.read(&golden("audits_v2.bin"), decode).unwrap(), nothing_waits(kept(&holders)));
        holders.iter_mut().for_each(|holder| holder.absence_ms = 0);
        let read = FILE.read(&golden("audits_v1.bin"), decode).unwrap();
        assert_eq!(read, Kept { holders: holders.to_vec(), ..Kept::default() });
    }

    #[test]
    fn the_file_is_bounded_and_the_pinned_have_the_first_places() {
        let mut holders: Vec<KeptHolder> = (0..80_000).map(|number| holder(number, 0, 0, 0)).collect();
        holders.push(holder(80_000, 0, 32, 0));
        let repaired = |number: u32| {
            let segment = SegmentId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
            (segment, Timestamp(number.into()))
        };
        let [repaired_at, waits_since] = [40_000, 20_000].map(|count| (0..count).map(repaired).collect());
        let bytes = encode(Kept { holders, repaired_at, waits_since });
        assert!(bytes.len() <= FILE.bytes_max && bytes.len() > FILE.bytes_max - 100, "{}", bytes.len());
        let kept = decode(&bytes).unwrap();
        assert_eq!(kept.holders[0].pinned.len(), 32);
        assert_eq!(kept.repaired_at.len(), REPAIRED_MAX);
        assert!(kept.repaired_at.values().all(|at| at.0 >= 40_000 - REPAIRED_MAX as u64), "the last ones");
        assert_eq!(kept.waits_since.len(), WAITING_MAX);
        assert!(kept.waits_since.values().all(|since| since.0 < WAITING_MAX as u64), "those that wait longest");
    }
}
