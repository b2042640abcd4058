//! The node as a whole: opens what lies on the disk, starts the peer, hands inbound work to holder and steward, and ends
//! in order. It connects parts and decides nothing.

mod background;
mod bootstrap;
mod serve;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use commonhold_network::{
    Limits, Multiaddr, NetworkError, NoObserver, Observer, Peer, PeerConfig, Role, with_last_ports,
};
use commonhold_policy::expiry::ClockDoubt;
use commonhold_protocol::NodeId;
use commonhold_storage_engine::store::{ShardStore, StoreError, StoreOptions};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auditor::{AuditFigures, Auditor, AuditorHandle, AuditorParts},
    clock::Clock,
    config::{Config, ConfigError},
    custody::{CustodyFigures, DrainState, announce::Announcer, colleagues::Colleagues, drain::Drain},
    dashboard::{self, StatusSource},
    data_dir::{self, ADDRESS_FILE, DASHBOARD_FILE, DataDir, DataDirError, LISTEN_FILE, PID_FILE},
    expiry::{ExpiryFigures, ExpiryWatch, Times},
    holder::{HeldShards, Holder, HolderParts, Rates},
    identity::{Identity, IdentityError},
    neighbours::Neighbours,
    records::{RecordStore, RecordsError},
    scrub::{Scrub, ScrubFigures},
    service::{NodeService, Service},
    status::{NodeStatus, PledgeStatus, RecordStatus, ShardStatus, TrafficStatus},
    steward::Steward,
    sweep::{Ledger, ServedVaults, Sweep},
};

