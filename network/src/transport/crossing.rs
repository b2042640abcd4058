//! What happens when two nodes dial each other at the same moment, each from the port that it listens on: TCP makes one
//! connection of the two (RFC 9293, section 3.5, "simultaneous connection synchronization"), both sides speak as
//! clients, and both handshakes fail. Such a dial is made once more, from a port of its own.
//!
//! So is one that the system refuses to make from the port that we listen on, since somebody has that port at another
//! of the machine's addresses: the library binds it at all of them, and a node whose port a browser's connection happens
//! to have would reach nobody for as long as that lasts.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Transport,
    core::{
        Endpoint,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
};
use rustls::HandshakeType;

use super::Connected;
use crate::shared::lock;

/// A transport over TCP and TLS whose dials survive a crossing.
pub(super) struct Uncrossed {
    /// Locked for as long as a dial takes to begin, never while one is under way.
    inner: Arc<Mutex<Boxed<Connected>>>,
}

impl Uncrossed {
    pub(super) fn new(inner: Boxed<Connected>) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)) }
    }
}

impl Transport for Uncrossed {
    type Output = Connected;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Connected> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Connected>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        lock(&self.inner).listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        lock(&self.inner).remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let first = lock(&self.inner).dial(address.clone(), options)?;
        if options.port_use == PortUse::New || options.role == Endpoint::Listener {
            return Ok(first);
        }
        let inner = self.inner.clone();
        Ok(async move {
            match first.await {
                Err(error) if is_crossing(&error) || is_in_use(&error) => {
                    tracing::debug!(%address, %error, "dialling from another port");
                }
                outcome => return outcome,
            }
            let second = lock(&inner).dial(address, DialOpts { port_use: PortUse::New, ..options });
            second.map_err(io::Error::other)?.await
        }
        .boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut *lock(&self.inner)).poll(cx)
    }
}

/// True if the other side began the handshake as we did.
fn is_crossing(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        let got = HandshakeType::ClientHello;
        return matches!(error, rustls::Error::InappropriateHandshakeMessage { got_type, .. } if *got_type == got);
    }
    // The source of an I/O error is that of the error within, which would be passed over.
    let within = |error: &'_ io::Error| error.get_ref().is_some_and(|within| is_crossing(within));
    error.downcast_ref().map_or_else(|| error.source().is_some_and(is_crossing), within)
}

/// True if the port that we listen on cannot be dialled from.
fn is_in_use(error: &(dyn Error + 'static)) -> bool {
    let of_io = |error: &io::Error| {
        error.kind() == io::ErrorKind::AddrInUse || error.get_ref().is_some_and(|within| is_in_use(within))
    };
    error.downcast_ref().map_or_else(|| error.source().is_some_and(is_in_use), of_io)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use libp2p::{PeerId, identity::Keypair};
    use tokio::{
        io,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::transport::tcp_transport;

    const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";
    const REUSING: DialOpts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };

    fn transport() -> (PeerId, Boxed<Connected>) {
        let identity = Keypair::generate_ed25519();
        (identity.public().to_peer_id(), tcp_transport(&identity, &"main".parse().unwrap()).unwrap())
    }

    /// Listens on a port that the kernel picks.
    async fn listen(transport: &mut Boxed<Connected>) -> u16 {
        transport.listen_on(ListenerId::next(), ANY_PORT.parse().unwrap()).unwrap();
        loop {
            if let TransportEvent::NewAddress { listen_addr, .. } = transport.select_next_some().await {
                return listen_addr.to_string().rsplit_once('/').unwrap().1.parse().unwrap();
            }
        }
    }

    /// Lets go of whoever connects first after sending back what it says, which is what a crossing dial would say, and
    /// connects the next one with `port`; answers the ports that both came from.
    async fn cross_once(listener: TcpListener, port: u16) -> [u16; 2] {
        let (mut first, from) = listener.accept().await.unwrap();
        let (mut read, mut write) = first.split();
        let _ = io::copy(&mut read, &mut write).await;
        drop(first);
        let (mut second, again_from) = listener.accept().await.unwrap();
        let mut behind = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::spawn(async move { io::copy_bidirectional(&mut second, &mut behind).await });
        [from.port(), again_from.port()]
    }

    async fn answer(transport: &mut Boxed<Connected>) {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } = transport.select_next_some().await {
                tokio::spawn(upgrade);
            }
        }
    }

    /// A node of a test network could reach nobody for a minute: "Address already in use".
    #[tokio::test]
    async fn who_listens_on_a_port_that_another_has_at_another_address_dials_from_another() {
        let ((_, mut near), (far_id, mut far)) = (transport(), transport());
        let (near_port, far_port) = (listen(&mut near).await, listen(&mut far).await);
        let _other = TcpListener::bind(("127.0.0.2", near_port)).await.unwrap();
        tokio::spawn(async move { answer(&mut far).await });
        let address = format!("/ip4/127.0.0.1/tcp/{far_port}");
        let (peer, _) = near.dial(address.parse().unwrap(), REUSING).unwrap().await.unwrap();
        assert_eq!(peer, far_id);
    }

    #[tokio::test]
    async fn a_dial_that_crosses_another_is_made_again_from_another_port() {
        let ((_, mut near), (far_id, mut far)) = (transport(), transport());
        let (near_port, far_port) = (listen(&mut near).await, listen(&mut far).await);
        let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", between.local_addr().unwrap().port());
        let ports = tokio::spawn(cross_once(between, far_port));
        tokio::spawn(async move { answer(&mut far).await });
        let (peer, _) = near.dial(address.parse().unwrap(), REUSING).unwrap().await.unwrap();
        assert_eq!(peer, far_id);
        let [first, second] = ports.await.unwrap();
        assert_eq!(first, near_port, "a crossing takes the ports that both listen on");
        assert_ne!(second, near_port);
    }
}
