//! Disks whose files grow beside the loop.

use std::sync::Arc;

use plimsoll_units::Bytes;

use super::Daemon;
use crate::core::{Failure, FailureKind, Growing, Input};
use crate::incoming::Incoming;
use crate::inventory::Record;
use crate::launch::disk;

impl Daemon {
    pub(super) fn grow(&self, growing: Box<Growing>) {
        let live = growing.run.and_then(|run| self.live.get(&run));
        let process = live.and_then(|live| live.process.clone());
        let (site, sender) = (Arc::clone(&self.site), self.sender.clone());
        tokio::spawn(async move {
            let (what, size, is_on) = (growing.disk.clone(), growing.size, growing.run.is_some());
            let grown = tokio::task::spawn_blocking(move || {
                anyhow::ensure!(process.is_some() == is_on, "the process of its VM is not known: try again");
                disk::grow(&what, size, process.as_deref(), &site.paths.images)
            });
            let grown = match grown.await {
                Ok(grown) => grown.map_err(|e| Failure::new(FailureKind::Unfit, format!("{e:#}"))),
                Err(e) => Err(Failure::new(FailureKind::Internal, e.to_string())),
            };
            // The daemon may be about to end.
            sender.send(Incoming::Input(Input::Grown(growing, grown))).await.ok();
        });
    }

    pub(super) fn keep_size(&self, record: Box<Record>, growing: Box<Growing>, size: Bytes) {
        let (saved, sender) = (self.saver.save(record), self.sender.clone());
        tokio::spawn(async move {
            let kept = saved.await.map(|()| size).map_err(|e| {
                let text = format!("its size could not be written down: {e:#}: mend that and try again");
                Failure::new(FailureKind::Unfit, text)
            });
            // As in `grow`.
            sender.send(Incoming::Input(Input::Kept(growing, kept))).await.ok();
        });
    }
}
