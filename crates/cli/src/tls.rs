use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What identifies the daemon: the name of its host, in a certificate that is one of these or is
/// signed by one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    name: ServerName<'static>,
    trusted: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Trusts the certificates in `file` (PEM) for the host in `authority`, which is `HOST:PORT`.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate, or the host's name is invalid.
    pub(crate) fn new(authority: &str, file: &Path) -> Result<Self> {
        let shown = file.display();
        let text = std::fs::read(file).with_context(|| format!("reading the certificate {shown}"))?;
        let trusted = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        let trusted = trusted.with_context(|| format!("the certificate {shown}"))?;
        ensure!(!trusted.is_empty(), "{shown} holds no certificate (PEM)");
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).with_context(|| format!("the host {host:?}"))?;
        Ok(Self { name, trusted })
    }

    /// Agrees with the daemon on encryption.
    ///
    /// # Errors
    /// The daemon does not have the certificate, or does not speak TLS.
    pub(crate) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.trusted {
            roots.add(certificate.clone()).context("a certificate of --ca-file")?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let agreed = TlsConnector::from(Arc::new(config)).connect(self.name.clone(), stream).await;
        agreed.map_err(|e: io::Error| e.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_must_hold_a_certificate_and_a_host_be_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            Tls::new("localhost:1", file.path()).unwrap_err().to_string().contains("holds no certificate")
        );
        std::fs::write(&file, include_str!("../../host/tests/tls/cert.pem")).unwrap();
        for authority in ["localhost:1", "10.0.0.1:1", "[::1]:1"] {
            assert_eq!(Tls::new(authority, file.path()).unwrap().trusted.len(), 1, "{authority}");
        }
        assert!(Tls::new("a b:1", file.path()).is_err());
    }
}
