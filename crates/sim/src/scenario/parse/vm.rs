use std::time::Duration;

use plimsoll_policy::{PoolTree, overhead};
use plimsoll_units::{Bytes, Pages};
use toml::Value;

use super::demand::demand;
use super::{ReadFile, positive_time, tax};
use crate::fields::{Fields, count, flag, fraction, size, speed, text, time};
use crate::random::Random;
use crate::scenario::{GuestSpec, MAX_VMS, VmSpec};

/// What a guest writes to memory that it touches for the first time, faults included.
const TOUCH_SPEED: Bytes = Bytes::mib(500);
/// What a guest reads from its disks into its page cache in a second, over minutes.
const FILL_SPEED: Bytes = Bytes::mib(10);
/// Largest share count of a VM, as in a VM's definition.
const MAX_SHARES: u64 = 200_000_000;

/// Reads one `[[vm]]`.
pub(super) struct VmParser<'a> {
    pub(super) fields: Fields,
    pub(super) pools: &'a PoolTree,
    pub(super) host_overhead: Option<Bytes>,
    pub(super) read: ReadFile<'a>,
}

impl VmParser<'_> {
    pub(super) fn vms(&mut self, mut random: Random) -> Result<Vec<VmSpec>, String> {
        let vm = self.vm()?;
        let n = self.fields.or("count", count, 1)?;
        if !(1..=MAX_VMS).contains(&n) {
            return Err(self.fields.refuse("count", n, &format!("must be 1 to {MAX_VMS}")));
        }
        let every = self.fields.or("every", time, Duration::ZERO)?;
        let width = n.to_string().len();
        let one = |i: u64| {
            let mut one = vm.clone();
            if n > 1 {
                one.name = format!("{}-{:0width$}", vm.name, i + 1);
            }
            one.start += every.saturating_mul(u32::try_from(i).unwrap_or(u32::MAX));
            // From here on the spread is this VM's own delay.
            one.guest.demand.spread = vm.guest.demand.spread.mul_f64(random.unit());
            one
        };
        Ok((0..n).map(one).collect())
    }

    fn vm(&mut self) -> Result<VmSpec, String> {
        let f = &mut self.fields;
        let name = f.required("name", text)?;
        let odd = |c: char| c.is_control() || matches!(c, ',' | '"');
        if name.is_empty() || name.len() > 64 || name.contains(odd) {
            return Err(f.refuse(
                "name",
                format_args!("{name:?}"),
                "must be 1 to 64 characters without comma or quote",
            ));
        }
        let bytes = f.required("size", size)?;
        if !(Bytes::mib(1)..=Bytes::mib(1 << 20)).contains(&bytes) {
            return Err(f.refuse("size", bytes, "must be 1MiB to 1TiB"));
        }
        let size_ = Pages::floor(bytes);
        let reservation = Pages::ceil(f.or("reservation", size, Bytes::ZERO)?);
        let limit = f.optional("limit", size)?.map_or(size_, |l| Pages::floor(l).min(size_));
        if reservation > limit {
            let rule = format!("it is over the limit {}", limit.bytes());
            return Err(f.refuse("reservation", reservation.bytes(), &rule));
        }
        let pool = f.optional("pool", text)?;
        if let Some(pool) = pool.as_ref().filter(|p| self.pools.find(p).is_none()) {
            return Err(f.refuse("pool", format_args!("{pool:?}"), "there is no such pool"));
        }
        let vcpus = f.or("vcpus", count, 1)?;
        let vcpus = u8::try_from(vcpus)
            .ok()
            .filter(|n| (1..=64).contains(n))
            .ok_or_else(|| f.refuse("vcpus", vcpus, "must be 1 to 64"))?;
        let shares = f.or("shares", shares, Shares::PerMib(10))?.of(size_);
        let own = f.optional("overhead", size)?.or(self.host_overhead);
        let overhead = own.map_or_else(|| overhead(size_, vcpus, 0), Pages::ceil);
        let (tax, start) = (f.optional("tax", tax)?, f.or("start", time, Duration::ZERO)?);
        let life = f.optional("life", positive_time)?;
        let group = name.clone();
        let guest = self.guest(size_)?;
        Ok(VmSpec {
            name,
            group,
            size: size_,
            reservation,
            limit,
            shares,
            tax,
            pool,
            overhead,
            vcpus,
            start,
            life,
            guest,
        })
    }

    fn guest(&mut self, size_: Pages) -> Result<GuestSpec, String> {
        let f = &mut self.fields;
        let demand = demand(f, self.read)?;
        let zeroes = f.or("zeroes_at_boot", all_or_size, Some(Bytes::ZERO))?;
        let domain = f.optional("share_domain", text)?;
        let common = f.or("common", fraction, 0.0)?;
        if common > 0.0 && domain.is_none() {
            let why = "share_domain is missing: name the domain that it shares with";
            return Err(f.refuse("common", common, why));
        }
        Ok(GuestSpec {
            zeroes: zeroes.map_or(size_, |z| Pages::floor(z).min(size_)),
            zero_speed: f.or("zero_speed", speed, TOUCH_SPEED)?,
            touch_speed: f.or("touch_speed", speed, TOUCH_SPEED)?,
            fill_speed: f.or("fill_speed", speed, FILL_SPEED)?,
            balloon_after: f.or("balloon_after", time_or_never, Some(Duration::ZERO))?,
            reports_free: f.or("reports_free", flag, true)?,
            asks: f.or("asks", flag, true)?,
            demand,
            common,
            domain,
        })
    }
}

/// Shares as an operator writes them; the levels are those of a VM's definition.
pub(super) enum Shares {
    PerMib(u64),
    Number(u64),
}

impl Shares {
    pub(super) fn of(&self, size: Pages) -> u64 {
        match self {
            Self::PerMib(n) => (size.bytes().0 >> 20).saturating_mul(*n).max(1),
            Self::Number(n) => *n,
        }
    }
}

pub(super) fn shares(value: &Value) -> Result<Shares, String> {
    match value.as_str() {
        Some("low") => Ok(Shares::PerMib(5)),
        Some("normal") => Ok(Shares::PerMib(10)),
        Some("high") => Ok(Shares::PerMib(20)),
        _ => count(value)
            .ok()
            .filter(|n| (1..=MAX_SHARES).contains(n))
            .map(Shares::Number)
            .ok_or_else(|| format!("\"low\", \"normal\", \"high\" or 1 to {MAX_SHARES} is needed")),
    }
}

/// A size, or `None` for all.
fn all_or_size(value: &Value) -> Result<Option<Bytes>, String> {
    if value.as_str() == Some("all") {
        return Ok(None);
    }
    size(value).map(Some).map_err(|_| "\"all\" or a size is needed".to_owned())
}

fn time_or_never(value: &Value) -> Result<Option<Duration>, String> {
    if value.as_str() == Some("never") {
        return Ok(None);
    }
    time(value).map(Some).map_err(|_| "a time such as \"30s\" or \"never\" is needed".to_owned())
}
