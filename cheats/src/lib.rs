//! Nodes that cheat, for tests alone: what a network does about them has to be seen on real ones.
//!
//! Each is the real node, by the crates of `commonhold`, with a [`Cheat`] in the place where it answers, or a [`Liar`]
//! if it is as a steward that it cheats; nothing of that is in `commonhold` itself, and this crate is part of nothing that
//! is installed. The program is `cli/examples/cheats.rs`: `cheats KIND --config node.toml`.

mod cheat;
mod flood;
mod inventing;
mod kind;
mod liar;
mod lie;
mod silence;

use std::{path::Path, process::ExitCode, sync::Arc};

use commonhold_network::Multiaddr;
use commonhold_node::{Config, NoObserver, Node, identity::Identity};
use tokio::signal::unix::{SignalKind, signal};

pub use self::{
    cheat::{Cheat, is_deleted},
    kind::{DELETED_PARTS, Kind},
    liar::Liar,
    lie::Lie,
};

/// What a node is to be.
#[derive(Clone, Copy)]
enum Role {
    Cheat(Kind),
    Liar(Lie),
}

/// The program: runs a cheat until SIGTERM.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    if let [flood, arguments @ ..] = arguments.as_slice()
        && flood == "flood"
    {
        return ended(flood_by(arguments));
    }
    let [kind, option, config] = arguments.as_slice() else { return usage() };
    let role = Kind::parse(kind).map(Role::Cheat).or_else(|| Lie::parse(kind).map(Role::Liar));
    let Some(role) = role.filter(|_| option == "--config") else { return usage() };
    ended(run(role, Path::new(config)))
}

fn ended(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    let kinds = Kind::ALL.iter().map(|kind| kind.name());
    let kinds: Vec<&str> = kinds.chain(Lie::ALL.iter().map(|lie| lie.name())).collect();
    eprintln!("cheats KIND --config node.toml, where KIND is one of: {}", kinds.join(", "));
    eprintln!("cheats flood NETWORK SOURCE STREAMS NODE...: a stranger, and no node");
    ExitCode::from(2)
}

fn flood_by(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [network, source, streams, nodes @ ..] = arguments else { return Err("too few arguments".into()) };
    let nodes = nodes.iter().map(|node| node.parse()).collect::<Result<Vec<Multiaddr>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(flood::run(network.parse()?, source.parse()?, streams.parse()?, nodes))
}

fn run(role: Role, config: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(config)?;
    let (data_dir, network) = (config.data_dir(), config.network_name().clone());
    let key = Identity::load_or_create(&data_dir)?.signing_key();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let stopped = async move {
            terminated.recv().await;
        };
        let observer = Arc::new(NoObserver);
        match role {
            Role::Cheat(kind) => {
                let cheat = |honest| Cheat::new(kind, honest, key, network);
                Node::run_as(config, data_dir, observer, cheat, stopped).await?;
            }
            Role::Liar(lie) => {
                let liar = |honest| Liar::new(lie, honest, network);
                Node::run_as(config, data_dir, observer, liar, stopped).await?;
            }
        }
        Ok(())
    })
}
