//! VMs that come, go, change and move, one operation at a time, and the state in which all samples
//! are taken.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::sharing::Sharing;
use plimsoll_protocol::status::{Exit, Power, VmStatus};
use plimsoll_units::Bytes;
use serde_json::json;

use super::SIZE;

/// What a guest writes.
const TOUCHED: Bytes = Bytes::mib(24);
/// Contents that guests write: few, so that VMs of a domain have pages to share.
const SEEDS: u64 = 3;
/// One in this many VMs lives throughout.
const LASTS: u32 = 4;
/// Names of VMs that live throughout begin with this.
const LASTING: &str = "lasts";
/// Of the VMs that come and go, this many in four are on when a sample is taken.
const ON: usize = 3;
const POOLS: [(&str, &str); 3] = [("gold", "/"), ("silver", "/"), ("inner", "gold")];
const PLACES: [&str; 4] = ["/", "gold", "silver", "inner"];
const SHARES: [&str; 3] = ["low", "normal", "high"];
const DOMAINS: [&str; 5] = ["own", "red", "blue", "zero", "off"];
/// Domains of VMs when a sample is taken: each has descriptors of the daemon.
const HOMES: [&str; 3] = ["own", "red", "blue"];
/// How long a guest may take: it may have to wait for others to give memory.
const LIMIT: Duration = Duration::from_secs(120);
/// How long VMs may take to come to rest.
const REST: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(200);
/// The API refuses a change that does not fit the state of a VM, or that the host's memory does not
/// suffice for. Both happen by chance, and nothing has changed then.
const REFUSALS: [u16; 2] = [409, 507];
/// More would only repeat the first.
const MOST_WRONG: usize = 20;

/// Whether the VM of that name is one of those that live throughout.
pub(super) fn lives_throughout(name: &str) -> bool {
    name.starts_with(LASTING)
}

/// VMs that come and go.
#[derive(Debug)]
pub(super) struct Churn {
    names: Vec<String>,
    rng: Rng,
    counts: BTreeMap<&'static str, u64>,
    refused: u64,
    wrong: Vec<String>,
}

/// What is done to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Start,
    Stop,
    Kill,
    Forget,
    Set,
    Pool,
    Domain,
    Work,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Forget => "forget",
            Self::Set => "set",
            Self::Pool => "pool",
            Self::Domain => "domain",
            Self::Work => "work",
        }
    }
}

impl Churn {
    /// Makes pools and starts `vms` VMs.
    pub(super) fn begin(stage: &Stage, vms: u32, seed: u64) -> Result<Self> {
        let lasting = (vms / LASTS).max(1);
        let names = (0..vms).map(|n| match n < lasting {
            true => format!("{LASTING}{n:03}"),
            false => format!("comes{n:03}"),
        });
        let (rng, counts) = (Rng::with_seed(seed), BTreeMap::new());
        let mut churn = Self { names: names.collect(), rng, counts, refused: 0, wrong: Vec::new() };
        for (name, parent) in POOLS {
            let body = json!({ "name": name, "parent": parent });
            stage.ask("POST", "/v1/pools", &body.to_string())?.success().context("making a pool")?;
        }
        churn.come_to_rest(stage)?;
        Ok(churn)
    }

