//! Reading and writing the vault's head at its stewards.
//!
//! Reading needs one valid head: all stewards are asked and all maximal heads are taken. A write goes to all of them.
//! What this home has seen is remembered, so that nobody can serve it an older state.

use std::{fs, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use commonhold_policy::{heads as rules, leases};
use commonhold_protocol::{
    DeviceId, Head, Lease, NodeId, Unverified, VaultId, Verified, Version,
    ask::{Refusal, Request, Response},
    head::HEAD_SEALED_BYTES_MAX,
};
use commonhold_storage_engine::{
    keys::VaultKeys,
    seal::{open_head, seal_head},
};
use zeroize::Zeroizing;

use crate::{
    error::{Error, IoContext},
    head_payload::HeadPayload,
    home::{Home, write_atomically},
    progress::Progress,
    session::{Session, now},
};

/// How long a steward may take to take in a newer lease; a command that ends earlier does not wait for it.
const LEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// The heads of a vault as the network has them: none for a vault that never wrote one.
pub(crate) struct HeadsRead {
    /// The maximal ones, opened, in an order that all readers share.
    pub(crate) heads: Vec<(Version, HeadPayload)>,
    /// The newest lease.
    pub(crate) lease: Option<Verified<Lease>>,
}

/// How a head was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadWritten {
    pub(crate) kept: usize,
    pub(crate) asked: usize,
}

fn seen_file(home: &Home) -> PathBuf {
    home.dir().join("seen")
}

/// The version of this vault that this home has seen; the least one if none.
pub(crate) fn seen(home: &Home, vault: &VaultId) -> Result<Version, Error> {
    let path = seen_file(home);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Version::default()),
        read => read.doing("read", &path)?,
    };
    let damaged = |reason: String| Error::Config { path: path.clone(), reason: format!("not a version: {reason}") };
    let (of, version) = bytes.split_first_chunk::<32>().ok_or_else(|| damaged("it is too short".to_owned()))?;
    if of != vault.as_bytes() {
        // Of a vault that was in this home before.
        return Ok(Version::default());
    }
    Version::from_bytes(Bytes::copy_from_slice(version)).map_err(|error| damaged(error.to_string()))
}

fn remember(home: &Home, vault: &VaultId, version: &Version) -> Result<(), Error> {
    let known = seen(home, vault)?;
    if known.covers(version) {
        return Ok(());
    }
    write_atomically(&seen_file(home), &[vault.as_bytes().as_slice(), &known.join(version).to_bytes()].concat())
}

/// The same; a disk that is full shall not keep anyone from reading.
fn try_to_remember(home: &Home, vault: &VaultId, version: &Version) {
    if let Err(error) = remember(home, vault, version) {
        tracing::warn!("an older state of the vault could pass for the newest: {error}");
    }
}

/// Asks the vault's stewards, and farther nodes if they know nothing, for its heads. Refuses a state older than one
/// that this home has seen.
pub(crate) fn read(session: &Session, home: &Home, keys: &VaultKeys, progress: &Progress) -> Result<HeadsRead, Error> {
    let vault = keys.vault_id();
    let seen = seen(home, &vault)?;
    let (mut heads, mut asked) = (Vec::new(), Vec::new());
    let nodes = session.wait_for(progress, session.closest(*vault.as_bytes()))??;
    // Stewards are among the nearest; the others are asked only if those know too little.
    for group in nodes.chunks(10) {
        let request = Request::FetchHeads { vault };
        let enough = |answers: Vec<(NodeId, Response)>, silent| {
            for (node, answer) in answers {
                let Response::Heads { heads: found, lease: found_lease } = answer else { continue };
                asked.push(node);
                heads.extend(found.into_iter().filter_map(|head| verified_head(session, keys, head)));
                if let Some(found) = found_lease.and_then(|lease| lease.verify(session.network()).ok())
                    && found.vault == vault
                {
                    session.learn_lease(found);
                }
            }
            heads = rules::maximal(std::mem::take(&mut heads));
            // Where nothing was seen before, an old head cannot be told: the silent one may have the newest.
            let all_count = seen == Version::default();
            !heads.is_empty() && !rules::is_rollback(&seen, &heads) && (silent == 0 || !all_count)
        };
        if session.wait_for(progress, session.ask_until(group, &request, enough))? {
            break;
        }
    }
    if asked.is_empty() {
        return Err(Error::NoNetwork { network: session.network().to_string(), tried: nodes.len() });
    }
    if rules::is_rollback(&seen, &heads) {
        if heads.is_empty() {
            return Err(Error::NoHead { asked: asked.len() });
        }
        return Err(Error::OlderHead { seen, offered: rules::join(&heads) });
    }
    try_to_remember(home, &vault, &rules::join(&heads));
    let opened = heads.iter().map(|head| {
        let payload =
            open_head(head, keys.head_key()).map_err(|error| Error::HeadDamaged { reason: error.to_string() })?;
        // Wiped with the last slice of it.
        Ok((head.version.clone(), HeadPayload::decode(Bytes::from_owner(payload))?))
    });
    let heads = opened.collect::<Result<Vec<_>, Error>>()?;
    renew_lease(session, keys, if heads.is_empty() { Vec::new() } else { asked });
    Ok(HeadsRead { heads, lease: session.lease() })
}

