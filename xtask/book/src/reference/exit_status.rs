use anyhow::{Context, Result};

use super::Page;

/// The page of the statuses that `plimsoll` ends with.
///
/// # Errors
/// The help says nothing of them.
pub(super) fn page() -> Result<Page> {
    let command = plimsoll_cli::command();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (_, statuses) = help.split_once("Exit status:\n").context("the help has no exit statuses")?;
    let mut body = String::from(
        "Scripts tell failures apart by the exit status of `plimsoll`:\n\n| status | meaning |\n|---|---|\n",
    );
    let mut rest = Vec::new();
    for line in statuses.lines() {
        match line.strip_prefix("  ").and_then(|line| line.split_once("  ")) {
            Some((status, meaning)) => body += &format!("| {status} | {meaning} |\n"),
            None => rest.push(line),
        }
    }
    body += &format!("\n{}\n", rest.join("\n"));
    Ok(Page::new("exit-status.md", "Exit status", &body))
}
