//! Devices change while their guest runs, with Linux's own drivers: a disk grows, a rate holds and
//! is lifted, a cable is unplugged and plugged in again. What was set holds after a reboot.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::{Answer, Toucher};
use plimsoll_operate::{Stage, in_lab};
use plimsoll_units::Bytes;

use crate::guests::Guests;

const LIMIT: Duration = Duration::from_secs(120);
const NAME: &str = "live";
const TAP: &str = "tap-live";
const SIZE: Bytes = Bytes::mib(16);
const GROWN: Bytes = Bytes::mib(24);
/// Written and read back, so twice as much passes the disk.
const WRITTEN: Bytes = Bytes::mib(4);
/// A second's worth of bytes at the rate that is set. It takes a tenth of it at once.
const RATE: Bytes = Bytes::mib(1);

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(640))?;
    let result = changes(&stage);
    stage.explained(result)
}

fn changes(stage: &Stage) -> Result<()> {
    step("a guest with a disk and an interface");
    let disk = stage.path().join("live.raw");
    File::create(&disk)?.set_len(SIZE.0)?;
    let mut definition = Definition::new(NAME, Bytes::mib(256), Runs::Toucher(Version::V6_12));
    definition.disks.push(disk.clone());
    // Elsewhere there may be no right to make a tap device.
    if in_lab() {
        definition.taps.push(crate::tap::make(TAP)?);
    }
    stage.run(&definition)?;
    let mut toucher = stage.toucher(NAME)?;
    says(&mut toucher, "cat /sys/block/vda/serial", "plimsoll-disk0")?;
    has_sectors(&mut toucher, SIZE)?;

    step("the disk grows");
    stage.succeed(&["disk", "resize", NAME, "vda", &GROWN.to_string()])?;
    ensure!(fs::metadata(&disk)?.len() == GROWN.0, "its file has another size");
    has_sectors(&mut toucher, GROWN)?;
    let last = GROWN.0 / 512 - 1;
    let write = format!("echo the end | dd of=/dev/vda bs=512 seek={last} conv=sync,fsync 2>/dev/null");
    let read = format!("dd if=/dev/vda bs=512 skip={last} 2>/dev/null | head -n 1");
    says(&mut toucher, &format!("{write} && echo 3 > /proc/sys/vm/drop_caches && {read}"), "the end")?;
    let shrink = stage.plimsoll(&["disk", "resize", NAME, "vda", &SIZE.to_string()])?;
    let why = String::from_utf8_lossy(&shrink.stderr);
    ensure!(!shrink.status.success() && why.contains("cannot shrink"), "a disk shrank: {why}");

    step("a rate holds from now on, and is lifted");
    stage.succeed(&["set", NAME, "--disk", "vda", "--bandwidth", &RATE.to_string()])?;
    let taken = written(&mut toucher)?;
    note(&format!("{WRITTEN} written and read at {RATE} a second in {:.1} s", taken.as_secs_f64()));
    // No faster than the rate: that is the promise. The guest may read less than it wrote.
    let least = (WRITTEN.0 / RATE.0).saturating_sub(1);
    ensure!(taken.as_secs() >= least, "faster than the rate of {RATE} a second: {taken:?}");
    stage.succeed(&["set", NAME, "--disk", "vda", "--bandwidth", "none"])?;
    let taken = written(&mut toucher)?;
    note(&format!("{:.1} s without", taken.as_secs_f64()));
    let lifted = stage.vm(NAME)?.disks.iter().all(|disk| disk.bandwidth.is_none());
    ensure!(lifted, "plimsoll show tells of a rate");

    if in_lab() {
        step("the cable is unplugged, and plugged in again after a reboot");
        has_carrier(&mut toucher, true)?;
        stage.succeed(&["set", NAME, "--net", TAP, "--link", "down"])?;
        has_carrier(&mut toucher, false)?;
        toucher.send("reboot")?;
        stage
            .wait("the reboot is counted", LIMIT, |stage| Ok((stage.vm(NAME)?.reboots == 1).then_some(())))?;
        toucher.greet(LIMIT)?;
        has_sectors(&mut toucher, GROWN)?;
        has_carrier(&mut toucher, false)?;
        stage.succeed(&["set", NAME, "--net", TAP, "--link", "up"])?;
        has_carrier(&mut toucher, true)?;
    }
    stage.succeed(&["stop", NAME])?;
    stage.wait_off(NAME, LIMIT).map(drop)
}

/// Writes to the disk and reads it back. Returns the time that it took.
fn written(toucher: &mut Toucher) -> Result<Duration> {
    let began = Instant::now();
    let answer = toucher.ask(&format!("disk /dev/vda {} 3", WRITTEN.0), LIMIT)?;
    let whole = answer.number("bytes")? == WRITTEN.0 && answer.number("mismatched")? == 0;
    ensure!(whole, "the disk has lost what was written: {}", answer.text());
    Ok(began.elapsed())
}

/// The guest sees a disk of `size`, by now or soon.
fn has_sectors(toucher: &mut Toucher, size: Bytes) -> Result<()> {
    says(toucher, "cat /sys/block/vda/size", &(size.0 / 512).to_string())
}

/// The guest sees that the cable is plugged in or not, by now or soon.
fn has_carrier(toucher: &mut Toucher, plugged: bool) -> Result<()> {
    let expected = if plugged { "1" } else { "0" };
    says(toucher, "ip link set eth0 up; cat /sys/class/net/eth0/carrier", expected)
}

/// The guest's shell comes to answer `command` with `expected`.
fn says(toucher: &mut Toucher, command: &str, expected: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = toucher.ask(&format!("run {command}"), LIMIT)?;
        if said(&answer) == expected {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{command:?}: expected {expected:?}, found {:?}", said(&answer));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The last line that a command wrote.
fn said(answer: &Answer) -> &str {
    answer.text().split_once("said: ").map_or("", |(_, said)| said)
}
