use proptest::prelude::*;

use super::*;
use crate::entitlement::entitlements;
use crate::pool::NamedPool;

const MIB: u64 = 256;

fn client(reservation: u64, limit: u64, shares: u64, active: u64) -> Client {
    Client { reservation: Pages(reservation), limit: Pages(limit), shares, active: Pages(active) }
}

fn named(name: &str, parent: Option<&str>, pool: Pool) -> NamedPool {
    NamedPool { name: name.to_owned(), parent: parent.map(str::to_owned), pool }
}

fn pool(shares: u64, reservation: u64, limit: Option<u64>) -> Pool {
    Pool { shares, reservation: Pages(reservation), limit: limit.map(Pages), expandable: true }
}

fn member(tree: &PoolTree, name: Option<&str>, client: Client) -> Member {
    Member { client, tax: None, pool: name.map_or(PoolId::ROOT, |n| tree.find(n).unwrap()) }
}

/// A host as the properties draw it: pool `i` is named so; its parent is an earlier one or the
/// root.
#[derive(Clone, Debug)]
struct Case {
    pools: Vec<NamedPool>,
    vms: Vec<(Option<String>, Client, Option<Tax>)>,
}

impl Case {
    fn tree(&self) -> PoolTree {
        PoolTree::new(&self.pools).unwrap()
    }

    fn members(&self, tree: &PoolTree) -> Vec<Member> {
        let vm = |(name, client, tax): &(Option<String>, Client, Option<Tax>)| Member {
            tax: *tax,
            ..member(tree, name.as_deref(), *client)
        };
        self.vms.iter().map(vm).collect()
    }

    fn root(&self, tax: Tax) -> Family {
        let tree = self.tree();
        Family::root(tax, &tree, &self.members(&tree))
    }

    fn divide(&self, available: u64, tax: Tax) -> Division {
        let tree = self.tree();
        divide(Pages(available), tax, &tree, &self.members(&tree))
    }
}

fn any_client(most: u64) -> impl Strategy<Value = Client> {
    (0..=most, 0..=most, 1..500u64, 0..=most, any::<bool>()).prop_map(|(a, b, shares, active, reserves)| {
        client(if reserves { a.min(b) / 4 } else { 0 }, a.max(b), shares, active)
    })
}

fn any_tax() -> impl Strategy<Value = Tax> {
    (0.0..0.95f64).prop_map(|rate| Tax::new(rate).unwrap())
}

/// Hosts whose VMs have up to `most` pages; `expandable` ones only, where that is asked for.
fn any_case(most: u64, only_expandable: bool) -> impl Strategy<Value = Case> {
    let pool =
        (any::<prop::sample::Index>(), 1..500u64, 0..=most, prop::option::of(0..=most * 3), any::<bool>());
    let vm = (any::<prop::sample::Index>(), any_client(most), prop::option::of(any_tax()));
    (prop::collection::vec(pool, 0..6), prop::collection::vec(vm, 1..10)).prop_map(move |(pools, vms)| {
        // One more than there are pools to choose from: the root.
        let place = |index: prop::sample::Index, count: usize| {
            index.index(count + 1).checked_sub(1).map(|i| i.to_string())
        };
        let count = pools.len();
        let pools =
            pools.into_iter().enumerate().map(|(i, (index, shares, reservation, limit, expandable))| {
                let reservation = Pages(limit.map_or(reservation, |limit| reservation.min(limit)));
                let expandable = expandable || only_expandable;
                let pool = Pool { shares, reservation, limit: limit.map(Pages), expandable };
                NamedPool { name: i.to_string(), parent: place(index, i), pool }
            });
        let vms = vms.into_iter().map(|(index, client, tax)| (place(index, count), client, tax));
        Case { pools: pools.collect(), vms: vms.collect() }
    })
}

/// Calls `check` for every family of the tree, with what it holds.
fn each_family(family: &Family, pages: u64, division: &Division, check: &mut dyn FnMut(&Family, u64)) {
    check(family, pages);
    for child in &family.children {
        if let Kind::Pool(pool) = &child.kind {
            each_family(&pool.family, division.pools[pool.id.index()].0, division, check);
        }
    }
}

/// No limit cuts what is reserved below it.
fn fits(family: &Family) -> bool {
    family.children.iter().all(|child| match &child.kind {
        Kind::Vm { .. } => true,
        Kind::Pool(pool) => child.ceiling >= pool.family.floor && fits(&pool.family),
    })
}

fn held(child: &Child, division: &Division) -> u64 {
    match &child.kind {
        Kind::Vm { index, .. } => division.vms[*index].0,
        Kind::Pool(pool) => division.pools[pool.id.index()].0,
    }
}

