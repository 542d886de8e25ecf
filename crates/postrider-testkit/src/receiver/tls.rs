//! Certificates of an authority that nobody else trusts.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::must;

/// A certificate authority, made for one test.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl Identity {
    /// The certificate, DER.
    pub fn certificate_der(&self) -> Vec<u8> {
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes());
        must("read a certificate", certificate).to_vec()
    }
}

impl Authority {
    /// A new one of this name.
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = must("make a key", KeyPair::generate());
        let certificate = must("sign an authority's certificate", params.self_signed(&key));
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a client of this name, or for whoever listens on the loopback.
    pub fn issue(&self, name: &str) -> Identity {
        let key = must("make a key", KeyPair::generate());
        let certificate = must("sign a certificate", params(name).signed_by(&key, &self.issuer));
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let certificate = must("read a certificate", CertificateDer::from_pem_slice(self.pem.as_bytes()));
        must("trust an authority", roots.add(certificate));
        Arc::new(roots)
    }

    /// Takes connections for the loopback, from clients of `clients` only if that is given.
    pub(super) fn acceptor(&self, clients: Option<&Authority>) -> TlsAcceptor {
        let Identity { certificate_pem, key_pem } = self.issue("receiver");
        let chain =
            vec![must("read a certificate", CertificateDer::from_pem_slice(certificate_pem.as_bytes()))];
        let key = must("read a key", PrivateKeyDer::from_pem_slice(key_pem.as_bytes()));
        let provider = Arc::new(ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = must("configure TLS", config);
        let config = match clients {
            Some(authority) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(authority.roots(), provider).build();
                config.with_client_cert_verifier(must("configure TLS", verifier))
            }
            None => config.with_no_client_auth(),
        };
        TlsAcceptor::from(Arc::new(must("configure TLS", config.with_single_cert(chain, key))))
    }
}

fn params(name: &str) -> CertificateParams {
    let alternatives = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = must("name a certificate", CertificateParams::new(alternatives));
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
