use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_image::Format;
use plimsoll_protocol::definition::{
    Boot, Bus, CloudInit, Disk as DiskDefinition, ImageFormat, Net, VmDefinition,
};
use plimsoll_protocol::status::VmStatus;
use plimsoll_protocol::{Place, VmName};
use plimsoll_units::Bytes;

use super::super::image::{parse_format, refused};
use super::base::{Base, make_directory};
use super::disk::Disk;
use crate::address::Address;
use crate::client::Client;
use crate::context::Context;
use crate::exit::{Status, failed, status_of};

/// Memory of a VM, unless it is given: stock images of Debian, Ubuntu and Fedora boot with it.
const SIZE: Bytes = Bytes::mib(1024);
/// What is added to the image's command line: the console that `plimsoll console` shows.
const APPEND: &str = "console=ttyS0";
/// Longest file of keys.
const MAX_KEYS: u64 = 64 << 10;

/// Where these options stand in the help.
const HEADING: &str = "With --image";

#[derive(Debug, clap::Args)]
pub(super) struct FromImage {
    /// Disk image to boot, such as one that was downloaded
    #[arg(long, value_name = "FILE", conflicts_with = "definition", help_heading = HEADING)]
    image: Option<PathBuf>,
    /// Its format, raw or qcow2 [default: qcow2 of NAME.qcow2, raw of NAME.raw]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format, requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    format: Option<Format>,
    /// Name of the VM [default: the image's, up to the last dot]
    #[arg(long, value_name = "NAME", requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    name: Option<VmName>,
    /// Memory that the guest sees [default: 1GiB]
    #[arg(long, value_name = "SIZE", requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    size: Option<Bytes>,
    /// Virtual processors [default: 1]
    #[arg(long, value_name = "N", requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    vcpus: Option<u8>,
    /// Public keys that log the image's default user in, by cloud-init
    #[arg(long, value_name = "FILE.pub", requires = "image", conflicts_with_all = ["user_data", "definition"], help_heading = HEADING)]
    ssh_key: Vec<PathBuf>,
    /// File for cloud-init in the guest, which the daemon reads at each start
    #[arg(long, value_name = "FILE", requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    user_data: Option<PathBuf>,
    /// Tap device to connect the guest to
    #[arg(long, value_name = "TAP", requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    tap: Vec<String>,
    /// Disk to make [default: NAME.qcow2 in the daemon's directory]
    #[arg(long, value_name = "FILE", requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    disk: Option<PathBuf>,
    /// Size of the disk [default: the image's]
    #[arg(long, value_name = "SIZE", requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    disk_size: Option<Bytes>,
    /// Print the definition that the VM would have, and make nothing
    #[arg(long, requires = "image", conflicts_with = "definition", help_heading = HEADING)]
    print: bool,
}

impl FromImage {
    /// Makes the VM's disk and has `define` define the VM.
    ///
    /// # Errors
    /// As for [`super::NewVm::define`].
    pub(super) fn define(
        &self,
        pool: Option<&Place>,
        context: &Context,
        define: impl FnOnce(&Client, &VmDefinition) -> Result<VmStatus>,
    ) -> Result<Option<VmStatus>> {
        let file = self.image.as_deref().ok_or_else(|| invalid("name an image with --image".to_owned()))?;
        let format = stated(file, self.format)?;
        let name = self.name(file)?;
        let cloud_init = self.cloud_init()?;
        if matches!(context.client.address(), Address::Tcp { .. }) {
            return Err(invalid(
                "--image makes files on the daemon's host: run it there, on the daemon's unix socket"
                    .to_owned(),
            ));
        }
        let host = context.client.host()?;
        let (Some(images), Some(disks)) = (host.image_directory, host.disk_directory) else {
            return Err(failed(
                Status::Other,
                "the daemon does not tell where images lie: restart plimsolld",
            ));
        };
        must_be_free(&name, &context.client)?;
        let path = match &self.disk {
            Some(disk) => std::path::absolute(disk).map_err(|error| refused(disk, error))?,
            None => disks.join(format!("{name}.qcow2")),
        };
        let definition = self.definition(name, &path, cloud_init, pool);
        definition.check().map_err(|error| invalid(error.to_string()))?;
        let base = Base::find(file, format, &images, &context.output)?;
        let size = Disk::plan(&path, &base, self.disk_size)?;
        if self.print {
            let text = definition.to_toml()?;
            context.output.facts(&definition, |_| text)?;
            return Ok(None);
        }
        if self.disk.is_none() {
            make_directory(&disks, 0o700)?;
        }
        base.keep(&context.output)?;
        let disk = Disk::make(&path, &base, size)?;
        let vm = match define(&context.client, &definition) {
            Ok(vm) => vm,
            Err(error) => return Err(disk.undo(error, &definition.name, &context.client)),
        };
        if self.ssh_key.is_empty() && self.user_data.is_none() {
            context.output.remark(
                "note: without --ssh-key and --user-data nobody can log in, unless the image has an account with a password",
            );
        }
        Ok(Some(vm))
    }