/// Renews the vault's lease if it is time: whoever uses a vault keeps it. Tells `stewards` without waiting for them, and
/// what is placed from now on carries it.
fn renew_lease(session: &Session, keys: &VaultKeys, stewards: Vec<NodeId>) {
    let Some(lease) = leases::renewal(session.lease().as_deref(), keys.vault_id(), now()) else { return };
    let lease = Verified::sign(lease, keys.signing(), session.network());
    for node in stewards {
        let (peer, request) = (session.peer().clone(), Request::KeepLease { lease: lease.to_unverified() });
        session.handle().spawn(async move {
            if let Err(error) = peer.ask(node, request, LEASE_TIMEOUT).await {
                tracing::debug!(%error, "a steward has not heard of the newer lease");
            }
        });
    }
    session.learn_lease(lease);
}

fn verified_head(session: &Session, keys: &VaultKeys, head: Unverified<Head>) -> Option<Verified<Head>> {
    head.verify(session.network()).ok().filter(|head| head.vault == keys.vault_id())
}

/// Writes `payload` as the successor of all that `version` covers; gives back the new version.
pub(crate) fn write(
    session: &Session,
    home: &Home,
    keys: &VaultKeys,
    version: &Version,
    device: DeviceId,
    payload: &HeadPayload,
) -> Result<(Version, HeadWritten), Error> {
    let vault = keys.vault_id();
    let version = version.next(device);
    let sealed = seal_head(&Zeroizing::new(payload.encode()), &vault, &version, keys.head_key())
        .map_err(|_| Error::HeadTooLarge { bytes_max: HEAD_SEALED_BYTES_MAX })?;
    let head = Head { vault, version: version.clone(), nonce: sealed.nonce, sealed: sealed.sealed.into() };
    let head = Verified::sign(head, keys.signing(), session.network());
    renew_lease(session, keys, Vec::new());
    let lease = session.lease().map(|lease| lease.to_unverified());
    let request = Request::KeepHead { head: head.to_unverified(), lease };
    let stewards: Vec<NodeId> = session.block_on(session.stewards(*vault.as_bytes()))?;
    let answers = session.block_on(session.ask_all(&stewards, &request));
    let (mut kept, mut refused) = (0, Vec::<Refusal>::new());
    for (_, answer) in answers {
        match answer {
            Some(Response::Kept(outcomes)) => match outcomes.first() {
                Some(Ok(())) => kept += 1,
                Some(Err(refusal)) => refused.push(*refusal),
                None => refused.push(Refusal::Other),
            },
            Some(Response::Refused(refusal)) => refused.push(refusal),
            Some(_) => refused.push(Refusal::Other),
            None => {}
        }
    }
    match rules::write_state(kept, refused.len(), 0) {
        rules::WriteState::Done | rules::WriteState::DoneThin { .. } => {
            try_to_remember(home, &vault, &version);
            Ok((version, HeadWritten { kept, asked: stewards.len() }))
        }
        rules::WriteState::Open => {
            Err(Error::HeadNotKept { kept, asked: stewards.len(), needed: rules::WRITE_LEAST, refused })
        }
        rules::WriteState::Failed { need, .. } => {
            Err(Error::HeadNotKept { kept, asked: stewards.len(), needed: need, refused })
        }
    }
}

#[cfg(test)]
mod tests;
