//! What tests and fuzzing put in KVM's place.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use plimsoll_sys::lock;
use vmm_sys_util::eventfd::EventFd;

use super::{Message, Wiring};

/// Notes what functions ask KVM for.
#[derive(Default)]
pub(crate) struct Record {
    routes: Mutex<BTreeMap<u32, Message>>,
    watched: Mutex<BTreeMap<u64, i32>>,
}

impl Record {
    /// The lines that send messages, and which.
    pub(crate) fn routes(&self) -> Vec<(u32, Message)> {
        lock(&self.routes).iter().map(|(line, message)| (*line, *message)).collect()
    }

    /// The addresses that are watched.
    pub(crate) fn watched(&self) -> Vec<u64> {
        lock(&self.watched).keys().copied().collect()
    }
}

impl Wiring for Record {
    fn route(&self, line: u32, message: Option<Message>) {
        let mut routes = lock(&self.routes);
        match message {
            Some(message) => drop(routes.insert(line, message)),
            None => assert!(routes.remove(&line).is_some(), "line {line} had no route"),
        }
    }

    fn watch(&self, address: u64, kick: &EventFd) {
        let before = lock(&self.watched).insert(address, kick.as_raw_fd());
        assert_eq!(before, None, "{address:#x} is watched twice");
    }

    fn unwatch(&self, address: u64, kick: &EventFd) {
        let before = lock(&self.watched).remove(&address);
        assert_eq!(before, Some(kick.as_raw_fd()), "{address:#x} was not watched");
    }
}
