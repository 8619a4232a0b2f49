//! What a kernel finds when it starts: its image, its command line, its initrd, the machine's
//! description, and the first vCPU in 64-bit mode.
//!
//! [`layout`] says where everything is. [`load::BootImage`] puts it there, [`loader::Loader`] at
//! each boot: from files that the daemon passed, or from what [`reader`] finds on the first disk.

pub(crate) mod acpi;
pub(crate) mod cpuid;
pub(crate) mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
pub(crate) mod kernel_image;
pub(crate) mod layout;
pub(crate) mod load;
mod loaded;
pub(crate) mod loader;
pub(crate) mod reader;
pub(crate) mod registers;
mod zero_page;
