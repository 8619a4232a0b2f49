use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;

use anyhow::{Context, Result};
use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::{BootConfig, ExitReason};
use plimsoll_protocol::definition::JailPart;
use plimsoll_sys::Event;
use plimsoll_units::Pages;

use super::devices::{DeviceHandles, VirtioDevices};
use super::kvm::Hypervisor;
use super::power::{EventDevice, KeyboardController, PanicDevice, PowerRegisters};
use crate::boot::acpi;
use crate::boot::layout;
use crate::boot::loader::{Loader, Source};
use crate::brake::Brake;
use crate::bus::Bus;
use crate::console::{Output, SerialPort};
use crate::fds::PassedFds;
use crate::guest::{BalloonFacts, Guest};
use crate::guest_event::{GuestEvent, Teller, channel};
use crate::mailbox::Mailbox;
use crate::vcpu::{Buses, Crew, Execution};
use crate::virtio::balloon::BalloonHandle;
use crate::virtio::block::WrittenImages;
use crate::virtio::vsock::VsockHandle;

/// A machine that runs a guest's kernel on KVM: everything that stays when the guest reboots.
pub(crate) struct Machine {
    pmap: Arc<Pmap>,
    hypervisor: Hypervisor,
    loader: Loader,
    vcpus: u8,
    devices: VirtioDevices,
    serial: Arc<SerialPort>,
    output: Arc<Output>,
    events: EventDevice,
    buses: Buses,
    told: Receiver<GuestEvent>,
    tell: Teller,
    mailbox: Arc<Mailbox>,
}

impl Machine {
    /// Makes the machine without running it.
    ///
    /// # Errors
    /// KVM, kernel, initrd or a device is missing or cannot be used.
    pub(crate) fn new(
        config: &BootConfig,
        fds: &mut PassedFds,
        source: Source,
        pmap: &Arc<Pmap>,
        mailbox: &Arc<Mailbox>,
        output: &Arc<Output>,
        room: &Event,
    ) -> Result<Self> {
        let kvm = fds.kvm.take().context("the daemon passed no /dev/kvm")?;
        let hypervisor = Hypervisor::new(kvm, config.cpu.nested)?;
        let devices = VirtioDevices::new(config, fds, pmap, mailbox)?;
        let tables = acpi::tables(config.vcpus, devices.described());
        let loader = Loader::new(source, devices.first_image(), &config.cmdline, config.size, tables)?;
        let serial = Arc::new(SerialPort::new(Arc::clone(output), room.clone()).context("serial port")?);
        let events = EventDevice::new().context("event device")?;
        let (tell, told) = channel();
        let mut ports = Bus::default();
        ports.insert(layout::SERIAL_PORT.into(), 8, Arc::clone(&serial) as _)?;
        ports.insert(layout::KEYBOARD_PORT.into(), 1, Arc::new(KeyboardController(tell.clone())))?;
        ports.insert(layout::PANIC_PORT.into(), 1, Arc::new(PanicDevice(tell.clone())))?;
        ports.insert(layout::POWER_PORT.into(), 3, Arc::new(PowerRegisters(tell.clone())))?;
        ports.insert(layout::EVENT_PORT.into(), 1, Arc::new(events.clone()))?;
        let mut mmio = Bus::default();
        devices.attach(&mut ports, &mut mmio)?;
        Ok(Self {
            pmap: Arc::clone(pmap),
            hypervisor,
            loader,
            vcpus: config.vcpus,
            devices,
            serial,
            output: Arc::clone(output),
            events,
            buses: Buses { ports: Arc::new(ports), mmio: Arc::new(mmio) },
            told,
            tell,
            mailbox: Arc::clone(mailbox),
        })
    }

    /// Takes what console clients type.
    pub(crate) fn serial(&self) -> Arc<SerialPort> {
        Arc::clone(&self.serial)
    }

    /// Changes its disks and interfaces while it runs.
    pub(crate) fn handles(&self) -> DeviceHandles {
        self.devices.handles.clone()
    }

    /// The images that its guest writes.
    pub(crate) fn images(&self) -> WrittenImages {
        self.devices.images.clone()
    }

