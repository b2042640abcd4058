//! `commonhold-network` alone: shards to a holder that keeps none of them, and back.

use bytes::Bytes;
use commonhold_network::{Inbound, Limits, Peer, PeerConfig, RangeReply, Role, ShardService, StoreBody, serve_stream};
use commonhold_protocol::{
    Claim, ClaimLeaf, Coding, Lease, Manifest, NetworkName, NodeId, SegmentId, ShardIndex, ShardRoot, SigningKey,
    Timestamp, Unverified, VaultId, Verified, ask::Refusal, shard_stream::GroupRange,
};
use futures::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use super::{LISTENING, Second, Transfers, end_with_stdin, runtime};
use crate::{Failure, MIB};

/// The argument that makes this bench the second process.
pub(crate) const SERVE: &str = "serve-shards";

/// A shard of a full segment at 7 of 14, about.
const SHARD_BYTES: u64 = 2 * MIB;
const SHARDS_AT_ONCE: usize = 8;

fn network() -> NetworkName {
    "bench".parse().expect("a name")
}

fn start(role: Role, seed: u8) -> Result<(Peer, Inbound), Failure> {
    let listen = if role == Role::Node { vec!["/ip4/127.0.0.1/tcp/0".parse()?] } else { Vec::new() };
    Ok(Peer::start(PeerConfig {
        identity_seed: Zeroizing::new([seed; 32]),
        network: network(),
        network_key: None,
        listen,
        role,
        local_discovery: false,
        relay: false,
        limits: Limits::default(),
    })?)
}

/// Takes every shard and keeps none.
struct Forgetful {
    key: SigningKey,
    shard: Bytes,
}

impl ShardService for Forgetful {
    async fn store(
        &self,
        _: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        _: Option<Unverified<Lease>>,
        body: &mut StoreBody,
    ) -> Result<Claim, Refusal> {
        let manifest = manifest.verify(&network()).map_err(|_| Refusal::Invalid)?;
        body.go(manifest.shard_length()).await.map_err(|_| Refusal::Other)?;
        while body.next_piece().await.map_err(|_| Refusal::Other)?.is_some() {}
        let leaf = ClaimLeaf { segment: manifest.id(), index };
        Claim::sign_batch(&[leaf], Timestamp(1), &self.key, &network()).pop().ok_or(Refusal::Other)
    }

    async fn read(
        &self,
        _: NodeId,
        _: SegmentId,
        _: ShardIndex,
        _: Vec<GroupRange>,
        _: bool,
    ) -> Result<RangeReply, Refusal> {
        Ok(RangeReply { encoded: self.shard.clone(), manifest: None })
    }
}

/// The second process.
pub(crate) fn serve() -> Result<(), Failure> {
    end_with_stdin();
    runtime()?.block_on(async {
        let (peer, mut inbound) = start(Role::Node, 1)?;
        let holder = Forgetful { key: SigningKey::from_seed(&[1; 32]), shard: vec![7; SHARD_BYTES as usize].into() };
        let holder = std::sync::Arc::new(holder);
        let address = peer.listen_addrs().await.into_iter().next().ok_or("no address")?;
        println!("{LISTENING}{address}");
        while let Some(stream) = inbound.streams.recv().await {
            let holder = holder.clone();
            tokio::spawn(async move {
                if let Err(error) = serve_stream(stream, &*holder, Limits::default().streams).await {
                    eprintln!("bench: a shard stream failed: {error}");
                }
            });
        }
        Ok(())
    })
}

fn manifest() -> Result<Unverified<Manifest>, Failure> {
    let key = SigningKey::from_seed(&[9; 32]);
    let manifest = Manifest {
        vault: VaultId::from_bytes(key.public()),
        salt: [1; 16],
        coding: Coding::new(1, 2)?,
        length: SHARD_BYTES,
        roots: vec![ShardRoot::from_bytes([1; 32]); 2],
    };
    Ok(Verified::sign(manifest, &key, &network()).to_unverified())
}

/// Moves about `bytes` there and back.
pub(crate) fn measure(bytes: u64) -> Result<Transfers, Failure> {
    let shards = bytes.div_ceil(SHARD_BYTES);
    let (second, address) = Second::start(SERVE)?;
    let runtime = runtime()?;
    let (peer, _inbound) = {
        let _entered = runtime.enter();
        start(Role::Client, 2)?
    };
    if runtime.block_on(peer.bootstrap(&[address.parse()?]))? == 0 {
        return Err("the second process does not answer".into());
    }
    let (holder, _) = peer.connected().pop().ok_or("not connected")?;
    let (manifest, shard) = (manifest()?, Bytes::from(vec![7; SHARD_BYTES as usize]));
    let segment = SegmentId::from_bytes([3; 32]);

    let up = second.timed(shards * SHARD_BYTES, || {
        let stores =
            (0..shards).map(|_| peer.store_shard(holder, manifest.clone(), ShardIndex(0), None, shard.clone()));
        let all = stream::iter(stores).buffer_unordered(SHARDS_AT_ONCE).try_for_each(async |_| Ok(()));
        Ok(runtime.block_on(all)?)
    })?;
    let down = second.timed(shards * SHARD_BYTES, || {
        let whole = || vec![GroupRange::whole(SHARD_BYTES)];
        let reads = (0..shards).map(|_| peer.read_shard(holder, segment, ShardIndex(0), whole(), false));
        let all = stream::iter(reads).buffer_unordered(SHARDS_AT_ONCE).try_for_each(async |_| Ok(()));
        Ok(runtime.block_on(all)?)
    })?;
    Ok(Transfers { up, down })
}
