//! The host's account of its machine memory (invariant 2 of the design).

use std::collections::BTreeMap;

use plimsoll_units::Pages;

use crate::run_id::RunId;

/// How much of the budget each VM is promised.
///
/// At every message boundary `budget = granted + overhead + frames + free`. Nothing changes an
/// account but the methods below, and each of them either keeps the sum or refuses and changes
/// nothing.
#[derive(Debug)]
pub(crate) struct Ledger {
    configured: Pages,
    /// The part of it that the machine's memory still sustains.
    sustained: Pages,
    budget: Pages,
    granted: Pages,
    overhead: Pages,
    /// Frames that pages of VMs share.
    frames: Pages,
    /// The part of `frames` that closed accounts had pledged.
    orphaned: Pages,
    peak: Pages,
    accounts: BTreeMap<RunId, Account>,
}

/// One running VM's part of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Promised to its guest.
    pub(crate) grant: Pages,
    /// Charged for its VMM.
    pub(crate) overhead: Pages,
    /// The part of the grant that its VMM has offered as frames, and that cannot be returned.
    pub(crate) pledged: Pages,
}

/// A change that would break the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LedgerError {
    /// More was asked for than is free.
    #[error("{} asked for, {} free", .asked.bytes(), .free.bytes())]
    Short { asked: Pages, free: Pages },
    /// More was given back than had been granted.
    #[error("{} given back of a grant of {}", .returned.bytes(), .grant.bytes())]
    Breach { returned: Pages, grant: Pages },
    /// More frames were freed than there are.
    #[error("{} frames freed of {}", .freed.0, .frames.0)]
    Frames { freed: Pages, frames: Pages },
    /// The run has no account, or has one already.
    #[error("run {0:?} has no account, or has one already")]
    Account(RunId),
}

impl Ledger {
    pub(crate) fn new(budget: Pages) -> Self {
        Self {
            configured: budget,
            sustained: budget,
            budget,
            granted: Pages::ZERO,
            overhead: Pages::ZERO,
            frames: Pages::ZERO,
            orphaned: Pages::ZERO,
            peak: Pages::ZERO,
            accounts: BTreeMap::new(),
        }
    }

    /// Machine memory that Plimsoll may use: [`Ledger::sustained`], and more only while VMs still
    /// hold more than that.
    pub(crate) fn budget(&self) -> Pages {
        self.budget
    }

    /// The memory that is divided: the configured budget, less what other programs have taken of
    /// it.
    pub(crate) fn sustained(&self) -> Pages {
        self.sustained
    }

    /// The part of the configured budget that other programs have taken.
    pub(crate) fn taken(&self) -> Pages {
        self.configured - self.sustained
    }

    /// The machine has `usable` memory for VMs now, including the memory that they have. Promises
    /// are kept: if they add up to more, the budget falls to `usable` as memory comes back.
    pub(crate) fn sustain(&mut self, usable: Pages) {
        self.sustained = self.configured.min(usable);
        self.settle();
    }

    /// The budget as it was configured, or as it has followed the machine since.
    pub(crate) fn configured(&self) -> Pages {
        self.configured
    }

    /// The budget is another one from now on. Promises are kept, as in [`Ledger::sustain`].
    pub(crate) fn configure(&mut self, budget: Pages) {
        self.configured = budget;
        self.sustain(budget);
    }

    /// Promised to all guests.
    pub(crate) fn granted(&self) -> Pages {
        self.granted
    }

    /// Charged for all VMMs.
    pub(crate) fn overhead(&self) -> Pages {
        self.overhead
    }

    /// Frames that pages of VMs share, and what VMs that have ended had pledged to become frames.
    pub(crate) fn frames(&self) -> Pages {
        self.frames
    }

    /// The part of [`Ledger::frames`] that ended VMs had pledged, and that may not become frames.
    pub(crate) fn orphaned(&self) -> Pages {
        self.orphaned
    }

    /// Memory that is promised to no VM.
    pub(crate) fn free(&self) -> Pages {
        self.budget.saturating_sub(self.spent())
    }

    /// Highest sum of grants, overheads and frames so far.
    pub(crate) fn peak(&self) -> Pages {
        self.peak
    }

    /// A run's account; an empty one for an unknown run.
    pub(crate) fn account(&self, run: RunId) -> Account {
        self.accounts.get(&run).copied().unwrap_or_default()
    }

    /// Opens an account and charges it.
    pub(crate) fn open(&mut self, run: RunId, account: Account) -> Result<(), LedgerError> {
        if self.accounts.contains_key(&run) {
            return Err(LedgerError::Account(run));
        }
        let asked = account.grant.saturating_add(account.overhead);
        self.afford(asked)?;
        self.enter(run, account);
        Ok(())
    }

    /// Opens the account of a VM that already holds its memory, whatever the budget says: what is
    /// spent is spent. Where that exceeds the configured budget, the budget rises to it and comes
    /// down as memory comes back.
    pub(crate) fn adopt(&mut self, run: RunId, account: Account) -> Result<(), LedgerError> {
        let spent = account.grant.checked_add(account.overhead).and_then(|a| a.checked_add(self.spent()));
        match spent {
            Some(spent) if !self.accounts.contains_key(&run) => {
                self.budget = self.budget.max(spent);
                self.enter(run, account);
                Ok(())
            }
            _ => Err(LedgerError::Account(run)),
        }
    }

