//! An inbox over TLS, for profiles that send to `https:` only.
//!
//! Its certificate is signed by an authority that is made anew at each start and forgotten: whoever sends to it has to be
//! given that authority's certificate (a webhook's `tls.ca_pem`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The most handshakes at once.
const MAX_HANDSHAKES: usize = 256;

/// A certificate for the loopback, and the authority that signed it.
#[derive(Clone)]
pub struct Certificate {
    ca_pem: String,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate(…)")
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum NoCertificate {
    /// It could not be signed.
    #[error("a certificate cannot be made: {0}")]
    Sign(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Certificate {
    /// A new one for `localhost`, 127.0.0.1 and this address.
    ///
    /// # Errors
    /// [`NoCertificate`] when there is no randomness for a key.
    pub fn new(address: SocketAddr) -> Result<Self, NoCertificate> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "Postrider inbox, made at its start");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();

        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let address = address.ip().to_string();
        if !names.contains(&address) {
            names.push(address);
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "Postrider inbox");
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &Issuer::new(authority, authority_key))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![signed.der().clone()], key)?;
        Ok(Self { ca_pem, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

/// Connections whose handshake is done. One that dawdles keeps nobody else waiting.
pub(super) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, certificate: &Certificate) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        tokio::spawn(accept(listener, certificate.acceptor.clone(), sender));
        Ok(Self { ready, address })
    }
}

/// Ends when nobody takes connections any more.
async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let (stream, from) = tokio::select! {
            accepted = axum::serve::Listener::accept(&mut listener) => accepted,
            () = sender.closed() => return,
        };
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // Whoever took connections is gone: so is this one.
                Ok(Ok(stream)) => drop(sender.send((stream, from)).await),
                Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client of the inbox"),
                Err(_) => tracing::debug!("a client of the inbox takes too long over TLS"),
            }
            drop(place);
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::{Inbox, Received, serve};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn only_who_trusts_its_authority_gets_in() {
        ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = Certificate::new(address).unwrap();
        let (inbox, stop) = (Arc::new(Inbox::new(None)), CancellationToken::new());
        let served =
            serve(listener, Some(certificate.clone()), inbox.clone(), |_: &Received| {}, stop.clone());
        let served = tokio::spawn(served);
        let url = format!("https://{address}/in/a");
        let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
        assert!(stranger.post(&url).send().await.is_err());
        let authority = reqwest::Certificate::from_pem(certificate.ca_pem().as_bytes()).unwrap();
        let friend = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
        assert_eq!(friend.post(&url).body("{}").send().await.unwrap().status(), 200);
        assert_eq!(inbox.received("a").1, 1);
        stop.cancel();
        served.await.unwrap();
    }
}
