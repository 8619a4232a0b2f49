//! Settings that change while the daemon runs.

use super::{Core, Settings};
use crate::config::MIN_BUDGET;

impl Core {
    /// Goes on with `settings`, and tells `news`. What VMs have been promised is kept: a smaller
    /// budget is reached as they give memory back.
    pub(super) fn reconfigure(&mut self, settings: Settings, news: String) {
        let budget = self.ledger.configured();
        let former = std::mem::replace(&mut self.settings, settings);
        match &mut self.settings.automatic {
            // It goes on from where it is, and follows the machine from now on.
            Some(automatic) => {
                automatic.told = former.automatic.map_or(budget, |automatic| automatic.told);
                self.settings.thresholds = automatic.thresholds.of(budget.bytes().max(MIN_BUDGET));
            }
            None if self.settings.budget != budget => self.ledger.configure(self.settings.budget),
            None => {}
        }
        self.urgent = true;
        self.event(None, news);
    }
}
