//! What an operator changes while the host is attacked, and what must hold afterwards.

use fastrand::Rng;
use plimsoll_protocol::status::VmStatus;
use plimsoll_units::Bytes;

/// Pools that VMs move between. The second has a limit.
pub(super) const POOLS: [&str; 2] = ["alpha", "beta"];
/// The second pool's limit: most of the budget, so that all VMs in it still get on.
pub(super) const POOL_LIMIT: Bytes = Bytes::mib(160);
/// Sharing domains that VMs move between, and sharing without a domain.
const DOMAINS: [&str; 5] = ["red", "blue", "own", "zero", "off"];

/// One change of one VM, as `plimsoll set` makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The VM, by its place in the population.
    pub(super) vm: usize,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Shares(u64),
    /// `None`: the VM's size.
    Limit(Option<Bytes>),
    Reservation(Bytes),
    Pool(&'static str),
    Sharing(&'static str),
}

impl Change {
    /// A change of one of `vms` VMs.
    pub(super) fn draw(random: &mut Rng, vms: usize) -> Self {
        let vm = random.usize(..vms);
        let places = ["/", POOLS[0], POOLS[1]];
        let what = match random.u8(..6) {
            0 => What::Shares(random.u64(50..2000)),
            1 => What::Limit(random.bool().then(|| Bytes::mib(random.u64(16..32)))),
            2 => What::Reservation(Bytes::mib(random.u64(..5))),
            3 => What::Pool(places[random.usize(..places.len())]),
            // The move that takes most steps comes twice as often.
            _ => What::Sharing(DOMAINS[random.usize(..DOMAINS.len())]),
        };
        Self { vm, what }
    }

    /// The option of `plimsoll set` for it, and its value.
    pub(super) fn option(&self) -> [String; 2] {
        let (option, value) = match &self.what {
            What::Shares(shares) => ("--shares", shares.to_string()),
            What::Limit(limit) => ("--limit", limit.map_or_else(|| "none".to_owned(), |l| l.to_string())),
            What::Reservation(reservation) => ("--reservation", reservation.0.to_string()),
            What::Pool(pool) => ("--pool", (*pool).to_owned()),
            What::Sharing(with) => ("--sharing", (*with).to_owned()),
        };
        [option.to_owned(), value]
    }
}

/// What was set of a VM. More than one value of a setting may hold: a change that was under way
/// when the daemon was killed is made or not.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    shares: Vec<u64>,
    limit: Vec<Bytes>,
    reservation: Vec<Bytes>,
    pool: Vec<String>,
    sharing: Vec<String>,
}

impl Settings {
    /// Those of a VM that nothing was changed of.
    pub(super) fn of(vm: &VmStatus) -> Self {
        Self {
            shares: vec![vm.share_count],
            limit: vec![vm.limit],
            reservation: vec![vm.reservation],
            pool: vec![vm.pool.to_string()],
            sharing: vec![vm.sharing.with.to_string()],
        }
    }

    /// Notes a change of a VM of `size`. One that is `sure` was made; another one may have been.
    pub(super) fn note(&mut self, change: &Change, size: Bytes, sure: bool) {
        fn put<T>(values: &mut Vec<T>, value: T, sure: bool) {
            if sure {
                values.clear();
            }
            values.push(value);
        }
        match &change.what {
            What::Shares(shares) => put(&mut self.shares, *shares, sure),
            What::Limit(limit) => put(&mut self.limit, limit.unwrap_or(size), sure),
            What::Reservation(reservation) => put(&mut self.reservation, *reservation, sure),
            What::Pool(pool) => put(&mut self.pool, (*pool).to_owned(), sure),
            What::Sharing(with) => put(&mut self.sharing, (*with).to_owned(), sure),
        }
    }

    /// Names a value of `vm` that is not one of those allowed; `None`: all is as it was set.
    pub(super) fn differ(&self, vm: &VmStatus) -> Option<String> {
        let now = Self::of(vm);
        fn odd<T: PartialEq>(allowed: &[T], now: &[T]) -> bool {
            !now.iter().all(|value| allowed.contains(value))
        }
        let odd = [
            ("shares", odd(&self.shares, &now.shares)),
            ("limit", odd(&self.limit, &now.limit)),
            ("reservation", odd(&self.reservation, &now.reservation)),
            ("pool", odd(&self.pool, &now.pool)),
            ("sharing", odd(&self.sharing, &now.sharing)),
        ];
        let names: Vec<&str> = odd.into_iter().filter_map(|(name, odd)| odd.then_some(name)).collect();
        (!names.is_empty()).then(|| format!("{} not as set: set {self:?}, now {now:?}", names.join(", ")))
    }
}
