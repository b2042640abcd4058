//! **fetched → verified**: a range of a segment's bytes, from just the shards that it lies in, or from any k of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use commonhold_network::TransferError;
use commonhold_policy::{
    Failure, Standing,
    fetch::{Action, Columns, Complete, Event, Fetch, Holders, Want},
};
use commonhold_protocol::{
    Coding, Manifest, NodeId, SegmentId, ShardIndex, VaultId, Verified,
    ask::{Request, Response},
    record::CLAIMS_PER_INDEX_MAX,
    shard_stream::GroupRange,
};
use commonhold_storage_engine::{prove::decode_ranges, segment::restore_columns};
use futures::{StreamExt, future::AbortHandle, stream::FuturesUnordered};

use crate::{
    catalog::Catalog,
    error::{Error, UnavailableSegment},
    progress::Progress,
    reader::{SealedRange, slices},
    session::{Session, now},
    table::{NodeKey, SegmentInfo},
    upload::failure,
};

/// Proofs of more bytes than this are checked off the network's thread.
const INLINE_VERIFY_BYTES_MAX: usize = 256 << 10;

/// One read from one segment.
pub(crate) struct Download {
    pub(crate) session: Arc<Session>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) vault: VaultId,
    pub(crate) segment: SegmentId,
    /// Bytes of the segment, not empty.
    pub(crate) range: Range<u64>,
    pub(crate) progress: Option<Arc<Progress>>,
}

/// Verified bytes of a shard.
struct Piece {
    columns: Columns,
    /// One after another.
    parts: Vec<Bytes>,
}

impl Piece {
    fn new(start: u64, parts: Vec<Bytes>) -> Self {
        let end = start + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Self { columns: Columns { start, end }, parts }
    }

    fn slice(&self, columns: Columns) -> Option<Vec<Bytes>> {
        let range = columns.start.checked_sub(self.columns.start)?..columns.end.checked_sub(self.columns.start)?;
        slices(&self.parts, range).map(Iterator::collect)
    }
}

/// Who to ask for each shard, by what each steward says: nodes that are known first, then as if the stewards spoke in
/// turn, each as often as an honest one would. Anyone can sign claims, so seven liars can name two dozen holders for
/// each shard; the one whom the honest steward names is among the first eight.
fn in_fair_order(
    coding: Coding,
    words: &[Vec<(ShardIndex, NodeId)>],
    is_known: impl Fn(&NodeId) -> bool,
) -> BTreeMap<ShardIndex, Vec<NodeId>> {
    let mut fair = BTreeMap::new();
    for index in coding.indices() {
        let mut ranked: Vec<(bool, usize, NodeId)> = Vec::new();
        for claims in words {
            let of_index = claims.iter().filter(|(of, _)| *of == index).take(CLAIMS_PER_INDEX_MAX);
            ranked.extend(of_index.enumerate().map(|(turn, (_, node))| (!is_known(node), turn, *node)));
        }
        ranked.sort_by_key(|(unknown, turn, _)| (*unknown, *turn));
        let mut holders: Vec<NodeId> = Vec::new();
        for (.., node) in ranked {
            if !holders.contains(&node) {
                holders.push(node);
            }
        }
        if !holders.is_empty() {
            fair.insert(index, holders);
        }
    }
    fair
}

/// Which columns of which data shards hold the bytes `range` of a segment.
fn wanted_columns(coding: Coding, shard_length: u64, range: &Range<u64>) -> BTreeMap<ShardIndex, Columns> {
    let shards = range.start / shard_length..range.end.div_ceil(shard_length);
    let columns = |shard: u64| {
        let start = range.start.max(shard * shard_length) - shard * shard_length;
        let end = range.end.min((shard + 1) * shard_length) - shard * shard_length;
        (ShardIndex(shard as u8), Columns { start, end })
    };
    shards.take_while(|shard| *shard < u64::from(coding.k())).map(columns).collect()
}

