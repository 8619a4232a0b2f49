//! A VM put together: memory, jail, console, and a guest.

mod devices;
mod kernel_guest;
mod kvm;
mod kvm_wiring;
mod mmio_windows;
mod pci_bus;
mod power;
mod sampling;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use plimsoll_pmap::uffd::Uffd;
use plimsoll_pmap::{Config, Pmap, SwapSpace};
use plimsoll_protocol::control::{
    BootConfig, Chunks, ExitReason, Facts, GuestKind, LONGEST_SAMPLE_PERIOD, MAX_SAMPLES,
    SHORTEST_SAMPLE_PERIOD, SamplingConfig, SwapConfig, VsockConfig,
};
use plimsoll_protocol::definition::{MAX_CID, MAX_CONNECTIONS, MAX_SIZE, MAX_VCPUS, MIN_CID, MIN_SIZE};
use plimsoll_sys::Event;
use plimsoll_units::Bytes;
use rustix::process::{Resource, getrlimit};

use crate::boot::file::BootFile;
use crate::boot::layout;
use crate::boot::loader::Source;
use crate::boot::reader::BootReader;
use crate::brake::Brake;
use crate::console::{Console, ConsoleLog, Ends, Keyboard, MAX_LOG, Output};
use crate::fds::PassedFds;
use crate::guest::Guest;
use crate::jail;
use crate::mailbox::Mailbox;
use crate::model::{Input, ModelGuest, Parts};
use crate::pager::Pager;
use crate::sharing::{Exchange, Scanner};
use crate::vcpu::Execution;
use crate::virtio::block::WrittenImages;
use devices::DeviceHandles;
use kernel_guest::Machine;
use sampling::Sampling;

/// A VM that has been set up.
pub(crate) struct Vm {
    pub(crate) pmap: Arc<Pmap>,
    pub(crate) guest: Box<dyn Guest>,
    pub(crate) handles: DeviceHandles,
    images: WrittenImages,
    console: Console,
    sampling: Arc<Sampling>,
    pub(crate) pager: Pager,
    pub(crate) scanner: Scanner,
    pub(crate) brake: Arc<Brake>,
}

impl Vm {
    /// Turns this process into the VM of `config`: makes its memory and devices, closes the jail,
    /// runs the guest.
    ///
    /// No guest code runs before the jail is closed. The devices' threads are started between its
    /// two steps, because they need system calls that the second step forbids.
    ///
    /// # Errors
    /// What was refused, on one line. The process cannot be used for anything else then.
    pub(crate) fn start(
        config: BootConfig,
        fds: Vec<OwnedFd>,
        mailbox: &Arc<Mailbox>,
        exchange: &Arc<Exchange>,
    ) -> Result<Self> {
        check(&config)?;
        let mut fds = PassedFds::sort(&config.fds, fds)?;
        let longest_disk = config.disks.iter().map(|disk| disk.longest).max().unwrap_or_default();
        let longest_file = fds.longest_written()?.max(Bytes(MAX_LOG)).max(longest_disk);
        let connections = config.vsock.map_or(0, |vsock| vsock.connections);
        check_descriptors(connections, getrlimit(Resource::Nofile).maximum)?;
        let rules =
            jail::Rules { uid: config.uid, longest_file, connections, allow_missing: &config.allow_missing };
        // Before there is guest memory, of which the boot reader must have none.
        let source = source(&config, &mut fds, rules)?;
        let pmap = make_memory(&config, &mut fds, mailbox)?;
        let log = fds.console_log.take().map(ConsoleLog::new).transpose().context("console log")?;
        let listener = fds.console_listener.take();
        let (output, room) = (Arc::new(Output::new()?), Event::new()?);

        let mut missing = jail::close(rules)?;
        let machine = match source {
            None => None,
            Some(source) => Some(Machine::new(&config, &mut fds, source, &pmap, mailbox, &output, &room)?),
        };
        missing.extend(jail::filter(rules)?);

        pmap.set_tasks(match config.guest {
            GuestKind::Kernel | GuestKind::Disk => config.vcpus.into(),
            GuestKind::Model => 1,
        });
        serve_faults(&pmap, mailbox)?;
        let brake = Arc::new(Brake::default());
        let pager = Pager::start(&pmap, &brake, exchange).context("pager thread")?;
        let scanner = Scanner::start(&pmap, exchange, mailbox).context("scanner thread")?;
        let execution = Arc::new(Execution::default());
        let sampling =
            Sampling::start(&pmap, &brake, &execution, config.sampling).context("sampling thread")?;
        let console = |keyboard: Arc<dyn Keyboard>| {
            let (output, room) = (Arc::clone(&output), room.clone());
            Console::start(Ends { output, log, listener, keyboard, room }).context("console")
        };
        let handles = machine.as_ref().map(Machine::handles).unwrap_or_default();
        let images = machine.as_ref().map(Machine::images).unwrap_or_default();
        let (guest, console): (Box<dyn Guest>, _) = match machine {
            Some(machine) => {
                let console = console(machine.serial())?;
                (Box::new(machine.start(missing, Arc::clone(&brake), execution)?), console)
            }
            None => {
                let input = Arc::new(Input::new(room.clone()));
                let console = console(Arc::clone(&input) as Arc<dyn Keyboard>)?;
                let parts = Parts {
                    pmap: Arc::clone(&pmap),
                    regions: layout::ram(config.size),
                    balloon: config.balloon,
                    mailbox: Arc::clone(mailbox),
                    output: Arc::clone(&output),
                    input,
                    brake: Arc::clone(&brake),
                };
                mailbox.notice("this is a model of a guest: host threads use its memory, no kernel runs");
                let guest = ModelGuest::start(parts).context("model guest")?;
                mailbox.running(missing);
                (Box::new(guest), console)
            }
        };
        Ok(Self { pmap, guest, handles, images, console, sampling, pager, scanner, brake })
    }

