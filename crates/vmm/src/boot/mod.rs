//! What a kernel finds when it starts: its image, its command line, its initrd, the machine's
//! description, and the first vCPU in 64-bit mode.
//!
//! [`layout`] says where everything is. [`load::BootImage`] puts it there.

pub(crate) mod acpi;
pub(crate) mod cpuid;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
pub(crate) mod kernel_image;
pub(crate) mod layout;
pub(crate) mod load;
pub(crate) mod registers;
mod zero_page;
