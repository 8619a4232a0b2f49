use plimsoll_protocol::control::{DeviceOrder, Facts};
use plimsoll_protocol::definition::{Disk, MacAddress, Net, VmDefinition};
use plimsoll_protocol::status::{DiskStatus, NetStatus};

/// What changes for a VMM when its VM's devices were held to `before` and are to be held to `now`.
pub(super) fn changes(before: &VmDefinition, now: &VmDefinition) -> Vec<DeviceOrder> {
    let before = all(before);
    all(now).into_iter().filter(|order| !before.contains(order)).collect()
}

/// All that a VMM is told of its VM's devices.
pub(super) fn all(definition: &VmDefinition) -> Vec<DeviceOrder> {
    let disks = (0..).zip(&definition.disks);
    let disks = disks.map(|(place, disk)| DeviceOrder::DiskRate { disk: place, rate: disk.into() });
    let nets = (0..).zip(&definition.nets);
    let nets = nets.map(|(place, net)| DeviceOrder::Net { net: place, settings: net.into() });
    disks.chain(nets).collect()
}

/// The disks of a VM, for users.
pub(super) fn disks(definition: &VmDefinition) -> Vec<DiskStatus> {
    let status = |(name, disk): (_, &Disk)| DiskStatus {
        name,
        path: disk.path.clone(),
        iops: disk.iops,
        bandwidth: disk.bandwidth,
        burst: disk.burst.unwrap_or_default(),
    };
    definition.named_disks().map(status).collect()
}

/// The network interfaces of a VM, for users. `facts` are those of its VMM.
pub(super) fn nets(definition: &VmDefinition, facts: &Facts) -> Vec<NetStatus> {
    let status = |(index, net): (usize, &Net)| NetStatus {
        tap: net.tap.clone(),
        mac: net.mac.unwrap_or_else(|| MacAddress::derived(&definition.name, index)),
        link: net.link,
        mac_filter: net.mac_filter,
        filtered: facts.filtered.get(index).copied().unwrap_or_default(),
        packets: net.packets,
        bandwidth: net.bandwidth,
        burst: net.burst.unwrap_or_default(),
    };
    definition.nets.iter().enumerate().map(status).collect()
}
