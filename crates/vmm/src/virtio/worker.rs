//! The thread of one device: it waits for the driver's notifications, the backend's file
//! descriptors and a deadline, and runs the device's back half.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use plimsoll_sys::Event;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::back::{Back, Broken, DeviceEvent, Progress, Source};
use super::eventfd::as_fd;
use super::interrupt::Interrupt;
use super::notices::Notices;
use super::{Activation, NoticeSink};

/// The devices' stacks: they recurse nowhere and keep buffers on the heap. Only what is touched
/// costs memory.
const STACK_SIZE: usize = 256 * 1024;
/// Delay after a failed wait. Only a kernel that is short of memory fails one.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// A handle of the thread; dropping it stops the device and waits for the thread's end.
pub struct Worker {
    orders: Sender<Order>,
    bell: Event,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Start(Box<Activation>),
    Stop(SyncSender<()>),
    /// Answered after all events that were there before it have been served once.
    #[cfg(any(test, feature = "fuzzing"))]
    Barrier(SyncSender<()>),
    Quit,
}

impl Worker {
    /// Starts the thread of the device `name`, which reports to `notices`.
    ///
    /// # Errors
    /// No file descriptor or no thread left.
    pub(super) fn spawn(name: String, back: impl Back, notices: NoticeSink) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let bell = Event::new()?;
        let notices = Notices::new(&name, notices);
        let thread_bell = bell.clone();
        let thread = thread::Builder::new().name(name).stack_size(STACK_SIZE).spawn(move || {
            Loop { back, inbox, bell: thread_bell, active: None, again: vec![], notices }.run()
        })?;
        Ok(Self { orders, bell, thread: Some(thread) })
    }

    /// The driver is ready. Does not wait.
    pub(super) fn start(&self, activation: Activation) {
        let interrupt = activation.interrupt.clone();
        if !self.send(Order::Start(Box::new(activation))) {
            interrupt.needs_reset();
        }
    }

    /// Stops the device and waits until nothing of it is in flight.
    pub(super) fn stop(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        if self.send(Order::Stop(done)) {
            // An error means that the thread is gone, and with it all that it did.
            wait.recv().ok();
        }
    }

    /// An event whose signal has the thread call [`Back::refresh`].
    pub(super) fn bell(&self) -> Event {
        self.bell.clone()
    }

    /// Waits until every event from before the call has been served.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn barrier(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        assert!(self.send(Order::Barrier(done)), "the device's thread is gone");
        wait.recv_timeout(Duration::from_secs(30)).expect("the device hangs");
    }

    fn send(&self, order: Order) -> bool {
        let sent = self.orders.send(order).is_ok();
        self.bell.signal();
        sent
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(Order::Quit);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic itself.
            thread.join().ok();
        }
    }
}

struct Loop<B> {
    back: B,
    inbox: Receiver<Order>,
    bell: Event,
    /// Set between a start and the next stop or broken queue.
    active: Option<Active>,
    /// Events that were served in part.
    again: Vec<DeviceEvent>,
    notices: Notices,
}

/// What the thread itself needs of an activation.
struct Active {
    kicks: Arc<[EventFd]>,
    /// The numbers of the queues that are ready.
    queues: Vec<usize>,
    interrupt: Interrupt,
}

impl Active {
    fn new(activation: &Activation) -> Self {
        let ready = |(index, queue): (usize, &Option<Queue>)| queue.as_ref().map(|_| index);
        Self {
            kicks: Arc::clone(&activation.kicks),
            queues: activation.queues.iter().enumerate().filter_map(ready).collect(),
            interrupt: activation.interrupt.clone(),
        }
    }
}

impl<B: Back> Loop<B> {
    fn run(mut self) {
        loop {
            // Events first: an order then finds them served.
            let (events, rung) = self.wait(None);
            self.serve_all(events);
            if !rung {
                continue;
            }
            // Drained before wishes and orders are taken, so none is left behind without its bell.
            self.bell.clear();
            if self.back.refresh()
                && let Some(active) = &self.active
            {
                self.again.extend(active.queues.iter().copied().map(DeviceEvent::Kick));
            }
            while let Ok(order) = self.inbox.try_recv() {
                if !self.obey(order) {
                    return;
                }
            }
        }
    }

