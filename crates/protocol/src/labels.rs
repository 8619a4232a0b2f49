use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest key or value: long enough for a host name, short enough for a column.
const MAX_LEN: usize = 63;
/// Most labels of a VM: more than anybody reads, and few enough to be sent with every status.
pub const MAX_LABELS: usize = 32;

/// What an operator notes about a VM to find it by: keys and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("maxProperties" = MAX_LABELS)))]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<LabelKey, LabelValue>);

/// The key of a label: 1 to 63 of `a-z A-Z 0-9 - _ . /`, beginning with a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")))]
#[serde(try_from = "String", into = "String")]
pub struct LabelKey(String);

/// The value of a label: up to 63 of `a-z A-Z 0-9 - _ . / : @ +` and blanks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = r"^[A-Za-z0-9._/:@+ -]{0,63}$")))]
#[serde(try_from = "String", into = "String")]
pub struct LabelValue(String);

impl Labels {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As `KEY=VALUE`, with a comma between two.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.pad(&all.join(","))
    }
}

impl TryFrom<String> for LabelKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.len() <= MAX_LEN && text.chars().all(legal) {
            return Ok(Self(text));
        }
        Err(format!(
            "{text:?} is not a label's key: use 1 to {MAX_LEN} of a-z A-Z 0-9 - _ . / and begin with a letter or a digit"
        ))
    }
}

impl TryFrom<String> for LabelValue {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./:@+ ".contains(c);
        if text.len() <= MAX_LEN && text.chars().all(legal) {
            return Ok(Self(text));
        }
        Err(format!(
            "{text:?} is not a label's value: use up to {MAX_LEN} of a-z A-Z 0-9 - _ . / : @ + and blanks"
        ))
    }
}

macro_rules! text {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(part: $name) -> Self {
                part.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text!(LabelKey);
text!(LabelValue);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_that_need_no_quotes_in_a_shell_but_for_blanks() {
        for good in ["a", "tier", "example.com/team", "A-1_b", &"x".repeat(63)] {
            assert!(good.parse::<LabelKey>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "/a", "a b", "a=b", "a,b", "ü", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<LabelKey>().is_err(), "{bad}");
        }
        for good in ["", "web", "10:30", "a@b.c", "two words"] {
            assert!(good.parse::<LabelValue>().is_ok(), "{good}");
        }
        for bad in ["a,b", "a=b", "ü", "a\tb", &"x".repeat(64)] {
            assert!(bad.parse::<LabelValue>().is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_shown_in_the_order_of_their_keys() {
        let labels: Labels = serde_json::from_str(r#"{"tier": "web", "env": ""}"#).unwrap();
        assert_eq!(labels.to_string(), "env=,tier=web");
        assert!(serde_json::from_str::<Labels>(r#"{"a b": "c"}"#).is_err());
    }
}
