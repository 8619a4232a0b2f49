//! The readable part of a record that cannot be read in full.
//!
//! A newer version may have written it, a crash may have cut it off, or the checks of a definition
//! may have become stricter. None of that makes its VM less alive. So each key is read on its own,
//! and a key that makes no sense counts as absent.

use std::path::PathBuf;

use jiff::Timestamp;
use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::{
    Boot, Disk, ImageFormat, MAX_CONNECTIONS, MIN_SIZE, Net, VmDefinition, Vsock,
};
use plimsoll_units::Pages;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Which process a run record names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// See [`crate::process::start_time`].
    pub(crate) start_time: u64,
    /// See [`crate::process::boot_id`]; `None`: it is not in the record.
    pub(crate) boot_id: Option<String>,
}

/// The keys of a run record that a daemon needs while the VMM is unreachable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    /// `None`: the record does not name a process.
    pub(crate) identity: Option<Identity>,
    /// The user of the VMM, which no other VM may get.
    pub(crate) uid: Option<u32>,
    /// The context identifier of its vsock; likewise.
    pub(crate) cid: Option<u32>,
    pub(crate) started: Option<Timestamp>,
    /// Swap space that the VM has.
    pub(crate) swap: Pages,
    /// See [`sketch`]; `None`: the record holds no definition.
    pub(crate) definition: Option<VmDefinition>,
}

impl Outline {
    /// Reads what there is of the run record of `vm`.
    pub(crate) fn read(vm: &VmName, text: &[u8]) -> Self {
        let record = serde_json::from_slice(text).unwrap_or_else(|_| Value::Object(fragment(text)));
        let identity = || {
            Some(Identity {
                pid: key(&record, "pid")?,
                start_time: key(&record, "start_time")?,
                boot_id: key(&record, "boot_id"),
            })
        };
        Self {
            identity: identity(),
            uid: key(&record, "uid"),
            cid: key(&record, "cid"),
            started: key(&record, "started"),
            swap: key(&record, "swap").unwrap_or_default(),
            definition: record.get("definition").map(|definition| sketch(vm, definition)),
        }
    }
}

/// The part of a VM's definition that matters while it runs, as far as it can be read. It is a VM
/// that may be shown and charged; it is no definition to start a VM from, or to write down.
pub(crate) fn sketch(vm: &VmName, definition: &Value) -> VmDefinition {
    let boot = definition.get("boot").unwrap_or(&Value::Null);
    let boot = Boot { model: key(boot, "model").unwrap_or_default(), ..Boot::default() };
    let bare = |size| VmDefinition {
        bus: key(definition, "bus").unwrap_or_default(),
        pool: key(definition, "pool").unwrap_or_default(),
        tax: key(definition, "tax"),
        autostart: key(definition, "autostart").unwrap_or_default(),
        start_order: key(definition, "start_order").unwrap_or_default(),
        start_delay: key(definition, "start_delay").unwrap_or_default(),
        labels: key(definition, "labels").unwrap_or_default(),
        memory: key(definition, "memory").unwrap_or_default(),
        ..VmDefinition::new(vm.clone(), size, boot.clone())
    };
    let sized = bare(key(definition, "size").unwrap_or(MIN_SIZE));
    let whole = VmDefinition {
        vcpus: key(definition, "vcpus").unwrap_or(1),
        reservation: key(definition, "reservation").unwrap_or_default(),
        limit: key(definition, "limit"),
        shares: key(definition, "shares").unwrap_or_default(),
        disks: devices(definition, "disk", disk),
        nets: devices(definition, "net", net),
        cloud_init: definition.get("cloud_init").map(|seed| read(seed).unwrap_or_default()),
        vsock: definition.get("vsock").map(vsock),
        ..sized.clone()
    };
    // What is contradictory counts as missing.
    [whole, sized].into_iter().find(is_possible).unwrap_or_else(|| bare(MIN_SIZE))
}

/// Whether there can be a VM of these numbers, whatever it boots.
pub(crate) fn is_possible(definition: &VmDefinition) -> bool {
    let boot = Boot { model: true, ..Boot::default() };
    VmDefinition { boot, ..definition.clone() }.check().is_ok()
}

