//! What the daemon tells the service manager that started it, such as systemd (`sd_notify(3)`).
//!
//! The service manager names a socket in `NOTIFY_SOCKET`; without it nothing is told. VMMs do not
//! inherit that: they are started with an environment of their own.

use std::time::Duration;

use sd_notify::NotifyState;

/// The API answers, and VMs that run are being taken up; or a reload has ended.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again. [`ready`] must follow.
pub(crate) fn reloading() {
    // systemd 253 and newer tells by the time which reload this is.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("reads its configuration")]),
        Err(e) => tracing::warn!("the service manager is not told of a reload: {e}"),
    }
}

/// The daemon ends.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("ends; VMs run on")]);
}

/// What the daemon does, in one line.
pub(crate) fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// The daemon's loop goes round.
pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is due: twice in the time after which the service manager ends a daemon that
/// is silent. `None`: it does not watch.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!("the service manager cannot be told {states:?}: {e}");
    }
}
