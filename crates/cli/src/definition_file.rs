use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plimsoll_protocol::definition::VmDefinition;

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
        return Err(anyhow!("{shown} is not a definition: name a TOML file of at most 1MiB"));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the definition {shown}"))?;
    let absolute = std::path::absolute(path).with_context(|| format!("reading the definition {shown}"))?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    VmDefinition::from_toml(&text, directory).map_err(|e| anyhow!("{shown}: {e}"))
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
    fn what_is_no_file_is_refused_with_its_name() {
        for path in ["/dev/null", "/", "/nonexistent/vm.toml"] {
            let error = format!("{:#}", read(Path::new(path)).unwrap_err());
            assert!(error.contains(path), "{error}");
        }
    }
}
