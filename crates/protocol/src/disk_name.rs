use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name that Linux gives to a disk in the guest: `vda` for the first, `vdb` for the next. It
/// stands for the disk's place in the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = "^vd[a-z]{1,2}$")))]
#[serde(try_from = "String", into = "String")]
pub struct DiskName(u8);

/// Letters of the alphabet.
const LETTERS: u8 = 26;

impl DiskName {
    /// The name of the disk at `index`; `None`: no VM has as many.
    pub fn of(index: usize) -> Option<Self> {
        u8::try_from(index).ok().map(Self)
    }

    /// The place of the disk, from 0.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

impl FromStr for DiskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not a disk: name it as its guest does, vda for the first");
        let letters = text.strip_prefix("vd").filter(|letters| (1..=2).contains(&letters.len()));
        let index = letters.ok_or_else(refuse)?.bytes().try_fold(0_u16, |before, letter| {
            let place = letter.is_ascii_lowercase().then(|| u16::from(letter - b'a') + 1)?;
            Some(before * u16::from(LETTERS) + place)
        });
        // Letters count from one: there is no digit zero.
        let index = index.and_then(|index| u8::try_from(index - 1).ok());
        index.map(Self).ok_or_else(refuse)
    }
}

impl TryFrom<String> for DiskName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DiskName> for String {
    fn from(name: DiskName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |place: u8| char::from(b'a' + place);
        let last = letter(self.0 % LETTERS);
        match self.0 / LETTERS {
            0 => f.pad(&format!("vd{last}")),
            more => f.pad(&format!("vd{}{last}", letter(more - 1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_named_as_linux_names_them() {
        for (index, text) in [(0, "vda"), (25, "vdz"), (26, "vdaa"), (31, "vdaf"), (255, "vdiv")] {
            let name = DiskName::of(index).unwrap();
            assert_eq!((name.to_string().as_str(), text.parse()), (text, Ok(name)));
            assert_eq!(name.index(), index);
        }
        assert_eq!(DiskName::of(256), None);
        for bad in ["", "vd", "sda", "vdA", "vd1", "vdaaa", "vdzz", "vda1", "vd\u{e4}"] {
            assert!(bad.parse::<DiskName>().is_err(), "{bad}");
        }
    }
}
