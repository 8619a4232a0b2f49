use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::leftovers::Temporary;

/// Permissions of a file that all may read; the umask takes from it.
pub(crate) const PUBLIC: u32 = 0o666;

/// A file that gets its name when it is whole. Dropped before, or left by a signal that ends the
/// process, it is gone.
pub(crate) struct Part {
    file: Temporary,
    path: PathBuf,
}

impl Part {
    /// Begins the file at `path`, with `permissions` less the umask's.
    ///
    /// # Errors
    /// Its directory cannot be written.
    pub(crate) fn begin(path: &Path, permissions: u32) -> io::Result<Self> {
        let file = Temporary::make(|| {
            tempfile::Builder::new()
                .prefix(".plimsoll-part-")
                .permissions(Permissions::from_mode(permissions))
                .tempfile_in(directory(path))
        })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The file, open for reading and writing.
    pub(crate) fn file(&self) -> &File {
        self.file.file()
    }

    /// Makes the file durable, and puts it in the place of what has its name.
    ///
    /// # Errors
    /// It cannot be written. What had its name is there.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.file.file().sync_all()?;
        self.file.rename(&self.path)
    }

    /// Makes the file durable, and gives it its name if nothing has it.
    ///
    /// # Errors
    /// It cannot be written, or the name is taken by now.
    pub(crate) fn add(self) -> io::Result<()> {
        self.file.file().sync_all()?;
        self.file.link(&self.path)
    }
}

/// The directory that `path` is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_part_has_its_name_when_it_is_whole_and_leaves_nothing_before() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let names =
            || std::fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        drop(Part::begin(&path, PUBLIC).unwrap());
        assert!(names().is_empty());
        for text in ["one", "two"] {
            let part = Part::begin(&path, PUBLIC).unwrap();
            part.file().write_all(text.as_bytes()).unwrap();
            part.replace().unwrap();
            assert_eq!(
                (names(), std::fs::read_to_string(&path).unwrap()),
                (vec!["file".into()], text.to_owned())
            );
        }
        let taken = Part::begin(&path, PUBLIC).unwrap().add().unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((names().len(), std::fs::read_to_string(&path).unwrap()), (1, "two".to_owned()));
        std::fs::remove_file(&path).unwrap();
        Part::begin(&path, 0o600).unwrap().add().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names().len(), 1);
    }
}
