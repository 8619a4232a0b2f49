//! What the daemon reads of others, as functions of any bytes: the targets of `cargo xtask fuzz`.
//!
//! Each panics where the code under test broke a rule.

use std::fs::File;
use std::io::Write;

use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{LONGEST_SAMPLE_PERIOD, MAX_SAMPLES, SHORTEST_SAMPLE_PERIOD};
use rustix::fs::MemfdFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::config::Config;
use crate::inventory::Record;
use crate::launch::RunRecord;
use crate::outline::{self, Outline};
use crate::pools::Pools;
use crate::{format, inventory, launch, pools};

/// The daemon's decisions among hostile VMMs, whose messages come as they are on the wire.
pub fn core(input: &[u8]) {
    crate::core::fuzz::core(input);
}

/// A connection of the API, with a core behind it.
pub fn api(input: &[u8]) {
    crate::api::fuzz::api(input);
}

/// A file that an operator names as a kernel.
pub fn kernel(input: &[u8]) {
    let file = rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory can be made");
    let mut file = File::from(file);
    file.write_all(input).expect("a file in memory can be written");
    match launch::check_kernel(&file, input.len() as u64) {
        Ok(()) => assert!(input.len() >= 1024 && &input[0x202..0x206] == b"HdrS"),
        Err(error) => is_one_line(&format!("{error:#}")),
    }
}

/// A configuration. Files that it names are not looked at.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = Config::parse(text).and_then(|config| {
        let vmm = Some("/proc/self/exe".into());
        let config = Config { vmm, swap_directory: None, tcp: None, ..config };
        config.check().map(|()| config)
    });
    let config = match read {
        Ok(config) => config,
        Err(error) => return is_one_line(&format!("{error:#}")),
    };
    assert!((1..=95).contains(&config.largest_balloon) && config.largest_store <= 50);
    let sampling = config.sampling();
    assert!((1..=MAX_SAMPLES).contains(&sampling.samples));
    assert!((SHORTEST_SAMPLE_PERIOD..=LONGEST_SAMPLE_PERIOD).contains(&sampling.period));
    assert!((0.0..1.0).contains(&config.rules().tax.rate()));
    assert!(config.paths().run.is_absolute() && config.paths().state.is_absolute());
}

/// Records on disk: of a VM, of its run, and of all pools. What is read is written as it was, and
/// of what cannot be read an outline is a possible VM.
pub fn records(input: &[u8]) {
    let vm: VmName = "a".parse().expect("a name");
    let outline = Outline::read(&vm, input);
    if let Some(definition) = &outline.definition {
        assert!(outline::is_possible(definition), "{definition:?}");
    }
    if let Ok(record) = format::parse::<RunRecord>(input) {
        let identity = outline.identity.expect("a whole record names its process");
        assert_eq!((identity.pid, identity.start_time), (record.pid, record.start_time));
        is_kept(&record);
    }
    match inventory::read(&vm, input) {
        Ok(record) => {
            record.definition.check().expect("what is read is checked");
            is_kept::<Record>(&record);
        }
        Err(error) => is_one_line(&format!("{error:#}")),
    }
    let any: Value = serde_json::from_slice(input).unwrap_or_default();
    assert!(outline::is_possible(&outline::sketch(&vm, &any)), "{any}");
    if let Ok(pools) = pools::parse(input) {
        let definitions: Vec<_> = pools.all().cloned().collect();
        Pools::new(definitions.clone()).expect("what is read is possible");
        let again = json!({ "version": format::VERSION, "pools": definitions });
        let again = pools::parse(again.to_string().as_bytes()).expect("what is written can be read");
        assert!(again.all().eq(pools.all()));
    }
}

/// `record` reads as it is after it was written.
fn is_kept<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(record: &T) {
    let mut text = serde_json::to_value(record).expect("a record can be written");
    text["version"] = format::VERSION.into();
    let again: T = format::parse(text.to_string().as_bytes()).expect("what is written can be read");
    assert_eq!(again, *record);
}

fn is_one_line(error: &str) {
    assert!(!error.is_empty() && !error.contains('\n'), "{error:?} is one line");
}