#[test]
fn shares_divide_among_siblings_only() {
    // Two departments, 2 : 1; the smaller one's many VMs get no more for being many.
    let tree = PoolTree::new(&[named("a", None, pool(2000, 0, None)), named("b", None, pool(1000, 0, None))])
        .unwrap();
    let busy = client(0, 1024 * MIB, 1000, 1024 * MIB);
    let mut members = vec![member(&tree, Some("a"), busy)];
    members.extend((0..4).map(|_| member(&tree, Some("b"), busy)));
    let division = divide(Pages(1200 * MIB), Tax::DEFAULT, &tree, &members);
    assert_eq!(division.vms, [800, 100, 100, 100, 100].map(|mib| Pages(mib * MIB)));
    assert_eq!(division.pools, [1200, 800, 400].map(|mib| Pages(mib * MIB)));
    assert_eq!(division.level, (400 * MIB) as f64 / 1000.0);
}

#[test]
fn a_pools_reservation_and_limit_bind_its_vms_together() {
    let pools = [named("kept", None, pool(1, 600, None)), named("capped", None, pool(1000, 0, Some(300)))];
    let tree = PoolTree::new(&pools).unwrap();
    let busy = client(0, 1000, 10, 1000);
    let members = [("kept", busy), ("kept", busy), ("capped", busy)].map(|(n, c)| member(&tree, Some(n), c));
    assert_eq!(divide(Pages(1000), Tax::NONE, &tree, &members).vms, [350, 350, 300].map(Pages));
    assert_eq!(divide(Pages(800), Tax::NONE, &tree, &members).vms, [300, 300, 200].map(Pages));
    let bounds = effective_bounds(Pages(800), &tree, &members);
    assert_eq!(bounds[2], EffectiveBounds { reservation: Pages(0), limit: Pages(300) });
}

#[test]
fn an_expandable_reservation_is_borrowed_from_above_and_another_is_not() {
    let rigid = Pool { expandable: false, ..pool(1, 100, None) };
    let pools = [named("a", None, pool(1, 100, None)), named("b", None, rigid)];
    let tree = PoolTree::new(&pools).unwrap();
    let members = ["a", "b"].map(|n| member(&tree, Some(n), client(300, 1000, 10, 1000)));
    let bounds = effective_bounds(Pages(500), &tree, &members);
    assert_eq!([bounds[0].reservation, bounds[1].reservation], [Pages(300), Pages(100)]);
    // `b` is worth 100 pages to the host: `a` has its 300, and the rest is found by shares.
    let scarce = divide(Pages(450), Tax::NONE, &tree, &members);
    assert_eq!(scarce.vms, [Pages(300), Pages(150)]);
    let shortfall = Shortfall { pool: tree.find("b").unwrap(), reserved: Pages(300), has: Pages(150) };
    assert_eq!(scarce.shortfalls, [shortfall]);
    let plenty = divide(Pages(800), Tax::NONE, &tree, &members);
    assert_eq!((plenty.vms, plenty.shortfalls), (vec![Pages(400), Pages(400)], vec![]));
}

#[test]
fn after_a_loss_of_memory_reservations_shrink_in_proportion() {
    let tree = PoolTree::new(&[named("a", None, pool(1, 300, None))]).unwrap();
    let in_pool = member(&tree, Some("a"), client(100, 400, 1, 400));
    let alone = member(&tree, None, client(100, 400, 1, 400));
    // 400 are reserved and 200 are left: 150 for the pool, which are enough for what its VM has
    // reserved.
    let division = divide(Pages(200), Tax::DEFAULT, &tree, &[in_pool, alone]);
    assert_eq!(division.vms, [Pages(150), Pages(50)]);
    let shortfall = Shortfall { pool: PoolId::ROOT, reserved: Pages(400), has: Pages(200) };
    assert_eq!(division.shortfalls, [shortfall]);
}

#[test]
fn a_tax_of_its_own_holds_for_one_vm_alone() {
    let tree = PoolTree::default();
    let idle = client(0, 1000, 1, 0);
    let exempt = Member { tax: Some(Tax::NONE), ..member(&tree, None, idle) };
    let division = divide(Pages(500), Tax::DEFAULT, &tree, &[exempt, member(&tree, None, idle)]);
    assert_eq!(division.vms, [Pages(400), Pages(100)]);
}

