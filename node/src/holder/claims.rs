//! Signs claims in batches: shards that became durable together (one sync) get one signature.

use std::sync::Arc;

use commonhold_protocol::{Claim, ClaimLeaf, NetworkName, SigningKey, claim::BATCH_CLAIMS_MAX};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;

/// How often the signer lets others run before it signs: what one sync made durable wakes within a turn or two of the
/// runtime, and no timer is that short.
const TURNS: usize = 3;

type Waiting = (ClaimLeaf, oneshot::Sender<Claim>);

/// The way to the signing task, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct ClaimSigner(mpsc::Sender<Waiting>);

impl ClaimSigner {
    /// Starts the task on the current runtime.
    pub(super) fn start(key: SigningKey, network: NetworkName, clock: Arc<Clock>) -> Self {
        let (sender, mut waiting) = mpsc::channel::<Waiting>(BATCH_CLAIMS_MAX);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                let mut batch = vec![first];
                while batch.len() < BATCH_CLAIMS_MAX
                    && let Ok(next) = waiting.try_recv()
                {
                    batch.push(next);
                }
                let leaves: Vec<ClaimLeaf> = batch.iter().map(|(leaf, _)| *leaf).collect();
                let claims = Claim::sign_batch(&leaves, clock.now(), &key, &network);
                for ((_, reply), claim) in batch.into_iter().zip(claims) {
                    // Whoever does not wait any more has no use for it.
                    let _ = reply.send(claim);
                }
            }
        });
        Self(sender)
    }

    /// A claim for a shard that is held. None if the node is stopping.
    pub(super) async fn sign(&self, leaf: ClaimLeaf) -> Option<Claim> {
        let (reply, claim) = oneshot::channel();
        self.0.send((leaf, reply)).await.ok()?;
        claim.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use commonhold_protocol::{SegmentId, ShardIndex};

    use super::*;

    #[tokio::test]
    async fn claims_that_are_asked_for_together_share_a_signature_and_each_verifies() {
        let key = SigningKey::from_seed(&[1; 32]);
        let network: NetworkName = "test".parse().unwrap();
        let signer = ClaimSigner::start(SigningKey::from_seed(&[1; 32]), network.clone(), Arc::default());
        let leaf = |index| ClaimLeaf { segment: SegmentId::from_bytes([index; 32]), index: ShardIndex(index) };
        let claims = futures::future::join_all((0..20).map(|index| signer.sign(leaf(index)))).await;
        // A claim of a batch carries its path; one that was signed alone has none.
        let alone = Claim::sign_batch(&[leaf(0)], Clock::default().now(), &key, &network)[0].to_bytes().len();
        for (index, claim) in claims.into_iter().enumerate() {
            let claim = claim.unwrap();
            assert!(claim.to_bytes().len() >= alone + 3 * 32, "claim {index} was signed alone");
            let claim = claim.verify(&network).unwrap();
            assert_eq!(claim.claim.leaf, leaf(index as u8));
            assert_eq!(claim.holder.as_bytes(), &key.public());
        }
    }
}