    /// Does one operation to one VM, both drawn at random.
    pub(super) fn operate(&mut self, stage: &Stage) -> Result<()> {
        let vms = self.observe(stage)?;
        let name = self.names[self.rng.usize(..self.names.len())].clone();
        let vm = vms.iter().find(|vm| vm.name.as_str() == name);
        let comes = !lives_throughout(&name);
        let operation = match vm.map(|vm| vm.power) {
            None => Operation::Start,
            Some(Power::Off) if self.rng.u8(..4) == 0 => Operation::Forget,
            Some(Power::Off) => Operation::Start,
            Some(Power::Starting | Power::Stopping | Power::Paused) => return Ok(()),
            Some(Power::On) => match self.rng.u8(..10) {
                0 | 1 if comes => Operation::Stop,
                2 if comes => Operation::Kill,
                0..=3 => Operation::Set,
                4 | 5 => Operation::Pool,
                6 | 7 => Operation::Domain,
                _ => Operation::Work,
            },
        };
        *self.counts.entry(operation.name()).or_default() += 1;
        let done = match operation {
            Operation::Start => self.start(stage, &name, vm.is_some()),
            Operation::Stop => self.change(stage, "POST", &format!("/v1/vms/{name}/stop"), ""),
            Operation::Kill => self.change(stage, "POST", &format!("/v1/vms/{name}/kill"), ""),
            Operation::Forget => self.change(stage, "DELETE", &format!("/v1/vms/{name}"), ""),
            Operation::Set => {
                let shares = SHARES[self.rng.usize(..SHARES.len())];
                let reservation = Bytes::mib(2 * self.rng.u64(..5));
                let limit = SIZE.saturating_sub(Bytes::mib(4 * self.rng.u64(..5)));
                let body = json!({ "shares": shares, "reservation": reservation, "limit": limit });
                self.patch(stage, &name, &body)
            }
            Operation::Pool => {
                let place = PLACES[self.rng.usize(..PLACES.len())];
                self.patch(stage, &name, &json!({ "pool": place }))
            }
            Operation::Domain => {
                let domain = DOMAINS[self.rng.usize(..DOMAINS.len())];
                self.patch(stage, &name, &json!({ "sharing": domain }))
            }
            Operation::Work => vm.map_or(Ok(()), |vm| self.work(vm)),
        };
        if let Err(error) = done {
            self.complain(format!("{} {name}: {error:#}", operation.name()));
        }
        Ok(())
    }

    /// Looks at all VMs, and notes those that are off without having been stopped or killed.
    pub(super) fn observe(&mut self, stage: &Stage) -> Result<Vec<VmStatus>> {
        let vms = stage.vms()?;
        for vm in vms.iter().filter(|vm| vm.power == Power::Off) {
            let as_told = matches!(
                vm.exit,
                None | Some(Exit::Told(ExitReason::Shutdown) | Exit::KilledByOperator | Exit::NotStarted(_))
            );
            if !as_told || lives_throughout(vm.name.as_str()) {
                let how = vm.exit.as_ref().map(ToString::to_string).unwrap_or_default();
                self.complain(format!("{} is off: {how}", vm.name));
            }
        }
        Ok(vms)
    }

    /// Brings the VMs into the state in which all samples are taken: all are known, those that live
    /// throughout and three in four of the others are on, each is in its own domain.
    pub(super) fn come_to_rest(&mut self, stage: &Stage) -> Result<()> {
        let deadline = Instant::now() + REST;
        let mut last = String::new();
        while Instant::now() < deadline {
            let vms = stage.vms()?;
            match self.next_to_rest(&vms) {
                None => return Ok(()),
                Some(Step::Wait(why)) => {
                    last = why;
                    thread::sleep(LOOK);
                }
                Some(Step::Start(name)) => {
                    let known = vms.iter().any(|vm| vm.name.as_str() == name);
                    self.start(stage, &name, known)?;
                }
                Some(Step::Kill(name)) => {
                    self.change(stage, "POST", &format!("/v1/vms/{name}/kill"), "")?;
                }
                Some(Step::Home(name, home)) => {
                    let before = self.refused;
                    self.patch(stage, &name, &json!({ "sharing": home }))?;
                    if self.refused > before {
                        // It is still leaving another.
                        thread::sleep(LOOK);
                    }
                }
            }
        }
        bail!("VMs do not come to rest in {} s: {last}", REST.as_secs())
    }

