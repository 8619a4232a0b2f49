use std::fmt;
use std::str::FromStr;

use plimsoll_units::Bytes;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest share count: ten times what the largest VM has at high shares.
const MAX_SHARES: u64 = 200_000_000;

/// Weight of a VM or a pool among its siblings, in words or as a number from 1 to 200,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shares {
    /// 5 per MiB of size.
    Low,
    /// 10 per MiB of size.
    #[default]
    Normal,
    /// 20 per MiB of size.
    High,
    /// This many.
    Custom(u64),
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Shares {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Shares".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Weight among siblings: low, normal, high, or a number.",
            "anyOf": [
                {"type": "integer", "format": "uint64", "minimum": 1, "maximum": MAX_SHARES},
                {"type": "string", "pattern": "^(low|normal|high|[1-9][0-9]{0,8})$"},
            ],
        })
    }
}

impl Shares {
    /// The number of shares of a VM of `size`; at least 1.
    pub fn resolve(self, size: Bytes) -> u64 {
        let per_mib = match self {
            Self::Low => 5,
            Self::Normal => 10,
            Self::High => 20,
            Self::Custom(shares) => return shares,
        };
        (per_mib * (size.0 >> 20)).max(1)
    }

    /// Checks a number of shares that was not read from a text.
    pub(crate) fn check(self) -> Result<(), String> {
        match self {
            Self::Custom(n) if !(1..=MAX_SHARES).contains(&n) => {
                Err(format!("shares {n}: must be 1 to {MAX_SHARES}"))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text.parse().ok().filter(|n| (1..=MAX_SHARES).contains(n)).map(Self::Custom);
        match text {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            _ => number().ok_or_else(|| {
                format!("shares {text:?}: write low, normal, high or a number from 1 to {MAX_SHARES}")
            }),
        }
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Low => f.pad("low"),
            Self::Normal => f.pad("normal"),
            Self::High => f.pad("high"),
            Self::Custom(n) => f.pad(&n.to_string()),
        }
    }
}

impl Serialize for Shares {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Custom(n) => serializer.serialize_u64(*n),
            word => serializer.collect_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for Shares {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrNumber;
        impl Visitor<'_> for WordOrNumber {
            type Value = Shares;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("low, normal, high or a whole number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Shares, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Shares, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Shares, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(WordOrNumber)
    }
}
