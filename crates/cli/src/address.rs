//! Where the daemon is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tls::Tls;

/// Where the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket of this host.
    Socket(PathBuf),
    /// `HOST:PORT`, with the token that the daemon asks for; encrypted if there is `tls`.
    Tcp { authority: String, token: Option<String>, tls: Option<Tls> },
}

impl Address {
    /// The daemon at `http://HOST:PORT`, or at `https://HOST:PORT` by a certificate in `ca_file`.
    ///
    /// # Errors
    /// Another scheme, a path, no port; a token file that cannot be read or holds no token; `https`
    /// without a certificate, or one without `https`.
    pub(crate) fn tcp(url: &str, token_file: Option<&Path>, ca_file: Option<&Path>) -> Result<Self> {
        let encrypted = url.strip_prefix("https://");
        let authority = encrypted.or_else(|| url.strip_prefix("http://"));
        let authority = authority.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let port =
            |a: &str| a.rsplit_once(':').is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok());
        let Some(authority) = authority.filter(|a| port(a) && !a.contains(['/', '@', ' ', '?'])) else {
            bail!("url {url:?}: write http://HOST:PORT or https://HOST:PORT");
        };
        if encrypted.is_none() && token_file.is_some() && !is_loopback(authority) {
            bail!(
                "url {url:?}: the token would cross the network unencrypted; use https:// and --ca-file, \
                 or http:// to this machine itself"
            );
        }
        let tls = match (encrypted, ca_file) {
            (Some(_), Some(file)) => Some(Tls::new(authority, file)?),
            (None, None) => None,
            (Some(_), None) => bail!("url {url:?}: name the daemon's certificate with --ca-file"),
            (None, Some(_)) => bail!("--ca-file is for https://: {url:?} is not encrypted"),
        };
        let token = token_file.map(|path| {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("reading the token file {}", path.display()))?;
            let token = text.trim();
            if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
                bail!("the token file {} holds no token: one line of printable characters", path.display());
            }
            Ok(token.to_owned())
        });
        Ok(Self::Tcp { authority: authority.to_owned(), token: token.transpose()?, tls })
    }
}

/// Whether `HOST:PORT` is this machine itself. Names other than `localhost` are not resolved.
fn is_loopback(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_or_refused_as_a_whole() {
        let tcp = |authority: &str| Address::Tcp { authority: authority.into(), token: None, tls: None };
        let address = |url| Address::tcp(url, None, None);
        assert_eq!(address("http://localhost:80").unwrap(), tcp("localhost:80"));
        assert_eq!(address("http://[::1]:8080/").unwrap(), tcp("[::1]:8080"));
        for bad in ["https://a:1", "http://a", "http://:1", "http://a:1/x", "http://a:99999", "http://u@a:1"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
        let file = Path::new("/nowhere");
        assert!(address("https://a:1").unwrap_err().to_string().contains("--ca-file"));
        assert!(
            Address::tcp("http://a:1", None, Some(file)).unwrap_err().to_string().contains("is for https")
        );
        assert!(Address::tcp("https://a:1", None, Some(file)).unwrap_err().to_string().contains("/nowhere"));
    }

    #[test]
    fn a_token_is_trimmed_and_must_be_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "secret\n").unwrap();
        let far = Address::tcp("http://a:1", Some(file.path()), None).unwrap_err().to_string();
        assert!(far.contains("unencrypted"), "{far}");
        let near = "http://127.0.0.1:1";
        let Address::Tcp { token, .. } = Address::tcp(near, Some(file.path()), None).unwrap() else {
            panic!()
        };
        assert_eq!(token.as_deref(), Some("secret"));
        std::fs::write(&file, "two words\n").unwrap();
        assert!(Address::tcp(near, Some(file.path()), None).is_err());
    }
}
