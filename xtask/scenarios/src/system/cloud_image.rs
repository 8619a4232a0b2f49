//! Debian's cloud image, unmodified: a guest boots what its GRUB's configuration says
//! (`boot.from = "disk"`), and cloud-init takes host name, keys and password from the definition's
//! `[cloud_init]`.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use plimsoll_lab::debian::cloud::CloudImage;
use plimsoll_lab::workspace::note;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::{Stage, share};
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::Exit;
use plimsoll_units::Bytes;

use crate::console::{Console, LOGIN};
use crate::guests::Guests;

const NAME: &str = "cloud";

/// The guest's disk. The suffix states its format: `plimsoll image convert` makes what it says.
const DISK: &str = "disk.raw";

const HOSTNAME: &str = "web1";
/// A public key whose other half nobody has.
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vYm9keSBoYXMgdGhlIGtleSB0byB0aGlzIG9uZS4u you@example";
/// Of the image's default user, `debian`, as `openssl passwd -6 -salt plimsoll` makes it.
const PASSWORD: &str = "plimsoll";
const PASSWORD_HASH: &str =
    "$6$plimsoll$9OvCefBPYn88hfAaAMUqckqjuUDt2ml1mNGS3jJvqIuT28wjO4LwJN8vbahsSnfWalz242bnUIA2A4ZOK4FEi/";

/// From start to login prompt, with the programs of cloud-init that run before it: some minutes in
/// the lab.
const BOOT: Duration = Duration::from_secs(1500);
const LIMIT: Duration = Duration::from_secs(600);
/// For what cloud-init does last.
const LONG: Duration = Duration::from_secs(1200);

/// Shows what cloud-init has done.
const LOOK: &str = "echo status: $(cloud-init status --wait); echo name: $(hostname); \
    echo keys: $(cat .ssh/authorized_keys)";

/// Shows what a person would look at when cloud-init has failed.
const TROUBLE: &str = "cloud-init status --long; sudo grep -E 'WARN|ERROR|Traceback' /var/log/cloud-init.log; \
    systemctl --no-pager --failed; systemd-analyze --no-pager blame | head";

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(1024))?;
    let result = scenario(&stage);
    stage.explained(result)
}

fn scenario(stage: &Stage) -> Result<()> {
    let begin = Instant::now();
    let (image, disk) = (share().join(CloudImage::FILE), stage.path().join(DISK));
    let mut convert = stage.command(&["image", "convert"])?;
    let converted = convert.arg(&image).arg(&disk).output().context("starting plimsoll image convert")?;
    let why = String::from_utf8_lossy(&converted.stderr);
    ensure!(converted.status.success(), "plimsoll image convert: {}", why.trim());
    took("the image is converted", begin);

    let mut definition = Definition::new(NAME, Bytes::mib(768), Runs::Disk(disk));
    definition.kernel_words = Some(LOGIN.to_owned());
    definition.cloud_init = Some(format!(
        "hostname = {HOSTNAME:?}\nssh_authorized_keys = [{KEY:?}]\npassword_hash = {PASSWORD_HASH:?}\n"
    ));
    stage.run(&definition)?;
    let mut console = Console::attach(&stage.vm(NAME)?.console)?;
    log_in(&mut console)?;
    let begin = Instant::now();
    let text = console.ask(LOOK, LONG)?;
    took("cloud-init has done everything", begin);
    for wanted in ["status: done", &format!("name: {HOSTNAME}"), &format!("keys: {KEY}")] {
        if !text.contains(wanted) {
            return Err(trouble(&mut console, &format!("{wanted:?} is missing in:\n{text}")));
        }
    }
    let cmdline = console.ask("cat /proc/cmdline", LIMIT)?;
    ensure!(cmdline.contains("BOOT_IMAGE=/boot/vmlinuz-6."), "GRUB's default was not booted:\n{cmdline}");

    console.type_line("sudo poweroff")?;
    let exit = stage.wait_off(NAME, LIMIT)?.exit;
    ensure!(exit == Some(Exit::Told(ExitReason::Shutdown)), "the shutdown was reported as {exit:?}");
    Ok(())
}

/// Waits for the login prompt, which shows the host name that cloud-init has set, and logs in with
/// the password that it has set.
fn log_in(console: &mut Console) -> Result<()> {
    let begin = Instant::now();
    console.expect(&format!("{HOSTNAME} login: "), BOOT)?;
    took("login prompt", begin);
    console.type_line("debian")?;
    console.expect("Password: ", LIMIT)?;
    console.type_line(PASSWORD)?;
    console.expect("$ ", LIMIT)?;
    Ok(())
}

fn took(what: &str, begin: Instant) {
    note(&format!("{what} after {:.0} s", begin.elapsed().as_secs_f64()));
}

/// `what`, with what the guest says of its services and of cloud-init.
fn trouble(console: &mut Console, what: &str) -> Error {
    let said = console.ask(TROUBLE, LONG).unwrap_or_else(|error| format!("{error:#}"));
    Error::msg(format!("{what}\nthe guest says:\n{said}"))
}