    /// Runs the guest on threads of the machine's own. `missing` names the parts that the jail
    /// lacks; the daemon is told of them when the guest runs.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(crate) fn start(
        self,
        missing: Vec<JailPart>,
        brake: Arc<Brake>,
        execution: Arc<Execution>,
    ) -> Result<KernelGuest> {
        let guest = KernelGuest {
            balloon: self.devices.balloon.clone(),
            vsock: self.devices.vsock.clone(),
            events: self.events.clone(),
            tell: self.tell.clone(),
        };
        thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || {
                let reason = match self.live(missing, &brake, &execution) {
                    Ok(reason) => reason,
                    Err(error) => ExitReason::Failed(format!("{error:#}")),
                };
                // Before the daemon hears of the end: from then on it does not wait for long.
                self.mailbox.exit(self.devices.images.saved(reason));
            })
            .context("machine thread")?;
        Ok(guest)
    }

    /// Boots the guest, and again whenever it reboots. Returns why it ended.
    fn live(&self, missing: Vec<JailPart>, brake: &Arc<Brake>, execution: &Execution) -> Result<ExitReason> {
        let mut missing = Some(missing);
        loop {
            // Loading needs memory, and memory needs grants: this thread may wait for them.
            let loaded = self.loader.load(self.pmap.ram(), |what| self.mailbox.notice(what))?;
            self.pmap.prioritize(&loaded.pages);
            let vm = Arc::new(self.hypervisor.create_vm(&self.pmap)?);
            self.devices.connect(&vm)?;
            let lines =
                [(self.serial.interrupt(), layout::SERIAL_GSI), (self.events.interrupt(), layout::EVENT_GSI)];
            for (interrupt, gsi) in lines {
                vm.register_irqfd(interrupt, gsi).with_context(|| format!("KVM_IRQFD for line {gsi}"))?;
            }
            let vcpus = self.hypervisor.create_vcpus(&vm, self.vcpus, loaded.entry)?;
            let crew =
                Crew::start(vcpus, &self.buses, &self.tell, brake, execution).context("vCPU threads")?;
            match missing.take() {
                Some(missing) => self.mailbox.running(missing),
                None => self.mailbox.rebooted(),
            }
            let event = self.told.recv().context("no thread runs the guest")?;
            let reason = self.judge(event);
            if let Some(reason) = reason {
                // The vCPUs end with the process.
                return Ok(reason);
            }
            crew.stop();
            // Its counters keep the VM's memory in the kernel alive.
            execution.forget();
            self.devices.disconnect();
            drop(vm);
            self.reset()?;
        }
    }

    /// Whether the VM ends with this event, and why.
    fn judge(&self, event: GuestEvent) -> Option<ExitReason> {
        let panic = self.output.panic_line();
        match (event, panic) {
            (GuestEvent::Off, _) => Some(ExitReason::Shutdown),
            (GuestEvent::Panicked, line) => {
                Some(ExitReason::Crashed(line.unwrap_or_else(|| "its kernel panicked".to_owned())))
            }
            // A kernel without a driver for the panic device only resets the machine.
            (GuestEvent::Reset, Some(line)) => Some(ExitReason::Crashed(line)),
            (GuestEvent::Reset, None) | (GuestEvent::ResetButton, _) => None,
            (GuestEvent::Crashed(how), Some(line)) => Some(ExitReason::Crashed(format!("{line} ({how})"))),
            (GuestEvent::Crashed(how), None) => Some(ExitReason::Crashed(how)),
            (GuestEvent::Failed(what), _) => Some(ExitReason::Failed(what)),
        }
    }

    /// Returns devices, memory and balloon to their state before the guest ran.
    fn reset(&self) -> Result<()> {
        self.devices.reset();
        self.serial.reset();
        self.events.reset();
        self.output.forget_tail();
        // Events that vCPUs sent before they were stopped are about the guest before the reboot.
        while self.told.try_recv().is_ok() {}
        self.pmap.reset().context("reboot: guest memory cannot be given back")?;
        Ok(())
    }
}

/// The running guest, for the control thread.
pub(crate) struct KernelGuest {
    balloon: BalloonHandle,
    vsock: Option<VsockHandle>,
    events: EventDevice,
    tell: Teller,
}

impl Guest for KernelGuest {
    fn press_power_button(&self) {
        self.events.press_power_button();
    }

    fn press_reset_button(&self) {
        self.tell.tell(GuestEvent::ResetButton);
    }

    fn set_balloon_target(&self, pages: Pages) {
        self.balloon.set_target(pages);
    }

    fn balloon(&self) -> BalloonFacts {
        BalloonFacts {
            actual: self.balloon.actual(),
            target: self.balloon.target(),
            driver: self.balloon.has_driver(),
            guest: self.balloon.guest(),
        }
    }

    fn dialed(&self, id: u64, socket: Option<OwnedFd>) {
        if let Some(vsock) = &self.vsock {
            vsock.dialed(id, socket);
        }
    }
}
