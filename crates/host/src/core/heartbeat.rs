//! VMMs that do not report: their process is stopped or hangs, or the host is overloaded.

use std::time::Duration;

use plimsoll_protocol::VmName;

use super::run::{Phase, Run};
use super::{Core, RunId};

/// For how long a VMM has sent nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heartbeat {
    silent: Duration,
}

impl Heartbeat {
    /// Adds `time` without a message. Returns the silence, if it has just become long enough to be
    /// told.
    pub(super) fn pass(&mut self, time: Duration) -> Option<Duration> {
        let before = self.silence();
        self.silent += time;
        self.silence().filter(|_| before.is_none())
    }

    /// How long the VMM has been silent, if that is long enough to be told.
    pub(super) fn silence(self) -> Option<Duration> {
        (self.silent >= LATE).then_some(self.silent)
    }
}

/// A VMM that has not reported for this long is called silent. It reports each second. Shorter, and
/// a busy host's VMMs are called silent when they are only slow; longer, and an operator looks for
/// the reason elsewhere first.
const LATE: Duration = Duration::from_secs(5);

/// The most that counts of the time between two looks. A daemon that was stopped itself got no
/// messages meanwhile.
const MOST_AT_ONCE: Duration = Duration::from_secs(2);

impl Core {
    /// Notes that a VMM has sent a message.
    pub(super) fn heard_from(&mut self, id: RunId, name: &VmName) {
        let Some(run) = self.run_mut(id) else { return };
        if let Some(silence) = std::mem::take(&mut run.heartbeat).silence() {
            self.event(Some(name), format!("its VMM answers again after {} s", silence.as_secs()));
        }
    }

    /// Counts for how long VMMs have sent nothing, and tells which have become silent.
    pub(super) fn watch_heartbeats(&mut self, elapsed: Duration) {
        let reports = |run: &Run| matches!(run.phase, Phase::Running | Phase::Stopping);
        let mut silent: Vec<(VmName, Duration)> = Vec::new();
        for run in self.runs.values_mut().filter(|run| reports(run)) {
            let silence = run.heartbeat.pass(elapsed.min(MOST_AT_ONCE));
            silent.extend(silence.map(|silence| (run.vm.clone(), silence)));
        }
        for (name, silence) in silent {
            let text = format!(
                "its VMM has not answered for {} s: it may be stopped, or the host overloaded",
                silence.as_secs()
            );
            self.event(Some(&name), text);
        }
    }

    /// The note for users about a silent VMM.
    pub(super) fn silence_note(run: &Run) -> Option<String> {
        let silence = run.heartbeat.silence()?;
        Some(format!("VMM has not answered for {} s", silence.as_secs()))
    }
}
