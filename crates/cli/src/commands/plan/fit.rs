use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use plimsoll_policy::{NamedPool, Pool, PoolId, PoolTree, Tax, Thresholds};
use plimsoll_protocol::Place;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::status::{HostStatus, PoolStatus, Power, VmStatus};
use plimsoll_sim::{Fit as Fitted, Occupied, Tenant};
use plimsoll_units::{Bytes, Pages};
use plimsoll_words::table::{Column, Table};
use serde::{Deserialize, Serialize};

use super::scenario_file;
use super::series::mib;
use crate::context::Context;
use crate::definition_file;

/// Levels that stand for a VM's load: at 50, the part of the time at the peak is right to 2 %.
const LEVELS: u32 = 50;
/// What a VM uses where nothing else is known: a quarter of its size is what hosts of mixed VMs
/// were found to use.
const USUAL_PERCENT: u64 = 25;
/// Most lines of the table; of more VMs some are left out.
const LINES: usize = 24;
/// Of all random numbers. Risks are known within some tenths of a percent, whichever it is.
const SEED: u64 = 1;

const HELP: &str = "\
Columns:
  MORE           VMs of the definition beyond those that run
  ADMITTED       whether all of them may power on: reservations, overheads, swap, pools
  STATE          how far the host must reclaim so that all VMs fit with their average use: high not at all, soft by balloons, hard by paging too (with swap space only), low: they do not fit
  ENTITLED       what policy then gives each VM of the definition
  SHORT AT PEAK  memory that is missing if all VMs have their peak use at once
  RISK           the chance that the memory in use does not fit at a given moment

Examples:
  plimsoll plan fit web.toml
  plimsoll plan fit web.toml --host vdi-morning --active 300MiB --peak 1GiB --busy 20
  plimsoll top --once --json > host.json; plimsoll plan fit web.toml --host host.json";

/// Compute how many more VMs of a definition the host can take, and at which risk
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Fit {
    /// The VM's definition
    #[arg(value_name = "DEF.toml")]
    definition: PathBuf,
    /// A scenario, or the output of "plimsoll top --once --json", instead of the daemon's host
    #[arg(long, value_name = "FILE")]
    host: Option<PathBuf>,
    /// Memory that such a VM usually uses [default: the same part of its size as running VMs]
    #[arg(long, value_name = "SIZE")]
    active: Option<Bytes>,
    /// Memory that it uses when it is busy [default: its limit]
    #[arg(long, value_name = "SIZE")]
    peak: Option<Bytes>,
    /// Percentage of the time in which it, and each running VM, is busy
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    busy: u32,
    /// Largest number of additional VMs to try
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    most: u32,
}

/// The answer as JSON.
#[derive(Serialize)]
struct Answer {
    fits: Vec<Line>,
    /// How many are admitted, and of those how many at a risk of at most 1 and 5 %.
    admitted: usize,
    within_1_percent: Option<usize>,
    within_5_percent: Option<usize>,
    refusal: Option<String>,
    assumptions: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    more: usize,
    admitted: bool,
    state: String,
    entitlement: Bytes,
    short_at_peak: Bytes,
    risk: f64,
}

/// A host and what was assumed of it.
struct Known {
    host: Occupied,
    assumptions: Vec<String>,
}