    /// The facts for the daemon, without the number of reboots.
    pub(crate) fn facts(&self) -> Facts {
        let stats = self.pmap.stats();
        let stalled = self.pmap.stalled();
        let balloon = self.guest.balloon();
        Facts {
            grant: stats.grant,
            held: stats.held,
            wanted: stats.wanted + self.scanner.leaving(),
            ballooned: stats.ballooned,
            balloon_actual: balloon.actual,
            balloon_target: balloon.target,
            balloon_driver: balloon.driver,
            compressed: stats.compressed,
            store: stats.store,
            swapped: stats.swapped,
            zipped: stats.traffic.zipped,
            unzipped: stats.traffic.unzipped,
            swapped_out: stats.traffic.swapped_out,
            swapped_in: stats.traffic.swapped_in,
            blocked: self.brake.is_held(),
            paused: self.brake.is_paused(),
            paging_stuck: self.pager.is_stuck(),
            swap_failed: self.pmap.swap_failed(),
            shared: stats.shared,
            zero: stats.zero,
            scanned: stats.sharing.scanned,
            merged: stats.sharing.merged,
            zeroed: stats.sharing.zeroed,
            broken: stats.sharing.broken,
            mismatched: stats.sharing.mismatched,
            scan_cpu: self.scanner.used(),
            mappings_full: stats.mappings_full,
            chunks: Chunks {
                empty: stats.chunks_empty,
                large: stats.chunks_large,
                small: stats.chunks_small,
            },
            faults: stats.faults,
            stall_some: stalled.some,
            stall_full: stalled.full,
            reboots: 0,
            filtered: self.handles.filtered(),
            guest: balloon.guest,
            ram: self.pmap.place(),
            sampling: self.sampling.facts(),
        }
    }

    /// Saves what the guest wrote to its images, and writes its last output to the log. The guest
    /// may run on; the process is about to end, by `reason`. Returns that, with what could not be
    /// saved.
    pub(crate) fn finish(self, reason: ExitReason) -> ExitReason {
        // The machine's thread has saved them, unless another one ends the VM.
        let reason = self.images.saved(reason);
        self.console.finish();
        reason
    }
}

/// Checks the bounds that the rest of the VMM relies on. The sender of the configuration is not
/// trusted with them.
fn check(config: &BootConfig) -> Result<()> {
    let size = config.size.bytes();
    ensure!(
        (MIN_SIZE..=MAX_SIZE).contains(&size) && size.0.is_multiple_of(plimsoll_units::CHUNK_SIZE),
        "size {size}: must be a multiple of 2MiB from {MIN_SIZE} to {MAX_SIZE}"
    );
    let SamplingConfig { samples, period } = config.sampling;
    ensure!((1..=MAX_SAMPLES).contains(&samples), "{samples} samples: must be 1 to {MAX_SAMPLES}");
    ensure!(
        (SHORTEST_SAMPLE_PERIOD..=LONGEST_SAMPLE_PERIOD).contains(&period),
        "a sample period of {period:?}: must be {SHORTEST_SAMPLE_PERIOD:?} to {LONGEST_SAMPLE_PERIOD:?}"
    );
    ensure!((1..=MAX_VCPUS).contains(&config.vcpus), "vcpus {}: must be 1 to {MAX_VCPUS}", config.vcpus);
    let (disks, nets, bus) = (config.disks.len(), config.nets.len(), config.bus);
    let most_disks = bus.max_disks(config.vsock.is_some());
    ensure!(
        disks <= most_disks && nets <= bus.max_nets(),
        "{disks} disks and {nets} network interfaces: at most {most_disks} and {} are allowed on {bus}",
        bus.max_nets()
    );
    if let Some(VsockConfig { cid, connections }) = config.vsock {
        ensure!(
            (MIN_CID..=MAX_CID).contains(&cid) && (1..=MAX_CONNECTIONS).contains(&connections),
            "vsock with cid {cid} and {connections} connections: must be {MIN_CID} to {MAX_CID} and 1 to \
             {MAX_CONNECTIONS}"
        );
    }
    Ok(())
}

