use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::{Builder, NamedTempFile};

/// Permissions of a file that all may read; the umask takes from it.
pub(crate) const PUBLIC: u32 = 0o666;

/// A file that gets its name when it is whole. Dropped before, it is gone.
pub(crate) struct Part {
    begun: Begun,
    path: PathBuf,
}

enum Begun {
    /// No signal leaves a part of it.
    Unnamed(File),
    /// Where the file system has no files without a name, as NFS.
    Named(NamedTempFile),
}

impl Part {
    /// Begins the file at `path`, with `permissions` less the umask's.
    ///
    /// # Errors
    /// Its directory cannot be written.
    pub(crate) fn begin(path: &Path, permissions: u32) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let begun = match rustix::fs::open(directory(path), flags, Mode::from_raw_mode(permissions)) {
            Ok(file) => Begun::Unnamed(file.into()),
            // What is wrong with the directory shows here again.
            Err(_) => Begun::Named(named(path, permissions)?),
        };
        Ok(Self { begun, path: path.to_owned() })
    }

    /// The file, open for reading and writing.
    pub(crate) fn file(&self) -> &File {
        match &self.begun {
            Begun::Unnamed(file) => file,
            Begun::Named(file) => file.as_file(),
        }
    }

    /// Makes the file durable, and puts it in the place of what has its name.
    ///
    /// # Errors
    /// It cannot be written. What had its name is there.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.file().sync_all()?;
        let Self { begun, path } = self;
        let named = match begun {
            // No link replaces anything, a renamed file does.
            Begun::Unnamed(file) => builder().make_in(directory(&path), |name| {
                link(&file, name)?;
                file.try_clone()
            })?,
            Begun::Named(file) => file,
        };
        named.persist(&path).map(drop).map_err(|failure| failure.error)
    }

    /// Makes the file durable, and gives it its name if nothing has it.
    ///
    /// # Errors
    /// It cannot be written, or the name is taken by now.
    pub(crate) fn add(self) -> io::Result<()> {
        self.file().sync_all()?;
        let Self { begun, path } = self;
        match begun {
            Begun::Unnamed(file) => link(&file, &path),
            Begun::Named(file) => file.persist_noclobber(&path).map(drop).map_err(|failure| failure.error),
        }
    }
}

/// The directory that `path` is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn builder() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".plimsoll-part-");
    builder
}

fn named(path: &Path, permissions: u32) -> io::Result<NamedTempFile> {
    builder().permissions(Permissions::from_mode(permissions)).tempfile_in(directory(path))
}

/// Gives `file`, which has no name, the name `path`, where there is none.
fn link(file: &File, path: &Path) -> io::Result<()> {
    // As open(2) says: linking it by its descriptor takes a capability.
    let place = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, place, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names = std::fs::read_dir(directory).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_part_has_no_name_that_a_signal_could_leave() {
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let part = Part::begin(&place.path().join("file"), PUBLIC).unwrap();
        if matches!(part.begun, Begun::Named(_)) {
            eprintln!("SKIPPED: /var/tmp has no files without a name");
            return;
        }
        part.file().write_all(b"half").unwrap();
        assert_eq!(names(place.path()), [""; 0]);
        drop(part);
        assert_eq!(names(place.path()), [""; 0]);
    }

    #[test]
    fn a_part_gets_its_name_when_it_is_whole_and_leaves_nothing_before() {
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = place.path().join("file");
        let unnamed = |permissions| Part::begin(&path, permissions).unwrap();
        let with_name = |permissions| Part {
            begun: Begun::Named(named(&path, permissions).unwrap()),
            path: path.clone(),
        };
        let ways: [&dyn Fn(u32) -> Part; 2] = [&unnamed, &with_name];
        for begin in ways {
            drop(begin(PUBLIC));
            assert_eq!(names(place.path()), [""; 0]);
            for text in ["one", "two"] {
                let part = begin(PUBLIC);
                part.file().write_all(text.as_bytes()).unwrap();
                part.replace().unwrap();
                assert_eq!(names(place.path()), ["file"]);
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            }
            let taken = begin(PUBLIC).add().unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(
                (names(place.path()), std::fs::read_to_string(&path).unwrap().as_str()),
                (vec!["file".to_owned()], "two")
            );
            std::fs::remove_file(&path).unwrap();
            begin(0o600).add().unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(names(place.path()), ["file"]);
            std::fs::remove_file(&path).unwrap();
        }
        assert!(Part::begin(&place.path().join("none/file"), PUBLIC).is_err());
    }
}