    /// What is missing until all VMs are at rest; `None`: nothing.
    fn next_to_rest(&self, vms: &[VmStatus]) -> Option<Step> {
        let of = |name: &String| vms.iter().find(|vm| vm.name.as_str() == name);
        let unsettled = |vm: &&VmStatus| matches!(vm.power, Power::Starting | Power::Stopping);
        if let Some(vm) = vms.iter().find(unsettled) {
            return Some(Step::Wait(format!("{} is {}", vm.name, vm.power)));
        }
        let on = |name: &&String| of(name).is_some_and(|vm| vm.power == Power::On);
        if let Some(name) = self.names.iter().find(|name| of(name).is_none()) {
            return Some(Step::Start(name.clone()));
        }
        let (lasting, coming): (Vec<&String>, Vec<&String>) =
            self.names.iter().partition(|name| lives_throughout(name));
        if let Some(name) = lasting.into_iter().find(|name| !on(name)) {
            return Some(Step::Start(name.clone()));
        }
        let wanted = coming.len() * ON / 4;
        let are_on: Vec<&&String> = coming.iter().filter(|name| on(name)).collect();
        if are_on.len() > wanted {
            return are_on.last().map(|name| Step::Kill((**name).clone()));
        }
        if are_on.len() < wanted {
            return coming.iter().find(|name| !on(name)).map(|name| Step::Start((*name).clone()));
        }
        for (n, name) in self.names.iter().enumerate() {
            let home = HOMES[n % HOMES.len()];
            let Some(vm) = of(name) else { continue };
            let there: Result<Sharing, _> = home.parse();
            if there.is_ok_and(|there| vm.sharing.with != there) {
                return Some(Step::Home(name.clone(), home));
            }
            if vm.sharing.leaving {
                return Some(Step::Wait(format!("{name} is still leaving a sharing domain")));
            }
        }
        None
    }

    /// Ends all VMs and pools, and has the daemon forget them.
    pub(super) fn end(&mut self, stage: &Stage) -> Result<()> {
        for vm in stage.vms()?.iter().filter(|vm| vm.power == Power::On) {
            self.change(stage, "POST", &format!("/v1/vms/{}/stop", vm.name), "")?;
        }
        stage.wait("all VMs are off", LIMIT, |stage| Ok((stage.host()?.running == 0).then_some(())))?;
        for vm in stage.vms()? {
            self.change(stage, "DELETE", &format!("/v1/vms/{}", vm.name), "")?;
        }
        for (name, _) in POOLS.iter().rev() {
            self.change(stage, "DELETE", &format!("/v1/pools/{name}"), "")?;
        }
        stage.wait_free().map(drop)
    }

    /// How often each operation was done, and how many changes were refused.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.counts.clone();
        counts.insert("refused", self.refused);
        counts
    }

    /// What went wrong.
    pub(super) fn into_wrong(self) -> Vec<String> {
        self.wrong
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let all: u64 = self.counts.values().sum();
        format!("{all} operations, {} refused, {} wrong", self.refused, self.wrong.len())
    }

    fn start(&mut self, stage: &Stage, name: &str, known: bool) -> Result<()> {
        if known {
            return self.change(stage, "POST", &format!("/v1/vms/{name}/start"), "");
        }
        let definition = Definition::new(name, SIZE, Runs::Model).json()?;
        self.change(stage, "POST", "/v1/vms", &definition)
    }

    fn patch(&mut self, stage: &Stage, name: &str, body: &serde_json::Value) -> Result<()> {
        self.change(stage, "PATCH", &format!("/v1/vms/{name}"), &body.to_string())
    }

    /// Makes a change. One that is refused as it may be is counted.
    fn change(&mut self, stage: &Stage, method: &str, path: &str, body: &str) -> Result<()> {
        let reply = stage.ask(method, path, body)?;
        if REFUSALS.contains(&reply.status) {
            self.refused += 1;
            return Ok(());
        }
        reply.success().map(drop)
    }

    /// Has a guest verify what it wrote, and free it, or write something.
    fn work(&mut self, vm: &VmStatus) -> Result<()> {
        let mut guest = Toucher::attach(vm.name.as_str(), &vm.console)?;
        if guest.verify_all(LIMIT)? > 0 {
            return guest.ask("free", LIMIT).map(drop);
        }
        let seed = 1 + self.rng.u64(..SEEDS);
        guest.ask(&format!("touch {} {seed}", TOUCHED.0), LIMIT).map(drop)
    }

    fn complain(&mut self, text: String) {
        if self.wrong.len() < MOST_WRONG && !self.wrong.contains(&text) {
            plimsoll_lab::workspace::note(&format!("WRONG: {text}"));
            self.wrong.push(text);
        }
    }
}

/// What brings VMs closer to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Wait(String),
    Start(String),
    Kill(String),
    /// Into its own domain.
    Home(String, &'static str),
}