impl Download {
    /// The bytes asked for, each checked against the owner-signed roots.
    pub(crate) async fn run(self) -> Result<SealedRange, Error> {
        let info = match self.catalog.info(&self.segment) {
            Some(info) => info,
            None => self.ask_stewards().await?.ok_or_else(|| self.unavailable(0, 1))?.0,
        };
        let shard_length = info.coding.shard_length(info.length);
        if self.range.end > info.length {
            return Err(self.damaged("a chunk lies beyond the end of the segment"));
        }
        let wanted = wanted_columns(info.coding, shard_length, &self.range);
        let hinted = self.catalog.holders(&info);
        let holders = hinted.into_iter().map(|(index, node)| (index, vec![(node, self.standing(&node))])).collect();
        let want = Want { coding: info.coding, shards: wanted.clone() };
        let (mut machine, mut actions) = Fetch::start(want, holders, now());
        let mut pieces: BTreeMap<ShardIndex, Vec<Piece>> = BTreeMap::new();
        let mut running = FuturesUnordered::new();
        let mut cancels: BTreeMap<(ShardIndex, NodeId), AbortHandle> = BTreeMap::new();
        let mut stewards = std::pin::pin!(futures::future::OptionFuture::from(None));
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Ask { index, node, columns } => {
                        let (read, cancel) = futures::future::abortable(self.read(&info, index, node, columns));
                        cancels.insert((index, node), cancel);
                        running.push(async move { (index, node, read.await) });
                    }
                    Action::Cancel { index, node, slow } => {
                        if let Some(cancel) = cancels.remove(&(index, node)) {
                            cancel.abort();
                        }
                        if slow {
                            self.session.health(|health| health.failed(node, now()));
                        }
                    }
                    Action::AskStewards => stewards.set(Some(self.ask_stewards()).into()),
                    Action::Timer { at } => {
                        let wait = Duration::from_millis(at.ms_since(now()));
                        timer.as_mut().reset(tokio::time::Instant::now() + wait);
                    }
                    Action::Complete(complete) => {
                        return self.assemble(&info, &wanted, &pieces, complete).await;
                    }
                    Action::Unavailable(unavailable) => {
                        for (index, node, why) in &unavailable.failures {
                            tracing::debug!(segment = %self.segment, %index, %node, "not read: {why}");
                        }
                        return Err(self.unavailable(unavailable.reachable, unavailable.needed));
                    }
                }
            }
            let event = tokio::select! {
                Some((index, node, read)) = running.next(), if !running.is_empty() => match read {
                    Err(futures::future::Aborted) => continue,
                    Ok(Ok(piece)) => {
                        if let Some(progress) = &self.progress {
                            Progress::add(&progress.bytes_moved, piece.columns.bytes());
                        }
                        self.session.health(|health| health.succeeded(node, now()));
                        pieces.entry(index).or_default().push(piece);
                        Event::Got { index, node }
                    }
                    Ok(Err(failure)) => {
                        tracing::debug!(segment = %self.segment, %index, %node, "not read: {failure}");
                        if failure.is_the_nodes() {
                            self.session.health(|health| health.failed(node, now()));
                        }
                        Event::Failed { index, node, failure }
                    }
                },
                Some(answer) = &mut stewards => {
                    stewards.set(None.into());
                    Event::HoldersLearned(answer?.map(|(_, holders)| holders).unwrap_or_default())
                }
                () = &mut timer => {
                    timer.as_mut().reset(tokio::time::Instant::now() + Duration::from_secs(3600));
                    Event::Timer
                }
            };
            actions = machine.handle(now(), event);
        }
    }

    fn standing(&self, node: &NodeId) -> Standing {
        match self.session.peer().seems_up(*node) {
            true => self.session.health(|health| health.standing(node, now())),
            false => Standing::RecentlyFailed,
        }
    }

    fn unavailable(&self, reachable: usize, needed: usize) -> Error {
        Error::Unavailable { segments: vec![UnavailableSegment { segment: self.segment, reachable, needed }] }
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged { segment: self.segment, reason: reason.into() }
    }

    /// Believes a manifest that is this vault's, signed for this network, and of this segment.
    fn checked(&self, manifest: commonhold_protocol::Unverified<Manifest>) -> Option<Arc<Verified<Manifest>>> {
        let manifest = manifest.verify(self.session.network()).ok()?;
        (manifest.vault == self.vault && manifest.id() == self.segment).then(|| Arc::new(manifest))
    }

    /// Columns of one shard from one node, checked against the shard's root.
    async fn read(
        &self,
        info: &SegmentInfo,
        index: ShardIndex,
        node: NodeId,
        columns: Columns,
    ) -> Result<Piece, Failure> {
        let known = self.catalog.manifest(&self.segment);
        let ranges = vec![GroupRange::of_bytes(columns.start, columns.end)];
        let peer = self.session.peer();
        let reply = peer.read_shard(node, self.segment, index, ranges.clone(), known.is_none()).await;
        let reply = reply.map_err(|error: TransferError| failure(&error))?;
        let manifest = match known {
            Some(manifest) => manifest,
            None => {
                let manifest = reply.manifest.and_then(|manifest| self.checked(manifest)).ok_or(Failure::Wrong)?;
                self.catalog.learn_manifest(self.segment, manifest.clone());
                manifest
            }
        };
        if manifest.coding != info.coding || manifest.length != info.length {
            return Err(Failure::Wrong);
        }
        let root = *manifest.root(index).ok_or(Failure::Wrong)?;
        let (shard_length, encoded) = (manifest.shard_length(), reply.encoded);
        let decode = move || decode_ranges(&root, shard_length, &ranges, &encoded);
        let decoded = if columns.bytes() as usize > INLINE_VERIFY_BYTES_MAX {
            tokio::task::spawn_blocking(decode).await.map_err(|_| Failure::Broken)?
        } else {
            decode()
        };
        let proven = decoded.map_err(|_| Failure::Wrong)?.into_iter().next().ok_or(Failure::Wrong)?;
        Ok(Piece::new(proven.start, proven.groups))
    }

    /// The segment's record at its stewards: what it is and who claims to hold it. None if no steward knows it.
    async fn ask_stewards(&self) -> Result<Option<(SegmentInfo, Holders)>, Error> {
        let nodes = self.session.closest(*self.segment.as_bytes()).await?;
        let request = Request::FetchRecords { segments: vec![self.segment] };
        let (mut found, mut words): (_, Vec<Vec<(ShardIndex, NodeId)>>) = (None, Vec::new());
        for group in nodes.chunks(10) {
            let enough = |answers: Vec<(NodeId, Response)>, _| {
                for (_, answer) in answers {
                    let Response::Records(records) = answer else { continue };
                    let Some(record) = records.into_iter().flatten().next() else { continue };
                    let Some(manifest) = self.checked(record.manifest) else { continue };
                    found.get_or_insert((manifest.coding, manifest.length));
                    self.catalog.learn_manifest(self.segment, manifest);
                    let claims = record.claims.into_iter().filter(|claim| claim.leaf.segment == self.segment);
                    let claims = claims.filter_map(|claim| claim.verify(self.session.network()).ok());
                    words.push(claims.map(|claim| (claim.claim.leaf.index, claim.holder)).collect());
                }
                // A steward may know the record and withhold the claims.
                let claimed: BTreeSet<ShardIndex> = words.iter().flatten().map(|(index, _)| *index).collect();
                found.is_some_and(|(coding, _): (Coding, u64)| claimed.len() >= usize::from(coding.k()))
            };
            if self.session.ask_until(group, &request, enough).await {
                break;
            }
        }
        let Some((coding, length)) = found else { return Ok(None) };
        let contacts = self.session.peer().known_contacts();
        let known: BTreeSet<NodeId> = contacts.into_iter().map(|contact| contact.node).collect();
        let holders = in_fair_order(coding, &words, |node| known.contains(node));
        Ok(Some(self.learn_holders(coding, length, holders)))
    }

    fn learn_holders(
        &self,
        coding: Coding,
        length: u64,
        holders: BTreeMap<ShardIndex, Vec<NodeId>>,
    ) -> (SegmentInfo, Holders) {
        for node in holders.values().flatten() {
            self.catalog.learn_node(*node);
        }
        let first = |index| holders.get(&index).and_then(|of| of.first()).map(NodeKey::of);
        let info = SegmentInfo { coding, length, holders: coding.indices().map(first).collect() };
        self.catalog.learn_info(self.segment, info.clone());
        let with_standing = |of: Vec<NodeId>| of.into_iter().map(|node| (node, self.standing(&node))).collect();
        (info, holders.into_iter().map(|(index, of)| (index, with_standing(of))).collect())
    }

    /// Puts the pieces in order, restoring what did not arrive itself.
    async fn assemble(
        &self,
        info: &SegmentInfo,
        wanted: &BTreeMap<ShardIndex, Columns>,
        pieces: &BTreeMap<ShardIndex, Vec<Piece>>,
        complete: Complete,
    ) -> Result<SealedRange, Error> {
        let find = |index: &ShardIndex, columns: Columns| {
            pieces.get(index).and_then(|pieces| pieces.iter().find_map(|piece| piece.slice(columns)))
        };
        let mut restored: BTreeMap<ShardIndex, Piece> = BTreeMap::new();
        if let Complete::Decode { missing, columns, from } = complete {
            let manifest = self.catalog.manifest(&self.segment).ok_or_else(|| self.damaged("its manifest is gone"))?;
            let have: Option<Vec<(ShardIndex, Bytes)>> =
                from.iter().map(|index| Some((*index, find(index, columns)?.concat().into()))).collect();
            let have = have.ok_or_else(|| self.damaged("a column is missing"))?;
            let decode = move || {
                let each = missing.into_iter();
                each.map(|index| Ok((index, restore_columns(&manifest, index, &have)?))).collect::<Result<Vec<_>, _>>()
            };
            let decoded = tokio::task::spawn_blocking(decode).await.map_err(|_| Error::Stopped)?;
            let decoded: Vec<(ShardIndex, Bytes)> = decoded
                .map_err(|error: commonhold_storage_engine::segment::SegmentError| self.damaged(error.to_string()))?;
            restored.extend(decoded.into_iter().map(|(index, bytes)| (index, Piece::new(columns.start, vec![bytes]))));
        }
        let mut parts = Vec::with_capacity(wanted.len());
        for (index, columns) in wanted {
            let found = restored.get(index).and_then(|piece| piece.slice(*columns)).or_else(|| find(index, *columns));
            parts.extend(found.ok_or_else(|| self.damaged(format!("shard {index} of {} is missing", info.coding)))?);
        }
        Ok(SealedRange { start: self.range.start, pieces: parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lies_in_the_columns_of_its_shards() {
        let coding = Coding::new(4, 8).expect("a coding");
        let columns = |start, end| Columns { start, end };
        let wanted = wanted_columns(coding, 1000, &(1500..3200));
        let expected = [(1, columns(500, 1000)), (2, columns(0, 1000)), (3, columns(0, 200))];
        assert_eq!(wanted, expected.into_iter().map(|(index, columns)| (ShardIndex(index), columns)).collect());
        assert_eq!(wanted_columns(coding, 1000, &(0..1)).len(), 1);
        assert_eq!(wanted_columns(coding, 1000, &(999..1001)).len(), 2);
    }

    #[test]
    fn seven_liars_do_not_push_out_the_holder_that_one_honest_steward_names() {
        let coding = Coding::new(1, 2).expect("a coding");
        let node = |number: u8| NodeId::from_bytes([number; 32]);
        let (shard, holder) = (ShardIndex(0), node(200));
        let lies = (0..7).map(|liar| (0..40).map(|claim| (shard, node(liar * 20 + claim % 20))).collect::<Vec<_>>());
        let mut words: Vec<_> = lies.collect();
        words.push(vec![(shard, holder)]);
        let ordered = in_fair_order(coding, &words, |_| false);
        let holders = &ordered[&shard];
        assert!(holders.iter().position(|node| *node == holder).expect("it is named") < 8);
        assert_eq!(holders.len(), 7 * CLAIMS_PER_INDEX_MAX + 1);
        assert_eq!(in_fair_order(coding, &words, |node| *node == holder)[&shard][0], holder);
        assert!(!ordered.contains_key(&ShardIndex(1)));
    }
}
