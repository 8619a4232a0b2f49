//! What goes over the reader's socket: requests of a fixed length, and answers with their length in
//! front.

/// Longest command line in an answer.
pub(super) const MAX_CMDLINE: usize = 4096;
/// Longest text for people in an answer.
pub(super) const MAX_TEXT: usize = 1024;
/// Longest piece of a file that is asked for.
pub(super) const MAX_PIECE: usize = 256 << 10;

/// Bytes of a request.
pub(super) const REQUEST: usize = 20;
/// Bytes in front of an answer.
pub(super) const HEAD: usize = 9;
/// Bytes in front of the texts of [`Answer`].
const LENGTHS: usize = 18;
/// Most bytes of an encoded [`Answer`].
pub(super) const MAX_ANSWER: usize = LENGTHS + MAX_CMDLINE + MAX_TEXT;

/// A file that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Kernel,
    Initrd,
}

/// What the VMM asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// What does the disk boot? The answer is an [`Answer`].
    Find,
    /// Bytes of a file; the answer is as many.
    Read { which: Which, offset: u64, length: u32 },
    /// Close the files; the answer is empty.
    Forget,
}

impl Request {
    pub(super) fn encode(self, sequence: u32) -> [u8; REQUEST] {
        let (kind, offset, length) = match self {
            Self::Find => (0u32, 0, 0),
            Self::Read { which: Which::Kernel, offset, length } => (1, offset, length),
            Self::Read { which: Which::Initrd, offset, length } => (2, offset, length),
            Self::Forget => (3, 0, 0),
        };
        let mut bytes = [0; REQUEST];
        bytes[..4].copy_from_slice(&sequence.to_le_bytes());
        bytes[4..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&offset.to_le_bytes());
        bytes[16..].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// The request and its number; `None`: there is no such request.
    pub(super) fn decode(bytes: &[u8; REQUEST]) -> Option<(u32, Self)> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let offset = u64::from(word(8)) | u64::from(word(12)) << 32;
        let read = |which| Self::Read { which, offset, length: word(16) };
        let request = match word(4) {
            0 => Self::Find,
            1 => read(Which::Kernel),
            2 => read(Which::Initrd),
            3 => Self::Forget,
            _ => return None,
        };
        Some((word(0), request))
    }
}

/// What stands in front of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// That of the request.
    pub(super) sequence: u32,
    /// The bytes that follow say what went wrong.
    pub(super) failed: bool,
    /// How many bytes follow.
    pub(super) length: u32,
}

impl Head {
    pub(super) fn encode(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[4] = self.failed.into();
        bytes[5..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: [u8; HEAD]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { sequence: word(0), failed: bytes[4] != 0, length: word(5) }
    }
}

/// What the disk boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The kernel's length.
    pub(super) kernel: u64,
    /// The initrd's length; zero without an initrd.
    pub(super) initrd: u64,
    pub(super) cmdline: String,
    pub(super) description: String,
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let cmdline = cut(&self.cmdline, MAX_CMDLINE);
        let length = u16::try_from(cmdline.len()).unwrap_or(u16::MAX);
        let lengths = [&self.kernel.to_le_bytes()[..], &self.initrd.to_le_bytes(), &length.to_le_bytes()];
        [&lengths.concat(), cmdline.as_bytes(), cut(&self.description, MAX_TEXT).as_bytes()].concat()
    }

    /// `None` if `bytes` are no answer, or its command line is more than printable ASCII.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kernel, rest) = bytes.split_first_chunk()?;
        let (initrd, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (cmdline, description) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let printable = cmdline.iter().all(|byte| (b' '..=b'~').contains(byte));
        if !printable || cmdline.len() > MAX_CMDLINE || description.len() > MAX_TEXT {
            return None;
        }
        Some(Self {
            kernel: u64::from_le_bytes(*kernel),
            initrd: u64::from_le_bytes(*initrd),
            cmdline: String::from_utf8_lossy(cmdline).into_owned(),
            description: String::from_utf8_lossy(description).into_owned(),
        })
    }
}

/// The beginning of `text`, at most `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}
