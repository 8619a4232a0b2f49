//! The VMs that the host knows, and their record on disk.

use anyhow::{Context, anyhow, ensure};
use jiff::Timestamp;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::status::Exit;
use plimsoll_protocol::{PoolName, VmName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format;
use crate::images::KnownImage;
use crate::outline::sketch;
use crate::paths::{Paths, remove_cut_off};

/// The part of a VM that survives the daemon: one JSON file, replaced as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The VM as defined and changed since.
    pub(crate) definition: VmDefinition,
    /// When it was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Timestamp>,
    /// How its last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<Exit>,
    /// The boot of the machine in which it was last started: see [`crate::process::boot_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot_id: Option<String>,
    /// The pool that it was in, where the pool was gone when a daemon came. It is outside of pools
    /// until a daemon comes that has the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost_pool: Option<PoolName>,
    /// What its images are to be. Of one that is missing here, what is found at the next start
    /// counts from then on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) images: Vec<KnownImage>,
}

impl Record {
    /// The record of a VM that has not been started.
    pub(crate) fn new(definition: VmDefinition) -> Self {
        Self { definition, started: None, exit: None, boot_id: None, lost_pool: None, images: Vec::new() }
    }
}

/// A record that cannot be read. Nothing is written in its place: a newer version may have written
/// it, or an operator may repair it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Which file cannot be read and why, in one line.
    pub(crate) why: String,
    /// The file is empty or missing: a better record may take its place.
    pub(crate) replaceable: bool,
}

/// All VMs that the host knows.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) records: Vec<Record>,
    /// What could be read of the records that cannot be read in full.
    pub(crate) unread: Vec<(Record, Unread)>,
}

/// Reads all records. A record that cannot be read in full is kept as it is, and does not affect
/// other VMs.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn load(paths: &Paths) -> anyhow::Result<Inventory> {
    let directory = paths.records();
    remove_cut_off(&directory);
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut inventory = Inventory::default();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<VmName>().ok()) else {
            tracing::warn!("{} is no VM's: left alone", path.display());
            continue;
        };
        let text = std::fs::read(&path);
        let record = text.as_deref().map_err(|e| anyhow!("{e}")).and_then(|text| read(&name, text));
        match record {
            Ok(record) => inventory.records.push(record),
            Err(e) => {
                let why = format!("its record {} cannot be read: {e:#}", path.display());
                let unread = Unread { why, replaceable: matches!(&text, Ok(text) if text.is_empty()) };
                inventory.unread.push((outline(&name, &text.unwrap_or_default()), unread));
            }
        }
    }
    Ok(inventory)
}

/// The record in `text`, of the VM `name`.
///
/// # Errors
/// It cannot be read in full, is out of its bounds, or is that of another VM.
pub(crate) fn read(name: &VmName, text: &[u8]) -> anyhow::Result<Record> {
    let record: Record = format::parse(text)?;
    record.definition.check()?;
    let found = &record.definition.name;
    ensure!(found == name, "it holds a VM of another name, {found}: rename the file");
    Ok(record)
}

/// As much of a record as can be read.
fn outline(name: &VmName, text: &[u8]) -> Record {
    let record: Value = serde_json::from_slice(text).unwrap_or_default();
    let definition = sketch(name, record.get("definition").unwrap_or(&Value::Null));
    Record::new(definition)
}

/// Writes a record.
///
/// # Errors
/// Which file could not be written.
pub(crate) fn save(paths: &Paths, record: &Record) -> anyhow::Result<()> {
    format::write(&paths.record(&record.definition.name), record)
}

/// Gives the logs of a VM that was called `old` its new name, where there are any.
pub(crate) fn take_logs(paths: &Paths, old: &VmName, new: &VmName) {
    for (from, to) in
        [(paths.console_log(old), paths.console_log(new)), (paths.vmm_log(old), paths.vmm_log(new))]
    {
        std::fs::rename(from, to).ok(); // Logs are worth no failure.
    }
}

/// Removes the record and the logs of a VM.
///
/// # Errors
/// Which file could not be removed.
pub(crate) fn forget(paths: &Paths, vm: &VmName) -> anyhow::Result<()> {
    for path in [paths.record(vm), paths.console_log(vm), paths.vmm_log(vm)] {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use plimsoll_protocol::control::ExitReason;

    use super::*;

    #[test]
    fn records_survive_and_a_broken_one_is_kept_and_hurts_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        std::fs::create_dir(paths.records()).unwrap();
        let text = "name = 'a'\nsize = '64MiB'\n[boot]\nmodel = true\n";
        let definition = VmDefinition::from_toml(text, Path::new("/")).unwrap();
        let record = Record { exit: Some(Exit::Told(ExitReason::Shutdown)), ..Record::new(definition) };
        let name = &record.definition.name;
        save(&paths, &record).unwrap();
        let whole = std::fs::read_to_string(paths.record(name)).unwrap();
        let files = [
            ("b", "{".to_owned(), "EOF"),
            ("c", whole.clone(), "another name, a"),
            ("d", String::new(), "empty"),
            ("e", whole.replace("\"version\": 2", "\"version\": 3"), "newer plimsolld"),
        ];
        for (stem, text, _) in &files {
            std::fs::write(paths.records().join(format!("{stem}.json")), text).unwrap();
        }
        let mut inventory = load(&paths).unwrap();
        assert_eq!(inventory.records, std::slice::from_ref(&record));
        inventory.unread.sort_by_key(|(record, _)| record.definition.name.clone());
        for ((name, text, part), (record, unread)) in files.iter().zip(&inventory.unread) {
            assert_eq!(record.definition.name.as_str(), *name);
            assert!(unread.why.contains(part), "{part}: {}", unread.why);
            assert_eq!(unread.replaceable, text.is_empty(), "{name}");
        }
        // A crash cut off an earlier write.
        let cut = paths.records().join("a.json.new");
        std::fs::write(&cut, "{").unwrap();
        load(&paths).unwrap();
        assert!(!cut.exists());
        // What an earlier version wrote says the same.
        std::fs::write(paths.record(name), whole.replace("\"version\": 2,", "")).unwrap();
        assert_eq!(load(&paths).unwrap().records, std::slice::from_ref(&record));
        forget(&paths, name).unwrap();
        assert_eq!(load(&paths).unwrap().records, []);
    }
}
