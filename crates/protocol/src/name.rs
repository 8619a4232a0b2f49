use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name: it appears in paths of unix sockets, of which the kernel takes 107 bytes.
const MAX_LEN: usize = 32;

/// What [`is_name`] says, as a regular expression.
#[cfg(feature = "schema")]
pub(crate) const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$";

/// Whether `text` may name something: it is then safe as a file name and in a URL.
fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= MAX_LEN && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(legal)
}

/// A text that cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind} name: use 1 to 32 of a-z A-Z 0-9 - _ . and begin with a letter or a digit")]
pub struct NameError {
    kind: &'static str,
    text: String,
}

macro_rules! name {
    ($name:ident, $kind:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(extend("pattern" = PATTERN)))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                if is_name(&text) { Ok(Self(text)) } else { Err(NameError { kind: $kind, text }) }
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    VmName,
    "VM",
    "The name of a virtual machine: 1 to 32 of `a-z A-Z 0-9 - _ .`, beginning with a letter or a digit. It is safe as a \
     file name and in a URL."
);
name!(PoolName, "pool", "The name of a resource pool, of the same form as a [`VmName`].");
name!(DomainName, "sharing domain", "The name of a sharing domain, of the same form as a [`VmName`].");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "-x", "_x", "ü", "a b", &"x".repeat(33)] {
            assert!(bad.parse::<VmName>().is_err(), "{bad}");
        }
        for good in ["a", "web-1", "0", "db.prod_2", &"x".repeat(32)] {
            assert!(good.parse::<VmName>().is_ok(), "{good}");
        }
    }
}
