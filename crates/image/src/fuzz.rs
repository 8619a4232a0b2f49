//! Any bytes as an image, and what a guest may ask of it: a target of `cargo xtask fuzz`.

use arbitrary::Unstructured;

use crate::beneath::Beneath;
use crate::check::check;
use crate::create::create;
use crate::format::Format;
use crate::header::Backing;
use crate::image::{Image, Raw};
use crate::memory::Memory;
use crate::qcow2::Qcow2;
use crate::storage::Storage;

/// Bytes of a disk that is made here.
const SIZE: u64 = 40 * 4096;

enum Ask {
    Read {
        offset: u64,
        length: usize,
    },
    Write {
        offset: u64,
        length: usize,
        byte: u8,
    },
    Zero {
        offset: u64,
        length: u64,
        unmap: bool,
    },
    Discard {
        offset: u64,
        length: u64,
    },
    Flush,
    Reopen,
    /// Change the file behind the back of the image, as a VMM that was taken over may before the
    /// next start.
    Damage {
        at: u64,
        byte: u8,
    },
}

impl Ask {
    /// The next one, if the input has one.
    fn next(input: &mut Unstructured<'_>) -> Option<Self> {
        if input.is_empty() {
            return None;
        }
        let (kind, at, sectors, byte): (u8, u16, u8, u8) = input.arbitrary().ok()?;
        let (offset, length) = (u64::from(at) * 512, u64::from(sectors) * 512);
        Some(match kind % 16 {
            0..3 => Self::Read { offset, length: length.try_into().ok()? },
            3..8 => Self::Write { offset, length: length.try_into().ok()?, byte },
            8..10 => Self::Zero { offset, length, unmap: byte & 1 == 1 },
            10..12 => Self::Discard { offset, length },
            12 => Self::Flush,
            13 => Self::Reopen,
            _ => Self::Damage { at: at.into(), byte },
        })
    }
}

/// An image that is made here, damaged by `input`, or one that is nothing but `input`; and requests
/// to it. Nothing panics, and an image that was not damaged stays sound.
pub fn image(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let with_backing = input.arbitrary().unwrap_or(false);
    let (storage, mut sound) = if input.arbitrary().unwrap_or(false) {
        let length = input.arbitrary_len::<u8>().unwrap_or(0);
        (Memory::new(input.bytes(length).unwrap_or_default().to_vec()), false)
    } else {
        let storage = Memory::default();
        let backing = Backing { name: "base".to_owned(), format: Some(Format::Raw) };
        create(&storage, SIZE, 4096, with_backing.then_some(&backing)).expect("the bounds are kept");
        (storage, true)
    };
    let open = |writable| {
        let base = Memory::new(vec![7; 8192]);
        let base = Image::Raw(Raw::new(base).expect("memory has a length"));
        let base = with_backing.then(|| Box::new(base) as Box<dyn Beneath>);
        Qcow2::open(storage.clone(), writable, base)
    };
    let Ok(mut image) = open(true).or_else(|_| open(false)) else { return };
    while let Some(ask) = Ask::next(&mut input) {
        let done = match ask {
            Ask::Read { offset, length } => image.read(&mut vec![0; length], offset),
            Ask::Write { offset, length, byte } => image.write(&vec![byte; length], offset),
            Ask::Zero { offset, length, unmap } => image.zero(offset, length, unmap),
            Ask::Discard { offset, length } => image.discard(offset, length),
            Ask::Flush => image.flush(),
            Ask::Reopen => {
                drop(image);
                match open(true) {
                    Ok(opened) => image = opened,
                    Err(error) => {
                        assert!(!sound, "{error}");
                        return;
                    }
                }
                Ok(())
            }
            Ask::Damage { at, byte } => {
                sound = false;
                storage.write_at(&[byte], at)
            }
        };
        if let Err(error) = done {
            assert!(!sound || error.kind() == std::io::ErrorKind::InvalidInput, "{error}");
        }
    }
    drop(image);
    if sound {
        assert_eq!(check(&storage).expect("it can be read").errors, Vec::<String>::new());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn random_images_break_nothing() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut input = vec![0; random.usize(..400)];
            random.fill(&mut input);
            super::image(&input);
        }
    }
}
