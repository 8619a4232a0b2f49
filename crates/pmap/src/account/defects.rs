//! The account with a deliberate defect: what `balance.rs` is in production.

use std::ops::{Deref, DerefMut};

use plimsoll_units::Pages;

use super::balance;
use super::waiting::{Need, Reservation};
use crate::address::Place;
use crate::mutation::Mutation;

/// An account that, on demand, grants chunks without charging them.
pub(crate) struct Account {
    account: balance::Account,
    free_chunks: bool,
    /// A defect has made the account wrong, and other tests are to notice that.
    forgiving: bool,
}

impl Account {
    pub(super) fn new(grant: Pages, chunks: usize) -> Self {
        let account = balance::Account::new(grant, chunks);
        Self { account, free_chunks: false, forgiving: false }
    }

    pub(crate) fn set(&mut self, mutation: Option<Mutation>) {
        self.free_chunks = mutation == Some(Mutation::UnchargedLarge);
        self.forgiving |= mutation.is_some();
    }

    pub(crate) fn charge_or_wait(&mut self, place: Place, need: Need) -> Option<Pages> {
        let charged = self.account.charge_or_wait(place, need)?;
        self.forget_chunk(charged);
        Some(charged)
    }

    pub(crate) fn next_reservation(&mut self) -> Option<Reservation> {
        let turn = self.account.next_reservation()?;
        self.forget_chunk(turn.reserved);
        Some(turn)
    }

    fn forget_chunk(&mut self, charged: Pages) {
        if self.free_chunks && charged == Pages::CHUNK {
            self.account.uncharge(charged);
        }
    }

    pub(crate) fn uncharge(&mut self, pages: Pages) {
        let pages = if self.forgiving { pages.min(self.account.held()) } else { pages };
        self.account.uncharge(pages);
    }

    pub(crate) fn store_changed(&mut self, before: Pages, after: Pages, freed: Pages) {
        let most = (self.account.held() + after).saturating_sub(before);
        let freed = if self.forgiving { freed.min(most) } else { freed };
        self.account.store_changed(before, after, freed);
    }
}

impl Deref for Account {
    type Target = balance::Account;

    fn deref(&self) -> &Self::Target {
        &self.account
    }
}

impl DerefMut for Account {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.account
    }
}
