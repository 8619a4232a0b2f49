/// The tax on idle memory: the fraction of an idle page's worth that its holder forfeits, 0 to
/// 0.99.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tax(f64);

impl Tax {
    /// The tax of ESX (Waldspurger 2002, section 5.2) and ESXi (`Mem.IdleTax` 75).
    pub const DEFAULT: Self = Self(0.75);
    /// Idle pages cost as much as active ones: plain proportional shares.
    pub const NONE: Self = Self(0.0);

    /// A tax of `rate`; `None` outside 0 to 0.99: at 1 the price of an idle page would be infinite.
    pub fn new(rate: f64) -> Option<Self> {
        (0.0..=0.99).contains(&rate).then_some(Self(rate))
    }

    /// The rate.
    pub fn rate(self) -> f64 {
        self.0
    }

    /// The price of an idle page in active pages: the paper's `k`.
    pub(crate) fn idle_cost(self) -> f64 {
        1.0 / (1.0 - self.0)
    }
}
