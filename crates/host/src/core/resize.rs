use std::time::Instant;

use plimsoll_protocol::change::DiskResize;
use plimsoll_protocol::control::{DeviceOrder, ToVmm};
use plimsoll_protocol::definition::{Disk, ImageFormat};
use plimsoll_protocol::status::DiskSize;
use plimsoll_protocol::{DiskName, VmName};
use plimsoll_units::Bytes;

use super::run::Run;
use super::{Answer, Core, Effect, Failure, FailureKind, REQUEST_TIMEOUT, RequestId, RunId};

/// A disk whose file is to grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Growing {
    pub(crate) request: RequestId,
    pub(crate) vm: VmName,
    /// `None`: the VM is off.
    pub(crate) run: Option<RunId>,
    pub(crate) name: DiskName,
    pub(crate) disk: Disk,
    /// `None`: as much as its file or device has by now.
    pub(crate) size: Option<Bytes>,
}

/// A disk of a run that grows. It is there until the file has grown and the VMM has answered,
/// however long that takes: two growths at once would undo each other's work, and the answer to one
/// would be taken for the other's.
#[derive(Debug)]
pub(crate) struct Growth {
    request: RequestId,
    name: DiskName,
    /// When the request is answered at the latest; `None`: it was.
    until: Option<Instant>,
    /// What its VMM was told; `None`: its file grows first.
    told: Option<Bytes>,
}

impl Growth {
    /// The request that waits for it.
    fn waits(&self) -> Option<RequestId> {
        self.until.map(|_| self.request)
    }
}

