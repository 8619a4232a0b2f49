//! The version of the files that outlive the daemon: run records, inventory records, pools.
//!
//! Each is a JSON object with a `version`. A file without one is of version 1, which had no such
//! key. This daemon writes [`VERSION`] and reads it and the one before. A newer file may say
//! something that this daemon cannot follow, so it is kept as it is and never acted on in full.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::paths::{self, write_atomically};

/// The version that this daemon writes.
pub(crate) const VERSION: u32 = 2;

#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(Deserialize)]
struct Stamp {
    #[serde(default = "first")]
    version: u32,
}

fn first() -> u32 {
    1
}

/// Writes `content` to `path` as a whole, with the version.
///
/// # Errors
/// Which file could not be written. The old one is still there.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> anyhow::Result<()> {
    written(path, content, write_atomically)
}

/// The same for a file that means nothing once the machine has crashed. No disk is waited for.
///
/// # Errors
/// As [`write()`].
pub(crate) fn write_for_this_boot<T: Serialize>(path: &Path, content: &T) -> anyhow::Result<()> {
    written(path, content, paths::write_for_this_boot)
}

fn written<T: Serialize>(
    path: &Path,
    content: &T,
    write: fn(&Path, &[u8]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(&Versioned { version: VERSION, content })?;
    write(path, &text).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what [`write()`] wrote, in this version or the one before.
///
/// # Errors
/// A newer plimsolld wrote it; or it is malformed, and where.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> anyhow::Result<T> {
    ensure!(!text.is_empty(), "the file is empty");
    let Stamp { version } = serde_json::from_slice(text)?;
    ensure!(
        version <= VERSION,
        "a newer plimsolld wrote it (version {version} of the format, this one reads up to {VERSION})"
    );
    Ok(serde_json::from_slice(text)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Content = BTreeMap<String, u32>;

    #[test]
    fn the_version_before_is_read_and_the_one_after_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let content = Content::from([("a".to_owned(), 7)]);
        write(&path, &content).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(parse::<Content>(text.as_bytes()).unwrap().get("a"), Some(&7));
        assert_eq!(parse::<Content>(br#"{"a": 7}"#).unwrap(), content);
        let newer = text.replace("\"version\": 2", "\"version\": 3");
        let error = parse::<Content>(newer.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("newer plimsolld") && error.contains("version 3"), "{error}");
        assert!(parse::<Content>(b"").unwrap_err().to_string().contains("empty"));
    }
}
