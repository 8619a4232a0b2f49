use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name: it appears in paths of unix sockets, of which the kernel takes 107 bytes.
const MAX_LEN: usize = 32;

/// The name of a virtual machine: 1 to 32 of `a-z A-Z 0-9 - _ .`, beginning with a letter or a digit. It is safe as a
/// file name and in a URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// A text that cannot be a VM's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a VM name: use 1 to 32 of a-z A-Z 0-9 - _ . and begin with a letter or a digit")]
pub struct NameError(String);

impl VmName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VmName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.len() <= MAX_LEN
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(legal)
        {
            Ok(Self(text))
        } else {
            Err(NameError(text))
        }
    }
}

impl FromStr for VmName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

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
