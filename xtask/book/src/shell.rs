//! Command lines as documents show them, and the words of the commands in them.

use anyhow::{Result, bail, ensure};

/// The command lines of a block of a console: what stands behind the prompts `$` and `#`. All other
/// lines are what commands have printed.
///
/// # Errors
/// There is no command, or something is printed before the first.
pub(crate) fn typed(block: &str) -> Result<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        let typed = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
        match (lines.last_mut().filter(|_| goes_on), typed) {
            (Some(last), _) => last.push_str(line),
            (None, Some(typed)) => lines.push(typed.to_owned()),
            (None, None) => ensure!(!lines.is_empty(), "no prompt before {line:?}"),
        }
        goes_on = line.ends_with('\\');
        if let Some(last) = lines.last_mut().filter(|_| goes_on) {
            last.pop();
        }
    }
    ensure!(!lines.is_empty(), "a console without a command");
    Ok(lines)
}

/// The words of each command in `line`. Redirections, variables that are set for a command, and
/// comments are left out.
///
/// # Errors
/// A quote without its end, or something that only a shell could find out.
pub(crate) fn commands(line: &str) -> Result<Vec<Vec<String>>> {
    let mut commands = Commands::default();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' if commands.word.is_none() => break,
            '\'' | '"' => {
                let word = commands.word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('$' | '`') if c == '"' => bail!("{line:?}: write it without $ and `"),
                        Some(other) => word.push(other),
                        None => bail!("{line:?}: a quote has no end"),
                    }
                }
            }
            '$' | '`' | '(' | ')' | '*' | '\\' => bail!("{line:?}: write it without {c:?}"),
            '|' | '&' | ';' => commands.end_command(),
            '<' | '>' => {
                commands.end_word();
                commands.redirected = true;
            }
            c if c.is_whitespace() => commands.end_word(),
            c => commands.word.get_or_insert_default().push(c),
        }
    }
    commands.end_command();
    Ok(commands.done)
}

#[derive(Default)]
struct Commands {
    done: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
    /// The next word is a file.
    redirected: bool,
}

impl Commands {
    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let sets = |word: &str| {
            let name = word.split_once('=').map(|(name, _)| name);
            name.is_some_and(|name| {
                !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
            })
        };
        let is_file = std::mem::take(&mut self.redirected);
        let is_variable = self.words.is_empty() && sets(&word);
        if !is_file && !is_variable {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.done.push(std::mem::take(&mut self.words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_a_shell_would() {
        for (line, expected) in [
            ("plimsoll ps   # all of them", "plimsoll,ps"),
            ("plimsoll ps --format '{name} {state}'", "plimsoll,ps,--format,{name} {state}"),
            ("a x && b y | c; d &", "a,x/b,y/c/d"),
            ("plimsoll create - < web1.toml > log", "plimsoll,create,-"),
            ("EDITOR=vi plimsoll edit \"web1\"", "plimsoll,edit,web1"),
            ("a --label tier=web#1", "a,--label,tier=web#1"),
            ("# nothing", ""),
        ] {
            let words: Vec<String> = commands(line).unwrap().iter().map(|words| words.join(",")).collect();
            assert_eq!(words.join("/"), expected, "{line}");
        }
        for line in ["a 'b", "a $(b)", "a \"$b\"", "a *"] {
            assert!(commands(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_typed_is_told_from_what_is_printed() {
        assert_eq!(typed("$ a \\\n  b\nprinted\n# c\n").unwrap(), ["a   b", "c"]);
        assert!(typed("printed\n$ a\n").is_err());
        assert!(typed("").is_err());
    }
}
