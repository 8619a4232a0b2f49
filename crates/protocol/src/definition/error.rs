/// A definition that cannot be used: which field, which value, what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DefinitionError(String);

impl DefinitionError {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}