/// The folder of the record store, in the data folder.
pub(crate) const RECORDS_FOLDER: &str = "records";
/// The folder of evidence, in the data folder.
const EVIDENCE_FOLDER: &str = "evidence";
/// What the auditor remembers over a restart, in the data folder.
const AUDITS_FILE: &str = "audits";
/// The claims that it has audited.
const PROVEN_FILE: &str = "proven";
/// What this holder has given up since another keeps it.
const GIVEN_UP_FILE: &str = "given-up";
/// How long the node has been up, and what is in the trash since its lease ended.
const ENDED_FILE: &str = "ended";
/// How long stopping waits for shards that are being received.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The config names a file that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The records cannot be opened.
    #[error("the records cannot be opened: {0}")]
    Records(#[from] RecordsError),
    /// The shards cannot be opened.
    #[error("the shards cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The network cannot be started.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The status page's address cannot be used.
    #[error("[dashboard] listen: {address}: {source}; choose another address, or port 0 for any")]
    Dashboard {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A part of the node panicked; the log has more.
    #[error("a part of the node failed while starting")]
    Panicked,
}

/// The volunteer's daemon.
#[derive(Debug, Clone, Copy)]
pub struct Node;

impl Node {
    /// Runs a node until `shutdown` is ready, then stops in order. Runs on the current runtime, which may have one
    /// thread; work on the disk goes to the runtime's blocking threads.
    pub async fn run(
        config: Config,
        data_dir: impl AsRef<Path>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NodeError> {
        Self::run_observed(config, data_dir, Arc::new(NoObserver), shutdown).await
    }

    /// As [`Self::run`], with someone who hears of all that the node says and hears: see [`Observer`].
    pub async fn run_observed(
        config: Config,
        data_dir: impl AsRef<Path>,
        observer: Arc<dyn Observer>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NodeError> {
        Self::run_as(config, data_dir, observer, |service| service, shutdown).await
    }

    /// As [`Self::run_observed`], with what answers in the node's place, made of the service that answers as it should.
    pub async fn run_as<S: Service>(
        config: Config,
        data_dir: impl AsRef<Path>,
        observer: Arc<dyn Observer>,
        service: impl FnOnce(NodeService) -> S,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NodeError> {
        let data_dir = DataDir::lock(data_dir.as_ref())?;
        for stale in [ADDRESS_FILE, DASHBOARD_FILE] {
            data_dir.withdraw(stale);
        }
        data_dir.publish(PID_FILE, &format!("{}\n", std::process::id()))?;
        let run = run_in(&config, &data_dir, observer, service, shutdown).await;
        for published in [ADDRESS_FILE, DASHBOARD_FILE, PID_FILE] {
            data_dir.withdraw(published);
        }
        run
    }
}

async fn run_in<S: Service>(
    config: &Config,
    data_dir: &DataDir,
    observer: Arc<dyn Observer>,
    service: impl FnOnce(NodeService) -> S,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let identity = Identity::load_or_create(data_dir.path())?;
    let clock = Arc::new(Clock::default());
    let (records, store) = open_stores(config, data_dir.path()).await?;
    let own_domain = config.node.domain.clone();
    let drain = Arc::new(DrainState::load(data_dir.path()));
    let steward = {
        let (network, domain) = (config.network_name().clone(), own_domain.clone());
        let (records, holdings, clock) =
            (records.clone(), Arc::new(HeldShards { store: store.clone(), drain: drain.clone() }), clock.clone());
        blocking(move || Steward::new(network, domain, records, holdings, clock)).await??
    };
    let steward = Arc::new(steward);
    let neighbours = Arc::new(Neighbours::new(identity.node_id(), own_domain.as_deref(), config.names_domains()));
    let served = Arc::new(ServedVaults::default());

    let address = config.dashboard.listen;
    let (listener, dashboard_address) =
        dashboard::bind(address).await.map_err(|source| NodeError::Dashboard { address, source })?;
    let limits = Limits::default();
    let peer_config = PeerConfig {
        identity_seed: identity.seed(),
        network: config.network_name().clone(),
        network_key: config.network_key()?,
        listen: with_last_ports(config.listen(), &last_addresses(data_dir.path())),
        role: Role::Node,
        local_discovery: config.local_discovery(),
        relay: config.pledge.relay,
        limits: limits.clone(),
    };
    let (peer, inbound) = Peer::start_observed(peer_config, observer)?;
    let parts = HolderParts {
        network: config.network_name().clone(),
        store: store.clone(),
        steward: steward.clone(),
        neighbours: neighbours.clone(),
        served: served.clone(),
        pledge_bytes: config.pledge.disk.0,
        vault_bytes_max: config.pledge.vault_max.0,
        rates: Rates { upload: config.pledge.upload, download: config.pledge.download },
        drain: drain.clone(),
        given_up: data_dir.path().join(GIVEN_UP_FILE),
    };
    let holder = Arc::new(Holder::new(&identity, parts));
    tracing::info!(node = %format!("{:#}", peer.node_id()), network = %config.network_name(), "the node runs");

    let (stop_all, tasks) = (CancellationToken::new(), TaskTracker::new());
    let audits = Arc::new(AuditFigures::default());
    let parts = AuditorParts {
        peer: peer.clone(),
        network: config.network_name().clone(),
        steward: steward.clone(),
        holder: holder.clone(),
        neighbours: neighbours.clone(),
        clock: clock.clone(),
        seed: identity.audit_seed(),
        folder: data_dir.path().join(EVIDENCE_FOLDER),
        kept: data_dir.path().join(AUDITS_FILE),
        proven: data_dir.path().join(PROVEN_FILE),
        figures: audits.clone(),
        tasks: tasks.clone(),
    };
    let auditor = Auditor::start(config, parts, stop_all.clone());
    steward.set_auditor(auditor.clone());
    let ledger = Arc::new(Ledger::new(steward.clone(), neighbours.clone(), config.audit.grace.0));
    let honest = NodeService {
        peer: peer.clone(),
        steward: steward.clone(),
        holder: holder.clone(),
        neighbours: neighbours.clone(),
        auditor: auditor.clone(),
        ledger: ledger.clone(),
    };
    let service = service(honest.clone());
    let running = Running {
        peer: peer.clone(),
        holder,
        neighbours: neighbours.clone(),
        auditor,
        news: Arc::new(Notify::new()),
        stop: stop_all,
        tasks,
        limits,
    };
    let (expiry_figures, scrub_figures) = (Arc::new(ExpiryFigures::default()), Arc::new(ScrubFigures::default()));
    let custody_figures = Arc::new(CustodyFigures::default());
    let source = Arc::new(Figures {
        config: config.clone(),
        node: peer.node_id(),
        peer: peer.clone(),
        store: store.clone(),
        records: records.clone(),
        steward: steward.clone(),
        clock,
        audits,
        expiry: expiry_figures.clone(),
        scrub: scrub_figures.clone(),
        custody: custody_figures.clone(),
        drain: drain.clone(),
        addresses: std::sync::Mutex::default(),
    });
    let (grace, prove) = (config.audit.grace.0, config.audit.prove.0);
    let sweep = Sweep::new(peer.clone(), steward.clone(), neighbours.clone(), served, ledger, grace, prove);
    running.tasks.spawn(sweep.run(running.news.clone(), running.stop.clone()));
    running.tasks.spawn(dashboard::serve(listener, source.clone(), running.stop.clone()));
    let scrub = Scrub {
        colleagues: Colleagues::new(honest.clone()),
        store: store.clone(),
        every: config.pledge.scrub.0,
        trash: config.pledge.trash.0,
        figures: scrub_figures,
    };
    running.tasks.spawn(scrub.run(running.stop.clone()));
    let (every, prove) = (config.pledge.announce.0, config.audit.prove.0);
    let announcer =
        Announcer::new(Colleagues::new(honest.clone()), store.clone(), every, prove, custody_figures.clone());
    running.tasks.spawn(announcer.run(running.stop.clone()));
    let draining = Drain {
        colleagues: Colleagues::new(honest),
        store: store.clone(),
        state: drain,
        figures: custody_figures,
        data_dir: data_dir.path().to_owned(),
        pledge_bytes: config.pledge.disk.0,
        present: config.audit.grace.0,
        offers: std::sync::Mutex::default(),
        sent: std::sync::Mutex::default(),
    };
    running.tasks.spawn(draining.run(running.stop.clone()));
    let (rules, present) = (config.lease.rules(), config.audit.grace.0);
    let times = Times { rules, trash: config.pledge.trash.0, present };
    let (witnesses, holdings, ended) = (peer.clone(), store.clone(), data_dir.path().join(ENDED_FILE));
    let expiry =
        ExpiryWatch::new(witnesses, holdings, steward.clone(), neighbours.clone(), times, expiry_figures, ended);
    running.tasks.spawn(expiry.run(running.stop.clone()));
    let time_is_doubtful = {
        let steward = steward.clone();
        let doubt = move || steward.clock().doubt(&rules, neighbours.domains(present));
        move || doubt().is_some_and(ClockDoubt::is_of_the_time)
    };
    let trash_ms = config.pledge.trash.as_ms();
    running.tasks.spawn(background::run(store.clone(), steward, trash_ms, time_is_doubtful, running.stop.clone()));
    let folder = data_dir.path().to_owned();
    running.tasks.spawn(bootstrap::run(peer.clone(), config.bootstrap(), folder, running.stop.clone()));

    let served_all = serve::run(&running, Arc::new(service), &source, data_dir, dashboard_address, inbound);
    let ended = tokio::select! {
        served = served_all => served,
        () = shutdown => Ok(()),
    };
    stop(&running, data_dir, records, store).await;
    ended
}

/// Opens records and shards, off the runtime's thread: a rebuild of an index takes its time.
async fn open_stores(config: &Config, folder: &Path) -> Result<(Arc<RecordStore>, Arc<ShardStore>), NodeError> {
    let records_max = config.pledge.records.of(config.pledge.disk.0);
    let records_folder = folder.join(RECORDS_FOLDER);
    let folder: PathBuf = folder.to_owned();
    let (pledge, network) = (config.pledge.clone(), config.network_name().clone());
    blocking(move || {
        let (records, report) = RecordStore::open(&records_folder, records_max)?;
        if report.rebuilt || report.damaged_bytes > 0 {
            tracing::warn!(?report, "the index of the records was rebuilt");
        }
        let options = StoreOptions {
            pledge_bytes: pledge.disk.0,
            keep_free_bytes: pledge.keep_free.0,
            vault_bytes_max: pledge.vault_max.0,
            other_bytes: records.used_bytes(),
            network,
        };
        let (store, _) = ShardStore::open(&folder, options)?;
        Ok((records, store))
    })
    .await?
}

/// What runs.
struct Running {
    peer: Peer,
    holder: Arc<Holder>,
    neighbours: Arc<Neighbours>,
    auditor: AuditorHandle,
    news: Arc<Notify>,
    stop: CancellationToken,
    tasks: TaskTracker,
    limits: Limits,
}

/// Where the node listened when it ran last. A line that cannot be read is left out.
fn last_addresses(data_dir: &Path) -> Vec<Multiaddr> {
    let text = data_dir::read(data_dir, LISTEN_FILE).unwrap_or_else(|error| {
        tracing::warn!(%error, "the ports of the last run are not known");
        None
    });
    text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
}

/// Writes down where the node can be dialled, now and after its next start.
async fn publish_addresses(peer: &Peer, source: &Figures, data_dir: &DataDir) -> Result<(), NodeError> {
    let addresses = peer.listen_addrs().await;
    let lines: Vec<String> = addresses.iter().map(|address| format!("{address}\n")).collect();
    data_dir.publish(LISTEN_FILE, &lines.concat())?;
    if let Some(address) = most_dialable(&addresses) {
        data_dir.publish(ADDRESS_FILE, &format!("{address}\n"))?;
    }
    source.set_addresses(&addresses);
    Ok(())
}

/// TCP before all else, and another machine's way to us before the loopback.
fn most_dialable(addresses: &[Multiaddr]) -> Option<&Multiaddr> {
    addresses.iter().min_by_key(|address| {
        let text = address.to_string();
        (
            !text.contains("/tcp/"),
            text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/"),
            text.starts_with("/ip6/"),
        )
    })
}

/// Ends in order: refuses what is new, finishes what was begun, syncs, and leaves.
async fn stop(running: &Running, data_dir: &DataDir, records: Arc<RecordStore>, store: Arc<ShardStore>) {
    running.holder.stop();
    if tokio::time::timeout(STOP_PATIENCE, running.holder.idle()).await.is_err() {
        tracing::warn!("shards that were being received are given up; nothing was answered for them");
    }
    bootstrap::remember(&running.peer, data_dir.path(), &mut String::new());
    running.stop.cancel();
    running.peer.shutdown().await;
    running.tasks.close();
    if tokio::time::timeout(STOP_PATIENCE, running.tasks.wait()).await.is_err() {
        tracing::warn!("some work did not end in time");
    }
    let closed =
        blocking(move || store.close().map_err(NodeError::from).and(records.checkpoint().map_err(NodeError::from)));
    match closed.await {
        Ok(Ok(())) => tracing::info!("the node has stopped"),
        // What was answered for is on the disk all the same; the next start takes longer.
        Ok(Err(error)) | Err(error) => tracing::warn!(%error, "an index was not flushed"),
    }
}

/// Runs what blocks off the runtime's thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NodeError::Panicked)
}

/// What the dashboard shows.
struct Figures {
    config: Config,
    node: NodeId,
    peer: Peer,
    store: Arc<ShardStore>,
    records: Arc<RecordStore>,
    steward: Arc<Steward>,
    clock: Arc<Clock>,
    audits: Arc<AuditFigures>,
    expiry: Arc<ExpiryFigures>,
    scrub: Arc<ScrubFigures>,
    custody: Arc<CustodyFigures>,
    drain: Arc<DrainState>,
    addresses: std::sync::Mutex<Vec<String>>,
}

impl Figures {
    fn set_addresses(&self, addresses: &[Multiaddr]) {
        let texts = addresses.iter().map(ToString::to_string).collect();
        *self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = texts;
    }
}

impl StatusSource for Figures {
    fn status(&self) -> NodeStatus {
        let used = self.store.used();
        let record_bytes = self.records.used_bytes().load(Relaxed);
        let counts = self.records.counts();
        let traffic = self.peer.stats().snapshot();
        NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: format!("{:#}", self.node),
            name: self.config.node.name.clone(),
            network: self.config.network_name().to_string(),
            domain: self.config.node.domain.clone(),
            addresses: self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
            peers: self.peer.connected().len() as u64,
            nodes_known: self.peer.known_contacts().len() as u64,
            uptime_ms: self.clock.uptime().as_millis() as u64,
            pledge: PledgeStatus {
                bytes_max: self.config.pledge.disk.0,
                used_bytes: used.disk_bytes + record_bytes,
                free_bytes: self.store.free_bytes().unwrap_or(0),
            },
            shards: ShardStatus { held: used.shards, quarantined: used.quarantined },
            records: RecordStatus {
                segments: counts.segments,
                heads: counts.heads,
                leases: counts.leases,
                drops: counts.drops,
                used_bytes: record_bytes,
                unproven_bytes: self.steward.unproven_bytes(),
                bytes_max: self.records.bytes_max(),
            },
            traffic: TrafficStatus {
                shard_bytes_sent: traffic.shard_bytes_sent,
                shard_bytes_received: traffic.shard_bytes_received,
            },
            audits: self.audits.snapshot(),
            expiry: self.expiry.snapshot(),
            scrub: self.scrub.snapshot(),
            custody: self.custody.snapshot(),
            drain: self.drain.status(),
        }
    }
}
