use plimsoll_units::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::effective::Exact;

/// How much machine memory VMs may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// What the machine has available less a margin, followed while the daemon runs.
    Automatic,
    /// This much.
    Size(Bytes),
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(u64),
            Word(String),
        }
        match Text::deserialize(deserializer)? {
            Text::Number(bytes) => Ok(Self::Size(Bytes(bytes))),
            Text::Word(word) if word == "automatic" => Ok(Self::Automatic),
            Text::Word(word) => word
                .parse()
                .map(Self::Size)
                .map_err(|e| serde::de::Error::custom(format!("budget: {e}, or \"automatic\""))),
        }
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Automatic => serializer.serialize_str("automatic"),
            Self::Size(size) => serializer.collect_str(&Exact(*size)),
        }
    }
}