    /// Waits for events of the device or for an order, at most until `limit`. Returns the events,
    /// and whether the bell was rung for an order.
    fn wait(&mut self, limit: Option<Instant>) -> (Vec<DeviceEvent>, bool) {
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        let mut events = vec![];
        if let Some(active) = &self.active {
            for &index in &active.queues {
                fds.push(PollFd::from_borrowed_fd(as_fd(&active.kicks[index]), PollFlags::IN));
                events.push(DeviceEvent::Kick(index));
            }
        }
        let (sources, deadline) = match self.active {
            Some(_) => (self.back.sources(), self.back.deadline()),
            None => (self.back.idle_sources(), self.back.idle_deadline()),
        };
        for Source { number, fd, flags } in sources {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            events.push(DeviceEvent::Source(number));
        }
        let again = (!self.again.is_empty()).then(Instant::now);
        let until = [deadline, again, limit].into_iter().flatten().min();
        match rustix::event::poll(&mut fds, timeout(until).as_ref()) {
            Ok(_) => {}
            // There may be an order.
            Err(Errno::INTR) => return (vec![], true),
            Err(_) => {
                thread::sleep(RETRY_DELAY);
                return (vec![], true);
            }
        }
        let rung = !fds[0].revents().is_empty();
        let ready = fds[1..].iter().zip(events).filter(|(fd, _)| !fd.revents().is_empty());
        let mut ready: Vec<_> = ready.map(|(_, event)| event).collect();
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            ready.push(DeviceEvent::Deadline);
        }
        for event in self.again.drain(..) {
            if !ready.contains(&event) {
                ready.push(event);
            }
        }
        (ready, rung)
    }

    /// Serves events that were waited for together.
    fn serve_all(&mut self, events: Vec<DeviceEvent>) {
        let was_active = self.active.is_some();
        for event in events {
            if was_active && self.active.is_none() {
                // An event before this one has stopped the device. This one is of no idle source,
                // which may be ready for other reasons: the next wait finds what is left.
                break;
            }
            self.serve(event);
        }
    }

    fn serve(&mut self, event: DeviceEvent) {
        let Some(active) = &self.active else {
            self.back.serve_idle(event);
            return;
        };
        if let DeviceEvent::Kick(index) = event {
            // Empty where the event is served again.
            active.kicks[index].read().ok();
        }
        match self.back.serve(event) {
            Ok(Progress::Done) => {}
            Ok(Progress::More) => self.again.push(event),
            Err(broken) => self.fail(&broken),
        }
    }

    /// Whether the thread goes on.
    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Start(activation) => {
                let active = Active::new(&activation);
                // Linux fills queues (the balloon's statistics) before it is ready, and notifies of
                // that once.
                self.again.extend(active.queues.iter().copied().map(DeviceEvent::Kick));
                self.active = Some(active);
                if let Err(broken) = self.back.start(*activation) {
                    self.fail(&broken);
                }
            }
            Order::Stop(done) => {
                self.active = None;
                self.again.clear();
                self.back.stop();
                // The device has stopped, also if no thread waits for that any more.
                done.send(()).ok();
            }
            #[cfg(any(test, feature = "fuzzing"))]
            Order::Barrier(done) => {
                let (events, _) = self.wait(Some(Instant::now()));
                self.serve_all(events);
                done.send(()).expect("the caller waits for the barrier");
            }
            Order::Quit => {
                self.back.stop();
                return false;
            }
        }
        true
    }

    fn fail(&mut self, broken: &Broken) {
        self.back.stop();
        self.again.clear();
        if let Some(active) = self.active.take() {
            active.interrupt.needs_reset();
        }
        self.notices
            .tell(&format!("the guest broke a queue ({broken}); the device waits for the guest to reset it"));
    }
}

/// Time until `deadline`; `None` is forever.
fn timeout(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    // A time beyond the clock's range counts as forever.
    Timespec::try_from(left).ok()
}

#[cfg(test)]
mod tests {
    use super::super::interrupt::Signal;
    use super::*;

    struct Silent;

    impl Signal for Silent {
        fn used_buffer(&self, _queue: usize) {}
        fn config_change(&self) {}
    }

    /// A device whose queue is broken, with what it has served while it was not started.
    #[derive(Default)]
    struct Broke {
        idle: Vec<DeviceEvent>,
    }

    impl Back for Broke {
        fn start(&mut self, _activation: Activation) -> Result<(), Broken> {
            Ok(())
        }

        fn serve(&mut self, _event: DeviceEvent) -> Result<Progress, Broken> {
            Err(Broken::Chain)
        }

        fn stop(&mut self) {}

        fn serve_idle(&mut self, event: DeviceEvent) {
            self.idle.push(event);
        }
    }

    #[test]
    fn what_a_device_waited_for_before_it_was_stopped_is_no_idle_source() {
        let kick = EventFd::new(0).unwrap();
        kick.write(1).unwrap();
        let active =
            Active { kicks: Arc::new([kick]), queues: vec![0], interrupt: Interrupt::new(Arc::new(Silent)) };
        let mut device = Loop {
            back: Broke::default(),
            inbox: mpsc::channel().1,
            bell: Event::new().unwrap(),
            active: Some(active),
            again: vec![],
            notices: Notices::new("device", Arc::new(|_| {})),
        };
        let source = DeviceEvent::Source(5);
        device.serve_all(vec![DeviceEvent::Kick(0), source]);
        assert!(device.active.is_none() && device.back.idle.is_empty());
        device.serve_all(vec![source]);
        assert_eq!(device.back.idle, [source]);
    }
}
