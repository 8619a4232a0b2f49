//! The VMs that the host knows, and their record on disk.

use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::Exit;
use plimsoll_protocol::definition::VmDefinition;
use serde::{Deserialize, Serialize};

use crate::paths::{Paths, write_atomically};

/// What survives the daemon of one VM: one JSON file, replaced as a whole.
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
}

/// Reads all records. A file that cannot be read is left as it is and named in the log; the VMs of the others are not
/// to suffer from it.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn load(paths: &Paths) -> anyhow::Result<Vec<Record>> {
    let directory = paths.records();
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        match read(&path) {
            Ok(record) => records.push(record),
            Err(e) => tracing::error!("the VM in {} is left out: {e:#}", path.display()),
        }
    }
    Ok(records)
}

fn read(path: &Path) -> anyhow::Result<Record> {
    let text = std::fs::read(path)?;
    let record: Record = serde_json::from_slice(&text)?;
    record.definition.check()?;
    let name = record.definition.name.as_str();
    let stem = path.file_stem().unwrap_or_default();
    anyhow::ensure!(stem == name, "it holds a VM of another name, {name}: rename the file");
    Ok(record)
}

/// Writes a record.
///
/// # Errors
/// Which file could not be written.
pub(crate) fn save(paths: &Paths, record: &Record) -> anyhow::Result<()> {
    let path = paths.record(&record.definition.name);
    let text = serde_json::to_vec_pretty(record)?;
    write_atomically(&path, &text).with_context(|| format!("cannot write {}", path.display()))
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
    use plimsoll_protocol::control::ExitReason;

    use super::*;

    #[test]
    fn records_survive_and_a_broken_one_hurts_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths { state: directory.path().to_owned(), run: directory.path().to_owned() };
        std::fs::create_dir(paths.records()).unwrap();
        let text = "name = 'a'\nsize = '64MiB'\n[boot]\nmodel = true\n";
        let definition = VmDefinition::from_toml(text, Path::new("/")).unwrap();
        let record = Record { definition, started: None, exit: Some(Exit::Told(ExitReason::Shutdown)) };
        save(&paths, &record).unwrap();
        std::fs::write(paths.records().join("b.json"), "{").unwrap();
        std::fs::copy(paths.record(&record.definition.name), paths.records().join("c.json")).unwrap();
        assert_eq!(load(&paths).unwrap(), std::slice::from_ref(&record));
        forget(&paths, &record.definition.name).unwrap();
        assert_eq!(load(&paths).unwrap(), []);
    }
}
