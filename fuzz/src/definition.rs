//! A VM as its operator writes it, as TOML, or as JSON with its changes.

use std::path::Path;

use plimsoll_protocol::change::{PoolChange, VmChange};
use plimsoll_protocol::definition::{MAX_SIZE, MAX_VCPUS, MIN_SIZE, VmDefinition};
use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_units::CHUNK_SIZE;

/// Reads `input` as TOML, or as JSON where it begins with a brace. What is accepted is within its
/// bounds, and reads the same after it was written.
pub(crate) fn definition(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.starts_with('{') {
        return json(text);
    }
    match VmDefinition::from_toml(text, Path::new("/vm")) {
        Ok(definition) => accepted(&definition),
        Err(error) => is_one_line(&error.to_string()),
    }
}

fn json(text: &str) {
    if let Ok(definition) = serde_json::from_str::<VmDefinition>(text) {
        match definition.check() {
            Ok(()) => accepted(&definition),
            Err(error) => is_one_line(&error.to_string()),
        }
    }
    if let Ok(change) = serde_json::from_str::<VmChange>(text) {
        let again = serde_json::to_string(&change).expect("a change can be written");
        assert_eq!(serde_json::from_str::<VmChange>(&again).expect("it can be read"), change);
        let text = "name = 'a'\nsize = '256MiB'\n[boot]\nmodel = true\n";
        let definition = VmDefinition::from_toml(text, Path::new("/vm")).expect("a definition");
        let changed = definition.changed(&change);
        if changed.check().is_ok() {
            accepted(&changed);
        }
    }
    if let Ok(pool) = serde_json::from_str::<PoolDefinition>(text) {
        let again = serde_json::to_string(&pool).expect("a pool can be written");
        assert_eq!(serde_json::from_str::<PoolDefinition>(&again).expect("it can be read"), pool);
        if let Err(error) = pool.check() {
            is_one_line(&error.to_string());
        }
    }
    if let Ok(change) = serde_json::from_str::<PoolChange>(text) {
        let again = serde_json::to_string(&change).expect("a change can be written");
        assert_eq!(serde_json::from_str::<PoolChange>(&again).expect("it can be read"), change);
    }
}

fn accepted(definition: &VmDefinition) {
    definition.check().expect("what is accepted is within its bounds");
    let size = definition.size;
    assert!(size >= MIN_SIZE && size <= MAX_SIZE && size.0.is_multiple_of(CHUNK_SIZE));
    assert!(definition.reservation <= definition.limit() && definition.limit() <= size);
    assert!((1..=MAX_VCPUS).contains(&definition.vcpus));
    let json = serde_json::to_string(definition).expect("a definition can be written");
    assert_eq!(serde_json::from_str::<VmDefinition>(&json).expect("it can be read"), *definition);
    let toml = definition.to_toml().expect("paths are text");
    let again = VmDefinition::from_toml(&toml, Path::new("/vm")).unwrap_or_else(|e| panic!("{e}:\n{toml}"));
    // Paths of JSON may be relative; TOML takes them from the directory of its file.
    let boot = definition.boot.kernel.iter().chain(&definition.boot.initrd);
    if boot.chain(definition.disks.iter().map(|disk| &disk.path)).all(|path| path.is_absolute()) {
        assert_eq!(again, *definition);
    }
}

fn is_one_line(error: &str) {
    assert!(!error.is_empty() && !error.contains('\n'), "{error:?} is one line");
}
