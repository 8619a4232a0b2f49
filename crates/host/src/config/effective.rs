//! The configuration in effect, as TOML.

use std::fmt::{Display, Write};

use anyhow::Context;
use plimsoll_units::Bytes;
use serde::Serializer;
use toml::Table;

use super::{Config, Swap};

/// Keys without a default value, and what holds where they are not set.
const UNSET: [(&str, &str); 5] = [
    ("min_free", "follows from the budget"),
    ("socket_group", "the group of plimsolld's process"),
    ("swap_directory", "swap in the state directory, left out where it cannot be used"),
    ("tcp", "no listener on TCP"),
    ("swap", "as follows, left out where it cannot be used"),
];

impl Config {
    /// Every key with its value, as a configuration that means the same. Keys that are not set, and
    /// would mean something else if they were, stand in comments.
    ///
    /// # Errors
    /// The path of the VMM is unknown, or a path is no UTF-8.
    pub(crate) fn effective(&self) -> anyhow::Result<String> {
        let settled = Self {
            socket: Some(self.socket()),
            vmm: Some(self.vmm()?),
            image_directory: Some(self.image_directory()),
            swap: None,
            tcp: None,
            ..self.clone()
        };
        let table = self.table()?;
        let mut text = toml(&settled)?;
        for (key, meaning) in UNSET.iter().filter(|(key, _)| !table.contains_key(*key)) {
            writeln!(text, "# {key}: {meaning}")?;
        }
        match &self.swap {
            Some(swap) => write!(text, "\n[swap]\n{}", toml(swap)?)?,
            None => toml(&Swap::default())?.lines().try_for_each(|line| writeln!(text, "# swap.{line}"))?,
        }
        if self.swap.as_ref().is_none_or(|swap| swap.size.is_none()) {
            writeln!(text, "# swap.size: what the file system has")?;
        }
        if let Some(tcp) = &self.tcp {
            write!(text, "\n[tcp]\n{}", toml(tcp)?)?;
            if tcp.certificate.is_none() {
                writeln!(text, "# tcp.certificate, tcp.key: nothing is encrypted")?;
            }
        }
        Ok(text)
    }

    /// The keys that are set or have a default value, with their values.
    ///
    /// # Errors
    /// A path is no UTF-8.
    pub(crate) fn table(&self) -> anyhow::Result<Table> {
        Table::try_from(self).context("the configuration has a path that is no UTF-8")
    }
}

fn toml(value: &impl serde::Serialize) -> anyhow::Result<String> {
    toml::to_string(value).context("the configuration has a path that is no UTF-8")
}

/// Writes a size as people do.
pub(super) fn size<S: Serializer>(size: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    match size {
        Some(size) => serializer.collect_str(&Exact(*size)),
        None => serializer.serialize_none(),
    }
}

/// A size in the largest unit that loses nothing.
pub(super) struct Exact(pub(super) Bytes);

impl Display for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(Bytes(bytes)) = *self;
        let fits = |(_, shift): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
        match [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(fits) {
            Some((unit, shift)) => write!(f, "{}{unit}", bytes >> shift),
            None => write!(f, "{bytes}"),
        }
    }
}
