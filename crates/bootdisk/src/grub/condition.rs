//! GRUB's `test`, also called `[`.

use std::cmp::Ordering;

/// Most words of a condition that are looked at.
const MAX_WORDS: usize = 64;

/// What a condition asks about files.
pub(super) trait Files {
    /// The length of the file at `path`, if there is a file.
    fn file(&self, path: &str) -> Option<u64>;
    fn is_directory(&self, path: &str) -> bool;
}

/// Whether the condition in `words` holds. One that cannot be understood does not.
pub(super) fn holds(words: &[String], files: &dyn Files) -> bool {
    let words: Vec<&str> = words.iter().take(MAX_WORDS).map(String::as_str).collect();
    let mut parser = Parser { words: &words, files };
    let holds = parser.any();
    holds && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    files: &'a dyn Files,
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn is(&mut self, word: &str) -> bool {
        let is = self.words.first() == Some(&word);
        if is {
            self.words = &self.words[1..];
        }
        is
    }

    fn any(&mut self) -> bool {
        let mut holds = self.all();
        while self.is("-o") {
            holds |= self.all();
        }
        holds
    }

    fn all(&mut self) -> bool {
        let mut holds = self.one();
        while self.is("-a") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if let [left, operator, right, ..] = *self.words
            && let Some(holds) = compare(left, operator, right)
        {
            self.words = &self.words[3..];
            return holds;
        }
        match self.take() {
            None => false,
            Some("!") => !self.one(),
            Some("(") => {
                let holds = self.any();
                self.is(")") && holds
            }
            Some(operator @ ("-n" | "-z" | "-e" | "-f" | "-d" | "-s")) if !self.words.is_empty() => {
                let word = self.take().unwrap_or_default();
                match operator {
                    "-n" => !word.is_empty(),
                    "-z" => word.is_empty(),
                    "-d" => self.files.is_directory(word),
                    "-s" => self.files.file(word).is_some_and(|length| length > 0),
                    "-f" => self.files.file(word).is_some(),
                    _ => self.files.file(word).is_some() || self.files.is_directory(word),
                }
            }
            Some(word) => !word.is_empty(),
        }
    }
}

/// Compares two words; `None` if `operator` is not one that compares words.
fn compare(left: &str, operator: &str, right: &str) -> Option<bool> {
    let number = |word: &str| word.parse::<i64>().unwrap_or(0);
    let order = || number(left).cmp(&number(right));
    Some(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        "-eq" => order() == Ordering::Equal,
        "-ne" => order() != Ordering::Equal,
        "-lt" => order() == Ordering::Less,
        "-le" => order() != Ordering::Greater,
        "-gt" => order() == Ordering::Greater,
        "-ge" => order() != Ordering::Less,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some3;

    impl Files for Some3 {
        fn file(&self, path: &str) -> Option<u64> {
            match path {
                "/full" => Some(3),
                "/empty" => Some(0),
                _ => None,
            }
        }

        fn is_directory(&self, path: &str) -> bool {
            path == "/boot"
        }
    }

    #[test]
    fn conditions_hold_as_grub_says() {
        for (text, wanted) in [
            ("", false),
            ("x", true),
            ("x = x", true),
            ("x = y", false),
            ("xy != y", true),
            ("-s /full", true),
            ("-s /empty", false),
            ("-f /empty", true),
            ("-f /boot", false),
            ("-e /boot -a -d /boot", true),
            ("-z x -o -n x", true),
            ("! -f /none", true),
            ("( -z x ) -o ( x = x )", true),
            ("-f /none -a -f /full -o -f /full", true),
            ("10 -gt 9", true),
            ("10 > 9", false),
            ("x = x y", false),
            ("( ( ( (", false),
            ("! ! ! !", false),
        ] {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            assert_eq!(holds(&words, &Some3), wanted, "{text}");
        }
        assert!(!holds(&vec!["(".to_owned(); 100_000], &Some3));
        assert!(!holds(&[String::new()], &Some3));
    }
}