    fn name(&self, file: &Path) -> Result<VmName> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        stem.parse::<VmName>().map_err(|error| invalid(format!("{error}; give the VM a name with --name")))
    }

    fn cloud_init(&self) -> Result<CloudInit> {
        let user_data = self.user_data.as_ref().map(|path| {
            // The daemon would refuse it when all else is made.
            File::open(path).and_then(|_| std::path::absolute(path)).map_err(|error| refused(path, error))
        });
        let mut keys = Vec::new();
        for path in &self.ssh_key {
            keys.extend(public_keys(path)?);
        }
        Ok(CloudInit { user_data: user_data.transpose()?, ssh_authorized_keys: keys, ..CloudInit::default() })
    }

    fn definition(&self, name: VmName, disk: &Path, seed: CloudInit, pool: Option<&Place>) -> VmDefinition {
        let disk = DiskDefinition { format: ImageFormat::Qcow2, ..DiskDefinition::new(disk) };
        let size = self.size.unwrap_or(SIZE);
        VmDefinition {
            vcpus: self.vcpus.unwrap_or(1),
            // Where images of all makers look for their devices.
            bus: Bus::Pci,
            pool: pool.cloned().unwrap_or_default(),
            disks: vec![disk],
            nets: self.tap.iter().map(Net::new).collect(),
            // Also without keys: with a seed, cloud-init looks for no other.
            cloud_init: Some(seed),
            ..VmDefinition::new(name, size, Boot::from_disk(APPEND))
        }
    }
}

fn invalid(text: String) -> anyhow::Error {
    failed(Status::Invalid, text)
}

/// The format of `file`: the one that is given, or that of its name. Names such as `NAME.img` are
/// in use for both.
fn stated(file: &Path, given: Option<Format>) -> Result<Format> {
    let by_name = || match file.extension()?.to_str()? {
        "qcow2" => Some(Format::Qcow2),
        "raw" => Some(Format::Raw),
        _ => None,
    };
    given.or_else(by_name).ok_or_else(|| {
        invalid(format!(
            "{}: its name does not end in .qcow2 or .raw: state its format with --format qcow2 or --format raw \
             (qemu-img info tells it); unpack it first if it is packed",
            file.display()
        ))
    })
}

fn must_be_free(name: &VmName, client: &Client) -> Result<()> {
    match client.vm(name) {
        Ok(_) => Err(failed(
            Status::Conflict,
            format!(
                "there is a VM {name} already: start it with plimsoll start {name}, or name another with --name"
            ),
        )),
        Err(error) if status_of(&error) == Status::Unknown => Ok(()),
        Err(error) => Err(error),
    }
}

/// The keys in the file at `path`.
fn public_keys(path: &Path) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_KEYS + 1).read_to_end(&mut bytes));
    read.map_err(|error| refused(path, error))?;
    keys_in(&bytes).map_err(|why| invalid(format!("{}: {why}", path.display())))
}

fn keys_in(bytes: &[u8]) -> Result<Vec<String>, &'static str> {
    let text = str::from_utf8(bytes).map_err(|_| "it is no file of public keys")?;
    if text.contains("PRIVATE KEY-----") {
        return Err("it is a private key: name the public one, whose name ends in .pub");
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    match keys.is_empty() || bytes.len() as u64 > MAX_KEYS {
        true => Err("it is no file of public keys"),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_stated_by_the_name_or_an_option_and_never_guessed() {
        let of = |file: &str, given| stated(Path::new(file), given).ok();
        assert_eq!(of("/a/b.qcow2", None), Some(Format::Qcow2));
        assert_eq!(of("b.raw", None), Some(Format::Raw));
        assert_eq!(of("b.qcow2", Some(Format::Raw)), Some(Format::Raw));
        assert_eq!(of("b.img", Some(Format::Qcow2)), Some(Format::Qcow2));
        for file in ["b.img", "b", "qcow2", "b.qcow2.xz", ".qcow2", "b.QCOW2"] {
            assert_eq!(of(file, None), None, "{file}");
        }
    }

    #[test]
    fn public_keys_are_read_and_private_ones_are_not_sent() {
        let file = b"# mine\nssh-ed25519 AAAA a@b\r\n\n  ssh-rsa BBBB  \n";
        assert_eq!(keys_in(file).unwrap(), ["ssh-ed25519 AAAA a@b", "ssh-rsa BBBB"]);
        let private = b"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n";
        assert!(keys_in(private).unwrap_err().contains("private key"));
        for bytes in [&b""[..], b"# nothing\n", b"\xff\xfe", &[b'x'; 70_000]] {
            assert!(keys_in(bytes).is_err());
        }
    }
}
