use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::PoolName;

/// Where a VM or a pool is: in a pool, or directly on the host, which is the tree's root and is
/// written `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = r"^(/|[A-Za-z0-9][A-Za-z0-9._-]{0,31})$")))]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// The host itself.
    #[default]
    Root,
    /// In this pool.
    In(PoolName),
}

impl Place {
    /// The pool; `None` for the root.
    pub fn pool(&self) -> Option<&PoolName> {
        match self {
            Self::Root => None,
            Self::In(pool) => Some(pool),
        }
    }

    /// Whether it is the host itself.
    pub fn is_root(&self) -> bool {
        *self == Self::Root
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "/" => Ok(Self::Root),
            name => name.parse().map(Self::In).map_err(|e| format!("{e}, or / for the host itself")),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.pad("/"),
            Self::In(pool) => pool.fmt(f),
        }
    }
}
