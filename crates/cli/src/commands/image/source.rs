use std::path::Path;

use anyhow::Result;
use plimsoll_image::chain::{self, Link};
use plimsoll_image::{Format, locks};
use plimsoll_machine::users::{Identity, processes};

use super::refused;
use crate::exit::{Status, failed};
use crate::output::Output;

/// Opens the image at `path` and its backing files, which lie below `home`, to read them. Nobody
/// may write them as long as they are open: a copy of what changes meanwhile is of no use. Where
/// the file system has no locks `output` says that nobody looks after that.
///
/// # Errors
/// A file that cannot be used, or that somebody writes, and who that is.
pub(in crate::commands) fn open(
    path: &Path,
    format: Format,
    home: &Path,
    output: &Output,
) -> Result<Vec<Link>> {
    let links =
        chain::open(path, format, false, home).map_err(|error| refused(&error.path.clone(), error.source))?;
    links.iter().try_for_each(|link| hold(link, output))?;
    Ok(links)
}

fn hold(Link { path, file, .. }: &Link, output: &Output) -> Result<()> {
    match locks::take(file, true) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if locks::is_unsupported(&error) => {
            let text = format!(
                "note: {}: it cannot be locked ({error}): see that nothing writes it",
                path.display()
            );
            output.remark(&text);
            return Ok(());
        }
        Err(error) => return Err(refused(path, error)),
    }
    let found = file.metadata().map_err(|error| refused(path, error))?;
    let users = processes(path, Identity::of(&found));
    let by =
        users.map_or_else(|| ": another VM or program writes it".to_owned(), |users| format!(" by {users}"));
    let text = format!("{}: it is in use{by}: stop the VM or program that writes it first", path.display());
    Err(failed(Status::Refused, text))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;
    use std::time::{Duration, Instant};

    use plimsoll_image::{Backing, FileStorage, create};

    use super::*;

    #[test]
    fn an_image_that_is_written_is_refused_and_its_backing_files_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("base.raw"), [7; 4096]).unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(at("top.qcow2")).unwrap();
        let backing = Backing { name: "base.raw".to_owned(), format: Some(Format::Raw) };
        create::create(&FileStorage::new(file).unwrap(), 4096, 4096, Some(&backing)).unwrap();
        let open = || open(&at("top.qcow2"), Format::Qcow2, directory.path(), &Output::new(false));
        // Others may read it, too.
        let readers = (open().unwrap(), open().unwrap());
        drop(readers);
        for name in ["top.qcow2", "base.raw"] {
            // As its VM holds it.
            let held = File::options().read(true).write(true).open(at(name)).unwrap();
            soon(|| locks::take(&held, false).unwrap());
            let error = open().unwrap_err().to_string();
            assert!(error.contains(&format!("{name}: it is in use")), "{error}");
            rustix::fs::flock(&held, rustix::fs::FlockOperation::Unlock).unwrap();
            assert!(open().is_err(), "as QEMU holds it");
            drop(held);
            soon(|| open().is_ok());
        }
    }

    /// Waits for `is_so`: a program that another test starts holds copies of locks for a moment.
    fn soon(is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(60), "others hold the locks");
            thread::yield_now();
        }
    }
}
