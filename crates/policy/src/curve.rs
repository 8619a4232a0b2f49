//! The pages of a VM or a pool over the water level, as curves of straight pieces.
//!
//! A VM pays for its pages: 1 for an active page, `k` for an idle one. At level `l` a VM or pool
//! with `S` shares pays `l * S`, unless a bound holds it. A VM's pages are a curve over its cost
//! with one bend, at its active pages. The cost of a pool is the sum of its children's costs: its
//! curve comes from sweeping over the bends of its children's curves.

use crate::client::Client;
use crate::precise_sum::PreciseSum;
use crate::tax::Tax;

/// A change of slope at a level: the slopes in pages per level that begin and end there, and the
/// change of the slope in cost. `begins` and `ends` are kept apart so that the sums lose nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bend {
    level: f64,
    begins: f64,
    ends: f64,
    cost: f64,
}

/// A point of a pool's curve: the level among its children, the cost of their pages, and the pages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) level: f64,
    pub(crate) cost: f64,
    pub(crate) pages: f64,
}

/// A curve of straight pieces that rises in level, cost and pages.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    points: Vec<Point>,
}

impl Curve {
    /// The curve of siblings: `start` has their pages and cost at level 0, `bends` the levels at
    /// which the curve of each begins to rise, changes its slope and ends.
    pub(crate) fn of_siblings(start: Point, bends: Vec<Bend>) -> Self {
        let mut points = Vec::with_capacity(bends.len() + 1);
        points.push(start);
        sweep(start, bends, |point| {
            points.push(point);
            true
        });
        Self { points }
    }

    /// The part of the curve from `min` to `max` pages. Below the curve's first point a page costs
    /// the average of that point.
    pub(crate) fn within(&self, min: f64, max: f64) -> Self {
        let at = |pages: f64| Point { pages, ..self.at_pages(pages) };
        let first = match self.points.first() {
            Some(point) if min < point.pages => {
                let part = min / point.pages;
                Point { level: 0.0, cost: point.cost * part, pages: min }
            }
            _ => at(min),
        };
        let inner = self.points.iter().copied().filter(|p| p.pages > min && p.pages < max);
        let last = (max > min).then(|| at(max));
        Self { points: std::iter::once(first).chain(inner).chain(last).collect() }
    }

    pub(crate) fn at_pages(&self, pages: f64) -> Point {
        self.at(pages, |p| p.pages)
    }

    pub(crate) fn at_cost(&self, cost: f64) -> Point {
        self.at(cost, |p| p.cost)
    }

    /// The first point where `axis` is `x`, or the nearer end.
    fn at(&self, x: f64, axis: impl Fn(&Point) -> f64) -> Point {
        let next = self.points.partition_point(|p| axis(p) < x);
        let Some(after) = self.points.get(next).or(self.points.last()).copied() else {
            return Point { level: 0.0, cost: 0.0, pages: 0.0 };
        };
        let Some(before) = next.checked_sub(1).and_then(|i| self.points.get(i)).copied() else {
            return after;
        };
        let width = axis(&after) - axis(&before);
        let part = if width > 0.0 { (x - axis(&before)) / width } else { 1.0 };
        let between = |a: f64, b: f64| a + (b - a) * part;
        Point {
            level: between(before.level, after.level),
            cost: between(before.cost, after.cost),
            pages: between(before.pages, after.pages),
        }
    }

    /// Adds the bends of a pool with this curve and `shares`, seen from its parent.
    pub(crate) fn bends(&self, shares: f64, bends: &mut Vec<Bend>) {
        let mut slope = 0.0;
        let mut end = None;
        for pair in self.points.windows(2) {
            let (width, rise) = (pair[1].cost - pair[0].cost, pair[1].pages - pair[0].pages);
            // Points that are equal within the precision of numbers make no piece.
            if width <= 0.0 || rise <= 0.0 {
                continue;
            }
            let begins = shares * (rise / width);
            let cost = if end.is_none() { shares } else { 0.0 };
            bends.push(Bend { level: pair[0].cost / shares, begins, ends: slope, cost });
            slope = begins;
            end = Some(pair[1].cost / shares);
        }
        if let Some(level) = end {
            bends.push(Bend { level, begins: 0.0, ends: slope, cost: -shares });
        }
    }
}

