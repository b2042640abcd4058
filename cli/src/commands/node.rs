//! `node init|run|status|drain|fsck`: the operator's side.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use commonhold_node::{
    self as node, NodeStatus,
    config::{Config, KeySource, Size},
    custody::{DrainStatus, drain},
};
use serde::Serialize;

use crate::{
    args::{NodeCommand, NodeConfigFile, NodeDrain, NodeInit},
    escape,
    exit::Failure,
    figures,
    interrupt::Signals,
    output::{Output, columns},
};

pub(super) fn run(command: NodeCommand, output: &Output) -> Result<(), Failure> {
    match command {
        NodeCommand::Init(args) => init(args, output),
        NodeCommand::Run(args) => serve(&args.config),
        NodeCommand::Status(args) => status(&args, output),
        NodeCommand::Drain(args) => drain(&args, output),
        NodeCommand::Fsck(args) => fsck(&args, output),
    }
}

#[derive(Serialize)]
struct Made {
    config: String,
    node: String,
}

fn init(args: NodeInit, output: &Output) -> Result<(), Failure> {
    let bad = |value: &str| {
        let value = value.to_owned();
        move |reason: String| Failure::NodeOption { value, reason }
    };
    let mut config = Config::default();
    config.node.name = args.name;
    config.network.name = args.network.as_str().parse().map_err(bad(args.network.as_str()))?;
    if let Some(path) = &args.network_key {
        let source = super::init::key_reference(path)?;
        config.network.key = Some(source.parse::<KeySource>().map_err(bad(&source))?);
    }
    for address in &args.bootstrap {
        config.node.bootstrap.push(address.parse().map_err(bad(address))?);
    }
    if let Some(disk) = &args.disk {
        config.pledge.disk = disk.parse::<Size>().map_err(|error| bad(disk)(error.to_string()))?;
    }
    let made = node::init(&args.dir, &config)?;
    let config_path = made.config.display().to_string();
    output.done(&Made { config: config_path.clone(), node: format!("{:#}", made.node) }, || {
        vec![
            format!("made {config_path}, with every key explained, for node {}", made.node),
            format!("start it with: commonhold node run --config {config_path}"),
        ]
    })
}

/// Seldom enough that what is freed and taken again costs nothing, often enough that an idle node is small.
const TRIM_EVERY: Duration = Duration::from_secs(10);

fn serve(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let data_dir = config.data_dir();
    crate::allocator::small();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(Failure::Signals)?;
        let stopped = async move {
            // Nobody waits for the end before the node is open.
            crate::allocator::keep_buffers();
            let trimming = async {
                loop {
                    tokio::time::sleep(TRIM_EVERY).await;
                    crate::allocator::trim();
                }
            };
            tokio::select! {
                _ = trimming => {}
                _ = signals.next() => {}
            }
            tracing::info!("stopping");
        };
        Ok(node::Node::run(config, data_dir, stopped).await?)
    })
}

fn status(args: &NodeConfigFile, output: &Output) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let status = node::status_of(&config.data_dir())?;
    output.facts(&status, || lines(&status))
}

