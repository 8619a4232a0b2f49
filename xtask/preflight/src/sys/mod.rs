//! System interfaces without a safe wrapper in the standard library, one a module.

pub(crate) mod statvfs;
pub(crate) mod userfaultfd;
