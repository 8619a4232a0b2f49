use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What encrypts connections by the certificates and the key in these files (PEM).
///
/// # Errors
/// They cannot be read, or do not belong together.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = || -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let text = std::fs::read(certificate)?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>()?;
        ensure!(!chain.is_empty(), "it holds no certificate (PEM)");
        Ok(chain)
    };
    let chain = chain().with_context(|| format!("tcp.certificate {}", certificate.display()))?;
    let read = || -> anyhow::Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_slice(&std::fs::read(key)?)?)
    };
    let secret = read().with_context(|| format!("tcp.key {}", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| {
            format!("tcp.key {} and tcp.certificate {}", key.display(), certificate.display())
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
