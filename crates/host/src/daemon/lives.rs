//! Beginning and end of a run: its process, and what belongs to it.

use std::sync::Arc;

use jiff::Timestamp;
use plimsoll_protocol::VmName;
use plimsoll_units::Pages;

use super::{Daemon, Live, Own};
use crate::core::{Failure, FailureKind, Input, RunId, Started};
use crate::incoming::Incoming;
use crate::inventory::Record;
use crate::launch::{Launched, Plan, launch};
use crate::link::Link;
use crate::process::Process;
use crate::supervise::{Watch, watch};

impl Daemon {
    pub(super) fn launch(&mut self, run: RunId, record: Record, grant: Pages) {
        let uid = self.uids.take();
        let vsock = record.definition.vsock;
        let cid = vsock.map(|vsock| self.cids.take(&record.definition.name, &vsock)).transpose();
        self.launching.insert(run, Own { uid, cid: cid.as_ref().ok().copied().flatten() });
        let (site, sender) = (Arc::clone(&self.site), self.sender.clone());
        let (definition, images) = (record.definition.clone(), record.images.clone());
        let started = record.started.unwrap_or_else(Timestamp::now);
        let saved = self.saver.save(Box::new(record));
        tokio::spawn(async move {
            let launched = async {
                // What is not on disk yet is written later; until then the run directory knows of
                // the VM.
                saved.await.ok();
                let plan = Plan { definition, images, grant, uid, cid: cid?, started };
                tokio::task::spawn_blocking(move || launch(&site, &plan)).await?
            };
            let result = launched.await.map(Box::new);
            sender.send(Incoming::Launched(run, result)).await.ok(); // The daemon may be about to end.
        });
    }

    pub(super) fn launched(&mut self, run: RunId, result: anyhow::Result<Box<Launched>>) {
        let own = self.launching.remove(&run).unwrap_or_default();
        let result = result.and_then(|launched| self.install(run, *launched));
        let input = match result {
            Ok(started) => Ok(started),
            Err(e) => {
                self.release(own);
                Err(Failure::new(FailureKind::Unfit, format!("{e:#}")))
            }
        };
        self.handle(Input::Launched(run, input));
    }

    fn install(&mut self, run: RunId, launched: Launched) -> anyhow::Result<Started> {
        let Launched { process, mut child, wire, directory, record, images, bound, log } = launched;
        let link = match Link::new(wire) {
            Ok(link) => link,
            Err(e) => {
                process.kill();
                child.wait()?;
                if let Ok(cgroups) = &self.site.cgroups {
                    cgroups.remove(&record.definition.name, process.pid());
                }
                directory.remove();
                return Err(e.into());
            }
        };
        let started = Started {
            pid: process.pid(),
            missing_jail: record.missing_jail.clone(),
            remarks: record.remarks.clone(),
            swap: record.swap,
            images,
        };
        let (vm, own) = (record.definition.name.clone(), Own { uid: record.uid, cid: record.cid });
        let (logged, log, process) =
            (tokio::spawn(log.run()), self.site.paths.vmm_log(&vm), Arc::new(process));
        let what = Watch {
            run,
            vm: vm.clone(),
            process: Arc::clone(&process),
            child: Some(child),
            link: link.clone(),
            log,
            oom: Arc::clone(&self.oom),
            talkers: self.talkers.clone(),
            logged: Some(logged),
        };
        let (link, process, record, bound) = (Some(link), Some(process), Some(record), bound.map(Arc::new));
        let (killed, may_map) = (false, true);
        self.live.insert(run, Live { vm, link, process, directory, own, record, killed, may_map, bound });
        tokio::spawn(watch(what, self.sender.clone()));
        Ok(started)
    }

    pub(super) fn clear(&mut self, run: RunId, name: &VmName) {
        let Some(live) = self.live.remove(&run) else { return };
        self.release(live.own);
        live.directory.remove();
        if let (Ok(cgroups), Some(process)) = (&self.site.cgroups, &live.process) {
            cgroups.remove(name, process.pid());
        }
    }

    /// Notes that the VM of a run that an earlier daemon started has these.
    pub(super) fn keep(&mut self, vm: &VmName, own: Own) {
        if let Some(uid) = own.uid {
            self.uids.adopt(uid);
        }
        if let Some(cid) = own.cid {
            self.cids.adopt(cid, vm);
        }
    }

    /// The user of a VM whose run record does not name it, by its `process`. No other VM gets it.
    /// `None`: it is not known; or a VM has got it already, which is the one to give it back.
    pub(super) fn user_of(&mut self, process: &Process) -> Option<u32> {
        process.user().filter(|uid| self.uids.adopt(*uid))
    }

    fn release(&mut self, own: Own) {
        if let Some(uid) = own.uid {
            self.uids.release(uid);
        }
        if let Some(cid) = own.cid {
            self.cids.release(cid);
        }
    }
}
