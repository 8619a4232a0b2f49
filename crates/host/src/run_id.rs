/// One life of a VM's process. Never used twice by one daemon, so that late messages of an earlier
/// life are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunId(pub(crate) u64);
