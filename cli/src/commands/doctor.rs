//! `doctor`: one line per check of this machine and of the network, with advice where something is not well.
//!
//! Checks go on after a failure as far as they can, so that one run shows everything.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use commonhold_client_sdk::{
    self as sdk, ClientConfig, ClockReport, Home, OpenOptions, PeerInfo, Vault, VaultStatus,
    parameters::{self, Churn, Wanted},
};
use serde::Serialize;

use crate::{args, escape, exit::Failure, figures, output::Output, passphrase};

/// A lease that ends sooner than this is worth a word; it is renewed whenever a client runs.
const LEASE_LEFT_MIN_MS: u64 = 30 * 86_400_000;
/// Nodes that see their clock this far from those of others remove nothing for its age; ours sets the lease's end.
const CLOCK_OFF_MS_MAX: u64 = 10 * 60_000;
/// When this program was written: a clock that shows less is wrong.
const CLOCK_SECONDS_MIN: u64 = 1_735_689_600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Default)]
struct Checks {
    done: Vec<Check>,
    no_network: bool,
}

impl Checks {
    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.done.push(Check { check, verdict: Verdict::Ok, found: found.into(), advice: None });
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, advice: &str) {
        let advice = Some(advice.to_owned());
        self.done.push(Check { check, verdict: Verdict::Warn, found: found.into(), advice });
    }

    fn fail(&mut self, check: &'static str, failure: &Failure) {
        let (message, help) = failure.told();
        self.done.push(Check { check, verdict: Verdict::Fail, found: message, advice: Some(help) });
    }

    fn failed(&self) -> usize {
        self.done.iter().filter(|check| check.verdict == Verdict::Fail).count()
    }
}

pub(super) fn run(args: &args::Doctor, output: &Output) -> Result<(), Failure> {
    let mut checks = Checks::default();
    examine(args, &mut checks)?;
    if output.is_json() {
        output.json(&checks.done)?;
    } else {
        for check in &checks.done {
            output.line(line(check))?;
        }
    }
    match checks.failed() {
        0 => Ok(()),
        failed => Err(Failure::ChecksFailed { failed, no_network: checks.no_network }),
    }
}

fn examine(args: &args::Doctor, checks: &mut Checks) -> Result<(), Failure> {
    check_clock(checks);
    let home = super::home()?;
    checks.ok("home", home.dir().display().to_string());
    check_cache(&home, checks);
    let Some(config) = check_config(&home, checks) else { return Ok(()) };
    if !home.has_vault() {
        checks.fail("vault", &sdk::Error::NoVault { home: home.dir().to_owned() }.into());
        return Ok(());
    }
    if config.client.bootstrap.is_empty() && args.entry.bootstrap.is_empty() && !config.client.local_discovery {
        checks.warn(
            "bootstrap",
            "no node is named in the config",
            "add addresses to [client] bootstrap, or pass --bootstrap ADDR",
        );
    }
    let passphrase = match passphrase::existing() {
        Ok(passphrase) => passphrase,
        Err(failure) => {
            checks.fail("passphrase", &failure);
            return Ok(());
        }
    };
    let vault = match Vault::open(&home, &passphrase, &OpenOptions { bootstrap: args.entry.bootstrap.clone() }) {
        Ok(vault) => vault,
        Err(error) => {
            let network = matches!(error, sdk::Error::NoNetwork { .. } | sdk::Error::Network(_));
            checks.no_network |= network;
            if network {
                checks.ok("vault", "opens with this passphrase");
            }
            checks.fail(if network { "network" } else { "vault" }, &error.into());
            return Ok(());
        }
    };
    checks.ok("vault", "opens with this passphrase");
    check_network(&vault, &config, &home, checks);
    Ok(())
}

/// Since 1970; nothing if the clock shows an earlier time.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn check_clock(checks: &mut Checks) {
    let seconds = now().as_secs();
    let shown = figures::date(i64::try_from(seconds).unwrap_or(i64::MAX));
    if seconds < CLOCK_SECONDS_MIN {
        checks.warn("clock", shown, "this lies in the past: set the clock, or run a time service (NTP)");
    } else {
        checks.ok("clock", shown);
    }
}

fn check_cache(home: &Home, checks: &mut Checks) {
    if !home.cache_in_use() {
        checks.ok("cache", "free");
        return;
    }
    let advice = format!(
        "nothing is wrong: others that run meanwhile are slower and may send again what is stored already; wait for that \
         process to end, or find it with `fuser {}`",
        home.cache_lock().display()
    );
    checks.warn("cache", "another process of this home has it", &advice);
}

/// Our clock beside those of the nodes.
fn check_offset(clock: ClockReport, checks: &mut Checks) {
    let off_ms = clock.nodes_ahead_ms.unsigned_abs();
    let of = format!("the median of {}", figures::count(clock.nodes as u64, "node", "nodes"));
    if off_ms < CLOCK_OFF_MS_MAX {
        checks.ok("time", format!("{:.1} s from {of}", off_ms as f64 / 1000.0));
        return;
    }
    let side = if clock.nodes_ahead_ms > 0 { "behind" } else { "ahead of" };
    checks.warn(
        "time",
        format!("this machine's clock is {} min {side} {of}", off_ms / 60_000),
        "set the clock, or run a time service (NTP): the time until which the vault is kept follows it; if it is right, \
         enter by other nodes with --bootstrap ADDR",
    );
}

