use plimsoll_units::Bytes;

use super::error::DefinitionError;

/// Highest limits: no device is as fast, and numbers beyond 63 bits could not be written as TOML.
const MAX_OPERATIONS: u64 = 1_000_000_000;
/// See [`MAX_OPERATIONS`].
const MAX_BANDWIDTH: Bytes = Bytes::mib(1 << 20);

/// The keys of a device that limit how fast it is.
pub(super) struct RateKeys {
    /// What errors call the device.
    pub(super) device: String,
    /// The key that limits operations a second, its value, and its lowest value.
    pub(super) operations: (&'static str, Option<u64>, u64),
    /// Bytes a second, and the lowest value.
    pub(super) bandwidth: (Option<Bytes>, Bytes),
}

impl RateKeys {
    /// Checks the bounds.
    ///
    /// # Errors
    /// What is wrong and what would do, on one line.
    pub(super) fn check(&self) -> Result<(), DefinitionError> {
        let (key, operations, fewest) = self.operations;
        let (bandwidth, least) = self.bandwidth;
        let device = &self.device;
        match (operations, bandwidth) {
            (Some(n), _) if n < fewest => Err(DefinitionError::new(format!(
                "{device}: {key} {n}: at least {fewest} are needed; without the key there is no limit"
            ))),
            (Some(n), _) if n > MAX_OPERATIONS => Err(DefinitionError::new(format!(
                "{device}: {key} {n}: at most {MAX_OPERATIONS} are allowed; without the key there is no limit"
            ))),
            (_, Some(bandwidth)) if bandwidth < least => Err(DefinitionError::new(format!(
                "{device}: bandwidth {bandwidth}: at least {least} (a second) is needed; without the key there is \
                 no limit"
            ))),
            (_, Some(bandwidth)) if bandwidth > MAX_BANDWIDTH => Err(DefinitionError::new(format!(
                "{device}: bandwidth {bandwidth}: at most {MAX_BANDWIDTH} (a second) is allowed; without the key \
                 there is no limit"
            ))),
            _ => Ok(()),
        }
    }
}
