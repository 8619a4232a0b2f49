//! Strings of an operator as YAML that reads back as the same strings.

use std::fmt::Write;

/// `text` in double quotes. Whatever could mean something to a parser, of YAML 1.1 or 1.2, is
/// escaped: nothing but printable ASCII is left.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            // Eight digits: YAML has no pairs of surrogates. Writing to a string cannot fail.
            _ => write!(quoted, "\\U{:08X}", u32::from(character)).unwrap_or_default(),
        }
    }
    quoted + "\""
}

/// One quoted entry a line.
pub(super) fn list(entries: &[String]) -> String {
    entries.iter().map(|entry| format!("  - {}\n", quoted(entry))).collect()
}
