//! Wrong definitions and commands: each is refused in one line that says what and where, with a
//! non-zero exit, and leaves nothing half made.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::definition::{self, Definition, Runs};
use plimsoll_operate::{Stage, in_lab, program};
use plimsoll_units::Bytes;

use crate::guests::Guests;

/// A user without rights, in the lab as everywhere.
const NOBODY: u32 = 65534;

pub(super) fn run(guests: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(512))?;
    let result = scenario(&stage, guests);
    stage.explained(result)
}

fn scenario(stage: &Stage, guests: Guests) -> Result<()> {
    stage.run(&Definition::new("taken", Bytes::mib(128), guests.run(Version::V6_12)))?;
    let mut failures = Vec::new();
    let mut check = |what: &str, result: Result<()>| match result {
        Ok(()) => note(&format!("refused: {what}")),
        Err(error) => failures.push(format!("{what}: {error:#}")),
    };
    for (what, part, text) in definitions(stage.path())? {
        check(&what, refused_definition(stage, &text, &part));
    }
    for (arguments, part) in COMMANDS {
        check(&format!("plimsoll {arguments}"), refused_command(stage, arguments, part));
    }
    if in_lab() {
        check("a tap device that is in use", busy_tap(stage));
        check("a host without /dev/kvm", without_kvm(stage));
        check("a daemon without rights", daemon_without_rights(stage));
    }
    check("a second daemon at the same directories", second_daemon(stage));
    for (what, part, text) in CONFIGURATIONS {
        check(what, refused_configuration(stage, text, part));
    }
    ensure!(
        failures.is_empty(),
        "{} cases were not as they must be:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

/// Commands that must fail, and a part of what they must say.
const COMMANDS: &[(&str, &str)] = &[
    ("run /no/such/definition.toml", "/no/such/definition.toml"),
    ("stop nobody", "nobody"),
    ("kill nobody", "nobody"),
    ("start nobody", "nobody"),
    ("rm nobody", "nobody"),
    ("show nobody", "nobody"),
    ("console nobody", "nobody"),
    ("logs nobody", "nobody"),
    ("set nobody --shares 100", "nobody"),
    ("pause nobody", "nobody"),
    ("resume nobody", "nobody"),
    ("resume taken", "not paused"),
    ("reset nobody", "nobody"),
    ("wait nobody", "nobody"),
    ("restart nobody", "nobody"),
    ("edit nobody", "nobody"),
    ("rename nobody somebody", "nobody"),
    ("rename taken somebody", "taken"),
    ("create /no/such/definition.toml", "/no/such/definition.toml"),
    ("stop --label a,b", "a,b"),
    ("ps -o colour", "colour"),
    ("ps --format {colour}", "colour"),
    ("events --since yesterday", "yesterday"),
    ("set taken --start-order 1000", "1000"),
    ("set taken --reservation 64", "64MiB"),
    ("rm taken", "taken"),
    ("set taken --reservation 1GiB", "reservation"),
    ("set taken --limit 1MiB", "limit"),
    ("set taken --shares 0", "shares"),
    ("set taken --reservation 10MB", "10MB"),
    ("--socket /no/such.sock ps", "/no/such.sock"),
];

/// Configurations that the daemon must refuse: what is wrong, a part of what must be said, and the
/// text.
const CONFIGURATIONS: &[(&str, &str, &str)] = &[
    ("an unknown key in the configuration", "colour", "colour = 'red'\n"),
    ("a budget of nothing", "budget", "budget = 0\n"),
    ("a swap directory that is missing", "/no/such/swap", "swap_directory = '/no/such/swap'\n"),
    ("a configuration that is no TOML", "line", "budget = = 1\n"),
];

/// Definitions that must be refused: what is wrong, a part of what must be said, and the text.
fn definitions(directory: &Path) -> Result<Vec<(String, String, String)>> {
    let (kernel, initrd) = definition::toucher_image(Version::V6_12)?;
    let image = fs::read(&kernel).with_context(|| format!("reading {}", kernel.display()))?;
    let write = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = directory.join(name);
        fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    };
    let header = write("header-only", &image[..600])?;
    let half = write("half-a-kernel", &image[..image.len() / 2])?;
    let text = write("text-for-a-kernel", &b"this is no kernel\n".repeat(1000))?;
    let empty = write("empty", b"")?;
    let odd = write("odd-sized", &[0; 1000])?;
    let good = format!("name = 'bad'\nsize = '128MiB'\n[boot]\nkernel = {kernel:?}\ninitrd = {initrd:?}\n");
    let with_kernel = |path: &str| format!("name = 'bad'\nsize = '128MiB'\n[boot]\nkernel = {path:?}\n");
    let with_disk = |path: &str| format!("{good}[[disk]]\npath = {path:?}\n");
    let cases = [
        ("an unknown key", "colour", format!("colour = 'red'\n{good}")),
        ("an unknown key in a table", "speed", format!("{good}speed = 3\n")),
        ("a size that is no multiple", "33MiB", good.replace("128MiB", "33MiB")),
        ("a size that is too small", "2MiB", good.replace("128MiB", "2MiB")),
        ("a size without sense", "lots", good.replace("128MiB", "lots")),
        ("too many processors", "vcpus", format!("vcpus = 9\n{good}")),
        ("a reservation over the size", "reservation", format!("reservation = '256MiB'\n{good}")),
        ("a limit below the reservation", "limit", format!("reservation = '96MiB'\nlimit = '64MiB'\n{good}")),
        ("no name", "name", good.replace("name = 'bad'\n", "")),
        ("a name with a path in it", "../bad", good.replace("'bad'", "'../bad'")),
        ("a name twice", "taken", good.replace("'bad'", "'taken'")),
        ("no TOML", "line", "name = = 3\n".to_owned()),
        ("a missing kernel", "/no/such/kernel", with_kernel("/no/such/kernel")),
        ("a kernel of 600 bytes", "header-only", with_kernel(&header)),
        ("half a kernel", "half-a-kernel", with_kernel(&half)),
        ("a text for a kernel", "text-for-a-kernel", with_kernel(&text)),
        ("a directory for a kernel", "/tmp", with_kernel("/tmp")),
        (
            "a missing initrd",
            "/no/such/initrd",
            format!("{}initrd = '/no/such/initrd'\n", with_kernel(&kernel.display().to_string())),
        ),
        ("a missing disk", "/no/such/disk", with_disk("/no/such/disk")),
        ("a directory for a disk", "/tmp", with_disk("/tmp")),
        ("an empty disk", "empty", with_disk(&empty)),
        ("a disk of 1000 bytes", "odd-sized", with_disk(&odd)),
        ("a missing tap device", "no-such-tap", format!("{good}[[net]]\ntap = 'no-such-tap'\n")),
        ("a MAC address for many", "mac", format!("{good}[[net]]\ntap = 't'\nmac = '01:00:00:00:00:00'\n")),
        // Admission: the refusal holds what is needed and what there is.
        (
            "a reservation over the budget",
            "MiB",
            format!("reservation = '1GiB'\n{}", good.replace("128MiB", "1GiB")),
        ),
    ];
    Ok(cases.map(|(what, part, text)| (what.to_owned(), part.to_owned(), text)).into())
}

fn refused_definition(stage: &Stage, text: &str, part: &str) -> Result<()> {
    let file = stage.path().join("bad.toml");
    fs::write(&file, text)?;
    unchanged(stage, || refused(&stage.plimsoll(&["run", &file.display().to_string(), "--wait"])?, part))
}

fn refused_command(stage: &Stage, arguments: &str, part: &str) -> Result<()> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    unchanged(stage, || refused(&stage.plimsoll(&arguments)?, part))
}

