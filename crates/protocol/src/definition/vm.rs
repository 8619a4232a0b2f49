use std::collections::BTreeSet;

use plimsoll_units::{Bytes, CHUNK_SIZE, Pages};
use serde::{Deserialize, Serialize};

use super::boot::Boot;
use super::bus::Bus;
use super::cloud_init::{CloudInit, MAX_SEED};
use super::devices::{Balloon, Disk, ImageFormat};
use super::error::DefinitionError;
use super::jail::Jail;
use super::limits::{MAX_SIZE, MAX_VCPUS, MIN_SIZE};
use super::mac::MacAddress;
use super::net::Net;
use super::vsock::{AGENT_SERIAL, Vsock};
use crate::or_none::optional;
#[cfg(feature = "schema")]
use crate::or_none::optional_schema;
use crate::place::Place;
use crate::sharing::Sharing;
use crate::{Labels, MAX_LABELS, Shares, StartDelay, StartOrder, TaxRate, VmName, forgotten_unit};

/// A VM as defined: read with [`VmDefinition::from_toml`], or from JSON and then checked with
/// [`VmDefinition::check`]. Where it is written, keys that have their default values are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(
        description = "A VM as defined. Where it is answered, keys that have their default values are left out."
    )
)]
#[serde(deny_unknown_fields)]
pub struct VmDefinition {
    /// Unique on the host.
    pub name: VmName,
    /// Guest-physical memory; a multiple of 2 MiB within [`MIN_SIZE`] and [`MAX_SIZE`].
    pub size: Bytes,
    /// Number of virtual processors, 1 to [`MAX_VCPUS`].
    #[serde(default = "one_vcpu", skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_VCPUS)))]
    pub vcpus: u8,
    /// Where its devices are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bus: Bus,
    /// Machine memory that the VM always has; at most its limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reservation: Bytes,
    /// Machine memory that the VM never exceeds; `None`: its size.
    #[serde(default, deserialize_with = "optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "optional_schema::<Bytes>"))]
    pub limit: Option<Bytes>,
    /// Weight among its siblings.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shares: Shares,
    /// The resource pool that it is in. Only the daemon knows whether it exists.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool: Place,
    /// The tax on its idle memory; `None`: the host's.
    #[serde(default, deserialize_with = "optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "optional_schema::<TaxRate>"))]
    pub tax: Option<TaxRate>,
    /// It is to be started when the host has booted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub autostart: bool,
    /// Its place among the VMs that start and stop with the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_order: StartOrder,
    /// How long the next VM waits after this one has started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_delay: StartDelay,
    /// What its operator notes about it; at most [`MAX_LABELS`].
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// How its memory is treated.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: Memory,
    /// What its processors offer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu: Cpu,
    /// What it runs.
    pub boot: Boot,
    /// Disks, the first is `/dev/vda`.
    #[serde(default, rename = "disk", skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Network interfaces.
    #[serde(default, rename = "net", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Net>,
    /// What cloud-init in the guest is told; `None`: it gets no seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// Sockets between guest and host; `None`: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Vsock>,
    /// What the balloon device offers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balloon: Balloon,
    /// How the VM's process is confined.
    #[serde(default, skip_serializing_if = "is_default")]
    pub jail: Jail,
}

fn one_vcpu() -> u8 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(vcpus: &u8) -> bool {
    *vcpus == one_vcpu()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How a VM's memory is treated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// The VMs that it shares pages with.
    pub sharing: Sharing,
}

/// What a VM's processors offer in addition to what every VM has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Cpu {
    /// The guest may run VMs of its own (VMX, SVM) if the host's KVM supports it. That exposes the
    /// most intricate part of KVM, so it is off by default.
    pub nested: bool,
}

