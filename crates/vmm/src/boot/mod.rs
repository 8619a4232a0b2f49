//! What a kernel finds when it begins.
pub(crate) mod layout;
