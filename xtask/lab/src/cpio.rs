//! Archives in the "newc" format of cpio, which the kernel unpacks as its first file system.
//!
//! Written here rather than by the `cpio` program, so that device nodes and owners need no
//! privilege outside.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Component, Path};

use anyhow::{Context, Result, ensure};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that is being written. Everything in it belongs to root. [`Archive::finish`] must be
/// called.
pub struct Archive<W> {
    out: W,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0, directories: BTreeSet::new() }
    }

    /// Adds the directory `path` and those above it, unless they are there already.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        let mut whole = String::new();
        for part in Path::new(path).components() {
            let Component::Normal(part) = part else { continue };
            let part = part.to_str().with_context(|| format!("{path}: names in an image are UTF-8"))?;
            whole = if whole.is_empty() { part.to_owned() } else { format!("{whole}/{part}") };
            if self.directories.insert(whole.clone()) {
                self.entry(&whole, DIRECTORY | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file with `content`; `mode` holds its permission bits.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, FILE | mode, (0, 0), content)
    }

    /// Adds a copy of the file `from` of the machine that builds the image.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let content =
            std::fs::read(from).with_context(|| format!("reading {} for an image", from.display()))?;
        self.file(path, mode, &content)
    }

    /// Adds a symbolic link at `path` to `target`.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.parent(path)?;
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> Result<()> {
        self.parent(path)?;
        self.entry(path, CHARACTER_DEVICE | mode, (major, minor), &[])
    }

    /// Ends the archive and gives the output back.
    pub fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        let parent = Path::new(path).parent().and_then(Path::to_str).unwrap_or_default().to_owned();
        self.directory(&parent)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let name = path.trim_start_matches('/');
        ensure!(!name.is_empty(), "an archive entry needs a name");
        self.inode += 1;
        let size = u32::try_from(content.len())
            .with_context(|| format!("{path}: files of 4 GiB do not fit cpio"))?;
        let name_size = u32::try_from(name.len() + 1).context("a name of 4 GiB")?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        write!(self.out, "070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}", self.inode, 0, 0)?;
        write!(self.out, "{:08x}{size:08x}{:08x}{:08x}", 0, 0, 0)?;
        write!(self.out, "{:08x}{:08x}{name_size:08x}{:08x}", device.0, device.1, 0)?;
        self.out.write_all(name.as_bytes())?;
        // The header is 110 bytes; name and content are each padded to four.
        self.out.write_all(&[0; 4][..1 + padding(110 + name.len() + 1)])?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; 3][..padding(content.len())])?;
        Ok(())
    }
}

/// Zero bytes after `len` bytes up to a multiple of four.
const fn padding(len: usize) -> usize {
    (4 - len % 4) % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_directories_come_once_before_their_files() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/one", 0o644, b"12345").unwrap();
        archive.file("a/b/two", 0o755, b"").unwrap();
        archive.symlink("a/link", "b/one").unwrap();
        let bytes = archive.finish().unwrap();
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let field = |n: usize| {
                let digits = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701", "a header is expected at {at}");
            let (size, name_size) = (field(6), field(11));
            names.push(String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap());
            at += (110 + name_size).next_multiple_of(4);
            at += size.next_multiple_of(4);
        }
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "a/link", "TRAILER!!!"]);
    }
}