/// One line on standard error, which holds `part`, nothing on standard output, and a non-zero exit.
fn refused(output: &Output, part: &str) -> Result<()> {
    let (said, printed) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    ensure!(!output.status.success(), "it was accepted, and printed {:?}", printed.trim());
    ensure!(output.status.code().is_some(), "it ended with {}", output.status);
    ensure!(said.contains(part), "{:?} does not say {part:?}", said.trim());
    // A command line that makes no sense is followed by its usage, after an empty line.
    let lines = said.trim_end().lines().take_while(|line| !line.is_empty()).count();
    ensure!(lines == 1 || output.status.code() == Some(2), "it takes {lines} lines to say {:?}", said.trim());
    ensure!(!said.contains("panicked"), "it panicked: {:?}", said.trim());
    Ok(())
}

/// Whether `act` leaves the VMs and their processes as they are.
fn unchanged(stage: &Stage, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let look = || -> Result<_> {
        let vms = stage.vms()?;
        let names: Vec<_> =
            vms.iter().map(|vm| (vm.name.clone(), vm.power, vm.pid, vm.reservation, vm.limit)).collect();
        Ok((names, vmm_processes()?))
    };
    let before = look()?;
    act()?;
    let after = look()?;
    ensure!(before == after, "it left something: before {before:?}, after {after:?}");
    Ok(())
}

