use plimsoll_pmap::PpnRange;

/// A kernel in guest memory.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Where the first vCPU starts.
    pub(crate) entry: u64,
    /// The pages that were written, which are hot now.
    pub(crate) pages: Vec<PpnRange>,
}