fn key<T: DeserializeOwned>(object: &Value, key: &str) -> Option<T> {
    read(object.get(key)?)
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

/// The devices of a kind. Each costs memory, so each counts, whatever can be read of it.
fn devices<T>(definition: &Value, kind: &str, device: fn(&Value) -> T) -> Vec<T> {
    definition.get(kind).and_then(Value::as_array).into_iter().flatten().map(device).collect()
}

fn disk(disk: &Value) -> Disk {
    Disk {
        path: key(disk, "path").unwrap_or_default(),
        // A format of a newer version costs what the dearest known one does.
        format: disk
            .get("format")
            .map_or(ImageFormat::Raw, |format| read(format).unwrap_or(ImageFormat::Qcow2)),
        read_only: key(disk, "read_only").unwrap_or_default(),
        cache: key(disk, "cache"),
        ..Disk::new(PathBuf::new())
    }
}

fn net(net: &Value) -> Net {
    let tap = key(net, "tap").unwrap_or_else(|| "unknown".to_owned());
    Net { mac: key(net, "mac"), ..Net::new(tap) }
}

/// What cannot be read of it counts as most.
fn vsock(vsock: &Value) -> Vsock {
    let connections =
        vsock.get("connections").map(|connections| read(connections).unwrap_or(MAX_CONNECTIONS));
    Vsock {
        cid: key(vsock, "cid"),
        connections: connections.unwrap_or(Vsock::default().connections),
        agent: key(vsock, "agent").unwrap_or_default(),
    }
}

/// The first keys of a record that was cut off: those on whole lines of their own.
fn fragment(text: &[u8]) -> serde_json::Map<String, Value> {
    let text = String::from_utf8_lossy(text);
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let pair = |line: &str| {
        let (key, value) = line.trim().strip_suffix(',')?.split_once(':')?;
        Some((serde_json::from_str(key).ok()?, serde_json::from_str(value).ok()?))
    };
    whole.lines().filter_map(pair).fold(serde_json::Map::new(), |mut map, (key, value)| {
        // Keys of objects further inside come later.
        map.entry::<String>(key).or_insert(value);
        map
    })
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::definition::CloudInit;
    use plimsoll_units::Bytes;

    use super::*;

    const RECORD: &str = r#"{
  "version": 9,
  "pid": 41,
  "start_time": 77,
  "boot_id": "b",
  "uid": 1000,
  "started": "2026-01-01T00:00:00Z",
  "definition": {
    "name": "a",
    "size": 67108864,
    "colour": "blue",
    "boot": { "model": true, "pid": 99 }
  }
}"#;

    fn read(text: &str) -> Outline {
        Outline::read(&"a".parse().unwrap(), text.as_bytes())
    }

    #[test]
    fn a_record_of_a_newer_version_still_names_its_process() {
        let outline = read(RECORD);
        let identity = Identity { pid: 41, start_time: 77, boot_id: Some("b".to_owned()) };
        assert_eq!((outline.identity, outline.uid), (Some(identity), Some(1000)));
        let definition = outline.definition.unwrap();
        assert_eq!((definition.size, definition.boot.model), (Bytes::mib(64), true));
    }

    #[test]
    fn a_record_that_was_cut_off_tells_what_stands_before_the_cut() {
        let cut = |at: &str| read(&RECORD[..RECORD.find(at).unwrap()]);
        assert_eq!(cut("\"started\"").identity.map(|id| id.pid), Some(41));
        assert_eq!(cut("7,").identity, None, "half a number is no number");
        assert_eq!(read("").identity, None);
    }

    #[test]
    fn devices_are_charged_although_not_all_can_be_read_of_them() {
        let text = r#"{
            "size": 67108864,
            "disk": [{ "path": "/a", "format": "qcow2", "colour": "blue" }, { "format": "newer" }],
            "net": [{ "tap": 7 }],
            "cloud_init": { "colour": "blue" },
            "vsock": { "connections": 100, "colour": "blue" }
        }"#;
        let sketch = sketch(&"a".parse().unwrap(), &serde_json::from_str(text).unwrap());
        let image = |path: &str| disk(&serde_json::json!({ "path": path, "format": "qcow2" }));
        let known = VmDefinition {
            disks: vec![image("/a"), image("/b")],
            nets: vec![net(&Value::Null)],
            cloud_init: Some(CloudInit::default()),
            vsock: Some(Vsock { connections: 100, ..Vsock::default() }),
            ..super::sketch(&"a".parse().unwrap(), &serde_json::json!({ "size": 67_108_864 }))
        };
        assert_eq!(known.devices(), 5);
        assert_eq!(sketch.overhead(), known.overhead());
    }

    #[test]
    fn a_sketch_is_always_a_possible_vm() {
        let disks = format!(r#"{{"size": 67108864, "disk": [{}0]}}"#, "0, ".repeat(1000));
        let texts = ["{}", "[]", r#"{"size": 1}"#, r#"{"size": 67108864, "limit": 1, "vcpus": 200}"#, &disks];
        for text in texts {
            let sketch = sketch(&"a".parse().unwrap(), &serde_json::from_str(text).unwrap());
            assert!(is_possible(&sketch), "{text}: {sketch:?}");
        }
    }
}