/// Process ids of all VMMs that are no zombies.
fn vmm_processes() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // Processes come and go while one looks.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains("(plimsoll-vmm") && !stat.contains(") Z ") {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn busy_tap(stage: &Stage) -> Result<()> {
    let tap = crate::tap::make("tap-busy")?;
    let mut first = Definition::new("first", Bytes::mib(128), Runs::Toucher(Version::V6_12));
    first.taps.push(tap.clone());
    stage.run(&first)?;
    let mut second = Definition::new("second", Bytes::mib(128), Runs::Toucher(Version::V6_12));
    second.taps.push(tap.clone());
    let result = refused_definition(stage, &second.text()?, &tap);
    stage.plimsoll(&["kill", "first"])?;
    stage.wait_off("first", std::time::Duration::from_secs(30))?;
    result
}

fn without_kvm(stage: &Stage) -> Result<()> {
    fs::rename("/dev/kvm", "/dev/kvm.away").context("moving /dev/kvm away")?;
    let definition = Definition::new("bad", Bytes::mib(128), Runs::Toucher(Version::V6_12));
    let result = definition.text().and_then(|text| refused_definition(stage, &text, "/dev/kvm"));
    fs::rename("/dev/kvm.away", "/dev/kvm").context("moving /dev/kvm back")?;
    result
}

/// A daemon that must not start, with the configuration `text`.
fn daemon(stage: &Stage, text: &str) -> Result<Command> {
    let home = stage.path().join("other");
    fs::create_dir_all(home.join("run"))?;
    let file = home.join("plimsolld.toml");
    fs::write(&file, text)?;
    let mut command = Command::new("timeout");
    command.args(["30"]).arg(program("plimsolld")?).arg("--config").arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn directories(home: &Path) -> String {
    format!("state_directory = {:?}\nrun_directory = {:?}\n", home.join("state"), home.join("run"))
}

fn refused_configuration(stage: &Stage, text: &str, part: &str) -> Result<()> {
    let text = format!("{}{text}", directories(&stage.path().join("other")));
    refused(&daemon(stage, &text)?.output()?, part)
}

fn second_daemon(stage: &Stage) -> Result<()> {
    let text = fs::read_to_string(stage.path().join("plimsolld.toml"))?;
    unchanged(stage, || refused(&daemon(stage, &text)?.output()?, "state"))
}

fn daemon_without_rights(stage: &Stage) -> Result<()> {
    let home = stage.path().join("other");
    let mut command = daemon(stage, &directories(&home))?;
    command.uid(NOBODY).gid(NOBODY);
    refused(&command.output()?, "other")
}
