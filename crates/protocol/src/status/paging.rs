use plimsoll_policy::PagingCause;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

/// What is compressed and swapped out of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PagingStatus {
    /// Content that is compressed.
    pub compressed: Bytes,
    /// Machine memory that it takes so: part of what is held.
    pub store: Bytes,
    /// Content that is in swap space only.
    pub swapped: Bytes,
    /// Swap space that it has; zero: nothing is swapped out of it.
    pub space: Bytes,
    /// Compressed since it was started.
    pub zipped: Bytes,
    /// Decompressed again.
    pub unzipped: Bytes,
    /// Written to swap space since it was started.
    pub swapped_out: Bytes,
    /// Read from there.
    pub swapped_in: Bytes,
    /// Lately written to swap space in a second.
    pub out_rate: Bytes,
    /// Lately read from there in a second.
    pub in_rate: Bytes,
    /// What it may hold, including what it waits for, before its own pages are compressed and
    /// swapped out; `None`: they never are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Bytes>,
    /// Why its own pages are, or would be, compressed and swapped out; `None`: nothing asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<PagingCause>,
    /// Its processors stand still until it holds no more than `level`.
    pub blocked: bool,
    /// What was last asked for could not be paged out.
    pub stuck: bool,
    /// Its swap space could not be written: nothing more is swapped out.
    pub failed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_api_do_not_change_with_the_policys_names() {
        for (cause, word) in [
            (PagingCause::AboveTarget, "above-target"),
            (PagingCause::Owed, "owed"),
            (PagingCause::AtLimit, "at-limit"),
            (PagingCause::Waited, "waited"),
        ] {
            assert_eq!(serde_json::to_value(cause).unwrap(), word);
        }
    }
}
