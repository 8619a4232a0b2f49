use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_protocol::definition::VmDefinition;

use crate::exit::{Status, failed};

/// Largest definition that is read: a hundred times what one with every device needs. A disk image
/// named by mistake is refused before it fills memory.
const MAX_LEN: usize = 1 << 20;
/// Quotes that word processors put in the place of TOML's own.
const CURLY: [char; 4] = ['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}'];

/// Reads and checks a definition: a file, a pipe, or with `-` the standard input. Its relative
/// paths become absolute, taken from the file's directory, or the current one for what is no file
/// in a directory of its own.
///
/// # Errors
/// One line that names the file, and where there is one the line and the field.
pub(crate) fn read(path: &Path) -> Result<VmDefinition> {
    let is_stdin = path == Path::new("-");
    let shown = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let invalid = |text: String| failed(Status::Invalid, text);
    let unread = |e: std::io::Error| invalid(format!("reading the definition {shown}: {e}"));
    let mut bytes = Vec::new();
    let most = MAX_LEN as u64 + 1;
    let read = if is_stdin {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(unread)?;
    if bytes.len() > MAX_LEN {
        return Err(invalid(format!("{shown} is not a definition: name a TOML file of at most 1MiB")));
    }
    let directory = directory_of(path).map_err(unread)?;
    parse(&bytes, &directory).map_err(|e| invalid(format!("{shown}: {e}")))
}

fn directory_of(path: &Path) -> std::io::Result<PathBuf> {
    if !path.is_file() || path.starts_with("/dev") || path.starts_with("/proc") {
        return std::env::current_dir();
    }
    let absolute = std::path::absolute(path)?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The definition in the bytes of a file.
///
/// # Errors
/// What is wrong, with its line.
pub(crate) fn parse(bytes: &[u8], directory: &Path) -> Result<VmDefinition, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16: save it as UTF-8".to_owned());
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        format!("line {line}: it is not UTF-8")
    })?;
    VmDefinition::from_toml(text, directory).map_err(|e| match text.contains(CURLY) {
        true => format!("{e}; it has curly quotes: write straight ones"),
        false => e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'a'\nsize = '256MiB'\n[boot]\nkernel = 'vmlinuz'\n";

    #[test]
    fn an_error_names_file_line_and_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), GOOD.replace("256MiB", "256MB")).unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        let start = format!("{}: line 2: size: ", file.path().display());
        assert!(error.starts_with(&start), "{start}: {error}");
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
    fn what_is_no_definition_is_refused_with_its_name() {
        for path in ["/dev/null", "/dev/zero", "/", "/nonexistent/vm.toml"] {
            let error = format!("{:#}", read(Path::new(path)).unwrap_err());
            assert!(error.contains(path), "{error}");
        }
    }

    #[test]
    fn encodings_and_quotes_are_named() {
        let parse = |bytes: &[u8]| parse(bytes, Path::new("/"));
        let wide: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(parse(&[&[0xff, 0xfe], &wide[..]].concat()).unwrap_err().contains("UTF-16"));
        assert!(
            parse(&[&b"\xef\xbb\xbf"[..], GOOD.as_bytes()].concat()).is_ok(),
            "a mark of order is nothing"
        );
        assert_eq!(parse(b"name = 'a'\n# \xe4\n").unwrap_err(), "line 2: it is not UTF-8");
        let curly = GOOD.replace("'a'", "\u{201c}a\u{201d}");
        let error = parse(curly.as_bytes()).unwrap_err();
        assert!(error.starts_with("line 1: ") && error.contains("curly quotes"), "{error}");
    }
}
