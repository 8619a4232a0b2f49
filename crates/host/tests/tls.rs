//! The API over TLS.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use host::{Host, exchange, exchange_tcp, wait_until};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};

/// A certificate of `localhost` for a hundred years, by itself, and its key, which nothing but this
/// test uses.
const CERTIFICATE: &str = include_str!("tls/cert.pem");
const KEY: &str = include_str!("tls/key.pem");

/// A client that trusts the certificate at `certificate` only.
fn connect(address: &str, certificate: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

#[test]
fn with_a_certificate_the_api_is_encrypted_on_any_address() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let token = write("token", "0123456789abcdef\n");
    let certificate = write("cert.pem", CERTIFICATE);
    let key = write("key.pem", KEY);
    let tcp = format!(
        "[tcp]\nlisten = '0.0.0.0:0'\ntoken_file = {token:?}\ncertificate = {certificate:?}\nkey = {key:?}\n"
    );
    let host = Host::new(512, &tcp);
    let port = wait_until("the address is in the log", || {
        let log = host.log();
        let (_, rest) = log.split_once("also on tcp 0.0.0.0:")?;
        rest.split_once(',').map(|(port, _)| port.to_owned())
    });
    let address = format!("127.0.0.1:{port}");
    let ask = |header: &str| exchange(connect(&address, &certificate), "GET", "/v1/host", header, "");
    assert_eq!(ask("").0, 401);
    let (status, body) = ask("authorization: Bearer 0123456789abcdef\r\n");
    assert_eq!(status, 200, "{body}");
    // In clear there is no answer.
    let clear = std::panic::catch_unwind(|| {
        exchange_tcp(&address, "/v1/host", "authorization: Bearer 0123456789abcdef\r\n")
    });
    assert!(clear.is_err());
}
