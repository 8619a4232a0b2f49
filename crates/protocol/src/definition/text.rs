use std::path::Path;

use plimsoll_units::Bytes;
use toml::Value;

use super::cloud_init::CloudInit;
use super::error::DefinitionError;
use super::vm::VmDefinition;
use crate::toml_text;

/// The keys that are sizes. All of them are keys of the document itself.
const SIZES: [&str; 3] = ["size", "reservation", "limit"];

impl VmDefinition {
    /// Reads and checks a definition. Relative paths are taken from `directory`, the definition's
    /// own.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, a value out of its bounds: one line that names line,
    /// key and value.
    pub fn from_toml(text: &str, directory: &Path) -> Result<Self, DefinitionError> {
        let mut definition: Self = toml_text::read(text).map_err(DefinitionError::new)?;
        let boot = &mut definition.boot;
        let disks = definition.disks.iter_mut().map(|d| &mut d.path);
        let seed = definition.cloud_init.iter_mut().flat_map(CloudInit::paths_mut);
        for path in boot.kernel.iter_mut().chain(&mut boot.initrd).chain(disks).chain(seed) {
            *path = directory.join(&*path);
        }
        definition.check().map_err(|e| {
            let message = e.to_string();
            // The text begins with the key that is out of its bounds.
            match message.split(' ').next().and_then(|key| toml_text::line_of(text, key)) {
                Some(line) => DefinitionError::new(format!("line {line}: {message}")),
                None => e,
            }
        })?;
        Ok(definition)
    }

    /// Writes the definition as TOML that [`Self::from_toml`] reads as the same definition. Keys
    /// that have their default values are left out, sizes are written with their units.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, DefinitionError> {
        let failed = |e: toml::ser::Error| {
            DefinitionError::new(format!("VM {} cannot be written as TOML: {e}", self.name))
        };
        let mut document = toml::Table::try_from(self).map_err(failed)?;
        for (_, value) in document.iter_mut().filter(|(key, _)| SIZES.contains(&key.as_str())) {
            if let Some(size) = value.as_integer().and_then(|size| u64::try_from(size).ok()) {
                *value = Value::String(exact(Bytes(size)));
            }
        }
        toml::to_string(&document).map_err(failed)
    }
}

/// A size in the largest unit that divides it: unlike [`Bytes`]'s own text, it never rounds.
fn exact(size: Bytes) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];
    let exact = units.into_iter().find(|(_, shift)| size.0 > 0 && size.0.is_multiple_of(1 << shift));
    exact.map_or_else(|| "0".to_owned(), |(unit, shift)| format!("{}{unit}", size.0 >> shift))
}
