//! Any bytes as a disk or as a boot loader's configuration, for a fuzzer.

use std::io;

use crate::volume::memory::Memory;
use crate::{BLOCK, Boot, MAX_CMDLINE, MAX_FILE, Source, bls, extlinux, find, grub};

/// The largest disk.
const MOST: usize = 4 << 20;

struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK as u64), "reads are aligned");
        let start = usize::try_from(offset).expect("it is within the disk");
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(())
    }
}

/// What the disk in `input` boots. The first byte says what is behind it: GRUB's configuration with
/// an environment block after a zero (`g`), an entry of the Boot Loader Specification (`b`),
/// extlinux's configuration (`e`), or else a disk: two bytes of its length in KiB, then runs of
/// bytes, each behind four bytes of its place and one of its length.
///
/// # Panics
/// What was found is beyond its bounds.
pub fn disk(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let text = || String::from_utf8_lossy(rest).into_owned();
    match kind {
        b'g' => config(&text()),
        b'b' => {
            let volume =
                Memory::default().with("/loader/entries/a-1+3.conf", rest).with_link("/x", "/x").volume();
            bls::read(&volume, "/loader/entries").expect("it is there");
        }
        b'e' => drop(extlinux::default(&text())),
        _ => image(rest),
    }
}

fn config(text: &str) {
    let (config, block) = text.split_once('\0').unwrap_or((text, ""));
    let memory = Memory::default()
        .with("/boot/grub/grub.cfg", config)
        .with("/boot/grub/grubenv", block)
        .with("/boot/vmlinuz", "kernel")
        .with("/loader/entries/m-1.conf", "linux /boot/vmlinuz\noptions $kernelopts\n");
    if let Err(error) = grub::default(&[memory.volume()], 0, "/boot/grub/grub.cfg") {
        assert!(!error.is_empty());
    }
}

fn image(input: &[u8]) {
    let Some((&[low, high], mut rest)) = input.split_first_chunk() else { return };
    let mut bytes = vec![0; (usize::from(u16::from_le_bytes([low, high])) << 10).min(MOST)];
    while let Some((&[a, b, c, d, count], run)) = rest.split_first_chunk() {
        let (run, later) = run.split_at(run.len().min(count.into()));
        let at = usize::try_from(u32::from_le_bytes([a, b, c, d])).expect("32 bits fit");
        if let Some(place) = bytes.get_mut(at..at + run.len()) {
            place.copy_from_slice(run);
        }
        rest = later;
    }
    let length = bytes.len() as u64;
    match find(Box::new(Bytes(bytes)), length) {
        Ok(boot) => check(boot),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() <= 900 && !text.contains(char::is_control), "{text:?}");
        }
    }
}

fn check(boot: Boot) {
    let Boot { kernel, initrd, cmdline, entry, configuration } = boot;
    assert!(cmdline.len() <= MAX_CMDLINE && cmdline.bytes().all(|byte| (32..127).contains(&byte)));
    for text in [entry, configuration] {
        assert!(!text.contains(char::is_control) && text.len() <= 200);
    }
    for mut file in std::iter::once(kernel).chain(initrd) {
        assert!(file.len() > 0 && file.len() <= MAX_FILE);
        let mut start = vec![0; usize::try_from(file.len().min(100_000)).expect("it is small")];
        file.read_exact_at(&mut start, 0).ok();
        assert!(file.read_exact_at(&mut start[..1], file.len()).is_err(), "beyond the end");
    }
}
