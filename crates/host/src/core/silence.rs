use std::time::Duration;

/// A VMM that has not reported for this long is called silent. It reports each second. Shorter, and
/// a busy host's VMMs are called silent when they are only slow; longer, and an operator looks for
/// the reason elsewhere first.
const LATE: Duration = Duration::from_secs(5);

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
