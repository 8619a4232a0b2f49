//! vCPUs: a thread each, which enters the guest and serves what makes it leave.
//!
//! | exit | what happens |
//! |---|---|
//! | port or MMIO access | the bus finds the device; without a device, reads give ones and writes are lost |
//! | EINTR, EAGAIN | again, unless the vCPU is to stop |
//! | EFAULT | again after a moment: guest memory is being moved; the VM fails when that lasts |
//! | shutdown (triple fault) | the guest crashed |
//! | failed entry, internal error | the guest crashed: it put the processor into a state that KVM cannot run |
//!
//! A guest that was stopped by the brake, or for seconds in one entry, is told
//! (`KVM_KVMCLOCK_CTRL`) before it runs on, so far as the kernel lets us: one whose page comes
//! while it is inside KVM goes on at once, and is told at its next exit.
//!
//! A vCPU that waits for memory waits inside KVM, and only a signal gets it out ([`Crew::stop`]).

mod execution;
mod kvm_run;
mod kvm_stats;
mod signal;
mod thread_clock;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::brake::Brake;
use crate::bus::Bus;
use crate::guest_event::{GuestEvent, Teller};
pub(crate) use execution::Execution;
use kvm_stats::HaltStats;
pub(crate) use kvm_stats::KVM_GET_STATS_FD;
use thread_clock::ThreadClock;

/// How long a vCPU tries to reach memory that is being moved. A move takes milliseconds; a VM that
/// cannot run for this long will not go on. Shorter fails VMs of a host that is merely slow, longer
/// hides that nothing happens.
const STUCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two such attempts: about what a move takes.
const PAUSE: Duration = Duration::from_millis(1);
/// A vCPU that has not left KVM, or a device, for this long may have stood still there, waiting for
/// memory: its guest is told. Linux reports lockups after 10 s (hard) and 20 s (soft): longer, and
/// that comes first. Shorter, and guests that merely run undisturbed are told all the time, which
/// resets their watchdogs.
const LONG_STOP: Duration = Duration::from_secs(4);
/// Between two signals to a vCPU that is to stop: one may arrive just before it enters the guest.
const KICK_AGAIN: Duration = Duration::from_millis(5);

/// What vCPUs reach by ports and addresses.
#[derive(Clone)]
pub(crate) struct Buses {
    pub(crate) ports: Arc<Bus>,
    pub(crate) mmio: Arc<Bus>,
}

/// All vCPUs of a VM, running.
pub(crate) struct Crew {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    brake: Arc<Brake>,
}

impl Crew {
    /// Lets `vcpus` run, watched by `execution`. What happens to the guest is told to `events`,
    /// after which the vCPU concerned waits to be stopped.
    ///
    /// # Errors
    /// KVM does not count a vCPU's halts, or a thread cannot be started. Threads that were started
    /// have been stopped.
    pub(crate) fn start(
        vcpus: Vec<VcpuFd>,
        buses: &Buses,
        events: &Teller,
        brake: &Arc<Brake>,
        execution: &Execution,
    ) -> io::Result<Self> {
        signal::prepare()?;
        let halts = vcpus.iter().map(HaltStats::of).collect::<io::Result<Vec<_>>>()?;
        let mut crew = Self { stop: Arc::default(), threads: Vec::new(), brake: Arc::clone(brake) };
        for (index, fd) in vcpus.into_iter().enumerate() {
            let vcpu = Vcpu {
                fd,
                buses: buses.clone(),
                events: events.clone(),
                stop: Arc::clone(&crew.stop),
                brake: Arc::clone(brake),
            };
            match thread::Builder::new().name(format!("vcpu{index}")).spawn(move || vcpu.run()) {
                Ok(thread) => crew.threads.push(thread),
                Err(error) => {
                    crew.stop();
                    return Err(error);
                }
            }
        }
        brake.take_kicks(crew.threads.iter().map(signal::kicker).collect());
        let clocks = crew.threads.iter().map(ThreadClock::of).collect::<io::Result<Vec<_>>>();
        match clocks {
            Ok(clocks) => {
                let vcpus = clocks.into_iter().zip(halts);
                execution.watch(vcpus.map(|(clock, halts)| execution::Vcpu::new(clock, halts)).collect());
                Ok(crew)
            }
            Err(error) => {
                crew.stop();
                Err(error)
            }
        }
    }

    /// Stops all vCPUs and closes them. Waits for those that are in a device, and on kernels that
    /// do not let a signal interrupt it (before 6.2) for those that wait for a grant.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        // A thread that has ended must not be kicked.
        self.brake.take_kicks(Vec::new());
        for thread in self.threads {
            while !thread.is_finished() {
                signal::kick(&thread);
                thread.thread().unpark();
                thread::sleep(KICK_AGAIN);
            }
            if thread.join().is_err() {
                tracing::error!("a vCPU's thread panicked");
            }
        }
    }
}

