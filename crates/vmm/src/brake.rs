//! Stops the VM's processors: while the host is too short of memory, and while the operator has
//! paused the VM.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_sys::lock;

/// How often a stopped processor checks whether it is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A gate that processors pass before they run the guest. While the brake is on, they wait there.
#[derive(Default)]
pub(crate) struct Brake {
    /// The host is short of memory.
    held: AtomicBool,
    /// The operator has paused the VM.
    paused: AtomicBool,
    /// Gets each processor out of the guest.
    kicks: Mutex<Vec<Box<dyn Fn() + Send>>>,
    gate: Mutex<()>,
    released: Condvar,
}

impl Brake {
    /// Whether processors are stopped, or about to be.
    pub(crate) fn is_on(&self) -> bool {
        self.is_held() || self.is_paused()
    }

    /// Whether they are stopped for want of memory.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Whether they are stopped by the operator.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Stops the processors for want of memory. A processor that is in the guest is kicked out of
    /// it. The kick may come just before the processor enters the guest, so a caller that keeps the
    /// brake on calls this again from time to time.
    pub(crate) fn hold(&self) {
        self.put_on(&self.held);
    }

    /// Ends [`hold`](Self::hold). The processors run unless the operator has paused the VM.
    pub(crate) fn release(&self) {
        self.take_off(&self.held);
    }

    /// Stops the processors for the operator, as [`hold`](Self::hold) does.
    pub(crate) fn pause(&self) {
        self.put_on(&self.paused);
    }

    /// Ends [`pause`](Self::pause). The processors run unless they are held for want of memory.
    pub(crate) fn resume(&self) {
        self.take_off(&self.paused);
    }

    fn put_on(&self, reason: &AtomicBool) {
        reason.store(true, Ordering::SeqCst);
        lock(&self.kicks).iter().for_each(|kick| kick());
    }

    fn take_off(&self, reason: &AtomicBool) {
        if reason.swap(false, Ordering::SeqCst) {
            drop(lock(&self.gate));
            self.released.notify_all();
        }
    }

    /// Sets what kicks the processors when the brake is put on, in place of the kicks before.
    pub(crate) fn take_kicks(&self, kicks: Vec<Box<dyn Fn() + Send>>) {
        *lock(&self.kicks) = kicks;
    }

    /// Waits until the brake is off or `ends` says that the processor is to end. Returns whether it
    /// waited.
    pub(crate) fn pass(&self, ends: impl Fn() -> bool) -> bool {
        if !self.is_on() {
            return false;
        }
        let mut gate = lock(&self.gate);
        while self.is_on() && !ends() {
            gate = self.released.wait_timeout(gate, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_comes_to_it_stands_until_it_is_off_or_is_to_end() {
        let brake = Arc::new(Brake::default());
        assert!(!brake.pass(|| false));
        brake.hold();
        brake.pause();
        assert!(brake.pass(|| true));
        let (sender, passed) = channel();
        let thread = std::thread::spawn({
            let brake = Arc::clone(&brake);
            move || {
                brake.pass(|| false);
                sender.send(brake.is_on()).unwrap();
            }
        });
        brake.release();
        assert!(brake.is_on() && brake.is_paused() && !brake.is_held());
        assert!(passed.try_recv().is_err(), "one reason is enough");
        brake.resume();
        assert!(!passed.recv_timeout(Duration::from_secs(60)).unwrap());
        thread.join().unwrap();
    }
}
