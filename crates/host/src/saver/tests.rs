use std::path::{Path, PathBuf};

use plimsoll_protocol::Shares;
use plimsoll_protocol::definition::VmDefinition;
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;

/// A writer, whose directory refuses the files of some VMs.
struct Disk {
    saver: Saver,
    _directory: TempDir,
    paths: Paths,
    told: mpsc::Receiver<Incoming>,
}

fn name(text: &str) -> VmName {
    text.parse().unwrap()
}

/// The record of a VM with so many shares.
fn record(vm: &str, shares: u64) -> Box<Record> {
    let text = format!("name = '{vm}'\nsize = '64MiB'\nshares = {shares}\n[boot]\nmodel = true\n");
    Box::new(Record::new(VmDefinition::from_toml(&text, Path::new("/")).unwrap()))
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        std::fs::create_dir(paths.records()).unwrap();
        let (inbox, told) = mpsc::channel(256);
        Self { saver: Saver::start(paths.clone(), inbox), _directory: directory, paths, told }
    }

    fn blocked(&self, vm: &str) -> PathBuf {
        self.paths.record(&name(vm)).with_extension("json.new")
    }

    /// The record of a VM cannot be written from now on.
    fn refuse(&self, vm: &str) {
        std::fs::create_dir(self.blocked(vm)).unwrap();
    }

    fn allow(&self, vm: &str) {
        std::fs::remove_dir(self.blocked(vm)).unwrap();
    }

    /// The VMs that have a record, with their shares.
    fn records(&self) -> Vec<(String, Shares)> {
        let inventory = crate::inventory::load(&self.paths).unwrap();
        let shares = |record: Record| (record.definition.name.to_string(), record.definition.shares);
        let mut all: Vec<_> = inventory.records.into_iter().map(shares).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Whether each message since the last call was that of a change on disk, and of which VM.
    fn told(&mut self) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        while let Ok(Incoming::Input(Input::Unsaved(Some(vm), why))) = self.told.try_recv() {
            all.push((vm.to_string(), why.is_none()));
        }
        all
    }
}

fn shares(vm: &str, shares: u64) -> (String, Shares) {
    (vm.to_owned(), Shares::Custom(shares))
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_is_renamed_is_on_disk_under_one_of_its_names() {
    let mut disk = Disk::new();
    disk.saver.save(record("a", 1)).await.unwrap();
    disk.refuse("b");
    disk.saver.rename(name("a"), record("b", 1)).await.unwrap_err();
    disk.saver.save(record("b", 2)).await.unwrap_err();
    sleep(3 * PAUSE).await;
    assert_eq!(disk.records(), [shares("a", 1)]);
    assert!(disk.told().iter().all(|(_, saved)| !saved), "nothing is on disk");
    disk.allow("b");
    sleep(2 * PAUSE).await;
    assert_eq!(disk.records(), [shares("b", 2)]);
    assert_eq!(disk.told(), [("b".to_owned(), true), ("a".to_owned(), true)]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_could_not_be_written_does_not_come_back_after_a_rename() {
    let mut disk = Disk::new();
    disk.refuse("b");
    disk.saver.save(record("b", 1)).await.unwrap_err();
    disk.saver.rename(name("b"), record("c", 1)).await.unwrap();
    disk.allow("b");
    sleep(3 * PAUSE).await;
    assert_eq!(disk.records(), [shares("c", 1)]);
    // The core may hear of the failure only after the rename: no note stays under the old name.
    let told = [("b", false), ("c", true), ("b", true)].map(|(vm, saved)| (vm.to_owned(), saved));
    assert_eq!(disk.told(), told);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_renames_leaves_the_last_name_only() {
    let disk = Disk::new();
    disk.saver.save(record("a", 1)).await.unwrap();
    for vm in ["b", "c"] {
        disk.refuse(vm);
    }
    disk.saver.rename(name("a"), record("b", 1)).await.unwrap_err();
    disk.saver.rename(name("b"), record("c", 1)).await.unwrap_err();
    // The first name is another VM's by now.
    disk.saver.save(record("a", 7)).await.unwrap();
    for vm in ["b", "c"] {
        disk.allow(vm);
    }
    sleep(2 * PAUSE).await;
    assert_eq!(disk.records(), [shares("a", 7), shares("c", 1)]);
    // Back to a name that it had.
    disk.refuse("d");
    disk.saver.rename(name("c"), record("d", 1)).await.unwrap_err();
    disk.saver.rename(name("d"), record("c", 2)).await.unwrap();
    disk.allow("d");
    sleep(2 * PAUSE).await;
    assert_eq!(disk.records(), [shares("a", 7), shares("c", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_is_removed_after_a_failed_rename_is_removed_under_all_its_names() {
    let disk = Disk::new();
    disk.saver.save(record("a", 1)).await.unwrap();
    disk.refuse("b");
    disk.saver.rename(name("a"), record("b", 1)).await.unwrap_err();
    disk.allow("b");
    disk.saver.forget(name("b")).await.unwrap();
    assert_eq!(disk.records(), []);
}

#[tokio::test(start_paused = true)]
async fn a_vm_does_not_take_the_logs_of_one_that_was_removed_and_had_its_name() {
    let disk = Disk::new();
    std::fs::create_dir(disk.paths.logs()).unwrap();
    disk.saver.save(record("a", 1)).await.unwrap();
    disk.saver.save(record("c", 1)).await.unwrap();
    let (log, record_of_b) = (disk.paths.console_log(&name("a")), disk.paths.record(&name("b")));
    std::fs::write(&log, "of a").unwrap();
    disk.refuse("b");
    disk.saver.rename(name("a"), record("b", 1)).await.unwrap_err();
    disk.allow("b");
    // A directory is not removed as a file is.
    std::fs::create_dir(&record_of_b).unwrap();
    disk.saver.forget(name("b")).await.unwrap_err();
    std::fs::remove_dir(&record_of_b).unwrap();
    disk.saver.rename(name("c"), record("b", 2)).await.unwrap();
    assert_eq!(disk.records(), [shares("b", 2)]);
    assert!(!log.exists() && !disk.paths.console_log(&name("b")).exists());
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_though_jobs_keep_coming() {
    let disk = Disk::new();
    disk.refuse("b");
    disk.saver.save(record("b", 1)).await.unwrap_err();
    disk.allow("b");
    for _ in 0..4 {
        sleep(PAUSE - Duration::from_millis(100)).await;
        disk.saver.save(record("a", 1)).await.unwrap();
    }
    assert_eq!(disk.records(), [shares("a", 1), shares("b", 1)]);
}
