//! How things stand: what a person would look at next when something has failed.

use std::fmt;
use std::process::Output;

use anyhow::Result;

use crate::files::Files;

/// What each VM has and why, and what guests and daemon said last. It is the context of an error:
/// before it is added to one, check that the error does not have it already.
#[derive(Debug)]
pub struct Account(String);

impl Account {
    /// How things stand, as far as that can be learned: of the VMs that the daemon has (`names`),
    /// of which `explain` runs `plimsoll explain`, and from the daemon's `files`.
    pub(crate) fn of(
        files: &Files,
        names: Result<Vec<String>>,
        explain: &dyn Fn(&str) -> Result<Output>,
    ) -> Self {
        let mut text = "how things stood:\n".to_owned();
        for name in names.iter().flatten() {
            text += &explain(name).map_or_else(
                |error| format!("plimsoll explain {name}: {error:#}\n"),
                |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
            );
            text.push('\n');
        }
        if let Err(error) = &names {
            text += &format!("the daemon does not answer: {error:#}\n");
        }
        for name in files.consoles() {
            text += &format!("the console of {name} said last:\n{}\n\n", files.console_tail(&name));
        }
        text += &format!("the daemon said last:\n{}\n", files.daemon_tail());
        Self(text)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The error's cause follows.
        write!(f, "{}\nwhat failed", self.0)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result, anyhow};

    use super::*;

    #[test]
    fn an_account_is_found_below_other_contexts() {
        let error: Result<()> = Err(anyhow!("the guest did not answer"));
        let error = error.context(Account("guest1 holds 3MiB".to_owned())).context("guest1").unwrap_err();
        assert!(error.downcast_ref::<Account>().is_some());
        let text = format!("{error:#}");
        assert_eq!(text, "guest1: guest1 holds 3MiB\nwhat failed: the guest did not answer");
    }
}