#[test]
fn empty_pools_and_an_empty_host_hold_nothing() {
    let tree = PoolTree::new(&[named("a", None, pool(1, 300, None))]).unwrap();
    let division = divide(Pages(200), Tax::DEFAULT, &tree, &[]);
    assert_eq!((division.pools, division.level), (vec![Pages(0), Pages(0)], 0.0));
    assert!(division.shortfalls.is_empty());
}

#[test]
fn the_nearest_cause_is_told() {
    let pools = [
        named("capped", None, pool(1000, 0, Some(300))),
        named("kept", None, pool(1, 200, None)),
        named("inner", Some("capped"), pool(1, 0, None)),
    ];
    let tree = PoolTree::new(&pools).unwrap();
    let [capped, kept] = ["capped", "kept"].map(|name| tree.find(name).unwrap());
    let busy = client(0, 1000, 10, 1000);
    let vms = [
        (Some("inner"), busy, Cause::PoolLimit(capped)),
        (Some("capped"), client(290, 1000, 1, 1000), Cause::Reservation),
        (Some("kept"), busy, Cause::PoolReservation(kept)),
        (None, client(0, 40, 1000, 40), Cause::Limit),
        (None, busy, Cause::Level),
    ];
    let members: Vec<Member> = vms.iter().map(|&(name, client, _)| member(&tree, name, client)).collect();
    let division = divide(Pages(1000), Tax::NONE, &tree, &members);
    assert_eq!(division.causes, vms.map(|(_, _, cause)| cause), "{division:?}");
    assert_eq!(division.levels[0], 46.0);
    let short = divide(Pages(400), Tax::NONE, &tree, &members);
    let places = [capped, capped, PoolId::ROOT, PoolId::ROOT, PoolId::ROOT];
    assert_eq!(short.causes, places.map(Cause::Shortfall), "{short:?}");
}

