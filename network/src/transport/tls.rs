//! Who is at the other end, and that nobody else reads along: TLS 1.3 as libp2p specifies it
//! (<https://github.com/libp2p/specs/blob/master/tls/tls.md>), with the certificates of `libp2p-tls`.
//!
//! That crate prefers ChaCha20; here AES-256 goes first where the processor has it, for it costs a fourth. A peer without
//! AES instructions offers and takes ChaCha20 alone, so the slower side decides. The network's name is the application
//! protocol (ALPN) of the handshake: peers of two networks never get as far as speaking.

use std::{
    io, iter,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use commonhold_protocol::NetworkName;
use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::{
    PeerId,
    core::{
        UpgradeInfo,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identity::Keypair,
    tls::certificate,
};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            cipher_suite::{TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
            default_provider, sign,
        },
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::errors::NetworkError;

/// Negotiates TLS.
#[derive(Clone)]
pub(super) struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    protocol: Arc<[u8]>,
}

impl Tls {
    pub(super) fn new(identity: &Keypair, network: &NetworkName) -> Result<Self, NetworkError> {
        Self::with_cipher_suites(identity, network, cipher_suites(has_aes()))
    }

    fn with_cipher_suites(
        identity: &Keypair,
        network: &NetworkName,
        cipher_suites: Vec<SupportedCipherSuite>,
    ) -> Result<Self, NetworkError> {
        let failed = |reason: String| NetworkError::SetUp { part: "TLS", reason };
        let (certificate, key) = certificate::generate(identity).map_err(|error| failed(error.to_string()))?;
        let key = sign::any_ecdsa_type(&key).map_err(|error| failed(error.to_string()))?;
        let certificate = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
        let provider = Arc::new(CryptoProvider { cipher_suites, ..default_provider() });
        let protocol = format!("commonhold/{network}").into_bytes();

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| failed(error.to_string()))?
            .with_client_cert_verifier(Arc::new(PeerCertificate))
            .with_cert_resolver(certificate.clone());
        server.alpn_protocols = vec![protocol.clone()];
        // Peers keep their connections: tickets to resume one would cost memory, and two more messages each.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| failed(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerCertificate))
            .with_client_cert_resolver(certificate);
        client.alpn_protocols = vec![protocol.clone()];
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), protocol: protocol.into() })
    }

    /// Who is at the other end of an established session, if it is of our network.
    fn peer(&self, session: &CommonState) -> io::Result<PeerId> {
        if session.alpn_protocol() != Some(&self.protocol) {
            return Err(io::Error::other("a peer of another network"));
        }
        let Some([certificate]) = session.peer_certificates() else {
            return Err(io::Error::other("a peer without exactly one certificate"));
        };
        Ok(certificate::parse(certificate).map_err(io::Error::other)?.peer_id())
    }
}

/// In the order in which we want them; the one who connects has its way among those that both have.
fn cipher_suites(has_aes: bool) -> Vec<SupportedCipherSuite> {
    if has_aes {
        vec![TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256]
    } else {
        vec![TLS13_CHACHA20_POLY1305_SHA256]
    }
}

/// True if the processor has instructions for AES and for the multiplication of GCM. Without them AES is slow.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

impl UpgradeInfo for Tls {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/tls/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Tls {
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let stream = TlsAcceptor::from(self.server.clone()).accept(socket).await?;
            Ok((self.peer(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Tls {
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            // Peers have no names; this one is never sent.
            let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
            let stream = TlsConnector::from(self.client.clone()).connect(nobody, socket).await?;
            Ok((self.peer(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

/// Takes any peer that proves its id: one certificate, signed by itself, in which the id's key vouches for the
/// certificate's key. Whether it is the peer that we wanted is checked by libp2p, which compares the ids.
#[derive(Debug)]
struct PeerCertificate;

impl PeerCertificate {
    fn check(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(rustls::Error::General("a peer has exactly one certificate".to_owned()));
        }
        certificate::parse(certificate).map_err(invalid)?;
        Ok(())
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(certificate)
            .map_err(invalid)?
            .verify_signature(signed.scheme, message, signed.signature())
            .map_err(|_| CertificateError::BadSignature)?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

fn invalid(error: certificate::ParseError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn only_tls13() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken".to_owned())
}

fn signature_schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519]
}

impl ServerCertVerifier for PeerCertificate {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check(certificate, others)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_schemes()
    }
}

impl ClientCertVerifier for PeerCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check(certificate, others)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;
    use tokio::{io::DuplexStream, join};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    use super::*;

    type Session = io::Result<(PeerId, TlsStream<Compat<DuplexStream>>)>;

    fn peer(network: &str, has_aes: bool) -> (PeerId, Tls) {
        let identity = Keypair::generate_ed25519();
        let tls = Tls::with_cipher_suites(&identity, &network.parse().unwrap(), cipher_suites(has_aes)).unwrap();
        (identity.public().to_peer_id(), tls)
    }

    async fn connect(dialer: &Tls, listener: &Tls) -> (Session, Session) {
        let (near, far) = tokio::io::duplex(1 << 16);
        join!(
            dialer.clone().upgrade_outbound(near.compat(), "/tls/1.0.0"),
            listener.clone().upgrade_inbound(far.compat(), "/tls/1.0.0"),
        )
    }

    #[tokio::test]
    async fn both_learn_who_the_other_is() {
        let ((dialer_id, dialer), (listener_id, listener)) = (peer("main", true), peer("main", true));
        let (dialled, accepted) = connect(&dialer, &listener).await;
        assert_eq!(dialled.unwrap().0, listener_id);
        assert_eq!(accepted.unwrap().0, dialer_id);
    }

    #[tokio::test]
    async fn aes_is_spoken_where_both_have_instructions_for_it() {
        for (dialer_has, listener_has) in [(true, true), (true, false), (false, true), (false, false)] {
            let (dialled, _) = connect(&peer("main", dialer_has).1, &peer("main", listener_has).1).await;
            let suite = dialled.unwrap().1.get_ref().1.negotiated_cipher_suite().unwrap().suite();
            let expected = if dialer_has && listener_has {
                CipherSuite::TLS13_AES_256_GCM_SHA384
            } else {
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            };
            assert_eq!(suite, expected, "dialer {dialer_has}, listener {listener_has}");
        }
    }

    #[tokio::test]
    async fn another_network_is_another_protocol() {
        let (dialled, accepted) = connect(&peer("main", true).1, &peer("other", true).1).await;
        assert!(dialled.is_err() && accepted.is_err());
    }

    #[tokio::test]
    async fn the_certificate_of_another_is_no_proof() {
        let victim = Keypair::generate_ed25519();
        let (certificate, _) = certificate::generate(&victim).unwrap();
        let (_, own_key) = certificate::generate(&victim).unwrap();
        let stolen = CertifiedKey::new(vec![certificate], sign::any_ecdsa_type(&own_key).unwrap());
        let stolen = Arc::new(SingleCertAndKey::from(stolen));
        let (honest, mut thief) = (peer("main", true).1, peer("main", true).1);
        Arc::make_mut(&mut thief.client).client_auth_cert_resolver = stolen.clone();
        Arc::make_mut(&mut thief.server).cert_resolver = stolen;
        assert!(connect(&thief, &honest).await.1.is_err());
        assert!(connect(&honest, &thief).await.0.is_err());
    }
}
