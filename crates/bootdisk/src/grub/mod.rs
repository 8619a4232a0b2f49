//! GRUB's configuration: a script that makes a menu, and the menu's default entry.

mod condition;
mod menu;
mod run;
mod script;

#[cfg(test)]
mod tests;

use crate::volume::Volume;

pub(crate) use run::{Boots, expand};

/// What the configuration at `path` of volume `index` boots by default.
///
/// # Errors
/// Why it boots nothing, in one line.
pub(crate) fn default(volumes: &[Volume], index: usize, path: &str) -> Result<Boots, String> {
    run::Grub::new(volumes, index, path).boot(path)
}
