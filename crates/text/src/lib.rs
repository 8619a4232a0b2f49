//! Texts of guests, VMMs and files, made fit for logs, terminals and messages.
//!
//! Such a text is hostile: control characters could drive the operator's terminal, line breaks
//! could forge lines of a log, and it may be of any length. This crate does no I/O and depends on
//! nothing.

/// `text` in one line of at most `most` bytes: control characters become spaces, and what is beyond
/// is cut off.
#[must_use]
pub fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for letter in text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }) {
        if line.len() + letter.len_utf8() > most {
            break;
        }
        line.push(letter);
    }
    line
}

/// `text` without control characters.
#[must_use]
pub fn without_controls(text: &str) -> String {
    without_controls_but(&[], text)
}

/// `text` without control characters but those of `kept`.
#[must_use]
pub fn without_controls_but(kept: &[char], text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control() || kept.contains(letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_and_bounded() {
        assert_eq!(one_line("a\nb\x1b[31m", 100), "a b [31m");
        assert_eq!(one_line(&"ä".repeat(100), 7), "äää");
        assert_eq!(one_line("", 0), "");
    }

    #[test]
    fn control_characters_are_left_out_but_those_that_are_kept() {
        assert_eq!(without_controls("a\n\tb\x1b[2J\u{9b}"), "ab[2J");
        assert_eq!(without_controls_but(&['\n', '\t'], "a\n\tb\x1b[2J\u{9b}"), "a\n\tb[2J");
    }
}
