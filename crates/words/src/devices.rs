//! A VM's disks and network interfaces, and what they are held to, as text.

use plimsoll_protocol::status::{DiskStatus, NetStatus};
use plimsoll_protocol::{Burst, LinkState};
use plimsoll_units::Bytes;

/// All disks, in their order.
pub fn disks(disks: &[DiskStatus]) -> String {
    disks.iter().map(disk).collect::<Vec<_>>().join("; ")
}

/// All network interfaces, in their order.
pub fn nets(nets: &[NetStatus]) -> String {
    nets.iter().map(net).collect::<Vec<_>>().join("; ")
}

/// One disk.
pub fn disk(disk: &DiskStatus) -> String {
    let limits = limits(disk.iops, "requests", disk.bandwidth, disk.burst);
    format!("{} {} ({limits})", disk.name, disk.path.display())
}

/// One network interface.
pub fn net(net: &NetStatus) -> String {
    let limits = limits(net.packets, "packets", net.bandwidth, net.burst);
    let down = if net.link == LinkState::Down { "link down, " } else { "" };
    let filter = if net.mac_filter {
        format!(", MAC filter: {} packets dropped", net.filtered)
    } else {
        String::new()
    };
    format!("{} {} ({down}{limits}{filter})", net.tap, net.mac)
}

fn limits(operations: Option<u64>, name: &str, bandwidth: Option<Bytes>, burst: Burst) -> String {
    let operations = operations.map(|operations| format!("{operations} {name}/s"));
    let bandwidth = bandwidth.map(|bytes| format!("{bytes}/s"));
    let rates: Vec<String> = operations.into_iter().chain(bandwidth).collect();
    if rates.is_empty() { "no limit".to_owned() } else { format!("{}, burst {burst}", rates.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_devices_are_told_and_their_absence_too() {
        let named: Vec<DiskStatus> = serde_json::from_value(serde_json::json!([
            {"name": "vda", "path": "/srv/a.raw", "iops": 500, "bandwidth": 50 << 20, "burst": "2s"},
            {"name": "vdb", "path": "/dev/vg0/b", "burst": "100ms"},
        ]))
        .unwrap();
        assert_eq!(
            disks(&named),
            "vda /srv/a.raw (500 requests/s, 50MiB/s, burst 2s); vdb /dev/vg0/b (no limit)"
        );
        let named: Vec<NetStatus> = serde_json::from_value(serde_json::json!([
            {"tap": "tap0", "mac": "52:54:00:12:34:56", "packets": 1000, "burst": "100ms", "link": "up",
             "mac_filter": false, "filtered": 0},
            {"tap": "tap1", "mac": "52:54:00:12:34:57", "burst": "100ms", "link": "down", "mac_filter": true,
             "filtered": 3},
        ]))
        .unwrap();
        assert_eq!(
            nets(&named),
            "tap0 52:54:00:12:34:56 (1000 packets/s, burst 100ms); \
             tap1 52:54:00:12:34:57 (link down, no limit, MAC filter: 3 packets dropped)"
        );
    }
}