impl VmDefinition {
    /// A VM of which all but these has its default value: no disks, one processor. It is not
    /// checked.
    pub fn new(name: VmName, size: Bytes, boot: Boot) -> Self {
        Self {
            name,
            size,
            vcpus: one_vcpu(),
            bus: Bus::default(),
            reservation: Bytes::ZERO,
            limit: None,
            shares: Shares::default(),
            pool: Place::default(),
            tax: None,
            autostart: false,
            start_order: StartOrder::default(),
            start_delay: StartDelay::default(),
            labels: Labels::default(),
            memory: Memory::default(),
            cpu: Cpu::default(),
            boot,
            disks: Vec::new(),
            nets: Vec::new(),
            cloud_init: None,
            vsock: None,
            balloon: Balloon::default(),
            jail: Jail::default(),
        }
    }

    /// The most machine memory that the VM may have for its guest.
    pub fn limit(&self) -> Bytes {
        self.limit.unwrap_or(self.size).min(self.size)
    }

    /// Machine memory that the VM takes beside its guest's.
    pub fn overhead(&self) -> Pages {
        let seed = self.cloud_init.as_ref().map_or(Bytes::ZERO, |_| MAX_SEED);
        let images = self.disks.iter().filter(|disk| disk.format == ImageFormat::Qcow2).count() as u64;
        plimsoll_policy::overhead(Pages::floor(self.size), self.vcpus, self.devices())
            + Pages::ceil(seed)
            + Pages::ceil(self.vsock.map_or(Bytes::ZERO, Vsock::overhead))
            + Pages::ceil(Bytes(images * IMAGE_OVERHEAD.0))
    }

    /// How many disks, those of `cloud_init` and of the agent among them, network interfaces and
    /// vsock devices it has.
    pub fn devices(&self) -> usize {
        self.disk_devices() + self.nets.len() + usize::from(self.vsock.is_some())
    }

    fn disk_devices(&self) -> usize {
        let agent = self.vsock.is_some_and(|vsock| vsock.agent);
        self.disks.len() + usize::from(self.cloud_init.is_some()) + usize::from(agent)
    }

    /// The definition of the same VM under another name. Interfaces whose addresses are made from
    /// the name keep them.
    #[must_use]
    pub fn renamed(&self, name: &VmName) -> Self {
        let mut renamed = Self { name: name.clone(), ..self.clone() };
        for (index, net) in renamed.nets.iter_mut().enumerate() {
            net.mac.get_or_insert_with(|| MacAddress::derived(&self.name, index));
        }
        renamed
    }

    /// Checks that no path is relative: the daemon has no directory to resolve it in.
    ///
    /// # Errors
    /// The first path that does.
    pub fn check_paths(&self) -> Result<(), DefinitionError> {
        let disks = self.disks.iter().map(|disk| ("disk.path", &disk.path));
        let seed = self.cloud_init.iter().flat_map(CloudInit::files);
        match self.boot.files().chain(disks).chain(seed).find(|(_, path)| !path.is_absolute()) {
            Some((key, path)) => Err(DefinitionError::new(format!("{key} {path:?}: write an absolute path"))),
            None => Ok(()),
        }
    }