impl Fit {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let definition = definition_file::read(&self.definition)?;
        let Known { host, mut assumptions } = self.host(context)?;
        let kind = self.kind(&definition, &host, &mut assumptions)?;
        assumptions.push(
            "VMs are busy independently of each other; SHORT AT PEAK alone shows all of them busy at once"
                .into(),
        );
        assumptions.push("nothing is shared between VMs".into());
        let fits = host.fit(&kind, usize::try_from(self.most)?, SEED);
        let answer = Answer::new(&fits, assumptions);
        context.output.facts(&answer, text)
    }

    fn host(&self, context: &Context) -> Result<Known> {
        let Some(path) = &self.host else {
            let explained = context.client.explain()?;
            let tax = Tax::new(explained.decision.tax.rate()).unwrap_or(Tax::DEFAULT);
            let pools = context.client.pools()?;
            return self.running(&explained.host, tax, &pools, &context.client.vms()?);
        };
        if path.extension().is_some_and(|e| e == "json") {
            let look = read_look(path)?;
            let mut known = self.running(&look.host, Tax::DEFAULT, &[], &look.vms)?;
            known
                .assumptions
                .push(format!("idle memory is taxed at {}, and there are no pools", Tax::DEFAULT.rate()));
            return Ok(known);
        }
        let scenario = scenario_file::read(path)?;
        let host = Occupied::of_scenario(&scenario);
        let assumptions = vec![format!(
            "the VMs that are on at the scenario's busiest time ({}) run, each at a random time of its course",
            host.vms.len()
        )];
        Ok(Known { host, assumptions })
    }

    /// The host of a daemon, as it is at this moment.
    fn running(&self, host: &HostStatus, tax: Tax, pools: &[PoolStatus], vms: &[VmStatus]) -> Result<Known> {
        let named = |pool: &PoolStatus| NamedPool {
            name: pool.name.to_string(),
            parent: pool.parent.pool().map(ToString::to_string),
            pool: Pool {
                shares: pool.share_count,
                reservation: Pages::ceil(pool.reservation),
                limit: pool.limit.map(Pages::floor),
                expandable: pool.expandable,
            },
        };
        let pools = PoolTree::new(&pools.iter().map(named).collect::<Vec<_>>())?;
        let on: Vec<&VmStatus> = vms.iter().filter(|vm| vm.power != Power::Off).collect();
        let tenant = |vm: &&VmStatus| Tenant {
            pool: find(&pools, &vm.pool).unwrap_or(PoolId::ROOT),
            size: Pages::floor(vm.size),
            reservation: Pages::ceil(vm.reservation),
            limit: Pages::floor(vm.limit),
            shares: vm.share_count,
            tax: vm.tax.and_then(|t| Tax::new(t.rate())),
            overhead: Pages::ceil(vm.overhead),
            levels: self.levels(Pages::floor(vm.active), Pages::floor(vm.limit), Pages::floor(vm.limit)),
        };
        let assumptions = vec![format!(
            "running VMs ({}) use what they use now, and their limit {}% of the time",
            on.len(),
            self.busy
        )];
        let host = Occupied {
            memory: Pages::floor(host.budget),
            swap: host.swap.map(Pages::floor),
            pages: host.swapping || on.iter().any(|vm| vm.paging.space > Bytes::ZERO),
            thresholds: Thresholds::of_min_free(host.high_threshold),
            tax,
            vms: on.iter().map(tenant).collect(),
            pools,
        };
        Ok(Known { host, assumptions })
    }

    /// A VM of the definition.
    fn kind(
        &self,
        definition: &VmDefinition,
        host: &Occupied,
        assumptions: &mut Vec<String>,
    ) -> Result<Tenant> {
        let (size, limit) = (Pages::floor(definition.size), Pages::floor(definition.limit()));
        let (usual, why) = match self.active {
            Some(active) => (Pages::ceil(active), "as given"),
            None => usual(size, &host.vms),
        };
        let peak = self.peak.map_or(limit, Pages::ceil);
        if usual > size || peak > size {
            bail!("--active {} and --peak {}: its size is {}", usual.bytes(), peak.bytes(), definition.size);
        }
        let pool = find(&host.pools, &definition.pool);
        if pool.is_none() {
            assumptions.push(format!("this host has no pool {}: such a VM is in none", definition.pool));
        }
        let (usual_text, peak_text) = (mib(usual), mib(peak.max(usual)));
        assumptions
            .push(format!("such a VM uses {usual_text} ({why}), and {peak_text} {}% of the time", self.busy));
        Ok(Tenant {
            pool: pool.unwrap_or(PoolId::ROOT),
            size,
            reservation: Pages::ceil(definition.reservation),
            limit,
            shares: definition.shares.resolve(definition.size),
            tax: definition.tax.and_then(|t| Tax::new(t.rate())),
            overhead: definition.overhead(),
            levels: self.levels(usual, peak, limit),
        })
    }

    /// `peak` for the part of the time that a VM is busy, `usual` for the rest; never above
    /// `limit`.
    fn levels(&self, usual: Pages, peak: Pages, limit: Pages) -> Vec<Pages> {
        let busy = LEVELS * self.busy / 100;
        let level = |i| if i < busy { peak.max(usual) } else { usual };
        (0..LEVELS).map(|i| level(i).min(limit)).collect()
    }
}

/// What a VM of `size` uses, if it is like `vms`.
fn usual(size: Pages, vms: &[Tenant]) -> (Pages, &'static str) {
    let all: u64 = vms.iter().map(|vm| vm.size.0).sum();
    if all == 0 {
        return (Pages(size.0 / 100 * USUAL_PERCENT), "a quarter of its size, for want of running VMs");
    }
    let used: u64 = vms.iter().map(|vm| vm.median().0).sum();
    let part = u128::from(size.0) * u128::from(used) / u128::from(all);
    (Pages(u64::try_from(part).unwrap_or(u64::MAX)).min(size), "the same part of its size as running VMs")
}

fn find(pools: &PoolTree, place: &Place) -> Option<PoolId> {
    match place.pool() {
        None => Some(PoolId::ROOT),
        Some(name) => pools.find(&name.to_string()),
    }
}

/// What `plimsoll top --once --json` prints, as far as it is needed.
#[derive(Deserialize)]
struct Look {
    host: HostStatus,
    vms: Vec<VmStatus>,
}

