//! Files in memory, for tests and the fuzzer.

use std::collections::BTreeMap;
use std::io;

use super::{Content, FileSystem, Node, Volume};

/// What a path stands for.
pub(crate) enum File {
    Bytes(Vec<u8>),
    Link(String),
}

/// A file system: files by their paths. Directories are there for the files in them.
#[derive(Default)]
pub(crate) struct Memory {
    files: BTreeMap<String, File>,
    uuid: Option<&'static str>,
}

impl Memory {
    pub(crate) fn with(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), File::Bytes(bytes.into()));
        self
    }

    pub(crate) fn with_link(mut self, path: &str, target: &str) -> Self {
        self.files.insert(path.to_owned(), File::Link(target.to_owned()));
        self
    }

    #[cfg(test)]
    pub(crate) fn with_uuid(mut self, uuid: &'static str) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// It as partition 1 of a GPT.
    pub(crate) fn volume(self) -> Volume {
        let (place, device) = ("partition 1".to_owned(), "hd0,gpt1".to_owned());
        Volume { place, device, efi: false, files: Box::new(self) }
    }
}

impl FileSystem for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn uuid(&self) -> &'static str {
        self.uuid.unwrap_or("11111111-2222-3333-4444-555555555555")
    }

    fn label(&self) -> &'static str {
        "root"
    }

    fn node(&self, path: &str) -> io::Result<Node> {
        match self.files.get(path) {
            Some(File::Bytes(bytes)) => Ok(Node::File(bytes.len() as u64)),
            Some(File::Link(_)) => Ok(Node::Link),
            None if self.files.keys().any(|file| file.starts_with(&format!("{path}/"))) => {
                Ok(Node::Directory)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn link(&self, path: &str) -> io::Result<String> {
        match self.files.get(path) {
            Some(File::Link(target)) => Ok(target.clone()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let begin = format!("{}/", path.trim_end_matches('/'));
        let names = self.files.keys().filter_map(|file| file.strip_prefix(&begin)?.split('/').next());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Content>> {
        match self.files.get(path) {
            Some(File::Bytes(bytes)) => Ok(Box::new(Open(bytes.clone()))),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

struct Open(Vec<u8>);

impl Content for Open {
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.0.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
