//! TOML that people write, and errors that lead them to the line.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads a TOML document.
///
/// # Errors
/// One line: the line's number, its key where the rest does not name it, and what is wrong with it:
/// `line 2: size: "256MB" is not a size: ...`.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let Some(span) = error.span() else { return message };
        let number = line_at(text, span.start);
        let named = |key: &&str| message.starts_with(*key) || message.contains(&format!("`{key}`"));
        let key = text.lines().nth(number - 1).and_then(|line| line.split_once('='));
        match key.map(|(key, _)| key.trim()).filter(|key| !key.is_empty() && !named(key)) {
            Some(key) => format!("line {number}: {key}: {message}"),
            None => format!("line {number}: {message}"),
        }
    })
}

/// Returns the number of the line at which the value of `key` begins. A key in a table has a path
/// such as `boot.kernel`. Of a list of tables only the first is searched, and only where it is the
/// only one: else the line could be another table's.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut keys = key.split('.');
    let mut value: &Spanned<DeValue<'_>> = root.get_ref().get(keys.next()?)?;
    for key in keys {
        let table = match value.get_ref() {
            DeValue::Table(table) => table,
            DeValue::Array(array) if array.len() == 1 => match array.first()?.get_ref() {
                DeValue::Table(table) => table,
                _ => return None,
            },
            _ => return None,
        };
        value = table.get(key)?;
    }
    Some(line_at(text, value.span().start))
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_line_and_key() {
        let text = "a = 1\n\n[t]\nb = [1, 2]\n";
        let error = |text: &str| read::<toml::Table>(text).unwrap_err();
        for (more, start) in
            [("b = 3\n", "line 5: b: duplicate key"), ("c = x\n", "line 5: c: "), ("\n[", "line 6: ")]
        {
            let error = error(&format!("{text}{more}"));
            assert!(error.starts_with(start), "{start}: {error}");
        }
        let error = read::<std::collections::BTreeMap<String, crate::TaxRate>>("\ntax = 2.0\n").unwrap_err();
        assert!(error.starts_with("line 2: tax 2: "), "the key is named once: {error}");
    }

    #[test]
    fn a_key_is_found_in_tables_and_in_lists_of_one() {
        let text = "a = 1\n[t]\n\nb = '''\nx'''\n[[one]]\nc = 1\n[[two]]\nc = 1\n[[two]]\nc = 2\n";
        for (key, line) in [
            ("a", Some(1)),
            ("t.b", Some(4)),
            ("one.c", Some(7)),
            ("two.c", None),
            ("a.b", None),
            ("t.c", None),
            ("", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
        assert_eq!(line_of("a = ", "a"), None, "a text that is no TOML has no keys");
    }
}
