use std::io;

/// Why an image cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file does not begin as a qcow2 image does.
    #[error("it is no qcow2 image: state its format, raw or qcow2")]
    NotQcow2,
    /// A feature of the format that is not supported.
    #[error("it has {0}, which is not supported: convert it with qemu-img convert -O qcow2")]
    Unsupported(String),
    /// It may be read and not written.
    #[error("{0}")]
    ReadOnly(String),
    /// The metadata contradicts itself.
    #[error("its metadata is damaged ({0}): see qemu-img check")]
    Damaged(String),
    /// What the caller asks for is out of bounds.
    #[error("{0}")]
    Invalid(String),
    /// The kernel refuses.
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

/// Metadata that contradicts itself, found while an image is in use.
pub(crate) fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the image's metadata is damaged: {what}"))
}
