//! Guests that run dbench: the tiny image, which gets the drivers of a file system, and a disk with
//! Debian's dbench.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plimsoll_lab::cache;
use plimsoll_lab::guest;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{Programs, step};
use plimsoll_units::Bytes;
use preflight::{deb, packages};

use super::disk;

/// The load in Debian's package: what one client does, recorded of a file server.
const RECORDED: &str = "usr/share/dbench/client.txt";

/// The disk's size, room for the clients' files; what is not used takes no space.
const DISK: Bytes = Bytes::mib(384);

/// Lines of the recorded load that a client does before it begins anew: it writes its files in the
/// first thousand, and reads and changes them from there on. What follows are repetitions of the
/// same, which no run here comes to.
const LINES: usize = 3500;

/// The clients' files are a fifth of their recorded size: 170 MB of 40 clients together, so that
/// what a guest has decides how much of them it caches. At full size no guest here could write them
/// all in the time of a run.
pub(crate) const DIVISOR: u64 = 5;

/// The load on the guest's disk.
pub(crate) const LOAD: &str = "/load";

/// A directory with `vmlinuz`, `initrd` and `disk`, from the cache where its inputs are the same.
/// On the disk is dbench, and its load with files of a [`DIVISOR`]th of their size.
pub(crate) fn build(version: Version, programs: &Programs) -> Result<PathBuf> {
    packages::ensure(packages::LAB)?;
    let image = guest::build(version, programs)?;
    let inputs = format!("{:?} {LINES} {DIVISOR} {} {}", deb::DBENCH, DISK.0, image.directory.display());
    let home = cache::directory()?.join("guests");
    let directory = home.join(format!("dbench-{version}-{}", cache::key([inputs.as_bytes()])));
    if directory.join("disk").is_file() {
        cache::used(&directory);
        return Ok(directory);
    }
    step("building a disk with Debian's dbench");
    let scratch = tempfile::tempdir_in(&home)?;
    let root = scratch.path().join("root");
    disk::unpack(deb::DBENCH, &root)?;
    let recorded = root.join(RECORDED);
    let load = scaled(
        &fs::read_to_string(&recorded).with_context(|| format!("reading {}", recorded.display()))?,
        DIVISOR,
    )?;
    fs::remove_file(&recorded)?;
    fs::write(root.join(LOAD.trim_start_matches('/')), load)?;
    // A lazily made table would be finished by the guest's kernel while it is measured.
    let options = ["-E", "lazy_itable_init=0,lazy_journal_init=0"];
    disk::move_into(&root, &scratch.path().join("disk"), DISK, &options)?;
    fs::copy(image.kernel(), scratch.path().join("vmlinuz"))?;
    fs::write(scratch.path().join("initrd"), disk::initrd(&image)?)?;
    cache::keep(scratch, &directory, "disk")?;
    Ok(directory)
}

/// The beginning of a recorded load, with offsets and lengths divided by `divisor`. It ends where
/// no file is open, since dbench begins anew without closing any.
fn scaled(recorded: &str, divisor: u64) -> Result<String> {
    let mut text = String::new();
    let mut open = BTreeSet::new();
    for (index, line) in recorded.lines().enumerate() {
        if index >= LINES && open.is_empty() {
            return Ok(text);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [verb @ ("ReadX" | "WriteX"), file, offset, length, done, status] => {
                let [offset, length, done] = divided([offset, length, done], divisor)
                    .with_context(|| format!("dbench's load: line {}: {line:?}", index + 1))?;
                text += &format!("{verb} {file} {offset} {length} {done} {status}\n");
                continue;
            }
            ["NTCreateX", .., file, "NT_STATUS_OK"] => drop(open.insert(file)),
            ["Close", file, _] => drop(open.remove(file)),
            _ => {}
        }
        text += line;
        text.push('\n');
    }
    anyhow::bail!("dbench's load has no end within its first lines")
}

/// Offset, length and length done, divided so that ends which met still meet: a read that ended at
/// the end of its file does.
fn divided(numbers: [&str; 3], divisor: u64) -> Result<[u64; 3]> {
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text:?} is no number"));
    let [offset, length, done] = [number(numbers[0])?, number(numbers[1])?, number(numbers[2])?];
    let begin = offset / divisor;
    let reaches = |n: u64| if n == 0 { 0 } else { offset.saturating_add(n).div_ceil(divisor) - begin };
    Ok([begin, reaches(length), reaches(done)])
}

/// The files of [`build`] in `directory`, as a guest runs them with `disk`.
pub(crate) fn files(directory: &Path) -> [PathBuf; 3] {
    ["vmlinuz", "initrd", "disk"].map(|name| directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_ended_at_the_end_of_a_file_still_do() {
        // A file of 1001 bytes, written in two pieces, of which a read of 500 bytes at 700 got 301.
        assert_eq!(divided(["0", "600", "600"], 5).unwrap(), [0, 120, 120]);
        assert_eq!(divided(["600", "401", "401"], 5).unwrap(), [120, 81, 81]);
        assert_eq!(divided(["700", "500", "301"], 5).unwrap(), [140, 100, 61]);
        assert_eq!(divided(["65534", "1", "1"], 5).unwrap(), [13106, 1, 1]);
        assert_eq!(divided(["0", "4096", "0"], 5).unwrap(), [0, 820, 0]);
        assert!(divided(["x", "1", "1"], 5).is_err());
    }

    #[test]
    fn a_load_ends_where_no_file_is_open() {
        let mut lines = vec!["Mkdir \"\\clients\" NT_STATUS_OK"; LINES];
        lines[LINES - 1] = "NTCreateX \"\\a b\" 0x1 0x2 7 NT_STATUS_OK";
        let tail = ["WriteX 7 10 10 10 NT_STATUS_OK", "Close 7 NT_STATUS_OK", "Flush 9 NT_STATUS_OK"];
        lines.extend(tail);
        let load = scaled(&lines.join("\n"), 5).unwrap();
        assert!(load.ends_with("WriteX 7 2 2 2 NT_STATUS_OK\nClose 7 NT_STATUS_OK\n"), "{load}");
        assert!(scaled("Mkdir \"\\clients\" NT_STATUS_OK", 5).is_err());
    }
}
