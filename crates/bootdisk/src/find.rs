//! Finding what a disk boots: each configuration of a boot loader in turn, until one boots a
//! kernel.

use std::fmt;
use std::io;
use std::rc::Rc;

use plimsoll_text::one_line;

use crate::disk::{Disk, Source, Window};
use crate::grub::{self, Boots};
use crate::partition::Scheme;
use crate::table;
use crate::volume::{self, Content, Recognized, Volume};
use crate::{bls, env_block, extlinux};

/// Finds what the disk in `source`, of `size` bytes, boots.
///
/// # Errors
/// What was found on the disk and why none of it can be booted.
pub fn find(source: Box<dyn Source>, size: u64) -> Result<Boot, NothingFound> {
    find_within(source, size, MAX_READ)
}

/// The same; at most `allowance` bytes are read for one purpose.
pub(crate) fn find_within(source: Box<dyn Source>, size: u64, allowance: u64) -> Result<Boot, NothingFound> {
    let disk = Rc::new(Disk::new(source, size, allowance));
    let (scheme, partitions) = table::read(&disk)
        .map_err(|e| NothingFound(one_line(&format!("the disk cannot be read: {e}"), MAX_ACCOUNT)))?;
    let (mut volumes, mut others) = (Vec::new(), Vec::new());
    for partition in partitions.iter().take(MAX_PARTITIONS) {
        let window = Window::new(&disk, partition.start, partition.len);
        disk.renew();
        match volume::look(window, scheme, partition) {
            Recognized::FileSystem(volume) => volumes.push(volume),
            Recognized::Other(what) => others.push(what),
        }
    }
    disk.renew();
    let mut search = Search { disk, volumes, tried: Vec::new() };
    search.run().ok_or_else(|| search.account(scheme, &others))
}

/// What a disk boots.
pub struct Boot {
    /// The kernel.
    pub kernel: File,
    /// The initrds one after the other, each at a multiple of four bytes; `None`: there are none.
    pub initrd: Option<File>,
    /// The kernel's command line: at most [`MAX_CMDLINE`] printable ASCII characters.
    pub cmdline: String,
    /// The entry's title, in one line.
    pub entry: String,
    /// The configuration that has the entry, and where that is: for people, in one line.
    pub configuration: String,
}

/// Nothing on the disk can be booted: what was found, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NothingFound(String);

/// Largest kernel and largest initrd.
pub const MAX_FILE: u64 = 1 << 30;
/// Longest command line in bytes: Linux takes 2048 on x86.
pub const MAX_CMDLINE: usize = 4096;

/// Bytes that may be read for one purpose: to find the partitions; to open one file system, and
/// once more without its journal; to find what is to be booted. Tables, directories and
/// configurations have some MiB, and so have most journals. Less, and file systems with large
/// journals are read as they were before; more, and a hostile disk takes longer.
const MAX_READ: u64 = 256 << 20;
/// Most partitions that are looked at: GPTs have room for 128.
const MAX_PARTITIONS: usize = 128;
/// Longest name in what users are told.
const MAX_NAME: usize = 200;
/// Longest account of what was found.
const MAX_ACCOUNT: usize = 900;
/// Initrds follow each other at multiples of this, as GRUB places them.
const ALIGNMENT: u64 = 4;

/// Directories and files that GRUB's configuration may be in.
const GRUB: [&str; 4] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];
const ENTRIES: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];
const ENV_BLOCKS: [&str; 4] =
    ["/grub2/grubenv", "/boot/grub2/grubenv", "/grub/grubenv", "/boot/grub/grubenv"];
const EXTLINUX: [&str; 8] = [
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/boot/syslinux.cfg",
    "/syslinux.cfg",
];

struct Search {
    disk: Rc<Disk>,
    volumes: Vec<Volume>,
    /// Configurations that boot nothing, and why.
    tried: Vec<String>,
}

impl Search {
    fn run(&mut self) -> Option<Boot> {
        self.efi_grub()
            .or_else(|| self.first(&GRUB, Self::grub_at))
            .or_else(|| self.first(&ENTRIES, Self::bls_at))
            .or_else(|| self.first(&EXTLINUX, Self::extlinux_at))
    }

