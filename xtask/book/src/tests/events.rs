//! Events that the book names are events of the daemon.

use std::fs;
use std::path::PathBuf;

use plimsoll_lab::workspace;

use crate::markdown::Page;

const PAGE: &str = include_str!("../../../../book/src/reference/events.md");

/// Where texts of events are made.
const CODE: [&str; 2] = ["crates/host/src", "crates/protocol/src"];

/// `text` with a sign in place of each part between `open` and `close`.
fn without(text: &str, open: char, close: char) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open) {
        left += before;
        left.push('\0');
        rest = after.split_once(close).map_or("", |(_, after)| after);
    }
    left + rest
}

fn code() -> String {
    let mut directories: Vec<PathBuf> = CODE.map(|name| workspace::root().join(name)).into();
    let mut all = String::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all += &fs::read_to_string(path).unwrap();
            }
        }
    }
    all
}

/// Texts in the first column of the page's tables.
fn events() -> Vec<String> {
    let codes = Page::read(PAGE).codes;
    let lines: Vec<&str> = PAGE.lines().collect();
    let first = |(line, code): &(usize, String)| lines[line - 1].starts_with(&format!("| `{code}`"));
    codes.into_iter().filter(first).map(|(_, code)| code).collect()
}

#[test]
fn every_text_of_an_event_is_in_the_code() {
    // Format strings have `{...}` where the page has `<...>`.
    let code: Vec<String> = code().split('"').map(|part| without(part, '{', '}')).collect();
    let known = |event: &str| code.iter().any(|part| part.contains(&without(event, '<', '>')));
    let events = events();
    let missing: Vec<&String> = events.iter().filter(|event| !known(event)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(events.len() > 20, "only {} events were found", events.len());
    assert!(!known("its VMM has gone to lunch for <seconds> s"));
}
