//! Questions on their way out, and questions of others that wait for our answer.

use std::{collections::HashMap, io, pin::Pin, sync::Arc};

use bytes::Bytes;
use commonhold_protocol::{
    FormatError, NodeId,
    ask::{ASK_BYTES_MAX, Refusal, Request, Response},
};
use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId,
    request_response::{Behaviour, OutboundFailure, OutboundRequestId, ResponseChannel},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::{
    ask::AskCodec,
    behaviour::ASKS_PER_PEER_MAX,
    inbound::{AskReply, InboundAsk},
    observer::{Observer, Way},
};

/// Why a question sent to a connected peer has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskFailure {
    Unreachable,
    TimedOut,
    Broken,
    Nonsense,
}

/// To whom, the way back, and an answer of ours; none if the owner dropped the question.
pub(crate) type Answer = (NodeId, ResponseChannel<Bytes>, Option<Response>);

/// Who asked, and its share of the questions that one peer may be asked at once.
pub(crate) type Asker = (oneshot::Sender<Result<Bytes, AskFailure>>, OwnedSemaphorePermit);

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What became of a question.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It waits for its answer.
    In,
    /// Its asker has as many open as it may: refused.
    Excess,
    /// We have too many open: refused, and not its asker's fault.
    Full,
    /// It cannot be read.
    Nonsense(FormatError),
}

pub(crate) struct Asks {
    asked: HashMap<OutboundRequestId, Asker>,
    inbound: mpsc::Sender<InboundAsk>,
    answering: FuturesUnordered<Answering>,
    answering_max: usize,
    /// Questions that wait for an answer, by asker.
    open: HashMap<NodeId, usize>,
    observer: Arc<dyn Observer>,
}

impl Asks {
    pub(crate) fn new(inbound: mpsc::Sender<InboundAsk>, queued_max: usize, observer: Arc<dyn Observer>) -> Self {
        // As many again may be in the owner's hands as in the queue.
        Self {
            asked: HashMap::new(),
            inbound,
            answering: FuturesUnordered::new(),
            answering_max: 2 * queued_max,
            open: HashMap::new(),
            observer,
        }
    }

    pub(crate) fn ask(&mut self, behaviour: &mut Behaviour<AskCodec>, peer: PeerId, request: Bytes, asker: Asker) {
        self.asked.insert(behaviour.send_request(&peer, request), asker);
    }

    pub(crate) fn response(&mut self, id: OutboundRequestId, response: Bytes) {
        if let Some((reply, _slot)) = self.asked.remove(&id) {
            let _ = reply.send(Ok(response));
        }
    }

    pub(crate) fn failed(&mut self, id: OutboundRequestId, failure: &OutboundFailure) {
        let Some((reply, _slot)) = self.asked.remove(&id) else { return };
        let failure = match failure {
            OutboundFailure::DialFailure => AskFailure::Unreachable,
            OutboundFailure::Timeout => AskFailure::TimedOut,
            OutboundFailure::Io(error) if error.kind() == io::ErrorKind::InvalidData => AskFailure::Nonsense,
            OutboundFailure::UnsupportedProtocols => AskFailure::Nonsense,
            OutboundFailure::ConnectionClosed | OutboundFailure::Io(_) => AskFailure::Broken,
        };
        let _ = reply.send(Err(failure));
    }

    /// Takes in a question, or refuses it.
    pub(crate) fn question(
        &mut self,
        behaviour: &mut Behaviour<AskCodec>,
        from: NodeId,
        from_addr: Option<Multiaddr>,
        request: Bytes,
        channel: ResponseChannel<Bytes>,
    ) -> Taken {
        // Before it is decoded: whoever asks too much shall cost little.
        let open = self.open.get(&from).copied().unwrap_or(0);
        if open >= ASKS_PER_PEER_MAX {
            self.send(behaviour, (from, channel, Some(Response::Refused(Refusal::Busy))));
            return Taken::Excess;
        }
        let request = match Request::from_bytes(request) {
            Ok(request) => request,
            Err(error) => {
                self.send(behaviour, (from, channel, Some(Response::Refused(Refusal::Invalid))));
                return Taken::Nonsense(error);
            }
        };
        self.observer.request(Way::From(from), &request);
        let (reply, answer) = oneshot::channel();
        let ask = InboundAsk { from, from_addr, request, reply: AskReply(reply) };
        if self.answering.len() >= self.answering_max || self.inbound.try_send(ask).is_err() {
            self.send(behaviour, (from, channel, Some(Response::Refused(Refusal::Busy))));
            return Taken::Full;
        }
        self.open.insert(from, open + 1);
        self.answering.push(Box::pin(async move { (from, channel, answer.await.ok()) }));
        Taken::In
    }

    /// The next answer that is ready; none while no question is open.
    pub(crate) async fn answered(&mut self) -> Option<Answer> {
        let answer = self.answering.next().await?;
        let from = answer.0;
        if let Some(open) = self.open.get_mut(&from) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&from);
            }
        }
        Some(answer)
    }

    /// Sends an answer. It is lost if the asker has gone.
    pub(crate) fn send(&mut self, behaviour: &mut Behaviour<AskCodec>, (to, channel, response): Answer) {
        let Some(mut response) = response else { return };
        let mut bytes = response.to_bytes();
        if bytes.len() > ASK_BYTES_MAX {
            tracing::warn!(bytes = bytes.len(), "an answer longer than a message may be: refused instead");
            response = Response::Refused(Refusal::Other);
            bytes = response.to_bytes();
        }
        self.observer.response(Way::To(to), &response);
        let _ = behaviour.send_response(channel, bytes.into());
    }
}
