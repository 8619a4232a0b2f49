use plimsoll_units::Pages;

use super::{Account, GrantSource, Tally};
use crate::error::Error;
use crate::lock::{ACCOUNT, Guard, Lock};
use crate::sync::Arc;

/// The locked account.
pub(crate) type AccountGuard<'a> = Guard<'a, Account, ACCOUNT>;

/// The account behind its lock, and the source of grants.
///
/// The account is locked for arithmetic only. The source is called without any lock.
pub(crate) struct Ledger {
    account: Lock<Account, ACCOUNT>,
    source: Arc<dyn GrantSource>,
}

impl Ledger {
    pub(crate) fn new(grant: Pages, chunks: usize, source: Arc<dyn GrantSource>) -> Self {
        Self { account: Lock::new(Account::new(grant, chunks)), source }
    }

    pub(crate) fn account(&self) -> AccountGuard<'_> {
        self.account.lock()
    }

    /// Records what became of a chunk that counted for `before` and counts for `after`. What it
    /// lost is uncharged, and returned. What it gained must be charged already.
    pub(crate) fn record(&self, before: Tally, after: Tally) -> Pages {
        let freed = before.backed.saturating_sub(after.backed);
        let mut account = self.account();
        account.changed(before, after);
        account.uncharge(freed);
        freed
    }

    /// Tells the source what is wanted, if that has changed. Call it without any lock.
    pub(crate) fn report_wanted(&self) {
        let mut news = self.account().start_report();
        while let Some(total) = news {
            self.source.want(total);
            news = self.account().next_report();
        }
    }

    /// Tells the source that the VM holds less. Call it without any lock.
    pub(crate) fn report_freed(&self) {
        self.source.freed();
    }

    /// Tells the source that the swap fails. Call it without any lock.
    pub(crate) fn report_trouble(&self, what: Error) {
        self.source.trouble(what);
    }
}
