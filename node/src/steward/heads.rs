//! Heads: every valid one that no other covers.

use commonhold_policy::heads::{self, HeadRefusal};
use commonhold_protocol::{
    Head, Lease, Unverified, VaultId, Verified,
    ask::{HEAD_SIBLINGS_MAX, Outcome, Refusal},
};

use super::{KeepError, Sender, Steward, TAG_WANTED, join_parts, split_parts};
use crate::records::{Change, ENTRY_BYTES, Kept, Kind, RecordsError};

impl Steward {
    pub(super) fn keep_head(&self, sender: &Sender, head: Unverified<Head>) -> Outcome {
        let head = self.verifier.verify(head).map_err(|_| Refusal::Invalid)?;
        if self.has_ended(&head.vault) {
            return Err(Refusal::Expired);
        }
        let kept = self.change_one(sender, || {
            let before = self.kept_heads(&head.vault)?;
            let mut heads: Vec<Verified<Head>> = match &before {
                Some(kept) => heads_of(kept).filter_map(|head| self.verifier.verify(head).ok()).collect(),
                None => Vec::new(),
            };
            if !heads::merge(&mut heads, head.clone()).map_err(refusal)? {
                return Ok(None);
            }
            let change = Change {
                kind: Kind::Heads,
                key: *head.vault.as_bytes(),
                owner: head.vault,
                tag: TAG_WANTED,
                body: Some(join_parts(heads.iter().map(Verified::to_bytes))),
                expected: before.as_ref().map(|kept| kept.sequence),
            };
            Ok(Some((change, before.map_or(0, |kept| kept.body.len() as u64 + ENTRY_BYTES))))
        });
        kept.map_err(|error| error.refusal())
    }

    /// The heads and the lease that are kept of a vault, as a steward of it or as a holder for it.
    #[allow(clippy::type_complexity, reason = "the two fields of one answer")]
    pub(crate) fn fetch_heads(
        &self,
        vault: &VaultId,
    ) -> Result<(Vec<Unverified<Head>>, Option<Unverified<Lease>>), RecordsError> {
        let heads = self.kept_heads(vault)?.map(|kept| heads_of(&kept).collect()).unwrap_or_default();
        Ok((heads, self.kept_lease(vault)?))
    }

    fn kept_heads(&self, vault: &VaultId) -> Result<Option<Kept>, RecordsError> {
        match self.records.get(Kind::Heads, vault.as_bytes()) {
            Err(error @ RecordsError::Damaged { .. }) => {
                tracing::warn!(%vault, %error, "heads are damaged; other stewards have them");
                Ok(None)
            }
            kept => kept,
        }
    }
}

fn heads_of(kept: &Kept) -> impl Iterator<Item = Unverified<Head>> + use<> {
    let parts = split_parts(kept.body.clone()).into_iter().take(HEAD_SIBLINGS_MAX);
    parts.filter_map(|part| Unverified::from_bytes(part).ok())
}

fn refusal(refused: HeadRefusal) -> KeepError {
    KeepError::Refused(match refused {
        HeadRefusal::OtherVault => Refusal::Invalid,
        HeadRefusal::Outdated => Refusal::Outdated,
        HeadRefusal::TooManySiblings => Refusal::RecordLimit,
    })
}
