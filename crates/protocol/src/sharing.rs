//! Page sharing (Waldspurger 2002, section 4): which VMs share, and the words of the messages
//! about it.
//!
//! A *frame* is a machine page that stands for all pages of a domain with its content. Frames are
//! written by the daemon only; VMMs map them for reading. A *hint* is a page that the daemon knows
//! by its digest only. A page has at most one reference or one hint.

use std::fmt;
use std::str::FromStr;

use plimsoll_units::{DigestKey, FrameNo, Pages};
use serde::{Deserialize, Serialize};

use crate::{DomainName, NameError};

/// Pages of the window through which a VMM offers content. More, and the daemon would copy for
/// longer than a waiting fault should wait for it; fewer, and every message would carry little.
pub const WINDOW: usize = 64;
/// Most pages that one message speaks of: one chunk, so that it fits a packet with room to spare.
pub const MAX_BATCH: usize = 512;
/// A whole processor, in the unit of [`ScanBudget::share`].
pub const WHOLE_CPU: u16 = 10_000;

/// The VMs that a VM shares pages with, as its operator writes it: `own`, `zero`, `off` or the name
/// of a domain. What guests can learn of each other by that is on the front page of
/// `plimsoll-sharing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = crate::name::PATTERN)))]
#[serde(try_from = "String", into = "String")]
pub enum Sharing {
    /// With itself only.
    #[default]
    Own,
    /// Zero pages only: they cost nothing and need no frame.
    Zero,
    /// Nothing is shared, and nothing is scanned.
    Off,
    /// With all VMs that name this domain.
    With(DomainName),
}

/// Words that are not names of domains.
const WORDS: [(&str, Sharing); 3] = [("own", Sharing::Own), ("zero", Sharing::Zero), ("off", Sharing::Off)];

impl FromStr for Sharing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match WORDS.into_iter().find(|(word, _)| *word == text) {
            Some((_, sharing)) => Ok(sharing),
            None => {
                text.parse().map(Self::With).map_err(|e: NameError| format!("{e}, or write own, zero or off"))
            }
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.pad("own"),
            Self::Zero => f.pad("zero"),
            Self::Off => f.pad("off"),
            Self::With(domain) => domain.fmt(f),
        }
    }
}

impl TryFrom<String> for Sharing {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Sharing> for String {
    fn from(sharing: Sharing) -> Self {
        sharing.to_string()
    }
}

/// The daemon's number for a domain's frames. It is never used again while the machine runs, and
/// outlives the daemon: the same number means the same frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomainId(pub u64);

/// What a VMM has to do with sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharingKind {
    /// Nothing.
    Off,
    /// Zero pages cost nothing.
    Zero,
    /// And pages read the frames of a domain. A VMM that had another domain before brings its pages
    /// back from there, gives the references back, and only then asks about this one.
    Frames {
        /// Which.
        domain: DomainId,
        /// Most frames that it will ever have: its file is never longer.
        limit: Pages,
        /// What digests of pages are made with. Another one after each start of the daemon.
        key: DigestKey,
    },
}

/// How much a VMM looks for pages that can be shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanBudget {
    /// Processor time that it may take, in ten-thousandths of one: at most [`WHOLE_CPU`].
    pub share: u16,
    /// Large chunks are broken for pages of them that can be shared.
    pub break_large: bool,
}

/// What the daemon knows of a page of a given digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Nothing: it is a hint from now on.
    New,
    /// There is a frame of that digest, and a reference to it is held for the page from now on:
    /// compare and map it, or give it back.
    Frame(FrameNo),
    /// Another page has the same digest: offer yours.
    Wanted,
    /// It has a reference already, or is looked at no more for a while.
    Busy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_no_names_of_domains() {
        for text in ["own", "zero", "off", "prod"] {
            let sharing: Sharing = text.parse().unwrap();
            assert_eq!(sharing.to_string(), text);
            assert_eq!(matches!(sharing, Sharing::With(_)), text == "prod");
        }
        assert!("a/b".parse::<Sharing>().unwrap_err().contains("own, zero or off"));
    }
}