/// Checks that a process whose open files have this hard limit has enough for its connections. A
/// connection beyond it would be lost, and with it maybe one that the daemon needs.
fn check_descriptors(connections: u16, limit: Option<u64>) -> Result<()> {
    let most = jail::most_descriptors(connections);
    ensure!(
        connections == 0 || limit.is_none_or(|limit| limit >= most),
        "{connections} connections of vsock: its VMM may need {most} open files, and the hard limit is {}; raise it \
         (LimitNOFILE= of plimsolld's unit, ulimit -Hn), or lower vsock.connections",
        limit.unwrap_or(u64::MAX)
    );
    Ok(())
}

/// Where the guest's kernel comes from; `None` for a model guest.
fn source(config: &BootConfig, fds: &mut PassedFds, rules: jail::Rules<'_>) -> Result<Option<Source>> {
    Ok(match config.guest {
        GuestKind::Model => None,
        GuestKind::Kernel => {
            let kernel = fds.kernel.take().context("the daemon passed no kernel")?;
            let initrd = fds.initrd.take().map(|fd| Box::new(File::from(fd)) as Box<dyn BootFile>);
            Some(Source::Files { kernel: Box::new(File::from(kernel)), initrd })
        }
        GuestKind::Disk => {
            let disk = config.disks.first().zip(fds.disks.first());
            let (disk, files) = disk.context("the daemon passed no disk to boot from")?;
            let formats = devices::formats(disk, files.len()).context("disk0")?;
            let files: Vec<_> = files.iter().map(AsFd::as_fd).zip(formats).collect();
            Some(Source::Disk(BootReader::start(&files, rules).context("boot from disk")?))
        }
    })
}

fn make_memory(config: &BootConfig, fds: &mut PassedFds, mailbox: &Arc<Mailbox>) -> Result<Arc<Pmap>> {
    let uffd = match fds.userfaultfd.take() {
        Some(device) => Uffd::from_device(device.as_fd())?,
        None => Uffd::from_syscall()?,
    };
    let (regions, huge_pages, grant) = (layout::ram(config.size), config.huge_pages, config.grant);
    let swap = match (config.swap, fds.swap.take()) {
        (Some(SwapConfig { slots, encrypt }), Some(file)) => Some(SwapSpace { file, slots, encrypt }),
        (None, None) => None,
        _ => bail!("the daemon passed swap space without saying how large it is, or the reverse"),
    };
    ensure!(config.store <= config.size, "a store of {} exceeds the VM's size", config.store.bytes());
    let mailbox = Arc::clone(mailbox);
    Ok(Pmap::new(Config { regions, uffd, huge_pages, grant, store: config.store, swap }, mailbox)?)
}

/// Starts the thread that answers page faults. It never ends while the process lives: without it,
/// every thread that touches guest memory would hang.
fn serve_faults(pmap: &Arc<Pmap>, mailbox: &Arc<Mailbox>) -> Result<()> {
    let (pmap, mailbox) = (Arc::clone(pmap), Arc::clone(mailbox));
    let never = Event::new().context("fault thread")?;
    thread::Builder::new()
        .name("faults".to_owned())
        .spawn(move || {
            if let Err(error) = pmap.serve_faults(&never) {
                let error = anyhow::Error::from(error);
                mailbox.exit(ExitReason::Failed(format!("guest memory: {error:#}")));
            }
        })
        .context("fault thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_that_connections_would_exceed_is_named() {
        for (connections, limit) in [(0, Some(10)), (64, Some(576)), (1024, Some(1536)), (1024, None)] {
            check_descriptors(connections, limit).unwrap();
        }
        let error = check_descriptors(1024, Some(1024)).unwrap_err().to_string();
        for part in ["1024 connections", "1536 open files", "limit is 1024", "LimitNOFILE="] {
            assert!(error.contains(part), "{error}");
        }
        assert!(check_descriptors(64, Some(575)).is_err());
    }
}