proptest! {
    #[test]
    fn a_cause_agrees_with_the_numbers(case in any_case(1000, false), available in 0..6000u64, tax in any_tax()) {
        let (tree, division) = (case.tree(), case.divide(available, tax));
        for (i, member) in case.members(&tree).iter().enumerate() {
            let (got, level) = (division.vms[i], division.levels[member.pool.index()]);
            let pays = |pages: Pages| member.pays(tax, pages);
            let above = |id| tree.ancestors(member.pool).any(|pool| pool == id);
            let pool = |id| tree.get(id).unwrap().pool;
            let agrees = match division.causes[i] {
                Cause::Limit => got == member.client.limit,
                Cause::Reservation => got == member.client.reservation && pays(got) > level,
                Cause::PoolLimit(id) => above(id) && Some(division.pools[id.index()]) == pool(id).limit,
                Cause::PoolReservation(id) => above(id) && division.pools[id.index()] == pool(id).reservation,
                Cause::Shortfall(id) => division.shortfalls.iter().any(|s| s.pool == id),
                Cause::Level => true,
            };
            prop_assert!(agrees, "{:?} {:?}", division.causes[i], division);
            // Whoever no bound of his own holds is at the level of his siblings, whatever set that.
            // One whose reservation would just hold him may have got the page that rounding leaves
            // over.
            let at_level = matches!(division.causes[i], Cause::Level | Cause::PoolLimit(_) | Cause::PoolReservation(_));
            if at_level && got > member.client.reservation + Pages(1) {
                let (below, beyond) = (pays(Pages(got.0 - 1)), pays(got + Pages(1)));
                prop_assert!(below <= level * (1.0 + 1e-9) && level <= beyond * (1.0 + 1e-9), "{} {:?}", i, division);
            }
        }
    }

    #[test]
    fn memory_is_conserved_within_the_bounds_of_every_family(case in any_case(1000, false), available in 0..6000u64, tax in any_tax()) {
        let division = case.divide(available, tax);
        let root = case.root(tax);
        let mut wrong = None;
        each_family(&root, available, &division, &mut |family, pages| {
            let parts: Vec<u64> = family.children.iter().map(|c| held(c, &division)).collect();
            let conserved = parts.iter().sum::<u64>() == pages.min(family.ceiling);
            let bounded = family.children.iter().zip(&parts).all(|(c, p)| {
                *p <= c.ceiling && (*p >= c.floor || pages < family.floor)
            });
            if !conserved || !bounded {
                wrong = Some((parts, pages, family.floor, family.ceiling));
            }
        });
        prop_assert_eq!(wrong, None);
        let short = available < root.floor;
        prop_assert_eq!(division.shortfalls.iter().any(|s| s.pool == PoolId::ROOT), short);
    }

    #[test]
    fn a_tree_with_one_pool_divides_as_no_tree_does(vms in prop::collection::vec(any_client(1000), 1..10), available in 0..8000u64, tax in any_tax()) {
        let flat = entitlements(Pages(available), tax, &vms);
        let tree = PoolTree::new(&[named("a", None, pool(7, 0, None))]).unwrap();
        for name in [None, Some("a")] {
            let members: Vec<Member> = vms.iter().map(|c| member(&tree, name, *c)).collect();
            prop_assert_eq!(&divide(Pages(available), tax, &tree, &members).vms, &flat);
        }
    }

    #[test]
    fn what_a_subtree_is_guaranteed_does_not_depend_on_its_siblings(
        case in any_case(1000, true), sibling in any_client(1000), parameters in (1..500u64, 0..1000u64, 1000..4000u64), spare in 0..2000u64, tax in any_tax(),
    ) {
        // A new pool with a VM beside everything that is in the root.
        let mut joined = case.clone();
        joined.pools.push(named("sibling", None, pool(parameters.0, parameters.1, Some(parameters.2))));
        joined.vms.push((Some("sibling".to_owned()), sibling, None));
        let (before, after) = (case.root(tax), joined.root(tax));
        // Admission sees to it that all reservations fit.
        let available = after.floor + spare;
        let (tree, joined_tree) = (case.tree(), joined.tree());
        let bounds = effective_bounds(Pages(available), &tree, &case.members(&tree));
        let joined_bounds = effective_bounds(Pages(available), &joined_tree, &joined.members(&joined_tree));
        for (a, b) in bounds.iter().zip(&joined_bounds) {
            prop_assert_eq!(a.reservation, b.reservation);
        }
        let division = joined.divide(available, tax);
        for child in &before.children {
            prop_assert!(held(child, &division) >= child.floor);
        }
        for (vm, bound) in division.vms.iter().zip(&joined_bounds) {
            prop_assert!(bound.reservation <= *vm && *vm <= bound.limit, "{:?} {:?}", vm, bound);
        }
    }

    #[test]
    fn at_rest_unbounded_siblings_pay_the_same_within_a_page(case in any_case(1000, true), available in 0..6000u64, tax in any_tax()) {
        let division = case.divide(available, tax);
        let root = case.root(tax);
        let mut wrong = None;
        each_family(&root, available, &division, &mut |family, pages| {
            if pages <= family.floor || pages >= family.ceiling {
                return;
            }
            // Nobody who could give a page pays more than one who could take it would pay with it,
            // a page more or less.
            let most = family.children.iter().filter(|c| held(c, &division) > c.floor + 1)
                .map(|c| c.level_of(held(c, &division) - 1)).fold(0.0, f64::max);
            let least = family.children.iter().filter(|c| held(c, &division) + 1 < c.ceiling)
                .map(|c| c.level_of(held(c, &division) + 1)).fold(f64::INFINITY, f64::min);
            if most > least * (1.0 + 1e-9) {
                wrong = Some((most, least));
            }
        });
        prop_assert_eq!(wrong, None);
    }

    #[test]
    fn it_rests_where_revocation_down_the_tree_does(mut case in any_case(400, true), spare in 0..1200u64, rate in 0.0..0.75f64) {
        let tax = Tax::new(rate).unwrap();
        for vm in &mut case.vms {
            vm.2 = vm.2.filter(|t| t.idle_cost() <= 4.0);
        }
        let root = case.root(tax);
        prop_assume!(fits(&root));
        let available = root.floor + spare;
        let exact = case.divide(available, tax);
        let mut stepped: Vec<u64> = vec![0; case.vms.len()];
        let mut total = Revocation { pages: &mut stepped }.fill(&root);
        while total > available && (Revocation { pages: &mut stepped }).take(&root) {
            total -= 1;
        }
        // Whole pages make prices jump, a pool's as well as a VM's: a page for each.
        for (e, s) in exact.vms.iter().zip(&stepped) {
            prop_assert!(e.0.abs_diff(*s) <= 2, "exact {:?} stepped {:?}", exact.vms, stepped);
        }
    }

    #[test]
    fn idle_pages_are_taken_before_active_ones_at_equal_shares(sizes in prop::collection::vec((10..500u64, 0..=100u64), 2..8), short in 0..3000u64) {
        // The steepest tax: as long as somebody holds more idle memory than it costs, nobody gives
        // an active page.
        let tax = Tax::new(0.99).unwrap();
        let vms: Vec<Client> = sizes.iter().map(|&(size, percent)| client(0, size, 1, size * percent / 100)).collect();
        let all: u64 = vms.iter().map(|c| c.limit.0).sum();
        let got = entitlements(Pages(all.saturating_sub(short)), tax, &vms);
        let costs: Vec<f64> = vms.iter().zip(&got).map(|(c, p)| {
            let active = p.0.min(c.active.0);
            active as f64 + 100.0 * (p.0 - active) as f64
        }).collect();
        for (loser, lost) in vms.iter().zip(&got).filter(|(c, p)| p.0 < c.active.0) {
            for (i, (holder, has)) in vms.iter().zip(&got).enumerate().filter(|(_, (c, p))| p.0 > c.active.0) {
                prop_assert!(
                    costs[i] <= lost.0 as f64 + 200.0,
                    "{:?} keeps {} while {:?} is cut to {}", holder, has.0, loser, lost.0
                );
            }
        }
    }

    #[test]
    fn more_shares_never_mean_less_for_a_vm_or_pool(case in any_case(1000, true), available in 0..6000u64, tax in any_tax(), who in any::<prop::sample::Index>(), more in 1..500u64) {
        let before = case.divide(available, tax);
        let mut raised = case.clone();
        let i = who.index(case.vms.len() + case.pools.len());
        let (had, has) = if let Some(pool) = i.checked_sub(case.vms.len()) {
            raised.pools[pool].pool.shares += more;
            let id = case.tree().find(&case.pools[pool].name).unwrap();
            (before.pools[id.index()], raised.divide(available, tax).pools[id.index()])
        } else {
            raised.vms[i].1.shares += more;
            (before.vms[i], raised.divide(available, tax).vms[i])
        };
        // Rounding moves a page at each level of the tree.
        prop_assert!(has.0 + 6 >= had.0, "{:?} -> {:?}", had, has);
    }

    #[test]
    fn sums_of_shares_far_apart_lose_nothing(big in 1..=8u32, available in 1..1_000_000_000u64) {
        // A host of terabytes with shares from 1 to 10^8: the small ones' prices still agree within
        // a page.
        let shares: Vec<u64> = (0..40).map(|i| 10u64.pow(i % (big + 1))).collect();
        let vms: Vec<Client> = shares.iter().map(|&s| client(0, 1 << 28, s, 1 << 20)).collect();
        let got = entitlements(Pages(available), Tax::DEFAULT, &vms);
        prop_assert_eq!(got.iter().map(|p| p.0).sum::<u64>(), available);
        for pair in got.chunks(big as usize + 1).collect::<Vec<_>>().windows(2) {
            for (a, b) in pair[0].iter().zip(pair[1]) {
                prop_assert!(a.0.abs_diff(b.0) <= 1, "{:?}", got);
            }
        }
    }
}