fn check_config(home: &Home, checks: &mut Checks) -> Option<ClientConfig> {
    let checked = home.config().and_then(|config| {
        let network = config.network_name(home)?;
        let coding = config.coding(home)?;
        config.network_key(home)?;
        Ok((config, network, coding))
    });
    match checked {
        Ok((config, network, coding)) => {
            let coding =
                coding.map_or_else(|| "chosen by the size of the network".to_owned(), |coding| coding.to_string());
            checks.ok("config", format!("network {network}, coding {coding}"));
            Some(config)
        }
        Err(error) => {
            checks.fail("config", &error.into());
            None
        }
    }
}

fn check_network(vault: &Vault, config: &ClientConfig, home: &Home, checks: &mut Checks) {
    let peers = match vault.peers() {
        Ok(peers) => peers,
        Err(error) => {
            checks.fail("network", &error.into());
            return;
        }
    };
    let reachable: Vec<&PeerInfo> = peers.iter().filter(|peer| peer.free_bytes.is_some()).collect();
    let found = format!("{} of {} known nodes answer", reachable.len(), peers.len());
    match reachable.len() * 2 > peers.len() {
        true => checks.ok("network", found),
        false => checks.warn("network", found, "most nodes are away: puts may fail and gets be slow until they return"),
    }
    match vault.clock() {
        Ok(Some(clock)) => check_offset(clock, checks),
        Ok(None) => {} // that no node answers was said already
        Err(error) => checks.fail("time", &error.into()),
    }
    check_space(&reachable, config, home, checks);
    match vault.status() {
        Ok(status) => check_lease(&status, checks),
        Err(error) => checks.fail("head", &error.into()),
    }
}

fn check_lease(status: &VaultStatus, checks: &mut Checks) {
    let Some(written_at_ms) = status.written_at_ms else {
        checks.ok("head", "nothing is stored yet");
        return;
    };
    let date = |ms: u64| figures::date(i64::try_from(ms / 1000).unwrap_or(i64::MAX));
    checks.ok("head", format!("last change {}", date(written_at_ms)));
    let now_ms = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
    match status.kept_until_ms {
        Some(until_ms) if until_ms.saturating_sub(now_ms) < LEASE_LEFT_MIN_MS => {
            checks.warn("lease", format!("ends {}", date(until_ms)), "any put or rm renews it");
        }
        Some(until_ms) => checks.ok("lease", format!("kept until {}", date(until_ms))),
        None => checks.warn("lease", "no node that answered has it", "any put or rm renews it"),
    }
}

fn check_space(reachable: &[&PeerInfo], config: &ClientConfig, home: &Home, checks: &mut Checks) {
    let free: Vec<u64> = reachable.iter().filter_map(|peer| peer.free_bytes).filter(|bytes| *bytes > 0).collect();
    let found = format!(
        "{} with {} free in all",
        figures::count(free.len() as u64, "node", "nodes"),
        figures::size(free.iter().sum())
    );
    let (have, needed, whose) = match config.coding(home).ok().flatten() {
        None => (free.len(), parameters::HOLDERS_MIN, "nodes"),
        Some(Wanted::Coding(coding)) => (free.len(), usize::from(coding.placed_enough()), "nodes"),
        Some(Wanted::Target(target)) => {
            let roomy = reachable.iter().filter(|peer| peer.free_bytes > Some(0));
            let domains: BTreeSet<&String> = roomy.filter_map(|peer| peer.domain.as_ref()).collect();
            let needed = parameters::holders_min(target, &Churn::ASSUMED).unwrap_or(parameters::HOLDERS_MIN);
            (domains.len(), needed, "failure domains of nodes")
        }
    };
    if have < needed {
        let advice = format!(
            "{needed} {whose} with free space are needed to store, there are {have}: wait for more, or want a smaller \
             `coding` under [client] in config.toml"
        );
        checks.warn("space", found, &advice);
    } else {
        checks.ok("space", found);
    }
}

fn line(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    let mut line = format!("{verdict}  {:10}  {}", check.check, escape::text(&check.found));
    if let Some(advice) = &check.advice {
        line.push_str(&format!("\n      {:10}  {}", "", escape::text(advice)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(nodes_ahead_ms: i64) -> (Verdict, String, bool) {
        let mut checks = Checks::default();
        check_offset(ClockReport { nodes_ahead_ms, nodes: 5 }, &mut checks);
        let Some(check) = checks.done.pop() else { panic!("nothing was said") };
        (check.verdict, check.found, check.advice.is_some())
    }

    #[test]
    fn a_clock_far_from_those_of_the_nodes_is_told_with_what_to_do() {
        assert_eq!(told(-1_250), (Verdict::Ok, "1.2 s from the median of 5 nodes".to_owned(), false));
        assert_eq!(told(599_999).0, Verdict::Ok);
        let behind = "this machine's clock is 10 min behind the median of 5 nodes".to_owned();
        assert_eq!(told(600_000), (Verdict::Warn, behind, true));
        let ahead = "this machine's clock is 120 min ahead of the median of 5 nodes".to_owned();
        assert_eq!(told(-7_200_000), (Verdict::Warn, ahead, true));
        assert_eq!(told(i64::MIN).0, Verdict::Warn);
    }
}
