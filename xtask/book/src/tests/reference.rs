//! The reference is as the code is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use plimsoll_lab::workspace;
use plimsoll_protocol::definition::VmDefinition;

use crate::documents::SOURCES;
use crate::reference::pages;

/// Pages of the reference that are written by hand.
const BY_HAND: [&str; 1] = ["reference/events.md"];

#[test]
fn every_page_is_as_the_code_makes_it() {
    let mut old = Vec::new();
    for page in pages().unwrap() {
        let path = workspace::root().join(SOURCES).join(&page.path);
        if fs::read_to_string(path).ok().as_deref() != Some(&page.text) {
            old.push(page.path);
        }
    }
    assert!(old.is_empty(), "not as the code is, so run \"cargo xtask book\": {}", old.join(", "));
}

#[test]
fn no_page_of_a_command_that_is_gone_is_left() {
    let made: BTreeSet<String> = pages().unwrap().into_iter().map(|page| page.path).collect();
    for directory in ["reference", "reference/commands"] {
        for entry in fs::read_dir(workspace::root().join(SOURCES).join(directory)).unwrap() {
            let path = format!("{directory}/{}", entry.unwrap().file_name().display());
            let known = made.contains(&path) || BY_HAND.contains(&path.as_str());
            assert!(known || !path.ends_with(".md"), "{path}");
        }
    }
}

/// Keys that no operator needs: a model of a guest is for tests.
const UNTOLD: [&str; 1] = ["model"];

/// The keys that a definition may have in `section`, as the error about a wrong one lists them.
fn keys(section: &str) -> Vec<String> {
    let text = format!("{section}\nno-such-key = 1\n");
    let error = VmDefinition::from_toml(&text, Path::new("/")).unwrap_err().to_string();
    let (_, expected) = error.split_once("expected ").unwrap_or_else(|| panic!("{section}: {error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_of_a_definition_is_in_its_page() {
    let page = pages().unwrap().into_iter().find(|page| page.path.ends_with("/definition.md")).unwrap();
    let mut found = 0;
    for section in
        ["", "[memory]", "[cpu]", "[boot]", "[[disk]]", "[[net]]", "[cloud_init]", "[balloon]", "[jail]"]
    {
        for key in keys(section) {
            found += 1;
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let told = page.text.split(|c| !is_word(c)).any(|word| word == key);
            assert!(
                told || UNTOLD.contains(&key.as_str()),
                "{section} {key} is not in the page of definitions"
            );
        }
    }
    assert!(found > 40, "only {found} keys were found");
}
