use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use plimsoll_units::Bytes;

use super::seed::sealed;

/// Longest program. One of a release has about a megabyte.
const LONGEST: Bytes = Bytes::mib(16);
/// A disk has whole sectors.
const SECTOR: usize = 512;

/// The disk that was made last, for all VMs: of which file, as it was then.
static MADE: Mutex<Option<(Origin, File)>> = Mutex::new(None);

#[derive(Debug, PartialEq, Eq)]
struct Origin {
    program: PathBuf,
    modified: SystemTime,
    length: u64,
}

/// A disk that is the program at `program`, with zeros up to the end of a sector: in memory, the
/// same for all VMs, and nobody can change it.
///
/// # Errors
/// The program cannot be read, and what to do.
pub(super) fn open(program: &Path) -> anyhow::Result<File> {
    let what = || format!("{} cannot be read: install it, or leave the key out", program.display());
    let file = File::open(program).with_context(what)?;
    let metadata = file.metadata().with_context(what)?;
    let modified = metadata.modified().with_context(what)?;
    let origin = Origin { program: program.to_owned(), modified, length: metadata.len() };
    let mut made = plimsoll_sys::lock(&MADE);
    if let Some((of, disk)) = &*made
        && *of == origin
    {
        return disk.try_clone().with_context(what);
    }
    let mut content = Vec::new();
    file.take(LONGEST.0 + 1).read_to_end(&mut content).with_context(what)?;
    ensure!(content.len() as u64 <= LONGEST.0, "{} is longer than {LONGEST}", program.display());
    content.resize(content.len().next_multiple_of(SECTOR), 0);
    let disk = sealed(&content).with_context(what)?;
    let (_, disk) = made.insert((origin, disk));
    disk.try_clone().with_context(what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn a_disk_is_the_program_in_whole_sectors_and_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("agent");
        assert!(format!("{:#}", open(&program).unwrap_err()).contains("leave the key out"));
        std::fs::write(&program, [7; 700]).unwrap();
        let disk = open(&program).unwrap();
        let mut content = [1; 1024];
        disk.read_exact_at(&mut content, 0).unwrap();
        assert!(content[..700] == [7; 700] && content[700..] == [0; 324]);
        assert_eq!(disk.metadata().unwrap().len(), 1024);
        let number = |file: File| file.metadata().unwrap().ino();
        let first = number(disk);
        assert_eq!(number(open(&program).unwrap()), first);
        std::fs::write(&program, [7; 1400]).unwrap();
        assert_ne!(number(open(&program).unwrap()), first, "another program");
    }
}
