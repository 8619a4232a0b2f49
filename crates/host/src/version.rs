use plimsoll_protocol::definition::VmDefinition;

/// What tells a definition from what it was before. The same definition always has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) String);

/// Digits of a version: 64 bits, far more than a definition has versions.
const DIGITS: usize = 16;

impl Version {
    /// The version of `definition`.
    pub(crate) fn of(definition: &VmDefinition) -> Self {
        // What JSON cannot say (paths that are not UTF-8) the API has not taken.
        let text = serde_json::to_vec(definition).unwrap_or_default();
        let mut digits = blake3::hash(&text).to_hex().to_string();
        digits.truncate(DIGITS);
        Self(digits)
    }
}
