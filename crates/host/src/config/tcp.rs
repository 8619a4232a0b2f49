use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

use crate::tls;

/// What clients have to show.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// Permits everything.
    pub(crate) all: String,
    /// Permits reading. There may be none.
    pub(crate) view: Option<String>,
}

/// A listener beside the unix socket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tcp {
    pub(crate) listen: SocketAddr,
    pub(crate) token_file: PathBuf,
    pub(crate) view_token_file: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl Tcp {
    /// How connections are encrypted; `None`: they are not.
    ///
    /// # Errors
    /// Certificate or key cannot be read or used, or others can read the key.
    pub(super) fn tls(&self) -> anyhow::Result<Option<TlsAcceptor>> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else { return Ok(None) };
        private(key).with_context(|| format!("tcp.key {}", key.display()))?;
        tls::acceptor(certificate, key).map(Some)
    }

    /// The tokens of which clients have to show one.
    ///
    /// # Errors
    /// One cannot be read, others can read it, or it is easy to guess; or they are the same.
    pub(super) fn tokens(&self) -> anyhow::Result<Tokens> {
        let all = token("tcp.token_file", &self.token_file)?;
        let view =
            self.view_token_file.as_ref().map(|file| token("tcp.view_token_file", file)).transpose()?;
        ensure!(
            view.as_ref() != Some(&all),
            "tcp.view_token_file: it holds the token that permits everything: put another one there"
        );
        Ok(Tokens { all, view })
    }

    /// Checks all but the files' contents.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.certificate.is_some() == self.key.is_some(),
            "[tcp]: certificate and key belong together: name both, or neither"
        );
        ensure!(
            self.certificate.is_some() || self.listen.ip().to_canonical().is_loopback(),
            "tcp.listen {}: without TLS only a loopback address such as 127.0.0.1 is allowed, because the token and \
             all answers go over it in clear; name tcp.certificate and tcp.key, or use ssh -L from other hosts",
            self.listen
        );
        Ok(())
    }
}

/// The token in the file that the key `name` of the configuration names.
fn token(name: &str, file: &Path) -> anyhow::Result<String> {
    let what = || format!("{name} {}", file.display());
    private(file).with_context(what)?;
    let token = std::fs::read_to_string(file).with_context(what)?.trim().to_owned();
    ensure!(
        token.len() >= 16 && token.chars().all(|c| c.is_ascii_graphic()),
        "{}: put a token of at least 16 printable characters there, such as from: openssl rand -hex 16",
        what()
    );
    Ok(token)
}

/// Checks that other users cannot read a file.
fn private(file: &Path) -> anyhow::Result<()> {
    let mode = std::fs::metadata(file)?.permissions().mode();
    ensure!(mode & 0o077 == 0, "others may read it: chmod 600 it");
    Ok(())
}
