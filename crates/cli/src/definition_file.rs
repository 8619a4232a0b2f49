use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plimsoll_protocol::definition::VmDefinition;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Largest definition that is read: a hundred times what one with every device needs. A disk image
/// named by mistake is refused before it fills memory.
const MAX_LEN: u64 = 1 << 20;

/// Reads and checks a definition; its relative paths become absolute, taken from the file's
/// directory.
///
/// # Errors
/// One line that names the file, and where there is one the line and the field.
pub(crate) fn read(path: &Path) -> Result<VmDefinition> {
    let shown = path.display();
    let meta = std::fs::metadata(path).with_context(|| format!("reading the definition {shown}"))?;
    if meta.len() > MAX_LEN || !meta.is_file() {
        return Err(anyhow!("{shown} is no definition: name a TOML file of at most 1MiB"));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the definition {shown}"))?;
    let absolute = std::path::absolute(path).with_context(|| format!("reading the definition {shown}"))?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    parse(&text, directory).map_err(|e| anyhow!("{shown}: {e}"))
}

/// As [`VmDefinition::from_toml`], with line and field of an error.
fn parse(text: &str, directory: &Path) -> Result<VmDefinition, String> {
    if let Err(error) = toml::from_str::<VmDefinition>(text) {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        return Err(match error.span() {
            Some(span) => format!("line {}: {message}", place(text, span.start)),
            None => message,
        });
    }
    VmDefinition::from_toml(text, directory).map_err(|e| {
        let message = e.to_string();
        // A bound that is broken is told with the field as its first word.
        match message.split(' ').next().and_then(|field| find(text, field)) {
            Some(at) => format!("line {}: {message}", line_of(text, at)),
            None => message,
        }
    })
}

/// The line at byte `at`, with the key that it gives a value to, if any.
fn place(text: &str, at: usize) -> String {
    let number = line_of(text, at);
    let key = text.lines().nth(number - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    match key {
        Some(key) if !key.is_empty() => format!("{number} ({key})"),
        _ => number.to_string(),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

/// Where the value of `field` (a path such as `boot.kernel`) stands. In a list of tables only the
/// first is looked at, and only where it is the only one: else the line could be another's.
fn find(text: &str, field: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut keys = field.split('.');
    let first = keys.next()?;
    let mut value: &Spanned<DeValue<'_>> = root.get_ref().get(first)?;
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
    Some(value.span().start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'a'\nsize = '256MiB'\n[boot]\nkernel = 'vmlinuz'\n";

    fn error(text: &str) -> String {
        parse(text, Path::new("/d")).unwrap_err()
    }

    #[test]
    fn errors_name_line_and_field() {
        for (text, start) in [
            (GOOD.replace("256MiB", "256MB"), "line 2 (size): "),
            (GOOD.replace("size", "sise"), "line 2 (sise): unknown field"),
            (GOOD.replace("256MiB", "33MiB"), "line 2: size 33MiB"),
            (format!("{GOOD}\n[[net]]\n\ntap = ''\n"), "line 8: net.tap"),
            (format!("{GOOD}cmdline = '''\nx\n'''\n"), "line 5: boot.cmdline"),
            (format!("{GOOD}["), "line 5"),
            (GOOD.replace("kernel = 'vmlinuz'", ""), "boot.kernel is missing"),
        ] {
            let error = error(&text);
            assert!(error.starts_with(start), "{start}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn paths_are_taken_from_the_directory_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.toml");
        std::fs::write(&path, GOOD).unwrap();
        let vm = read(&path).unwrap();
        assert_eq!(vm.boot.kernel.unwrap(), directory.path().join("vmlinuz"));
    }

    #[test]
    fn what_is_no_file_is_refused_with_its_name() {
        for path in ["/dev/null", "/", "/nonexistent/vm.toml"] {
            let error = format!("{:#}", read(Path::new(path)).unwrap_err());
            assert!(error.contains(path), "{error}");
        }
    }
}
