use plimsoll_units::Pages;

use crate::client::Client;
use crate::curve::VmCurve;
use crate::pool::PoolId;
use crate::tax::Tax;

/// A VM in a tree of pools.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Its claim.
    pub client: Client,
    /// A tax of its own; `None`: the host's.
    pub tax: Option<Tax>,
    /// Its pool, one of the tree that is divided over.
    pub pool: PoolId,
}

impl Member {
    /// The cost per share of `pages`, in active pages, on a host with `tax`: the inverse of the
    /// paper's price `rho` (Waldspurger 2002, section 5.3). At rest all siblings that no bound
    /// holds pay the same: the water level of their pool.
    #[expect(clippy::cast_precision_loss, reason = "page counts stay below 2^53")]
    pub fn pays(&self, tax: Tax, pages: Pages) -> f64 {
        VmCurve::new(&self.client, self.tax.unwrap_or(tax)).level_of(pages.0 as f64)
    }
}
