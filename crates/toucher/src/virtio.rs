//! Which virtio devices this guest sees, and which drivers took them.

use std::fs;
use std::io;

/// One `NAME:TYPE=DRIVER` per virtio device, in order of name; the driver is `none` where nothing
/// bound it. TYPE is the virtio device type in decimal (1 net, 2 block, 4 entropy, 5 balloon).
pub(crate) fn devices() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/bus/virtio/devices")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = fs::read_to_string(path.join("device"))?;
        let kind = u32::from_str_radix(kind.trim().trim_start_matches("0x"), 16).map_err(io::Error::other)?;
        let driver = fs::read_link(path.join("driver")).ok();
        let driver = driver
            .as_deref()
            .and_then(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned());
        found.push(format!("{name}:{kind}={}", driver.as_deref().unwrap_or("none")));
    }
    found.sort();
    Ok(found)
}