/// Tells a guest that its host has stopped it, so that its watchdogs do not take that for a lockup.
fn tell_of_stop(vcpu: &VcpuFd) {
    match vcpu.kvmclock_ctrl() {
        Ok(()) => {}
        // The guest does not use KVM's clock, by which it would be told.
        Err(error) if error.errno() == libc::EINVAL => {}
        Err(error) => tracing::warn!(%error, "a guest cannot be told that it was stopped"),
    }
}

struct Vcpu {
    fd: VcpuFd,
    buses: Buses,
    events: Teller,
    stop: Arc<AtomicBool>,
    brake: Arc<Brake>,
}

impl Vcpu {
    fn run(mut self) {
        let mut stuck_since = None;
        while !self.stop.load(Ordering::SeqCst) {
            if self.brake.pass(|| self.stop.load(Ordering::SeqCst)) {
                tell_of_stop(&self.fd);
            }
            let entered = Instant::now();
            let left = self.enter();
            if entered.elapsed() >= LONG_STOP {
                tell_of_stop(&self.fd);
            }
            match left {
                Ok(None) => stuck_since = None,
                Ok(Some(event)) => return self.wait_for_stop(event),
                Err(error) => match error.errno() {
                    libc::EINTR | libc::EAGAIN => {}
                    libc::EFAULT
                        if stuck_since.get_or_insert_with(Instant::now).elapsed() < STUCK_TIMEOUT =>
                    {
                        thread::sleep(PAUSE);
                    }
                    libc::EFAULT => {
                        let what =
                            format!("a vCPU has not reached guest memory for {STUCK_TIMEOUT:?}: {error}");
                        return self.wait_for_stop(GuestEvent::Failed(what));
                    }
                    _ => {
                        return self.wait_for_stop(GuestEvent::Failed(format!("a vCPU cannot run: {error}")));
                    }
                },
            }
        }
    }

    /// Runs the guest until it leaves, and serves that.
    fn enter(&mut self) -> Result<Option<GuestEvent>, kvm_ioctls::Error> {
        match self.fd.run()? {
            // String instructions bring many accesses to the same port at once.
            VcpuExit::IoIn(port, data) => {
                let parts = data.chunks_mut(self.buses.ports.width(port));
                parts.for_each(|part| self.buses.ports.read(port.into(), part));
            }
            VcpuExit::IoOut(port, data) => {
                let parts = data.chunks(self.buses.ports.width(port));
                parts.for_each(|part| self.buses.ports.write(port.into(), part));
            }
            VcpuExit::MmioRead(address, data) => self.buses.mmio.read(address, data),
            VcpuExit::MmioWrite(address, data) => self.buses.mmio.write(address, data),
            VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_) => {}
            VcpuExit::Shutdown => return Ok(Some(self.crashed("triple fault"))),
            VcpuExit::FailEntry(reason, _) => {
                let how = format!("the processor refused to enter the guest (reason {reason:#x})");
                return Ok(Some(self.crashed(&how)));
            }
            VcpuExit::InternalError => {
                let how = kvm_run::internal_error(self.fd.get_kvm_run());
                return Ok(Some(self.crashed(&how)));
            }
            VcpuExit::SystemEvent(kind, _) => {
                return Ok(Some(self.crashed(&format!("KVM system event {kind}"))));
            }
            other => {
                let how = format!("unexpected exit from the guest: {other:?}");
                return Ok(Some(GuestEvent::Failed(how)));
            }
        }
        Ok(None)
    }

    /// The crash, with where the guest was.
    fn crashed(&self, how: &str) -> GuestEvent {
        let at = self.fd.get_regs().map_or(String::new(), |regs| format!(" at instruction {:#x}", regs.rip));
        GuestEvent::Crashed(format!("{how}{at}"))
    }

    /// Reports and stays: a vCPU whose thread is gone while others run would look like a hang.
    fn wait_for_stop(self, event: GuestEvent) {
        self.events.tell(event);
        while !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_kvms_clock_needs_not_be_told() {
        // A host without KVM has no vCPU to try it on.
        let Ok(kvm) = kvm_ioctls::Kvm::new() else { return };
        let Ok(vm) = kvm.create_vm() else { return };
        let vcpu = vm.create_vcpu(0).unwrap();
        assert_eq!(vcpu.kvmclock_ctrl().unwrap_err().errno(), libc::EINVAL);
        tell_of_stop(&vcpu);
    }
}