/// Disks that grow. First the daemon grows the file, as far as that is its part; then the VMM of a
/// VM that is on tells the guest. One disk of a VM grows at a time.
impl Core {
    pub(super) fn resize_disk(
        &mut self,
        request: RequestId,
        vm: &VmName,
        resize: DiskResize,
    ) -> Result<(), Failure> {
        self.must_be_readable(vm)?;
        let known = self.must_know(vm)?;
        let DiskResize { disk: name, size } = resize;
        let Some(disk) = known.record.definition.disks.get(name.index()).cloned() else {
            let text = format!("VM {vm}: there is no disk {name}: see plimsoll show {vm}");
            return Err(Failure::new(FailureKind::Invalid, text));
        };
        if size.is_some_and(|size| size == Bytes::ZERO || !size.0.is_multiple_of(512)) {
            let text = format!(
                "VM {vm}: a disk of {}B: must be a multiple of 512 bytes",
                size.unwrap_or_default().0
            );
            return Err(Failure::new(FailureKind::Invalid, text));
        }
        // What an image says is taken up without a change of it.
        let is_taken = disk.format == ImageFormat::Qcow2 && size.is_none() && known.run.is_none();
        if disk.read_only && !is_taken {
            let text = format!("disk {name} of VM {vm} is read-only: others may read it as it is");
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        let run = if known.run.is_some() { Some(self.must_be_at_work(vm)?) } else { None };
        let until = Some(self.clock.now + REQUEST_TIMEOUT);
        if let Some(run) = run.and_then(|run| self.run_mut(run)) {
            if run.growth.is_some() {
                let text = format!("a disk of VM {vm} is being resized: try again");
                return Err(Failure::new(FailureKind::Conflict, text));
            }
            run.growth = Some(Growth { request, name, until, told: None });
        }
        let vm = vm.clone();
        self.effect(Effect::Grow(Box::new(Growing { request, vm, run, name, disk, size })));
        Ok(())
    }

    /// The file of a disk has the size that its guest may use, or why it has not.
    pub(super) fn grown(&mut self, growing: Box<Growing>, result: Result<Bytes, Failure>) {
        match result {
            Ok(size) if growing.disk.format == ImageFormat::Qcow2 => self.keep_size(growing, size),
            result => self.tell_size(&growing, result),
        }
    }

    /// Keeps what an image may be from now on. An image that has grown beyond what is on disk of
    /// that would be refused at its next start, so its VMM is told after that. One whose VM is off
    /// is taken as it is at its next start.
    fn keep_size(&mut self, growing: Box<Growing>, size: Bytes) {
        let Some(vm) = self.vms.get_mut(&growing.vm).filter(|vm| vm.run == growing.run) else {
            self.tell_size(&growing, Ok(size));
            return;
        };
        let images = &mut vm.record.images;
        if growing.run.is_some() {
            let image = images.iter_mut().find(|image| image.path == growing.disk.path);
            image.into_iter().for_each(|image| image.size = image.size.max(size));
            let record = Box::new(vm.record.clone());
            self.effect(Effect::Keep(record, growing, size));
        } else {
            images.retain(|image| image.path != growing.disk.path);
            let Growing { request, vm, name: disk, .. } = *growing;
            self.event(Some(&vm), format!("disk {disk} has {size} now"));
            self.save(&vm, vec![(request, Ok(Answer::DiskSize(DiskSize { disk, size })))]);
        }
    }

    /// Has a VMM tell its guest of a disk's size, or answers why it has not grown.
    pub(super) fn tell_size(&mut self, growing: &Growing, result: Result<Bytes, Failure>) {
        let (now, name) = (self.clock.now, growing.name);
        match (growing.run, result) {
            (None, result) => self.answer_growth(Some(growing.request), &growing.vm, name, result),
            (Some(id), Ok(size)) => {
                let Some(run) = self.run_mut(id) else { return };
                let growth = run.growth.as_mut().filter(|growth| growth.request == growing.request);
                if let Some(growth) = growth {
                    growth.told = Some(size);
                    growth.until = growth.until.map(|_| now + REQUEST_TIMEOUT);
                }
                let Ok(disk) = u8::try_from(name.index()) else { return };
                self.effect(Effect::Send(id, ToVmm::Device(DeviceOrder::DiskSize { disk, size })));
            }
            (Some(id), Err(failure)) => {
                let asked = |growth: &mut Growth| growth.request == growing.request;
                if let Some(growth) = self.run_mut(id).and_then(|run| run.growth.take_if(asked)) {
                    self.answer_growth(growth.waits(), &growing.vm, name, Err(failure));
                }
            }
        }
    }

    /// A VMM has told its guest of a disk's size, or why not. What it says of the size is not
    /// believed; less than it was told is the answer to another growth.
    pub(super) fn resized(&mut self, id: RunId, vm: &VmName, disk: u8, outcome: Result<Bytes, String>) {
        let Some(run) = self.run_mut(id) else { return };
        let answers = |growth: &mut Growth| {
            let is_told = |told: Bytes| !matches!(&outcome, Ok(size) if *size < told);
            growth.name.index() == usize::from(disk) && growth.told.is_some_and(is_told)
        };
        let Some(growth) = run.growth.take_if(answers) else { return };
        let size = growth.told.unwrap_or_default();
        let result = outcome.map(|_| size).map_err(|why| Failure::new(FailureKind::Unfit, why));
        self.answer_growth(growth.waits(), vm, growth.name, result);
    }

    /// Answers requests whose disk has not grown in time. It grows on.
    pub(super) fn refuse_late_growths(&mut self) {
        let now = self.clock.now;
        let late = |run: &mut Run| {
            let growth = run.growth.as_mut()?;
            growth.until.take_if(|until| *until <= now)?;
            let what = match growth.told {
                Some(_) => "no answer yet: its guest is told when its VMM gets to it",
                None => "its file has not grown yet: its guest is told when it has",
            };
            Some((growth.request, run.vm.clone(), growth.name, what))
        };
        let late: Vec<_> = self.runs.values_mut().filter_map(|run| late(run)).collect();
        for (request, vm, name, what) in late {
            let failure = Failure::new(FailureKind::Unfit, what);
            self.answer_growth(Some(request), &vm, name, Err(failure));
        }
    }

    /// Refuses a request whose disk does not grow any more.
    pub(super) fn refuse_growth(&mut self, vm: &VmName, growth: &Growth, why: &str) {
        let failure = Failure::new(FailureKind::Unfit, why);
        self.answer_growth(growth.waits(), vm, growth.name, Err(failure));
    }

    /// Tells what came of a growth. `request` is answered; without one an event tells it.
    fn answer_growth(
        &mut self,
        request: Option<RequestId>,
        vm: &VmName,
        disk: DiskName,
        result: Result<Bytes, Failure>,
    ) {
        if let Ok(size) = &result {
            self.event(Some(vm), format!("disk {disk} has {size} now"));
        }
        match (request, result) {
            (Some(request), Ok(size)) => {
                let answer = Ok(Answer::DiskSize(DiskSize { disk, size }));
                self.effect(Effect::Answer(request, answer));
            }
            (Some(request), Err(Failure { kind, text })) => {
                let failure = Failure::new(kind, format!("disk {disk} of VM {vm}: {text}"));
                self.effect(Effect::Answer(request, Err(failure)));
            }
            (None, Ok(_)) => {}
            (None, Err(failure)) => {
                self.event(Some(vm), format!("disk {disk} does not grow: {}", failure.text))
            }
        }
    }
}
