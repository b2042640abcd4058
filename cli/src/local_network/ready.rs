//! When a local network can be used: every node runs, answers and knows the others, and a client sees them all.

use std::time::{Duration, Instant};

use commonhold_client_sdk::{Home, OpenOptions, Vault};
use commonhold_node::data_dir;

use super::{
    error::{IoContext, LocalNetworkError},
    process::NodeProcess,
};
use crate::interrupt::Stop;

/// More than a loaded machine needs; then something is wrong.
const READY_MAX: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// A Kademlia bucket: in a larger network no node knows all the others.
const KNOWN_ENOUGH: usize = 20;

/// Waits until `look` gives a value; it says what it waits for until then.
fn wait<T>(
    stop: &Stop,
    mut look: impl FnMut() -> Result<Result<T, String>, LocalNetworkError>,
) -> Result<T, LocalNetworkError> {
    let started = Instant::now();
    loop {
        match look()? {
            Ok(value) => return Ok(value),
            Err(waiting_for) if started.elapsed() > READY_MAX => {
                return Err(LocalNetworkError::NotReady { seconds: READY_MAX.as_secs(), waiting_for });
            }
            Err(_) if stop.wait(POLL_EVERY) => return Err(LocalNetworkError::Interrupted),
            Err(_) => {}
        }
    }
}

/// The address that a node writes once it listens.
pub(super) fn address(process: &mut NodeProcess, stop: &Stop) -> Result<String, LocalNetworkError> {
    wait(stop, || {
        process.check_runs()?;
        let text = data_dir::read(&process.folder, data_dir::ADDRESS_FILE).doing("read", &process.folder)?;
        let address = text.as_deref().and_then(|text| text.lines().next()).map(str::to_owned);
        Ok(address.ok_or_else(|| format!("{} does not listen", process.name())))
    })
}

/// Waits until each of these nodes knows the others of `total` nodes.
pub(super) fn all_know_each_other(
    processes: &mut [NodeProcess],
    total: usize,
    stop: &Stop,
) -> Result<(), LocalNetworkError> {
    let enough = total.saturating_sub(1).min(KNOWN_ENOUGH) as u64;
    for process in processes {
        wait(stop, || {
            process.check_runs()?;
            let known = commonhold_node::status_of(&process.folder).map(|status| status.nodes_known);
            Ok(match known {
                Ok(known) if known >= enough => Ok(()),
                Ok(known) => Err(format!("{} knows {known} of {enough} nodes", process.name())),
                Err(error) => Err(error.to_string()),
            })
        })?;
    }
    Ok(())
}

/// Waits until a client reaches all the nodes: then it can store.
pub(super) fn client_sees(home: &Home, passphrase: &str, nodes: usize, stop: &Stop) -> Result<(), LocalNetworkError> {
    wait(stop, || {
        let vault = Vault::open(home, passphrase, &OpenOptions { bootstrap: Vec::new() })?;
        let reachable = vault.peers()?.iter().filter(|peer| peer.free_bytes.is_some()).count();
        Ok(if reachable >= nodes { Ok(()) } else { Err(format!("a client reaches {reachable} of {nodes} nodes")) })
    })
}
