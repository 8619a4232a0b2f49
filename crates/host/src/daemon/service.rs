//! What a service manager wants of the loop: to be told how it is, and a configuration taken up.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Interval;

use super::Daemon;
use crate::core::Input;
use crate::incoming::Reloaded;
use crate::service_manager;

impl Daemon {
    /// Tells the service manager what the daemon does, where that has changed.
    pub(super) fn tell_status(&mut self) {
        let status = self.core.summary();
        if status != self.status {
            service_manager::status(&status);
            self.status = status;
        }
    }

    /// Goes on with a configuration that was read again.
    pub(super) fn take_up(&mut self, reloaded: Reloaded, done: oneshot::Sender<()>) {
        let Reloaded { settings, site, news } = reloaded;
        self.site = Arc::new(site);
        self.handle(Input::Reconfigured(Box::new(settings), news));
        done.send(()).ok(); // The task that read it may have ended.
    }
}

/// Waits for the next tick of `interval`; without one, for ever.
pub(super) async fn tick_of(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
