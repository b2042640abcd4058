//! Hands on what comes in: questions by turns, streams at once, news of connections to whom they concern.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use commonhold_network::{Inbound, InboundAsk, InboundStream, Limits, NetworkError, PeerEvent, serve_stream};
use commonhold_protocol::NodeId;
use tokio::sync::mpsc;

use super::{Figures, NodeError, Running, publish_addresses};
use crate::{
    auditor::News,
    cpu_time::CpuMeter,
    data_dir::{DASHBOARD_FILE, DataDir},
    service::Service,
    turns::{self, Turns},
};

/// Questions that wait for their turn; beyond these, they wait in the peer's queue, which is bounded too.
const ASKS_WAITING_MAX: usize = 1024;

/// Hands on what comes in. Ends only when the peer does.
pub(super) async fn run<S: Service>(
    running: &Running,
    service: Arc<S>,
    source: &Figures,
    data_dir: &DataDir,
    dashboard_address: SocketAddr,
    mut inbound: Inbound,
) -> Result<(), NodeError> {
    publish_addresses(&running.peer, source, data_dir).await?;
    data_dir.publish(DASHBOARD_FILE, &format!("{dashboard_address}\n{:#}\n", running.peer.node_id()))?;
    let mut turns = Turns::new();
    let (done, mut finished) = mpsc::channel(turns::AT_ONCE);
    loop {
        while let Some((from, ask)) = turns.next(Instant::now()) {
            let answer = answer(running, service.clone(), ask);
            let turn = Turn { from, meter: CpuMeter::default(), done: done.clone() };
            running.tasks.spawn(async move { turn.meter.clone().count(answer).await });
        }
        let wakes_at = turns.wakes_at();
        tokio::select! {
            Some((from, took)) = finished.recv() => turns.done(from, took, Instant::now()),
            Some(ask) = inbound.asks.recv(), if turns.waiting() < ASKS_WAITING_MAX => {
                turns.push(ask.from, ask, Instant::now());
            }
            () = sleep_until(wakes_at), if wakes_at.is_some() => {}
            Some(stream) = inbound.streams.recv() => {
                if let Some(address) = &stream.from_addr {
                    running.neighbours.connected(stream.from, address);
                }
                let serving = serve_one(stream, service.clone(), running.limits.clone());
                let stop = running.stop.clone();
                running.tasks.spawn(async move { stop.run_until_cancelled(serving).await });
            }
            Some(event) = inbound.events.recv() => match event {
                PeerEvent::Connected { node, address } => {
                    running.neighbours.connected(node, &address);
                    running.auditor.tell(News::Seen(node));
                    running.news.notify_one();
                }
                PeerEvent::Disconnected { node } => {
                    running.neighbours.disconnected(node);
                    running.auditor.tell(News::Gone(node));
                }
                PeerEvent::NewContact(_) => running.news.notify_one(),
                PeerEvent::LostContact { .. } => {}
                PeerEvent::Listening { .. } => publish_addresses(&running.peer, source, data_dir).await?,
            },
            else => return Err(NetworkError::Stopped.into()),
        }
    }
}

/// Never, if there is no such moment.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A turn; given back when dropped.
struct Turn {
    from: NodeId,
    meter: CpuMeter,
    done: mpsc::Sender<(NodeId, Duration)>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // There is room for all that run at once.
        let _ = self.done.try_send((self.from, self.meter.taken()));
    }
}

fn answer<S: Service>(running: &Running, service: Arc<S>, ask: InboundAsk) -> impl Future<Output = ()> + use<S> {
    let InboundAsk { from, from_addr, request, reply } = ask;
    if let Some(address) = &from_addr {
        running.neighbours.connected(from, address);
    }
    running.auditor.tell(News::Seen(from));
    async move {
        if let Some(response) = service.answer(from, request).await {
            reply.send(response);
        }
    }
}

async fn serve_one<S: Service>(stream: InboundStream, service: Arc<S>, limits: Limits) {
    if let Err(error) = serve_stream(stream, &*service, limits.streams).await {
        tracing::debug!(%error, "a shard stream has ended");
    }
}
