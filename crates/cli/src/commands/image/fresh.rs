use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::NamedTempFile;

use super::refused;
use crate::exit::{Status, failed};

/// Permissions of a file that all may read; the umask takes from it.
pub(super) const PUBLIC: u32 = 0o666;

/// A file that gets its name when it is whole. Dropped before, it is gone.
pub(in crate::commands) struct Fresh {
    file: NamedTempFile,
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
        let directory = directory(path);
        let file = tempfile::Builder::new()
            .prefix(".plimsoll-image-")
            .permissions(Permissions::from_mode(permissions))
            .tempfile_in(directory)
            .map_err(|error| refused(directory, error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The file, open for reading and writing.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(in crate::commands) fn file(&self) -> Result<File> {
        self.file.as_file().try_clone().map_err(|error| refused(&self.path, error))
    }

    /// Makes the file durable, and gives it its name.
    ///
    /// # Errors
    /// It cannot be written, or there is a file of that name by now.
    pub(in crate::commands) fn finish(self) -> Result<()> {
        let Self { file, path } = self;
        file.as_file().sync_all().map_err(|error| refused(&path, error))?;
        file.persist_noclobber(&path).map_err(|failure| match failure.error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(&path),
            _ => refused(&path, failure.error),
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

/// The directory that `path` is in.
pub(in crate::commands) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