/// The paper's algorithm a page at a time, down the tree, with prices of whole pages.
struct Revocation<'a> {
    pages: &'a mut [u64],
}

impl Revocation<'_> {
    /// Gives everybody as much as its pool's ceiling allows, and returns the sum.
    fn fill(&mut self, family: &Family) -> u64 {
        family
            .children
            .iter()
            .map(|child| match &child.kind {
                Kind::Vm { index, .. } => {
                    self.pages[*index] = child.ceiling;
                    child.ceiling
                }
                Kind::Pool(pool) => {
                    let mut sum = self.fill(&pool.family);
                    while sum > child.ceiling && self.take(&pool.family) {
                        sum -= 1;
                    }
                    sum
                }
            })
            .sum()
    }

    /// Takes a page from the child that pays least per share; false where all are at their floors.
    fn take(&mut self, family: &Family) -> bool {
        let victim = family
            .children
            .iter()
            .filter(|c| self.held(c) > c.floor)
            .max_by(|a, b| self.level(a).total_cmp(&self.level(b)));
        match victim.map(|child| &child.kind) {
            Some(Kind::Vm { index, .. }) => {
                self.pages[*index] -= 1;
                true
            }
            Some(Kind::Pool(pool)) => self.take(&pool.family),
            None => false,
        }
    }

    fn held(&self, child: &Child) -> u64 {
        match &child.kind {
            Kind::Vm { index, .. } => self.pages[*index],
            Kind::Pool(pool) => pool.family.children.iter().map(|c| self.held(c)).sum(),
        }
    }

    fn cost(&self, child: &Child) -> f64 {
        match &child.kind {
            Kind::Vm { index, curve } => curve.cost_of(self.pages[*index] as f64),
            Kind::Pool(pool) => pool.family.children.iter().map(|c| self.cost(c)).sum(),
        }
    }

    fn level(&self, child: &Child) -> f64 {
        match &child.kind {
            Kind::Vm { curve, .. } => self.cost(child) / curve.shares,
            Kind::Pool(pool) => self.cost(child) / pool.shares,
        }
    }
}
