use anyhow::{Context, Result, ensure};
use plimsoll_protocol::api::UNSAVED_HEADER;
use plimsoll_protocol::history::CSV_HEADER;

use super::{Page, docs};

/// Where the tables are.
const SOURCE: &str = include_str!("../../../../crates/protocol/src/api.rs");

/// The page of the API.
///
/// # Errors
/// The docs are not as they were.
pub(super) fn page() -> Result<Page> {
    let docs = docs(SOURCE);
    let begin =
        docs.iter().position(|line| line.starts_with("| ")).context("the docs of the API have no table")?;
    let is_target = |line: &str| line.starts_with('[') && line.contains("]: crate::");
    let lines: Vec<String> =
        docs[begin..].iter().filter(|line| !is_target(line)).map(|line| without_links(line)).collect();
    let body = format!(
        "`plimsolld` answers HTTP/JSON on a unix socket, `/run/plimsoll/plimsoll.sock`, and on TCP where `[tcp]` of its\n\
         [configuration](configuration.md) says so. A client that may use the socket may do everything. On TCP each request shows\n\
         a token, as `Authorization: Bearer TOKEN`.\n\n\
         ```console\n\
         # curl --unix-socket /run/plimsoll/plimsoll.sock http://localhost/v1/host\n\
         $ curl -H 'Authorization: Bearer TOKEN' http://127.0.0.1:7467/v1/vms\n\
         ```\n\n\
         Option `--json` of `plimsoll` prints the same facts.\n\n## Paths\n\n{}",
        lines.join("\n")
    );
    ensure!(!body.contains("](crate::"), "a link of the docs is left");
    Ok(Page::new("api.md", "API", &body))
}

/// A line of the docs with code in place of links to code.
fn without_links(line: &str) -> String {
    let line = line.replace("`UNSAVED_HEADER`", &format!("`{UNSAVED_HEADER}`"));
    let line = line.replace("`CSV_HEADER`", &format!("`{}`", CSV_HEADER.trim_end()));
    let mut text = String::new();
    let mut rest = line.replace("`[`[`", "`[").replace("`]`]`", "]`");
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((code, after)) = after.split_once("`]") else { break };
        text += &format!("{before}`{code}`");
        let after = match after.strip_prefix("(crate::").and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
        rest = after.to_owned();
    }
    text + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_code_become_code() {
        assert_eq!(without_links("a [`B`], `[`[`C`]`]` and [`D`](crate::d::D)."), "a `B`, `[C]` and `D`.");
        assert_eq!(without_links("no link [here](x)"), "no link [here](x)");
    }
}
