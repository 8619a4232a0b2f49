//! Where Debian's packages come from: whatever this machine's apt is configured with, and nowhere
//! else.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// One line of apt's sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    uri: String,
    suite: String,
    component: String,
}

impl Source {
    /// As apt's sources are written.
    pub(super) fn line(&self) -> String {
        format!("deb {} {} {}", self.uri, self.suite, self.component)
    }
}

/// Debian's own archives among this machine's sources.
pub(super) fn sources() -> Result<Vec<Source>> {
    // The target lists name the origin as the archive itself signs it, so other vendors' archives
    // are told apart.
    let format = "$(CREATED_BY)\t$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)";
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", format])
        .stdin(Stdio::null())
        .output()
        .context("starting apt-get: a Debian disk is built on Debian")?;
    let sources = parse(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        !sources.is_empty(),
        "apt's package lists hold no archive of Debian: a Debian disk is built on Debian"
    );
    Ok(sources)
}

fn parse(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        if let ["Packages", "Debian", uri, suite, component] = fields[..] {
            let own = |text: &str| text.to_owned();
            let source = Source { uri: own(uri), suite: own(suite), component: own(component) };
            if !found.contains(&source) {
                found.push(source);
            }
        }
    }
    found
}

/// The suite that `sources` are of, without `-security` and `-updates`.
pub(super) fn suite(sources: &[Source]) -> Result<String> {
    let shortest = sources.iter().map(|source| source.suite.as_str()).min_by_key(|suite| suite.len());
    shortest.map(str::to_owned).context("no suite")
}

/// How this machine's apt reaches its archives (proxies, timeouts), for an apt that does not read
/// its configuration.
pub(super) fn options() -> Result<Vec<String>> {
    let output = Command::new("apt-config")
        .args(["dump", "--format", "%f \"%v\";%n"])
        .stdin(Stdio::null())
        .output()
        .context("starting apt-config")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = |line: &&str| {
        let wanted = ["Acquire::http::", "Acquire::https::"].iter().any(|prefix| line.starts_with(prefix));
        wanted && !line.ends_with("\"\";")
    };
    Ok(text.lines().filter(ours).map(|line| line.trim_end_matches(';').to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_archives_are_taken_and_each_once() {
        let text = "Packages\tDebian\thttp://mirror/debian/\tbookworm\tmain\n\
            Packages\tDebian\thttp://mirror/debian/\tbookworm\tmain\n\
            Translations\tDebian\thttp://mirror/debian/\tbookworm\tmain\n\
            Packages\tVendor\thttp://vendor/\tstable\tmain\n\
            Packages\tDebian\thttp://mirror/security/\tbookworm-security\tmain\n";
        let sources = parse(text);
        let lines: Vec<String> = sources.iter().map(Source::line).collect();
        assert_eq!(
            lines,
            ["deb http://mirror/debian/ bookworm main", "deb http://mirror/security/ bookworm-security main"]
        );
        assert_eq!(suite(&sources).unwrap(), "bookworm");
    }
}