fn lines(status: &NodeStatus) -> Vec<String> {
    let date = |ms: u64| figures::date(i64::try_from(ms / 1000).unwrap_or(i64::MAX));
    let known = |text: &Option<String>| escape::name(text.as_deref().unwrap_or("-").as_bytes());
    let pledge = &status.pledge;
    let mut rows = vec![
        ("node", status.node.clone()),
        ("name", known(&status.name)),
        ("network", status.network.clone()),
        ("domain", known(&status.domain)),
        ("version", status.version.clone()),
        ("running for", figures::span(status.uptime_ms as f64 / 1000.0)),
        ("peers", format!("{} connected, {} known", status.peers, status.nodes_known)),
        (
            "pledge",
            format!(
                "{} of {} used, {} free",
                figures::size(pledge.used_bytes),
                figures::size(pledge.bytes_max),
                figures::size(pledge.free_bytes)
            ),
        ),
        (
            "shards",
            format!(
                "{} held, {} quarantined",
                figures::grouped(status.shards.held),
                figures::grouped(status.shards.quarantined)
            ),
        ),
        (
            "records",
            format!(
                "{} of segments, {} of heads, {} used",
                figures::grouped(status.records.segments),
                figures::grouped(status.records.heads),
                figures::size(status.records.used_bytes)
            ),
        ),
        (
            "traffic",
            format!(
                "{} of shards sent, {} received",
                figures::size(status.traffic.shard_bytes_sent),
                figures::size(status.traffic.shard_bytes_received)
            ),
        ),
    ];
    let audits = &status.audits;
    rows.extend([
        (
            "audits",
            format!(
                "{} passed, {} wrong, {} refused, {} unreachable",
                figures::grouped(audits.held),
                figures::grouped(audits.wrong),
                figures::grouped(audits.refused),
                figures::grouped(audits.unreachable)
            ),
        ),
        (
            "repairs",
            format!(
                "{} rebuilt in {}, {} failed, {} read, {} sent",
                figures::count(audits.shards_rebuilt, "shard", "shards"),
                figures::count(audits.repairs, "repair", "repairs"),
                figures::grouped(audits.repairs_failed),
                figures::size(audits.bytes_read),
                figures::size(audits.bytes_sent)
            ),
        ),
        ("last repair", audits.last_repair_ms.map_or_else(|| "none since the start".to_owned(), date)),
        ("lost holders", figures::grouped(audits.lost_holders)),
    ]);
    let custody = &status.custody;
    rows.push((
        "custody",
        format!(
            "{} handed on, {} given up that others keep, {} announced anew",
            figures::count(custody.handed_on, "shard", "shards"),
            figures::grouped(custody.surplus_released),
            figures::grouped(custody.claims_renewed)
        ),
    ));
    rows.extend(status.drain.as_ref().map(|drain| ("handing on", far(drain))));
    rows.extend(status.addresses.iter().map(|address| ("address", address.clone())));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![format!("{name}:"), value]).collect();
    columns(&rows, &[])
}

/// How often the node is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How often that is said where there is no news.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// `12 of 40 shards handed on, 28 (1.0 MiB) left`.
fn far(drain: &DrainStatus) -> String {
    format!(
        "{} of {} handed on, {} ({}) left",
        figures::grouped(drain.shards_total.saturating_sub(drain.shards_left)),
        figures::count(drain.shards_total, "shard", "shards"),
        figures::grouped(drain.shards_left),
        figures::size(drain.bytes_left)
    )
}

fn drain(args: &NodeDrain, output: &Output) -> Result<(), Failure> {
    let data_dir = Config::load(&args.node.config)?.data_dir();
    if args.cancel {
        drain::cancel(&data_dir)?;
        return output.done(&Cancelled { cancelled: true }, || {
            vec!["the node stays: what it has handed on stays where it is, and it takes shards again".to_owned()]
        });
    }
    // One that does not run hands nothing on.
    node::status_of(&data_dir)?;
    drain::request(&data_dir)?;
    let (mut said, mut said_at) = (String::new(), Instant::now());
    loop {
        let status = node::status_of(&data_dir)?.drain.filter(|drain| drain.everything);
        if let Some(drain) = status {
            if drain.done {
                return output.done(&drain, || {
                    vec![
                        format!("all {} handed on", figures::count(drain.shards_total, "shard is", "shards are")),
                        "the node holds nothing any more and may be switched off".to_owned(),
                    ]
                });
            }
            if drain.resting {
                output.done(&drain, || {
                    let stuck = drain.stuck.iter();
                    let stuck = stuck.map(|stuck| format!("{} stay: {}", figures::grouped(stuck.shards), stuck.why));
                    std::iter::once(far(&drain)).chain(stuck).collect()
                })?;
                return Err(Failure::NotDrained { left: drain.shards_left });
            }
            let far = far(&drain);
            if far != said || said_at.elapsed() >= SAY_EVERY {
                output.remark(&far);
                (said, said_at) = (far, Instant::now());
            }
        }
        std::thread::sleep(ASK_EVERY);
    }
}

#[derive(Serialize)]
struct Cancelled {
    cancelled: bool,
}

fn fsck(args: &NodeConfigFile, output: &Output) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let report = node::fsck(&config)?;
    output.facts(&report, || {
        vec![
            format!(
                "{} in {} verified against their roots; both indexes are built anew",
                figures::count(report.shards, "shard", "shards"),
                figures::size(report.bytes)
            ),
            format!(
                "{} damaged, {} missing; {} given back that belonged to no shard",
                figures::grouped(report.damaged),
                figures::grouped(report.missing),
                figures::size(report.orphaned_bytes)
            ),
        ]
    })?;
    let lost = report.damaged + report.missing;
    if lost > 0 { Err(Failure::ShardsLost { lost }) } else { Ok(()) }
}