    /// Checks every bound that needs no look at the host. Call it on a definition that did not come
    /// from [`Self::from_toml`].
    ///
    /// # Errors
    /// The first field that is out of its bounds, in one line.
    pub fn check(&self) -> Result<(), DefinitionError> {
        let fail = |text: String| Err(DefinitionError::new(text));
        let size = self.size;
        if size < MIN_SIZE || size > MAX_SIZE || !size.0.is_multiple_of(CHUNK_SIZE) {
            return fail(format!("size {size}: must be a multiple of 2MiB from {MIN_SIZE} to {MAX_SIZE}"));
        }
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return fail(format!("vcpus {}: must be 1 to {MAX_VCPUS}", self.vcpus));
        }
        check_bounds(size, self.reservation, self.limit)?;
        self.shares.check().map_err(DefinitionError::new)?;
        self.boot.check(&self.disks)?;
        self.start_order.check().map_err(DefinitionError::new)?;
        self.start_delay.check().map_err(DefinitionError::new)?;
        let labels = self.labels.0.len();
        if labels > MAX_LABELS {
            return fail(format!("labels: {labels} are too many: at most {MAX_LABELS} are allowed"));
        }
        let (disks, nets, bus) = (self.disk_devices(), self.nets.len(), self.bus);
        let most = bus.max_disks(self.vsock.is_some());
        if disks > most {
            let seed = if self.cloud_init.is_some() { ", with that of cloud_init" } else { "" };
            let vsock = match self.vsock {
                Some(Vsock { agent: true, .. }) => " and vsock, with that of its agent",
                Some(_) => " and vsock",
                None => "",
            };
            return fail(format!(
                "{disks} disks{seed}: at most {most} are allowed with bus = \"{bus}\"{vsock}"
            ));
        }
        let boot = self.boot.files().map(|(_, path)| path);
        let seed = self.cloud_init.iter().flat_map(CloudInit::files).map(|(_, path)| path);
        for path in boot.chain(seed).chain(self.disks.iter().map(|disk| &disk.path)) {
            // Messages of one line name it.
            if path.to_string_lossy().contains(|c: char| c.is_control()) {
                return fail(format!("path {path:?}: control characters are not allowed"));
            }
        }
        self.disks.iter().try_for_each(Disk::check)?;
        self.check_serials()?;
        self.cloud_init.iter().try_for_each(CloudInit::check)?;
        self.vsock.map_or(Ok(()), Vsock::check)?;
        if nets > bus.max_nets() {
            return fail(format!(
                "{nets} network interfaces: at most {} are allowed with bus = \"{bus}\"",
                bus.max_nets()
            ));
        }
        self.nets.iter().try_for_each(Net::check)
    }
}

impl VmDefinition {
    /// Checks that guests can tell disks apart, those of seed and agent included.
    fn check_serials(&self) -> Result<(), DefinitionError> {
        let seed = self.cloud_init.iter().map(|_| Disk::made_serial(self.disks.len()));
        let agent = self.vsock.filter(|vsock| vsock.agent).map(|_| AGENT_SERIAL.to_owned());
        let disks = self.disks.iter().enumerate().map(|(index, disk)| disk.serial(index));
        let mut serials = disks.chain(seed).chain(agent);
        let mut seen = BTreeSet::new();
        match serials.find(|serial| !seen.insert(serial.clone())) {
            Some(twice) => Err(DefinitionError::new(format!("serial {twice:?}: two disks have it"))),
            None => Ok(()),
        }
    }
}

/// What an image takes of its VMM's memory: metadata, buffers and stacks of its threads, a cluster
/// that is decompressed. A few hundred KiB are usual.
const IMAGE_OVERHEAD: Bytes = Bytes::mib(2);

/// Highest limit: above the largest size it means none, and numbers beyond 63 bits could not be
/// written as TOML.
const MAX_LIMIT: Bytes = Bytes::mib(1 << 30);

/// Checks a reservation and a limit against a VM's size.
fn check_bounds(size: Bytes, reservation: Bytes, limit: Option<Bytes>) -> Result<(), DefinitionError> {
    if let Some(meant) = forgotten_unit(reservation) {
        return Err(DefinitionError::new(format!("reservation {reservation}: {meant}")));
    }
    if reservation > size {
        return Err(DefinitionError::new(format!(
            "reservation {reservation} is over the size {size}: lower it"
        )));
    }
    match limit {
        Some(limit) if reservation > limit => Err(DefinitionError::new(format!(
            "reservation {reservation} is over the limit {limit}: lower one or raise the other"
        ))),
        Some(limit) if limit > MAX_LIMIT => Err(DefinitionError::new(format!(
            "limit {limit}: at most {MAX_LIMIT} is allowed; without the key the size is the limit"
        ))),
        Some(limit) if limit < MIN_SIZE => Err(DefinitionError::new(format!(
            "limit {limit}: at least {MIN_SIZE} is needed for a guest to run"
        ))),
        _ => Ok(()),
    }
}
