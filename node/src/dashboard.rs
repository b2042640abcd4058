//! The status page: `/` for people, `/status` as JSON, `/metrics` for Prometheus, `/health`. Shows, changes nothing.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry, Unit},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{auditor::AuditSnapshot, status::NodeStatus};

/// Where a dashboard has its figures from.
pub trait StatusSource: Send + Sync + 'static {
    /// The state now. Called off the runtime's thread.
    fn status(&self) -> NodeStatus;
}

/// Binds the dashboard's address, so that a taken port is an error before the node runs.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, source: Arc<dyn StatusSource>, stop: CancellationToken) {
    let router = Router::new()
        .route("/", get(page))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .with_state(source);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the status page has stopped");
    }
}

type Source = State<Arc<dyn StatusSource>>;

/// Counting what is used touches the disk.
async fn read(source: Arc<dyn StatusSource>) -> Result<NodeStatus, StatusCode> {
    let status = tokio::task::spawn_blocking(move || source.status()).await;
    status.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn status(State(source): Source) -> Result<Json<NodeStatus>, StatusCode> {
    read(source).await.map(Json)
}

async fn metrics(State(source): Source) -> Result<Response, StatusCode> {
    let text = metrics_of(&read(source).await?).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

async fn page(State(source): Source) -> Result<Html<String>, StatusCode> {
    read(source).await.map(|status| Html(page_of(&status)))
}

/// A figure of the status, by the name that it has in the metrics, less its prefix, unit and `_total`.
struct Figure {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    value: u64,
}

fn figure(name: &'static str, help: &'static str, value: u64) -> Figure {
    Figure { name, unit: None, help, value }
}

fn bytes(name: &'static str, help: &'static str, value: u64) -> Figure {
    Figure { name, unit: Some(Unit::Bytes), help, value }
}

/// What goes up and down.
fn gauges(status: &NodeStatus) -> Vec<Figure> {
    let NodeStatus { pledge, shards, records, expiry, .. } = status;
    let seconds = |name, help, value| Figure { name, unit: Some(Unit::Seconds), help, value };
    let last_repair = status.audits.last_repair_ms.map(|at| at / 1000);
    let last_repair = last_repair.map(|at| seconds("last_repair_timestamp", "Last repair that placed a shard", at));
    let gauges = [
        seconds("uptime", "Time since the start", status.uptime_ms / 1000),
        figure("peers", "Peers connected", status.peers),
        figure("nodes_known", "Nodes known", status.nodes_known),
        bytes("pledge", "What is lent", pledge.bytes_max),
        bytes("pledge_used", "Used of it, on disk", pledge.used_bytes),
        bytes("pledge_free", "What could still be stored", pledge.free_bytes),
        figure("shards", "Shards held, those in the trash included", shards.held),
        figure("shards_quarantined", "Shards found damaged", shards.quarantined),
        figure("segment_records", "Records of segments kept", records.segments),
        figure("head_records", "Vaults with a head kept", records.heads),
        figure("lease_records", "Vaults with a lease kept", records.leases),
        figure("drop_records", "Segments with a drop or undrop kept", records.drops),
        bytes("records", "Records, on disk", records.used_bytes),
        bytes("records_unproven", "Records that have yet to prove themselves", records.unproven_bytes),
        figure("vaults_ended", "Vaults whose lease is over, as far as is known", expiry.ended),
        figure("vaults_trashed", "Those of them whose shards are in the trash", expiry.trashed),
    ];
    gauges.into_iter().chain(last_repair).collect()
}

/// What only grows, from the start of the node.
fn counters(status: &NodeStatus) -> [Figure; 18] {
    let NodeStatus { traffic, audits, expiry, scrub, custody, .. } = status;
    [
        bytes("shard_sent", "Shard bytes sent, repairs included", traffic.shard_bytes_sent),
        bytes("shard_received", "Shard bytes received, repairs included", traffic.shard_bytes_received),
        figure("challenges", "Challenges sent, repetitions included", audits.challenges),
        figure("lost_holders", "Holders given up", audits.lost_holders),
        figure("repairs", "Repairs that placed a shard", audits.repairs),
        figure("repairs_failed", "Repairs that placed none", audits.repairs_failed),
        figure("shards_rebuilt", "Shards rebuilt and placed", audits.shards_rebuilt),
        bytes("repair_read", "Shard bytes read for repairs", audits.bytes_read),
        bytes("repair_sent", "Shard bytes sent by repairs", audits.bytes_sent),
        figure("expiry_asked", "Times that stewards were asked for a lease that is over", expiry.asked),
        figure("vaults_freed", "Vaults that were let go, their lease being over", expiry.vaults_freed),
        figure("shards_freed", "Shards of those vaults", expiry.shards_freed),
        figure("scrub_verified", "Shards read by the scrub and found whole", scrub.verified),
        figure("scrub_rotten", "Shards read by the scrub and found damaged", scrub.rotten),
        figure("scrub_released", "Damaged shards whose stewards were told", scrub.released),
        figure("claims_renewed", "Claims sent to stewards that had not known them", custody.claims_renewed),
        figure("surplus_released", "Shards given up since another node keeps them", custody.surplus_released),
        figure("handed_on", "Shards handed on to other nodes", custody.handed_on),
    ]
}

/// The audits, by outcome.
fn outcomes(audits: &AuditSnapshot) -> [(&'static str, u64); 5] {
    [
        ("held", audits.held),
        ("wrong", audits.wrong),
        ("refused", audits.refused),
        ("contradicted", audits.contradicted),
        ("unreachable", audits.unreachable),
    ]
}

fn register(registry: &mut Registry, figure: Figure, metric: impl Metric) {
    let Figure { name, unit, help, .. } = figure;
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}

fn metrics_of(status: &NodeStatus) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("commonhold");
    for figure in gauges(status) {
        let gauge: Gauge<u64, AtomicU64> = Gauge::default();
        gauge.set(figure.value);
        register(&mut registry, figure, gauge);
    }
    for figure in counters(status) {
        let counter: Counter = Counter::default();
        counter.inc_by(figure.value);
        register(&mut registry, figure, counter);
    }
    let audits: Family<[(&'static str, &'static str); 1], Counter> = Family::default();
    for (outcome, value) in outcomes(&status.audits) {
        audits.get_or_create(&[("outcome", outcome)]).inc_by(value);
    }
    registry.register("audits", "Shards audited, by outcome; unreachable counts challenges", audits);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn page_of(status: &NodeStatus) -> String {
    let name = status.name.as_deref().unwrap_or("a commonhold node");
    let facts = [
        ("Node", status.node.clone()),
        ("Network", status.network.clone()),
        ("Failure domain", status.domain.clone().unwrap_or_else(|| "by address".to_owned())),
        ("Version", status.version.clone()),
        ("Addresses", status.addresses.join("\n")),
    ];
    let facts = facts.into_iter().map(|(label, value)| row(label, &value));
    let figures = gauges(status).into_iter().chain(counters(status));
    let figures = figures.map(|figure| row(figure.help, &shown(&figure)));
    let outcomes = outcomes(&status.audits);
    let outcomes = outcomes.into_iter().map(|(outcome, value)| row(&format!("Audits: {outcome}"), &value.to_string()));
    let rows: String = facts.chain(figures).chain(outcomes).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"10\">\
         <title>{name}</title><style>body{{font:16px system-ui,sans-serif;margin:2rem}}td{{padding:.2rem 1rem .2rem 0;\
         white-space:pre-line;vertical-align:top}}</style>\n<h1>{name}</h1>\n<table>\n{rows}</table>\n\
         <p><a href=\"/status\">JSON</a> · <a href=\"/metrics\">metrics</a></p>\n</html>\n",
        name = escape(name),
    )
}

fn shown(figure: &Figure) -> String {
    match figure.unit {
        Some(Unit::Bytes) => bytesize::ByteSize(figure.value).to_string(),
        Some(Unit::Seconds) => format!("{} s", figure.value),
        _ => figure.value.to_string(),
    }
}

fn row(label: &str, value: &str) -> String {
    format!("<tr><td>{}</td><td>{}</td></tr>\n", escape(label), escape(value))
}

fn escape(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        c => c.to_string(),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        custody::CustodySnapshot,
        expiry::ExpirySnapshot,
        scrub::ScrubSnapshot,
        status::{PledgeStatus, RecordStatus, ShardStatus, TrafficStatus},
    };

    fn example() -> NodeStatus {
        NodeStatus {
            version: "0.1.0".to_owned(),
            node: "ab".repeat(32),
            name: Some("<attic>".to_owned()),
            network: "main".to_owned(),
            domain: None,
            addresses: vec!["/ip4/127.0.0.1/tcp/4400".to_owned()],
            peers: 13,
            nodes_known: 20,
            uptime_ms: 61_500,
            pledge: PledgeStatus { bytes_max: 200 << 30, used_bytes: 1 << 30, free_bytes: 199 << 30 },
            shards: ShardStatus { held: 4096, quarantined: 1 },
            records: RecordStatus {
                segments: 7,
                heads: 2,
                leases: 2,
                drops: 0,
                used_bytes: 50_000,
                unproven_bytes: 700,
                bytes_max: 4 << 30,
            },
            traffic: TrafficStatus { shard_bytes_sent: 5, shard_bytes_received: 1 << 30 },
            audits: AuditSnapshot {
                held: 900,
                wrong: 2,
                repairs: 3,
                bytes_sent: 1 << 20,
                last_repair_ms: Some(1_770_091_506_999),
                ..AuditSnapshot::default()
            },
            expiry: ExpirySnapshot { ended: 2, vaults_freed: 1, shards_freed: 40, ..ExpirySnapshot::default() },
            scrub: ScrubSnapshot { verified: 4_000, rotten: 1, released: 1 },
            custody: CustodySnapshot { surplus_released: 4, ..CustodySnapshot::default() },
            drain: None,
        }
    }

    #[test]
    fn metrics_hold_the_figures_of_the_status() {
        let text = metrics_of(&example()).unwrap();
        for line in [
            "commonhold_peers 13",
            "commonhold_shards 4096",
            "commonhold_uptime_seconds 61",
            "commonhold_pledge_used_bytes 1073741824",
            "commonhold_shard_sent_bytes_total 5",
            "commonhold_audits_total{outcome=\"wrong\"} 2",
            "commonhold_repairs_total 3",
            "commonhold_records_unproven_bytes 700",
            "commonhold_vaults_ended 2",
            "commonhold_shards_freed_total 40",
            "commonhold_scrub_rotten_total 1",
            "commonhold_surplus_released_total 4",
            "commonhold_repair_sent_bytes_total 1048576",
            "commonhold_last_repair_timestamp_seconds 1770091506",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        let none_yet = NodeStatus { audits: AuditSnapshot::default(), ..example() };
        assert!(!metrics_of(&none_yet).unwrap().contains("last_repair"), "a repair at the beginning of 1970");
    }

    /// What Prometheus wants: each sample behind the HELP and TYPE of its own family, units in names, and the end said.
    #[test]
    fn metrics_are_as_the_format_wants_them() {
        let text = metrics_of(&example()).unwrap();
        assert!(text.ends_with("\n# EOF\n"));
        let (mut family, mut families) = ((String::new(), String::new()), Vec::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["#", "HELP", name, help @ ..] => {
                    assert!(!families.contains(&(*name).to_owned()) && help.len() > 1, "{line}");
                    families.push((*name).to_owned());
                    family = ((*name).to_owned(), String::new());
                }
                ["#", "TYPE", name, kind @ ("gauge" | "counter")] => {
                    assert_eq!(*name, family.0, "{line}");
                    family.1 = (*kind).to_owned();
                }
                ["#", "UNIT", name, unit @ ("bytes" | "seconds")] => {
                    assert!(*name == family.0 && name.ends_with(&format!("_{unit}")), "{line}");
                }
                [sample, value] => {
                    let name = sample.split('{').next().unwrap();
                    let expected = match family.1.as_str() {
                        "counter" => format!("{}_total", family.0),
                        "gauge" => family.0.clone(),
                        kind => panic!("{line} behind the type {kind:?}"),
                    };
                    assert!(name == expected && name.starts_with("commonhold_"), "{line}");
                    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                    value.parse::<u64>().unwrap();
                }
                _ => panic!("what is {line:?}?"),
            }
        }
        assert_eq!(families.len(), 36);
    }

    /// The page of metrics is this very list.
    #[test]
    fn the_page_names_every_metric() {
        let text = metrics_of(&example()).unwrap();
        let page = include_str!("../../docs/metrics.md");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<&str> = samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect();
        names.dedup();
        let mut told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let shorn = |names: &mut Vec<&str>| {
            names.iter_mut().for_each(|name| *name = name.split('{').next().unwrap());
            names.sort_unstable();
        };
        shorn(&mut names);
        shorn(&mut told);
        assert_eq!(told, names);
    }

    #[test]
    fn a_name_cannot_bring_markup_into_the_page() {
        let page = page_of(&example());
        assert!(page.contains("<h1>&lt;attic&gt;</h1>"));
        assert!(!page.contains("<attic>"));
    }
}
