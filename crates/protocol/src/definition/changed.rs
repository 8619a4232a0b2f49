use super::devices::Disk;
use super::error::DefinitionError;
use super::net::Net;
use super::vm::VmDefinition;
use crate::change::{DiskChange, NetChange, VmChange};
use crate::disk_name::DiskName;
use crate::or_none::OrNone;

/// Definitions before and after changes.
impl VmDefinition {
    /// The definition after `change`. The result is not checked.
    #[must_use]
    pub fn changed(&self, change: &VmChange) -> Self {
        let mut changed = self.clone();
        changed.shares = change.shares.unwrap_or(self.shares);
        changed.reservation = change.reservation.unwrap_or(self.reservation);
        changed.limit = change.limit.map_or(self.limit, OrNone::option);
        changed.tax = change.tax.map_or(self.tax, OrNone::option);
        changed.pool = change.pool.clone().unwrap_or(changed.pool);
        changed.autostart = change.autostart.unwrap_or(self.autostart);
        changed.start_order = change.start_order.unwrap_or(self.start_order);
        changed.start_delay = change.start_delay.unwrap_or(self.start_delay);
        for (key, value) in &change.labels {
            match value {
                Some(value) => drop(changed.labels.0.insert(key.clone(), value.clone())),
                None => drop(changed.labels.0.remove(key)),
            }
        }
        changed.memory.sharing = change.sharing.clone().unwrap_or(changed.memory.sharing);
        for (name, change) in &change.disks {
            if let Some(disk) = changed.disks.get_mut(name.index()) {
                disk.apply(change);
            }
        }
        for net in &mut changed.nets {
            if let Some(change) = change.nets.get(&net.tap) {
                net.apply(change);
            }
        }
        changed
    }

    /// The change that makes this definition `new`; `None`: they differ in what no change has.
    pub fn change_to(&self, new: &Self) -> Option<VmChange> {
        let gone = self.labels.0.keys().filter(|key| !new.labels.0.contains_key(key));
        let labels = new.labels.0.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        let change = VmChange {
            shares: Some(new.shares),
            reservation: Some(new.reservation),
            limit: Some(or_none(new.limit)),
            pool: Some(new.pool.clone()),
            sharing: Some(new.memory.sharing.clone()),
            autostart: Some(new.autostart),
            start_order: Some(new.start_order),
            start_delay: Some(new.start_delay),
            labels: labels.chain(gone.map(|key| (key.clone(), None))).collect(),
            tax: Some(or_none(new.tax)),
            disks: new.named_disks().map(|(name, disk)| (name, disk.all())).collect(),
            nets: new.nets.iter().map(|net| (net.tap.clone(), net.all())).collect(),
        };
        (self.changed(&change) == *new).then_some(change)
    }

    /// Checks that the VM has the devices that `change` names.
    ///
    /// # Errors
    /// The first one that it lacks, and those that it has, on one line.
    pub fn check_devices(&self, change: &VmChange) -> Result<(), DefinitionError> {
        let lacks = |kind: &str, name: &str, has: Vec<String>| {
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            Err(DefinitionError::new(format!("there is no {kind} {name}: the VM has {has}")))
        };
        if let Some(name) = change.disks.keys().find(|name| name.index() >= self.disks.len()) {
            let has = self.named_disks().map(|(name, _)| name.to_string()).collect();
            return lacks("disk", &name.to_string(), has);
        }
        match change.nets.keys().find(|tap| self.nets.iter().all(|net| net.tap != **tap)) {
            Some(tap) => {
                lacks("interface with tap", tap, self.nets.iter().map(|net| net.tap.clone()).collect())
            }
            None => Ok(()),
        }
    }

    /// The disks, with the names that guests give them.
    pub fn named_disks(&self) -> impl Iterator<Item = (DiskName, &Disk)> {
        self.disks.iter().enumerate().filter_map(|(index, disk)| Some((DiskName::of(index)?, disk)))
    }
}

impl Disk {
    fn apply(&mut self, change: &DiskChange) {
        self.iops = change.iops.map_or(self.iops, OrNone::option);
        self.bandwidth = change.bandwidth.map_or(self.bandwidth, OrNone::option);
        self.burst = change.burst.map_or(self.burst, OrNone::option);
    }

    /// The change to all that a change has of this disk.
    fn all(&self) -> DiskChange {
        DiskChange {
            iops: Some(or_none(self.iops)),
            bandwidth: Some(or_none(self.bandwidth)),
            burst: Some(or_none(self.burst)),
        }
    }
}

impl Net {
    fn apply(&mut self, change: &NetChange) {
        self.link = change.link.unwrap_or(self.link);
        self.mac_filter = change.mac_filter.unwrap_or(self.mac_filter);
        self.packets = change.packets.map_or(self.packets, OrNone::option);
        self.bandwidth = change.bandwidth.map_or(self.bandwidth, OrNone::option);
        self.burst = change.burst.map_or(self.burst, OrNone::option);
    }

    /// The change to all that a change has of this interface.
    fn all(&self) -> NetChange {
        NetChange {
            link: Some(self.link),
            mac_filter: Some(self.mac_filter),
            packets: Some(or_none(self.packets)),
            bandwidth: Some(or_none(self.bandwidth)),
            burst: Some(or_none(self.burst)),
        }
    }
}

fn or_none<T>(value: Option<T>) -> OrNone<T> {
    value.map_or(OrNone::None, OrNone::To)
}
