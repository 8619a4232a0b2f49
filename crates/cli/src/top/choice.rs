use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::pane::Pane;
use crate::vm_field::VmField;

/// What an operator has chosen to see. It is kept on disk on request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    pub(super) pane: Pane,
    /// Columns by pane, where they are not the usual ones.
    columns: BTreeMap<Pane, Vec<String>>,
    /// The column that rows are ordered by, by pane.
    order: BTreeMap<Pane, Order>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Order {
    by: String,
    reversed: bool,
}

impl Choice {
    /// The columns of the pane. Names that this version does not know are passed over.
    pub(super) fn columns(&self) -> Vec<VmField> {
        let chosen = self.columns.get(&self.pane).into_iter().flatten();
        let chosen: Vec<VmField> = chosen.filter_map(|name| VmField::named(name).ok()).collect();
        if chosen.is_empty() { self.pane.usual() } else { chosen }
    }

    pub(super) fn set_columns(&mut self, columns: &[VmField]) {
        let keys = columns.iter().map(|field| field.key().to_owned()).collect();
        self.columns.insert(self.pane, keys);
    }

    /// The column that the pane's rows are ordered by, and whether the last one stands first.
    pub(super) fn order(&self) -> (VmField, bool) {
        let usual = || VmField::named(self.pane.usual_order()).unwrap_or(crate::vm_field::FIELDS[0]);
        let chosen = self.order.get(&self.pane);
        let by = chosen.and_then(|order| VmField::named(&order.by).ok()).unwrap_or_else(usual);
        (by, chosen.is_some_and(|order| order.reversed))
    }

    pub(super) fn set_order(&mut self, by: VmField, reversed: bool) {
        self.order.insert(self.pane, Order { by: by.key().to_owned(), reversed });
    }

    /// Where it is kept: in the user's directory for settings. `None` if the user has no such
    /// directory.
    pub(super) fn path() -> Option<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let directory = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
        Some(directory?.join("plimsoll").join("top.toml"))
    }

    /// What was kept at `path`; nothing, if nothing was.
    ///
    /// # Errors
    /// What is there cannot be read.
    pub(super) fn load(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Keeps it at `path`. What was there stays if that fails.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("writing down what is shown")?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let written = fs::create_dir_all(directory).and_then(|()| {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(text.as_bytes())?;
            file.persist(path).map_err(|e| e.error)
        });
        written.map(drop).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/top.toml");
        assert_eq!(Choice::load(&path).unwrap(), Choice::default());
        let mut choice = Choice { pane: Pane::Paging, ..Choice::default() };
        let named = |name| VmField::named(name).unwrap();
        choice.set_columns(&[named("name"), named("up")]);
        choice.set_order(named("up"), true);
        choice.save(&path).unwrap();
        let back = Choice::load(&path).unwrap();
        assert_eq!((back.columns(), back.order()), (vec![named("name"), named("up")], (named("up"), true)));
        // Another pane keeps its own.
        let memory = Choice { pane: Pane::Memory, ..back };
        assert_eq!((memory.columns(), memory.order()), (Pane::Memory.usual(), (named("stall"), false)));
    }

    #[test]
    fn a_file_of_another_version_or_of_nonsense_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("top.toml");
        fs::write(&path, "pane = 'memory'\nnew = 1\n[columns]\nmemory = ['name', 'colour']\n[order.memory]\nby = 'colour'\nreversed = true\n").unwrap();
        let choice = Choice::load(&path).unwrap();
        assert_eq!(choice.columns(), [VmField::named("name").unwrap()]);
        assert_eq!(choice.order().0, VmField::named("stall").unwrap());
        fs::write(&path, "pane = 7").unwrap();
        assert!(Choice::load(&path).unwrap_err().to_string().contains("top.toml"));
    }
}
