use std::fmt;

use plimsoll_protocol::definition::JailPart;
use serde::Serialize;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As good as it gets.
    Ok,
    /// It works, with less.
    Limited,
    /// It does not work.
    Missing,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        })
    }
}

/// One thing about the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) name: &'static str,
    /// How it stands.
    pub(crate) verdict: Verdict,
    /// No VM runs while it is missing.
    pub(crate) needed: bool,
    /// While it is missing, only VMs run whose definitions allow a jail without this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jail: Option<JailPart>,
    /// What was found.
    pub(crate) found: String,
    /// What it means for VMs. Empty where all is well.
    pub(crate) means: String,
    /// What to do about it. Empty where all is well.
    pub(crate) todo: String,
}

impl Check {
    /// All is well.
    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, found, "", "")
    }

    /// It works with less.
    pub(crate) fn limited(name: &'static str, found: impl Into<String>, means: &str, todo: &str) -> Self {
        Self::new(name, Verdict::Limited, found, means, todo)
    }

    /// It does not work.
    pub(crate) fn missing(name: &'static str, found: impl Into<String>, means: &str, todo: &str) -> Self {
        Self::new(name, Verdict::Missing, found, means, todo)
    }

    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>, means: &str, todo: &str) -> Self {
        let (means, todo) = (means.to_owned(), todo.to_owned());
        Self { name, verdict, needed: false, jail: None, found: found.into(), means, todo }
    }

    /// No VM runs without it.
    pub(crate) fn needed(self) -> Self {
        Self { needed: true, ..self }
    }

    /// It is a part of the jail.
    pub(crate) fn jail(self, part: JailPart) -> Self {
        Self { jail: Some(part), ..self }
    }

    /// Whether it keeps every VM from running.
    pub(crate) fn prevents_vms(&self) -> bool {
        self.needed && self.verdict == Verdict::Missing
    }
}
