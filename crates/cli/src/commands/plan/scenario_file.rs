use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use plimsoll_sim::Scenario;
use plimsoll_units::Bytes;

/// Largest scenario, and largest trace, that is read: a week of a hundred VMs every 15 s. A disk
/// image named by mistake is refused before it fills memory.
const MAX_LEN: u64 = 512 << 20;

/// Scenarios that come with the command, by name.
pub(super) const SHIPPED: [(&str, &str); 5] = [
    ("figure7", include_str!("../../../../../scenarios/figure7.toml")),
    ("figure8", include_str!("../../../../../scenarios/figure8.toml")),
    ("sandbox-host", include_str!("../../../../../scenarios/sandbox-host.toml")),
    ("vdi-morning", include_str!("../../../../../scenarios/vdi-morning.toml")),
    ("database-neighbour", include_str!("../../../../../scenarios/database-neighbour.toml")),
];

/// The scenario in the file `path`, or the shipped one of that name where there is no such file.
///
/// # Errors
/// One line: the file, then whose key, which value and what would do.
pub(super) fn read(path: &Path) -> Result<Scenario> {
    let shown = path.display();
    let name = path.to_str().map(|n| n.strip_suffix(".toml").unwrap_or(n));
    let shipped = SHIPPED.iter().find(|(shipped, _)| Some(*shipped) == name);
    let (text, directory) = match shipped {
        Some((_, text)) if !path.exists() => ((*text).to_owned(), PathBuf::new()),
        _ => (text(path).with_context(|| unknown(path))?, path.parent().unwrap_or(Path::new("")).to_owned()),
    };
    let trace = |file: &str| {
        let path = directory.join(file);
        self::text(&path).map_err(|e| format!("reading {}: {e:#}", path.display()))
    };
    Scenario::from_toml(&text, &trace).map_err(|e| anyhow!("{shown}: {e}"))
}

fn unknown(path: &Path) -> String {
    let names = SHIPPED.map(|(name, _)| name).join(", ");
    format!("reading the scenario {} (shipped ones are {names})", path.display())
}

/// The text of a file.
fn text(path: &Path) -> Result<String> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() || meta.len() > MAX_LEN {
        return Err(anyhow!("it is no file of at most {}", Bytes(MAX_LEN)));
    }
    Ok(std::fs::read_to_string(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_scenarios_are_found_by_name_and_all_can_be_read() {
        for (name, _) in SHIPPED {
            let scenario = read(Path::new(name)).unwrap();
            assert!(!scenario.title.is_empty() && !scenario.vms.is_empty(), "{name}");
        }
        assert!(read(Path::new("figure7.toml")).is_ok());
    }

    #[test]
    fn an_error_names_the_file_and_what_is_shipped() {
        let error = format!("{:#}", read(Path::new("/none.toml")).unwrap_err());
        assert!(error.starts_with("reading the scenario /none.toml (shipped ones are figure7"), "{error}");
    }

    #[test]
    fn traces_are_looked_for_beside_the_scenario() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.toml");
        let scenario = "duration = '1m'\n[host]\nmemory = '1GiB'\n[[vm]]\nname = 'a'\nsize = '64MiB'\n\
            [vm.demand]\ntrace = { file = 't.csv', vm = 'a' }\n";
        std::fs::write(&path, scenario).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("demand: trace: file \"t.csv\": reading "), "{error}");
        std::fs::write(directory.path().join("t.csv"), "seconds,vm,active_bytes\n5,a,4096\n").unwrap();
        assert!(read(&path).is_ok());
    }
}