/// The level at which siblings hold `pages`; see [`Curve::of_siblings`]. It is the highest bend if
/// they can hold less.
pub(crate) fn level_at(start: Point, bends: Vec<Bend>, pages: f64) -> f64 {
    let (mut before, mut after) = (start, start);
    if pages > start.pages {
        sweep(start, bends, |point| {
            (before, after) = (after, point);
            point.pages < pages
        });
    }
    Curve { points: vec![before, after] }.at_pages(pages).level
}

/// Calls `reach` at every level where the siblings' curve bends, in rising order, until `reach`
/// returns false.
fn sweep(start: Point, mut bends: Vec<Bend>, mut reach: impl FnMut(Point) -> bool) {
    // Stable sorting uses the runs that pools below have sorted before. Levels are never negative,
    // and the bits of such numbers have the order of the numbers.
    bends.sort_by_key(|bend| bend.level.to_bits());
    let (mut cost, mut pages) = (PreciseSum::default(), PreciseSum::default());
    let (mut cost_slope, mut page_slope) = (PreciseSum::default(), PreciseSum::default());
    cost.add(start.cost);
    pages.add(start.pages);
    let mut level = start.level;
    for bend in bends {
        let step = bend.level - level;
        // Equal VMs bend at the same level: one point serves all of them.
        if step > 0.0 {
            cost.add(cost_slope.value() * step);
            pages.add(page_slope.value() * step);
            level = bend.level;
            if !reach(Point { level, cost: cost.value(), pages: pages.value() }) {
                return;
            }
        }
        page_slope.add(bend.begins);
        page_slope.add(-bend.ends);
        cost_slope.add(bend.cost);
    }
}

/// The curve of a VM, in closed form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VmCurve {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) active: f64,
    pub(crate) shares: f64,
    /// The paper's `k`.
    pub(crate) idle_cost: f64,
}

impl VmCurve {
    #[expect(clippy::cast_precision_loss, reason = "page counts and shares stay below 2^53")]
    pub(crate) fn new(client: &Client, tax: Tax) -> Self {
        Self {
            min: client.reservation.0 as f64,
            max: client.limit.max(client.reservation).0 as f64,
            active: client.active.0 as f64,
            shares: client.shares.max(1) as f64,
            idle_cost: tax.idle_cost(),
        }
    }

    /// The cost of `pages`.
    pub(crate) fn cost_of(&self, pages: f64) -> f64 {
        pages.min(self.active) + self.idle_cost * (pages - self.active).max(0.0)
    }

    /// The level at which the VM, unbounded, holds `pages`: the inverse of the paper's price `rho`.
    pub(crate) fn level_of(&self, pages: f64) -> f64 {
        self.cost_of(pages) / self.shares
    }

    /// The pages of the VM at `level`, within its bounds.
    pub(crate) fn pages_at(&self, level: f64) -> f64 {
        let paid = level * self.shares;
        let pages =
            if paid <= self.active { paid } else { self.active + (paid - self.active) / self.idle_cost };
        pages.clamp(self.min, self.max)
    }

    /// Adds its bends.
    pub(crate) fn bends(&self, bends: &mut Vec<Bend>) {
        if self.max <= self.min {
            return;
        }
        let (fast, slow) = (self.shares, self.shares / self.idle_cost);
        let first = if self.min < self.active { fast } else { slow };
        bends.push(Bend { level: self.level_of(self.min), begins: first, ends: 0.0, cost: self.shares });
        if self.active > self.min && self.active < self.max {
            bends.push(Bend { level: self.level_of(self.active), begins: slow, ends: fast, cost: 0.0 });
        }
        let last = if self.max <= self.active { fast } else { slow };
        bends.push(Bend { level: self.level_of(self.max), begins: 0.0, ends: last, cost: -self.shares });
    }
}
