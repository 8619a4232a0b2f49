//! State that lasts from one command to the next.

use std::io;

use crate::region::Regions;
use crate::worker::Worker;

/// This guest's patterns, and its worker once there is one.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) regions: Regions,
    worker: Option<Worker>,
}

impl State {
    /// The worker; it is started if it does not run yet.
    pub(crate) fn worker(&mut self) -> io::Result<&Worker> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start()?,
        };
        Ok(self.worker.insert(worker))
    }
}
