//! All fuzz targets in one program: libFuzzer's main function calls the one that the environment
//! names with each input.
//!
//! `cargo xtask fuzz` builds and runs it; `cargo xtask fuzz --list` says what each target is. A
//! target panics where the code under test broke a rule. The directories in `corpus` hold the
//! inputs that each begins with.

#![no_main]

mod control;
mod definition;
mod scenario;

use std::sync::LazyLock;

/// Names the target.
const VARIABLE: &str = "PLIMSOLL_FUZZ_TARGET";

/// What libFuzzer calls.
static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        eprintln!("{VARIABLE} names no target: {name:?}");
        std::process::exit(2);
    };
    *target
});

const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("virtio-block", plimsoll_vmm::fuzz::virtio_block),
    ("virtio-net", plimsoll_vmm::fuzz::virtio_net),
    ("virtio-balloon", plimsoll_vmm::fuzz::virtio_balloon),
    ("virtio-entropy", plimsoll_vmm::fuzz::virtio_entropy),
    ("virtio-vsock", plimsoll_vmm::fuzz::virtio_vsock),
    ("virtio-pci", plimsoll_vmm::fuzz::virtio_pci),
    ("boot", plimsoll_vmm::fuzz::boot),
    ("boot-disk", plimsoll_bootdisk::fuzz::disk),
    ("console", plimsoll_vmm::fuzz::console),
    ("image", plimsoll_image::fuzz::image),
    ("swap", plimsoll_pmap::fuzz::swap),
    ("control", control::control),
    ("core", plimsoll_host::fuzz::core),
    ("api", plimsoll_host::fuzz::api),
    ("kernel", plimsoll_host::fuzz::kernel),
    ("config", plimsoll_host::fuzz::config),
    ("records", plimsoll_host::fuzz::records),
    ("definition", definition::definition),
    ("scenario", scenario::scenario),
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));