fn read_look(path: &Path) -> Result<Look> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("reading the host {shown}"))?;
    serde_json::from_str(&text).map_err(|e| {
        anyhow!("{shown}: {e}: name the output of \"plimsoll top --once --json\", or a scenario")
    })
}

impl Answer {
    fn new(fits: &[Fitted], assumptions: Vec<String>) -> Self {
        let admitted = |f: &&Fitted| f.refusal.is_none();
        let within =
            |risk: f64| fits.iter().filter(admitted).filter(|f| f.risk <= risk).map(|f| f.more).max();
        let line = |f: &Fitted| Line {
            more: f.more,
            admitted: f.refusal.is_none(),
            state: f.state.to_string(),
            entitlement: f.entitlement.bytes(),
            short_at_peak: f.short_at_peak.bytes(),
            risk: f.risk,
        };
        Self {
            admitted: fits.iter().filter(admitted).map(|f| f.more).max().unwrap_or(0),
            within_1_percent: within(0.01),
            within_5_percent: within(0.05),
            refusal: fits.last().and_then(|f| f.refusal.clone()),
            fits: fits.iter().map(line).collect(),
            assumptions,
        }
    }
}

fn text(answer: &Answer) -> String {
    let mut table = Table::new(&[
        Column::right("MORE"),
        Column::left("ADMITTED"),
        Column::left("STATE"),
        Column::right("ENTITLED"),
        Column::right("SHORT AT PEAK"),
        Column::right("RISK"),
    ]);
    for line in shown(&answer.fits) {
        table.row([
            line.more.to_string(),
            if line.admitted { "yes" } else { "no" }.to_owned(),
            line.state.clone(),
            mib(Pages::floor(line.entitlement)),
            mib(Pages::ceil(line.short_at_peak)),
            percent(line.risk),
        ]);
    }
    let many = |n: Option<usize>| {
        n.map_or_else(|| "none: the risk is higher already".to_owned(), |n| format!("{n} more"))
    };
    let mut lines = vec![
        table.text(),
        String::new(),
        format!("risk at most 1%  {}", many(answer.within_1_percent)),
        format!("risk at most 5%  {}", many(answer.within_5_percent)),
        format!("admitted         {} more", answer.admitted),
    ];
    if let Some(refusal) = &answer.refusal {
        lines.push(format!("then             {refusal}"));
    }
    lines.push("assumed".to_owned());
    lines.extend(answer.assumptions.iter().map(|a| format!("- {a}")));
    lines.join("\n")
}

/// Of many lines the first, the last, and some between, close where risk rises.
fn shown(lines: &[Line]) -> Vec<&Line> {
    let step = lines.len().div_ceil(LINES).max(1);
    let keep = |i: usize| {
        let turns = i.checked_sub(1).and_then(|before| Some((lines.get(before)?, lines.get(i)?)));
        i.is_multiple_of(step) || i + 1 == lines.len() || turns.is_some_and(|(a, b)| a.state != b.state)
    };
    lines.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, line)| line).collect()
}

fn percent(risk: f64) -> String {
    match risk * 100.0 {
        p if p > 0.0 && p < 0.1 => "<0.1%".to_owned(),
        p if p < 10.0 => format!("{p:.1}%"),
        p => format!("{p:.0}%"),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::State;

    use super::*;

    fn fitted(more: usize, risk: f64, refusal: Option<&str>) -> Fitted {
        Fitted {
            more,
            refusal: refusal.map(str::to_owned),
            state: if risk > 0.5 { State::Low } else { State::Soft },
            entitlement: Pages::floor(Bytes::mib(100)),
            short_at_peak: Pages::ZERO,
            risk,
        }
    }

    #[test]
    fn the_table_says_how_many_at_which_risk_and_why_no_more() {
        let fits = [fitted(0, 0.0, None), fitted(1, 0.03, None), fitted(2, 0.9, Some("it needs much"))];
        let text = text(&Answer::new(&fits, vec!["nothing".into()]));
        let expected = "\
MORE  ADMITTED  STATE  ENTITLED  SHORT AT PEAK  RISK
   0  yes       soft     100MiB             0B  0.0%
   1  yes       soft     100MiB             0B  3.0%
   2  no        low      100MiB             0B   90%

risk at most 1%  0 more
risk at most 5%  1 more
admitted         1 more
then             it needs much
assumed
- nothing";
        assert_eq!(text, expected);
    }

    #[test]
    fn of_many_lines_those_that_matter_are_shown() {
        let fits: Vec<Fitted> = (0..1000).map(|i| fitted(i, if i > 500 { 0.9 } else { 0.0 }, None)).collect();
        let answer = Answer::new(&fits, vec![]);
        let shown: Vec<usize> = shown(&answer.fits).iter().map(|l| l.more).collect();
        assert!(
            shown.len() <= LINES + 3 && shown.contains(&0) && shown.contains(&501) && shown.contains(&999)
        );
    }
}
