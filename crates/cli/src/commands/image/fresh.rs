use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::refused;
use crate::exit::{Status, failed};
use crate::part::{Part, directory};

/// A file that gets its name when it is whole, if nothing has that. Dropped before, it is gone.
pub(in crate::commands) struct Fresh {
    part: Part,
    path: PathBuf,
}

impl Fresh {
    /// Begins the file at `path`, where there is none, with `permissions` less the umask's.
    ///
    /// # Errors
    /// There is one, or the directory cannot be written.
    pub(in crate::commands) fn begin(path: &Path, permissions: u32) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let part = Part::begin(path, permissions).map_err(|error| refused(directory(path), error))?;
        Ok(Self { part, path: path.to_owned() })
    }

    /// The file, open for reading and writing.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(in crate::commands) fn file(&self) -> Result<File> {
        self.part.file().try_clone().map_err(|error| refused(&self.path, error))
    }

    /// Makes the file durable, and gives it its name.
    ///
    /// # Errors
    /// It cannot be written, or there is a file of that name by now.
    pub(in crate::commands) fn finish(self) -> Result<()> {
        let Self { part, path } = self;
        part.add().map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(&path),
            _ => refused(&path, error),
        })?;
        let directory = directory(&path);
        File::open(directory).and_then(|file| file.sync_all()).map_err(|error| refused(directory, error))
    }
}

fn exists(path: &Path) -> anyhow::Error {
    failed(
        Status::Conflict,
        format!("{}: there is a file already: remove it, or name another", path.display()),
    )
}
