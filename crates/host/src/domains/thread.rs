use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::{Order, Plane, Report};

/// The thread that a [`Plane`] runs on. It ends with its owner.
#[derive(Debug)]
pub(crate) struct Worker {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

/// The thread has ended, which only a defect can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

impl Worker {
    /// Starts the thread. `report` takes the reports, in the order of the orders; it may block the
    /// thread, and says whether there is a need for more.
    ///
    /// # Errors
    /// The kernel has no thread for it.
    pub(crate) fn start(report: impl FnMut(Report) -> bool + Send + 'static) -> io::Result<Self> {
        let (orders, received) = channel();
        let thread =
            thread::Builder::new().name("sharing".to_owned()).spawn(move || run(&received, report))?;
        Ok(Self { orders, thread })
    }

    /// Sends an order. Never blocks: what one VMM may have under way at a time is bounded by
    /// [`Link`](crate::link::Link).
    ///
    /// # Errors
    /// The thread has ended.
    pub(crate) fn order(&self, order: Order) -> Result<(), Ended> {
        self.orders.send(order).map_err(|_| Ended)
    }

    /// Whether the thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

fn run(orders: &Receiver<Order>, mut report: impl FnMut(Report) -> bool) {
    let mut plane = Plane::default();
    while let Ok(order) = orders.recv() {
        if !report(plane.carry_out(order)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::Outcome;

    #[test]
    fn each_order_is_reported_in_turn_and_a_thread_that_has_ended_takes_none() {
        let (reports, received) = channel();
        let worker = Worker::start(move |report| reports.send(report).is_ok()).unwrap();
        for n in 0..100 {
            let order = Order::GiveBack {
                run: crate::run_id::RunId(n),
                domain: plimsoll_protocol::sharing::DomainId(1),
                pages: Vec::new(),
                reason: plimsoll_units::ReturnReason::Unused,
            };
            worker.order(order).unwrap();
        }
        let askers: Vec<u64> =
            received.iter().take(100).map(|report| report.asker.expect("a VM has asked").0).collect();
        assert!(askers.into_iter().eq(0..100));
        worker.order(Order::Tidy).unwrap();
        assert!(matches!(received.recv().unwrap().outcome, Outcome::Tidied { more: false }));
        drop(received);
        // The next report cannot be delivered.
        while worker.order(Order::Tidy).is_ok() {
            thread::yield_now();
        }
        assert_eq!(worker.order(Order::Tidy), Err(Ended));
        while !worker.has_ended() {
            thread::yield_now();
        }
    }
}