    /// Corrects the account of a VM that holds its memory already, as [`Ledger::adopt`] opened it.
    /// A pledge stays.
    pub(crate) fn correct(&mut self, run: RunId, account: Account) -> Result<(), LedgerError> {
        let before = self.accounts.get(&run).copied().ok_or(LedgerError::Account(run))?;
        let account = Account { pledged: before.pledged, ..account };
        if account.grant < before.pledged {
            return Err(LedgerError::Breach { returned: before.grant - account.grant, grant: before.grant });
        }
        let others = self.spent() - before.grant - before.overhead;
        let fits = account.grant.checked_add(account.overhead).and_then(|a| a.checked_add(others));
        fits.ok_or(LedgerError::Account(run))?;
        self.granted -= before.grant;
        self.overhead -= before.overhead;
        self.enter(run, account);
        self.settle();
        Ok(())
    }

    /// Raises a grant.
    pub(crate) fn charge(&mut self, run: RunId, pages: Pages) -> Result<(), LedgerError> {
        self.afford(pages)?;
        let account = self.accounts.get_mut(&run).ok_or(LedgerError::Account(run))?;
        account.grant += pages;
        self.granted += pages;
        self.peak = self.peak.max(self.spent());
        Ok(())
    }

    /// Lowers a grant.
    pub(crate) fn credit(&mut self, run: RunId, pages: Pages) -> Result<(), LedgerError> {
        let account = self.accounts.get_mut(&run).ok_or(LedgerError::Account(run))?;
        let left = account.grant.checked_sub(pages).filter(|left| *left >= account.pledged);
        let grant = account.grant - account.pledged;
        account.grant = left.ok_or(LedgerError::Breach { returned: pages, grant })?;
        self.granted -= pages;
        self.settle();
        Ok(())
    }

    /// Sets pages of a grant aside to become frames. They stay a part of the grant until
    /// [`Ledger::redeem`].
    pub(crate) fn pledge(&mut self, run: RunId, pages: Pages) -> Result<(), LedgerError> {
        let account = self.accounts.get_mut(&run).ok_or(LedgerError::Account(run))?;
        let pledged = account.pledged.saturating_add(pages);
        let breach = LedgerError::Breach { returned: pages, grant: account.grant - account.pledged };
        account.pledged = Some(pledged).filter(|pledged| *pledged <= account.grant).ok_or(breach)?;
        Ok(())
    }

    /// Ends a pledge: `created` of its pages are frames now, the others are free to use in the
    /// grant again. Where the account has been closed, they go back to the host.
    pub(crate) fn redeem(&mut self, run: RunId, pledged: Pages, created: Pages) -> Result<(), LedgerError> {
        let breach = LedgerError::Frames { freed: pledged, frames: created };
        let rest = pledged.checked_sub(created).ok_or(breach)?;
        if let Some(account) = self.accounts.get_mut(&run) {
            account.pledged = account.pledged.checked_sub(pledged).ok_or(breach)?;
            account.grant -= created;
            self.granted -= created;
            self.frames += created;
        } else {
            self.orphaned = self.orphaned.checked_sub(pledged).ok_or(breach)?;
            self.frames -= rest;
        }
        self.settle();
        Ok(())
    }

    /// Frees frames that no page refers to any more.
    pub(crate) fn unframe(&mut self, pages: Pages) -> Result<(), LedgerError> {
        let breach = LedgerError::Frames { freed: pages, frames: self.frames - self.orphaned };
        self.frames = self.frames.checked_sub(pages).filter(|left| *left >= self.orphaned).ok_or(breach)?;
        self.settle();
        Ok(())
    }

    /// Takes over memory of frames that is there already, whatever the budget says, as
    /// [`Ledger::adopt`] does.
    pub(crate) fn adopt_frames(&mut self, pages: Pages) {
        self.frames = self.frames.saturating_add(pages);
        self.settle();
        self.peak = self.peak.max(self.spent());
    }

    /// Closes an account: its VM's process is gone and its memory with it. What it has pledged
    /// counts as frames until [`Ledger::redeem`].
    pub(crate) fn close(&mut self, run: RunId) -> Result<Account, LedgerError> {
        let account = self.accounts.remove(&run).ok_or(LedgerError::Account(run))?;
        self.granted -= account.grant;
        self.overhead -= account.overhead;
        self.frames += account.pledged;
        self.orphaned += account.pledged;
        self.settle();
        Ok(account)
    }

    fn spent(&self) -> Pages {
        self.granted + self.overhead + self.frames
    }

    fn afford(&self, asked: Pages) -> Result<(), LedgerError> {
        let free = self.free();
        if asked > free { Err(LedgerError::Short { asked, free }) } else { Ok(()) }
    }

    fn enter(&mut self, run: RunId, account: Account) {
        self.granted += account.grant;
        self.overhead += account.overhead;
        self.accounts.insert(run, account);
        self.peak = self.peak.max(self.spent());
    }

    fn settle(&mut self) {
        self.budget = self.sustained.max(self.spent());
    }

    /// Whether the totals are the sums of the accounts and fit the budget. Cheap enough to be asked
    /// at every message.
    pub(crate) fn adds_up(&self) -> bool {
        let sum = |part: fn(&Account) -> Pages| self.accounts.values().map(part).sum::<Pages>();
        let kept = self.accounts.values().all(|a| a.pledged <= a.grant) && self.orphaned <= self.frames;
        kept && sum(|a| a.grant) == self.granted
            && sum(|a| a.overhead) == self.overhead
            && self.granted + self.overhead + self.frames + self.free() == self.budget
    }
}

#[cfg(test)]
mod tests;
