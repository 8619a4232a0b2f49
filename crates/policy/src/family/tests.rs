//! Properties of the pools of random hosts, looked at pool by pool.

use plimsoll_units::Pages;
use proptest::prelude::*;

use super::*;
use crate::any_host::{Case, any_case, any_client, any_tax, named, pool};
use crate::bounds::effective_bounds;
use crate::division::Division;

fn root(case: &Case, tax: Tax) -> Family {
    let tree = case.tree();
    Family::root(tax, &tree, &case.members(&tree))
}

/// Calls `check` for every family of the tree, with its pages.
fn each_family(family: &Family, pages: u64, division: &Division, check: &mut dyn FnMut(&Family, u64)) {
    check(family, pages);
    for child in &family.children {
        if let Kind::Pool(pool) = &child.kind {
            each_family(&pool.family, division.pools[pool.id.index()].0, division, check);
        }
    }
}

/// No limit is below the reservations under it.
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

proptest! {
    #[test]
    fn memory_is_conserved_within_the_bounds_of_every_family(case in any_case(1000, false), available in 0..6000u64, tax in any_tax()) {
        let division = case.divide(available, tax);
        let root = root(&case, tax);
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
    fn at_rest_unbounded_siblings_pay_the_same_within_a_page(case in any_case(1000, true), available in 0..6000u64, tax in any_tax()) {
        let division = case.divide(available, tax);
        let root = root(&case, tax);
        let mut wrong = None;
        each_family(&root, available, &division, &mut |family, pages| {
            if pages <= family.floor || pages >= family.ceiling {
                return;
            }
            // No child that could give a page pays more than a child that could take it would pay
            // with it, a page more or less.
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
        let root = root(&case, tax);
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
    fn what_a_subtree_is_guaranteed_does_not_depend_on_its_siblings(
        case in any_case(1000, true), sibling in any_client(1000), parameters in (1..500u64, 0..1000u64, 1000..4000u64), spare in 0..2000u64, tax in any_tax(),
    ) {
        // A new pool with a VM in the root.
        let mut joined = case.clone();
        joined.pools.push(named("sibling", None, pool(parameters.0, parameters.1, Some(parameters.2))));
        joined.vms.push((Some("sibling".to_owned()), sibling, None));
        let (before, after) = (root(&case, tax), root(&joined, tax));
        // Admission guarantees that all reservations fit.
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
}

/// The paper's algorithm a page at a time, down the tree, with prices of whole pages.
struct Revocation<'a> {
    pages: &'a mut [u64],
}

impl Revocation<'_> {
    /// Gives every VM as much as its pool's ceiling allows, and returns the sum.
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

    /// Takes a page from the child with the lowest price; false where all are at their floors.
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