    /// The GRUB of an EFI system partition, whose configuration names the one to use.
    fn efi_grub(&mut self) -> Option<Boot> {
        for index in 0..self.volumes.len() {
            let volume = &self.volumes[index];
            if !volume.efi && volume.files.kind() != "FAT" {
                continue;
            }
            for vendor in volume.list("/EFI").unwrap_or_default() {
                let path = format!("/EFI/{vendor}/grub.cfg");
                if let Some(boot) = self.grub_at(index, &path) {
                    return Some(boot);
                }
            }
        }
        None
    }

    /// What the first of `paths` boots that boots something, volume by volume.
    fn first(&mut self, paths: &[&str], boot: fn(&mut Self, usize, &str) -> Option<Boot>) -> Option<Boot> {
        (0..self.volumes.len()).find_map(|index| paths.iter().find_map(|path| boot(self, index, path)))
    }

    /// What GRUB's configuration at `path` boots, if there is one.
    fn grub_at(&mut self, index: usize, path: &str) -> Option<Boot> {
        self.volumes[index].file(path)?;
        let boots = grub::default(&self.volumes, index, path);
        self.accept(index, path, boots)
    }

    /// What the entries in `directory` boot, if there is one.
    fn bls_at(&mut self, index: usize, directory: &str) -> Option<Boot> {
        if !self.volumes[index].is_directory(directory) {
            return None;
        }
        let boots = self.bls_default(index, directory);
        self.accept(index, directory, boots)
    }

    /// The entry that `loader.conf` prefers, or the first.
    fn bls_default(&self, index: usize, directory: &str) -> Result<Boots, String> {
        let volume = &self.volumes[index];
        let entries = bls::read(volume, directory).map_err(|e| e.to_string())?;
        let loader = volume.text("/loader/loader.conf").unwrap_or_default();
        let preferred = loader.lines().filter_map(|line| line.trim().split_once([' ', '\t']));
        let preferred =
            preferred.filter(|(key, _)| *key == "default").map(|(_, value)| value.trim()).next_back();
        let wanted = preferred.map(|pattern| pattern.strip_suffix(".conf").unwrap_or(pattern));
        let chosen =
            entries.iter().find(|entry| wanted.is_some_and(|wanted| bls::matches(wanted, &entry.id)));
        let entry = chosen.or(entries.first()).ok_or("no entry boots a Linux kernel")?;
        let block = ENV_BLOCKS.iter().find_map(|path| volume.text(path).ok()).unwrap_or_default();
        let variables = env_block::read(&block);
        let value = |name: &str| variables.get(name).map_or("", String::as_str);
        let initrd = entry.initrd.iter().map(|path| grub::expand(path, value));
        Ok(Boots {
            title: entry.title.clone(),
            kernel: (index, entry.linux.clone()),
            initrd: initrd.filter(|path| !path.is_empty()).map(|path| (index, path)).collect(),
            cmdline: grub::expand(&entry.options, value),
        })
    }

    /// What the configuration of extlinux at `path` boots, if there is one.
    fn extlinux_at(&mut self, index: usize, path: &str) -> Option<Boot> {
        self.volumes[index].file(path)?;
        let boots = self.extlinux_default(index, path);
        self.accept(index, path, boots)
    }

    fn extlinux_default(&self, index: usize, path: &str) -> Result<Boots, String> {
        let text = self.volumes[index].text(path).map_err(|e| e.to_string())?;
        let label = extlinux::default(&text).ok_or("its default label boots no Linux kernel")?;
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let absolute = |name: &String| match name.starts_with('/') {
            true => (index, name.clone()),
            false => (index, format!("{directory}/{name}")),
        };
        Ok(Boots {
            title: label.title().to_owned(),
            kernel: absolute(&label.linux),
            initrd: label.initrd.iter().map(absolute).collect(),
            cmdline: label.append,
        })
    }

    /// Opens what `boots` names; notes why that is not possible.
    fn accept(&mut self, index: usize, path: &str, boots: Result<Boots, String>) -> Option<Boot> {
        let configuration = format!("{path} on {}", self.volumes[index].place);
        match boots.and_then(|boots| self.open(boots, &configuration)) {
            Ok(boot) => Some(boot),
            Err(why) => {
                self.tried.push(format!("{configuration}: {why}"));
                None
            }
        }
    }

