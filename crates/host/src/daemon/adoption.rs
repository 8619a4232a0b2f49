//! VMs of an earlier daemon: taking them up, and requests that wait until they have answered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use plimsoll_protocol::VmName;
use plimsoll_protocol::status::Exit;

use super::{Daemon, Live, Own, SETTLING, Settling};
use crate::adopt::Survivor;
use crate::core::{Discovered, Input, RunId};
use crate::incoming::Reached;
use crate::launch::{RunDir, There};
use crate::process::Process;
use crate::reach::Reach;
use crate::supervise::adopt;

impl Daemon {
    /// Takes up a VM that an earlier daemon started, and begins to connect to it.
    pub(crate) fn adopt(&mut self, survivor: Survivor) {
        let Survivor { vm, directory, there } = survivor;
        let There { outline, record, process, recorded, kernel } = there;
        let process = process.map(Arc::new);
        let whole = record.as_ref().ok();
        let run = self.core.discover(Discovered {
            vm: vm.clone(),
            pid: outline.identity.map(|identity| identity.pid),
            started: outline.started,
            definition: whole.map(|record| record.definition.clone()).or(outline.definition),
            recorded,
            swap: outline.swap,
            kernel,
            domains: whole.map(|record| record.domains.clone()),
            former: whole.map(|record| record.former.clone()).unwrap_or_default(),
            why: "its VMM has not answered yet".to_owned(),
        });
        let own = Own { uid: outline.uid, cid: outline.cid };
        self.keep(&vm, own);
        let whose = process.as_ref().ok().filter(|_| record.is_err());
        let own = Own { uid: own.uid.or_else(|| self.user_of(whose?)), ..own };
        let live = Live {
            vm: vm.clone(),
            link: None,
            process: process.as_ref().ok().map(Arc::clone),
            directory: RunDir::adopt(directory.clone()),
            own,
            record: None,
            killed: false,
            may_map: true,
            bound: None,
        };
        self.live.insert(run, live);
        let settling = self.settling.get_or_insert_with(|| Settling {
            awaited: BTreeSet::new(),
            until: Instant::now() + SETTLING,
            calls: Vec::new(),
        });
        settling.awaited.insert(run);
        let log = self.site.paths.vmm_log(&vm);
        let talkers = self.talkers.clone();
        let reach = Reach { run, vm, directory, record, process, recorded, talkers };
        tokio::spawn(adopt(reach, log, Arc::clone(&self.oom), self.sender.clone()));
    }

    /// Notes how a VM ended that was gone when the daemon came back.
    pub(crate) fn vanished(&mut self, vm: &VmName, exit: Exit) {
        self.core.vanished(vm, exit);
    }

    /// All VMs that an earlier daemon may have left have been taken up or noted.
    pub(crate) fn taken_up(&mut self) {
        self.core.end_the_lost();
    }

    pub(super) fn identified(&mut self, run: RunId, process: Arc<Process>) {
        if self.live.get(&run).is_some_and(|live| live.own.uid.is_none())
            && let Some(uid) = self.user_of(&process)
            && let Some(live) = self.live.get_mut(&run)
        {
            live.own.uid = Some(uid);
        }
        let Some(live) = self.live.get_mut(&run) else { return };
        if live.killed {
            process.kill();
        }
        let pid = process.pid();
        live.process = Some(process);
        self.handle(Input::Identified(run, pid));
    }

    pub(super) fn reached(&mut self, run: RunId, reached: Reached) {
        let Reached { adopted, link, directory, record, bound, first } = reached;
        let Some(live) = self.live.get_mut(&run) else { return };
        let (vm, own) = (live.vm.clone(), Own { uid: record.uid, cid: record.cid });
        (live.link, live.bound, live.directory) = (Some(link), bound.map(Arc::new), directory);
        (live.own, live.record) = (own, Some(record));
        self.keep(&vm, own);
        self.handle(Input::Reached(run, Box::new(adopted)));
        if let Some(first) = first {
            self.handle(Input::Message(run, Box::new(first)));
        }
        self.settled(run);
    }

    /// A VM has answered or is known to be late. Requests need not wait for it any more.
    pub(super) fn settled(&mut self, run: RunId) {
        if let Some(settling) = &mut self.settling {
            settling.awaited.remove(&run);
            if settling.awaited.is_empty() {
                self.answer_the_waiting();
            }
        }
    }

    pub(super) fn answer_the_waiting(&mut self) {
        for (request, answer) in self.settling.take().into_iter().flat_map(|settling| settling.calls) {
            self.call(request, answer);
        }
    }
}
