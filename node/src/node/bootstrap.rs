//! Finding the network: by the configured addresses and those remembered from the last run, for as long as it takes.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use commonhold_network::{Contact, Multiaddr, Peer};
use commonhold_protocol::NodeId;
use rand::seq::SliceRandom;
use tokio_util::sync::CancellationToken;

use crate::data_dir::{self, PEERS_FILE, write_atomically};

/// The first wait after a failed attempt; each one doubles it.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// The longest wait: a node that finds its network again after a night should not take much longer than this.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A node that has just joined soon looks around once more, since who joined at the same moment was not known yet to
/// those whom it asked, and writes down whom it met; then less and less often.
const CHECK_MIN: Duration = Duration::from_millis(500);
/// A node without any connection looks for its network again after this time.
const CHECK_EVERY: Duration = Duration::from_secs(20);
/// Addresses tried at once.
const ADDRESSES_MAX: usize = 32;
/// Nodes remembered for the next start, and addresses of each.
const REMEMBERED_MAX: usize = 256;
const REMEMBERED_ADDRESSES_MAX: usize = 4;

/// Joins the network, and joins it again when all connections are lost. While there are any, keeps in `folder` who is
/// known: a node that is killed and comes back need not find those alive that it was configured with.
pub(super) async fn run(peer: Peer, configured: Vec<Multiaddr>, folder: PathBuf, stop: CancellationToken) {
    let remembered = remembered(&folder);
    let mut written = String::new();
    let mut check = CHECK_MIN;
    for contact in &remembered {
        peer.add_addresses(contact.node, contact.addrs.clone());
    }
    let remembered: Vec<Multiaddr> = remembered.into_iter().flat_map(|contact| contact.addrs).collect();
    let mut wait = WAIT_MIN;
    loop {
        let connected = !peer.connected().is_empty();
        let next = if connected || (configured.is_empty() && remembered.is_empty()) {
            if connected && check < CHECK_EVERY {
                match stop.run_until_cancelled(peer.refresh()).await {
                    None => return,
                    Some(refreshed) => {
                        if let Err(error) = refreshed {
                            tracing::debug!(%error, "no look around");
                        }
                    }
                }
            }
            remember(&peer, &folder, &mut written);
            wait = WAIT_MIN;
            check = (check * 2).min(CHECK_EVERY);
            check
        } else {
            let addresses = choose(&configured, &remembered);
            match stop.run_until_cancelled(peer.bootstrap(&addresses)).await {
                None => return,
                Some(Ok(reached)) if reached > 0 => {
                    tracing::info!(reached, "joined the network");
                    wait = WAIT_MIN;
                    check = CHECK_MIN;
                    check
                }
                Some(outcome) => {
                    tracing::debug!(?outcome, ?wait, "nobody could be reached; trying again");
                    let now = wait;
                    wait = (wait * 2).min(WAIT_MAX);
                    // Nodes that lost the same network do not come back all at the same moment.
                    now.mul_f64(rand::random_range(0.75..1.25))
                }
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(next)).await.is_none() {
            return;
        }
    }
}

/// The configured addresses, and some of those that are remembered.
fn choose(configured: &[Multiaddr], remembered: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut remembered = remembered.to_vec();
    remembered.shuffle(&mut rand::rng());
    configured.iter().cloned().chain(remembered).take(ADDRESSES_MAX).collect()
}

/// The nodes that the last run knew. A line that cannot be read is left out.
fn remembered(data_dir: &Path) -> Vec<Contact> {
    let text = data_dir::read(data_dir, PEERS_FILE).unwrap_or_else(|error| {
        tracing::warn!(%error, "the nodes of the last run are not known");
        None
    });
    let contact = |line: &str| {
        let mut parts = line.split_ascii_whitespace();
        let node = NodeId::from_hex(parts.next()?)?;
        let addrs = parts.take(REMEMBERED_ADDRESSES_MAX).filter_map(|part| part.parse().ok()).collect();
        Some(Contact { node, addrs })
    };
    text.unwrap_or_default().lines().filter_map(contact).take(REMEMBERED_MAX).collect()
}

/// Writes down the nodes that are known, for the next start: one a line, its id and its addresses. `written` is what
/// stands there already.
pub(super) fn remember(peer: &Peer, folder: &Path, written: &mut String) {
    let mut contacts = peer.known_contacts();
    if contacts.len() > REMEMBERED_MAX {
        contacts.shuffle(&mut rand::rng());
    }
    contacts.truncate(REMEMBERED_MAX);
    contacts.sort_by_key(|contact| contact.node);
    let mut text = String::new();
    for contact in contacts {
        // Writing to a string cannot fail.
        let _ = write!(text, "{:#}", contact.node);
        for address in contact.addrs.iter().take(REMEMBERED_ADDRESSES_MAX) {
            let _ = write!(text, " {address}");
        }
        text.push('\n');
    }
    if text.is_empty() || text == *written {
        // Whoever knew nobody this time keeps what it knew before.
        return;
    }
    match write_atomically(&folder.join(PEERS_FILE), text.as_bytes()) {
        Ok(()) => *written = text,
        Err(error) => tracing::warn!(%error, "the known nodes cannot be remembered"),
    }
}
