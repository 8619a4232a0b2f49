//! File systems, and what else can lie in a partition.

mod ext;
mod fat;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod memory;
mod other;

use std::io;

use crate::disk::{Disk, Window};
use crate::partition::{Partition, Scheme};

/// Most symbolic links on the way to a file, as in Linux.
const MAX_LINKS: usize = 40;
/// Longest path, as in Linux.
const MAX_PATH: usize = 4096;
/// Most names that are listed of a directory: Debian's with the most have some thousand.
pub(crate) const MAX_NAMES: usize = 16 << 10;
/// Longest text that is read. GRUB's configurations have some 10 KiB.
const MAX_TEXT: u64 = 1 << 20;

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A file of this length.
    File(u64),
    Directory,
    Link,
    /// A device, a socket or a pipe.
    Other,
}

/// A file that is open.
pub(crate) trait Content {
    /// Fills `buffer` with what lies at `offset`.
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A file system. Paths begin with a slash and have no links in them, unless they end with one.
pub(crate) trait FileSystem {
    /// Its name.
    fn kind(&self) -> &'static str;
    /// As GRUB and Linux write it.
    fn uuid(&self) -> &str;
    fn label(&self) -> &str;
    /// What is at `path`. `NotFound`: nothing is.
    fn node(&self, path: &str) -> io::Result<Node>;
    /// Where the link at `path` leads.
    fn link(&self, path: &str) -> io::Result<String>;
    /// Names in the directory at `path`, those that are text, at most [`MAX_NAMES`].
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Opens the file at `path`.
    fn open(&self, path: &str) -> io::Result<Box<dyn Content>>;
}

/// A file system and where it is.
pub(crate) struct Volume {
    /// For people: "partition 1", "the disk".
    pub(crate) place: String,
    /// GRUB's name of it: "hd0,gpt1", "hd0".
    pub(crate) device: String,
    /// It is on an EFI system partition.
    pub(crate) efi: bool,
    pub(crate) files: Box<dyn FileSystem>,
}

/// What is in a partition.
pub(crate) enum Recognized {
    FileSystem(Volume),
    /// Something else: for people, "partition 2 xfs (cannot be read)".
    Other(String),
}

/// Looks at what is in `partition` of a disk that is divided by `scheme`.
pub(crate) fn look(window: Window, scheme: Scheme, partition: &Partition) -> Recognized {
    let number = partition.number;
    let (place, device) = match scheme {
        Scheme::Gpt => (format!("partition {number}"), format!("hd0,gpt{number}")),
        Scheme::Mbr => (format!("partition {number}"), format!("hd0,msdos{number}")),
        Scheme::Whole => ("the disk".to_owned(), "hd0".to_owned()),
    };
    let opened: io::Result<Box<dyn FileSystem>> = match other::recognize(&window) {
        Err(error) => Err(error),
        Ok(other::Kind::Ext) => ext::open(window),
        Ok(other::Kind::Fat) => fat::open(window),
        Ok(other::Kind::Other(name)) => return Recognized::Other(format!("{place} {name}")),
    };
    match opened {
        Ok(files) => Recognized::FileSystem(Volume { place, device, efi: partition.efi, files }),
        Err(error) => Recognized::Other(format!("{place} a file system that cannot be read ({error})")),
    }
}

/// Whether the disk as a whole is a FAT file system.
pub(crate) fn is_fat(disk: &Disk) -> io::Result<bool> {
    let mut sector = [0; fat::BOOT_SECTOR];
    if disk.size() < sector.len() as u64 {
        return Ok(false);
    }
    disk.read(&mut sector, 0)?;
    Ok(fat::Layout::of(&sector, disk.size()).is_ok())
}

impl Volume {
    /// The path without links of what is at `path`. `NotFound`: nothing is.
    pub(crate) fn resolve(&self, path: &str) -> io::Result<(String, Node)> {
        let long = || io::Error::other("its path is too long");
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let (mut done, mut links, mut node) = (String::new(), 0, Node::Directory);
        while let Some(name) = todo.pop() {
            if name.is_empty() || name == "." {
                continue;
            }
            if node != Node::Directory {
                return Err(io::ErrorKind::NotFound.into());
            }
            if name == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let parent = done.len();
            done = done + "/" + &name;
            if done.len() > MAX_PATH || todo.len() > MAX_PATH {
                return Err(long());
            }
            node = self.files.node(&done)?;
            if node == Node::Link {
                links += 1;
                let target = self.files.link(&done)?;
                if links > MAX_LINKS {
                    return Err(io::Error::other("too many symbolic links"));
                }
                done.truncate(if target.starts_with('/') { 0 } else { parent });
                todo.extend(target.split('/').rev().map(str::to_owned));
                node = Node::Directory;
            }
        }
        if done.is_empty() {
            done.push('/');
        }
        Ok((done, node))
    }

    /// The length of the file at `path`, if there is a file.
    pub(crate) fn file(&self, path: &str) -> Option<u64> {
        match self.resolve(path) {
            Ok((_, Node::File(length))) => Some(length),
            _ => None,
        }
    }

    /// Whether there is a directory at `path`.
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        matches!(self.resolve(path), Ok((_, Node::Directory)))
    }

    /// Names in the directory at `path`, sorted; none where there is no such directory.
    pub(crate) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let path = match self.resolve(path) {
            Ok((path, Node::Directory)) => path,
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = self.files.list(&path)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Opens the file at `path`; with its length.
    pub(crate) fn open(&self, path: &str) -> io::Result<(Box<dyn Content>, u64)> {
        match self.resolve(path)? {
            (path, Node::File(length)) => Ok((self.files.open(&path)?, length)),
            _ => Err(io::Error::other("it is no regular file")),
        }
    }

    /// The text of the file at `path`, which is at most [`MAX_TEXT`] long. What is not UTF-8 is
    /// replaced.
    pub(crate) fn text(&self, path: &str) -> io::Result<String> {
        let (mut content, length) = self.open(path)?;
        if length > MAX_TEXT {
            return Err(io::Error::other(format!("its {length} bytes are too many for a configuration")));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        content.read(&mut bytes, 0)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }
}

#[cfg(test)]
mod tests;
