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
    registry::Registry,
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

/// The figures, by the names that they have in the metrics.
fn figures(status: &NodeStatus) -> [(&'static str, &'static str, u64); 15] {
    let NodeStatus { pledge, shards, records, traffic, .. } = status;
    [
        ("uptime_seconds", "Time since the start", status.uptime_ms / 1000),
        ("peers", "Peers connected", status.peers),
        ("nodes_known", "Nodes known", status.nodes_known),
        ("pledge_bytes", "What is lent", pledge.bytes_max),
        ("pledge_used_bytes", "Used of it, on disk", pledge.used_bytes),
        ("pledge_free_bytes", "What could still be stored", pledge.free_bytes),
        ("shards", "Shards held", shards.held),
        ("shards_quarantined", "Shards found damaged", shards.quarantined),
        ("segment_records", "Records of segments", records.segments),
        ("head_records", "Vaults with a head", records.heads),
        ("lease_records", "Vaults with a lease", records.leases),
        ("drop_records", "Segments with a drop or undrop", records.drops),
        ("record_bytes", "Bytes of records on disk", records.used_bytes),
        ("shard_bytes_sent", "Shard bytes sent since the start", traffic.shard_bytes_sent),
        ("shard_bytes_received", "Shard bytes received since the start", traffic.shard_bytes_received),
    ]
}

/// A name, what it means, and the count.
type Counted = (&'static str, &'static str, u64);

/// What the auditor counted, by the names that it has in the metrics; and the shards audited, by outcome.
fn counters(audits: &AuditSnapshot) -> ([Counted; 7], [(&'static str, u64); 4]) {
    let counters = [
        ("challenges", "Challenges sent, repetitions included", audits.challenges),
        ("lost_holders", "Holders given up", audits.lost_holders),
        ("repairs", "Repairs that placed a shard", audits.repairs),
        ("repairs_failed", "Repairs that placed none", audits.repairs_failed),
        ("shards_rebuilt", "Shards rebuilt", audits.shards_rebuilt),
        ("repair_bytes_read", "Shard bytes read for repairs", audits.bytes_read),
        ("repair_bytes_sent", "Shard bytes sent by repairs", audits.bytes_sent),
    ];
    let outcomes = [
        ("held", audits.held),
        ("wrong", audits.wrong),
        ("refused", audits.refused),
        ("unreachable", audits.unreachable),
    ];
    (counters, outcomes)
}

fn metrics_of(status: &NodeStatus) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("commonhold");
    for (name, help, value) in figures(status) {
        let gauge: Gauge<u64, AtomicU64> = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let (counters, outcomes) = counters(&status.audits);
    for (name, help, value) in counters {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    let audits: Family<[(&'static str, &'static str); 1], Counter> = Family::default();
    for (outcome, value) in outcomes {
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
    let figures = figures(status).into_iter().map(|(name, help, value)| row(help, &shown(name, value)));
    let (counters, outcomes) = counters(&status.audits);
    let counters = counters.into_iter().map(|(name, help, value)| row(help, &shown(name, value)));
    let outcomes = outcomes.into_iter().map(|(outcome, value)| row(&format!("Audits: {outcome}"), &value.to_string()));
    let rows: String = facts.chain(figures).chain(counters).chain(outcomes).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"10\">\
         <title>{name}</title><style>body{{font:16px system-ui,sans-serif;margin:2rem}}td{{padding:.2rem 1rem .2rem 0;\
         white-space:pre-line;vertical-align:top}}</style>\n<h1>{name}</h1>\n<table>\n{rows}</table>\n\
         <p><a href=\"/status\">JSON</a> · <a href=\"/metrics\">metrics</a></p>\n</html>\n",
        name = escape(name),
    )
}

fn shown(name: &str, value: u64) -> String {
    if name.contains("bytes") { bytesize::ByteSize(value).to_string() } else { value.to_string() }
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
                bytes_max: 4 << 30,
            },
            traffic: TrafficStatus { shard_bytes_sent: 5, shard_bytes_received: 1 << 30 },
            audits: AuditSnapshot { held: 900, wrong: 2, repairs: 3, bytes_sent: 1 << 20, ..AuditSnapshot::default() },
            expiry: ExpirySnapshot::default(),
            scrub: ScrubSnapshot::default(),
        }
    }

    #[test]
    fn metrics_hold_the_figures_of_the_status() {
        let text = metrics_of(&example()).unwrap();
        for line in [
            "commonhold_peers 13",
            "commonhold_shards 4096",
            "commonhold_uptime_seconds 61",
            "commonhold_audits_total{outcome=\"wrong\"} 2",
            "commonhold_repairs_total 3",
            "commonhold_repair_bytes_sent_total 1048576",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_name_cannot_bring_markup_into_the_page() {
        let page = page_of(&example());
        assert!(page.contains("<h1>&lt;attic&gt;</h1>"));
        assert!(!page.contains("<attic>"));
    }
}
