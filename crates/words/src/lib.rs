//! What users are told of VMs and the host, in sentences and tables: one text for the command line
//! and for the web page.
//!
//! Everything here is made of what the API answers. It asks nothing, prints nothing and decides
//! nothing.
//!
//! | module | tells |
//! |---|---|
//! | [`explain`] | why memory is divided as it is |
//! | [`mod@note`] | what is unusual about a VM |
//! | [`devices`], [`guest`], [`paging`], [`sharing`], [`stall`] | a part of a VM each, in a line |
//! | [`pool`] | what is set of a resource pool |
//! | [`table`], [`mod@age`], [`local_time`] | rows, spans of time, moments |

pub mod age;
pub mod devices;
pub mod explain;
pub mod guest;
pub mod local_time;
pub mod note;
pub mod paging;
pub mod pool;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod sharing;
pub mod stall;
pub mod table;

pub use age::age;
pub use note::note;