    fn open(&self, boots: Boots, configuration: &str) -> Result<Boot, String> {
        let cmdline = boots.cmdline.trim().to_owned();
        if cmdline.len() > MAX_CMDLINE {
            return Err(format!("its command line of {} bytes is too long", cmdline.len()));
        }
        if let Some(strange) = cmdline.chars().find(|letter| letter.is_control() || !letter.is_ascii()) {
            return Err(format!("its command line contains {strange:?}, which is not printable ASCII"));
        }
        let kernel = File::new(&self.disk, vec![self.part(&boots.kernel)?])?;
        let initrd: Vec<Part> =
            boots.initrd.iter().map(|place| self.part(place)).collect::<Result<_, _>>()?;
        let initrd = if initrd.is_empty() { None } else { Some(File::new(&self.disk, initrd)?) };
        let entry = one_line(&boots.title, MAX_NAME);
        let configuration = one_line(configuration, MAX_NAME);
        Ok(Boot { kernel, initrd, cmdline, entry, configuration })
    }

    /// Opens a file. Where /boot is no file system of its own, entries may leave it out of their
    /// paths.
    fn part(&self, (index, path): &(usize, String)) -> Result<Part, String> {
        let volume = &self.volumes[*index];
        let opened = volume.open(path);
        let opened = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                volume.open(&format!("/boot/{path}")).map_err(|_| error)
            }
            opened => opened,
        };
        let name = || format!("{} on {}", one_line(path, MAX_NAME), volume.place);
        match opened {
            Ok((content, length)) => Ok(Part { name: name(), content, start: 0, length }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("{} is not there", name())),
            Err(error) => Err(format!("{} cannot be read ({error})", name())),
        }
    }

    /// What was found on a disk that cannot be booted.
    fn account(&self, scheme: Scheme, others: &[String]) -> NothingFound {
        let table = match scheme {
            Scheme::Gpt => "it has a GPT",
            Scheme::Mbr => "it has an MBR partition table",
            Scheme::Whole => "it has no partition table",
        };
        let mut found: Vec<String> = vec![table.to_owned()];
        found.extend(self.volumes.iter().map(|volume| format!("{} {}", volume.place, volume.files.kind())));
        found.extend(others.iter().cloned());
        let why = match (self.volumes.is_empty(), self.tried.is_empty()) {
            (true, _) => "no file system on it can be read".to_owned(),
            (false, true) => {
                "no configuration of GRUB, of the Boot Loader Specification or of extlinux is on it"
                    .to_owned()
            }
            (false, false) => self.tried.join("; "),
        };
        let text = format!("the disk cannot be booted: {why} (found: {})", found.join(", "));
        NothingFound(one_line(&text, MAX_ACCOUNT))
    }
}

/// A file on the disk, or several one after the other.
pub struct File {
    disk: Rc<Disk>,
    parts: Vec<Part>,
    length: u64,
}

struct Part {
    name: String,
    content: Box<dyn Content>,
    /// Where it begins in the whole.
    start: u64,
    length: u64,
}

impl File {
    fn new(disk: &Rc<Disk>, mut parts: Vec<Part>) -> Result<Self, String> {
        let mut length: u64 = 0;
        for part in &mut parts {
            part.start = length.next_multiple_of(ALIGNMENT);
            if part.length == 0 {
                return Err(format!("{} is empty", part.name));
            }
            length = part.start.saturating_add(part.length);
            if length > MAX_FILE {
                return Err(format!("with {} the kernel or initrd exceeds 1GiB", part.name));
            }
        }
        Ok(Self { disk: Rc::clone(disk), parts, length })
    }

    /// The paths that it comes from, for people.
    pub fn name(&self) -> String {
        self.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Its length in bytes: more than none, at most [`MAX_FILE`].
    #[expect(clippy::len_without_is_empty, reason = "an empty one is refused")]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` with what lies at `offset`.
    ///
    /// # Errors
    /// The disk cannot be read, its file system is damaged, or the bytes are beyond the end.
    pub fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.length);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        // What the files' own tables take comes on top.
        self.disk.allow(4 * buffer.len() as u64 + (4 << 20));
        buffer.fill(0);
        for part in &mut self.parts {
            let (from, to) = (part.start.max(offset), (part.start + part.length).min(end));
            if from < to {
                let range = index(from - offset)..index(to - offset);
                part.content.read(&mut buffer[range], from - part.start)?;
            }
        }
        Ok(())
    }
}

/// An offset in a buffer.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("it is within a buffer")
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let initrd = self.initrd.as_ref().map(File::name);
        f.debug_struct("Boot")
            .field("kernel", &self.kernel.name())
            .field("initrd", &initrd)
            .field("cmdline", &self.cmdline)
            .field("entry", &self.entry)
            .field("configuration", &self.configuration)
            .finish()
    }
}
