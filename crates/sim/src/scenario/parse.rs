use std::collections::HashSet;
use std::time::Duration;

use plimsoll_policy::{Estimator, NamedPool, Pool, PoolTree, Tax};
use plimsoll_units::{Bytes, Pages};
use toml::Value;

use super::{Change, Changed, HostSpec, MAX_VMS, MAX_WORK, Scenario, ThresholdRule, VmSpec};
use crate::fields::{Fields, count, flag, number, size, speed, text, time};
use crate::random::Random;

mod demand;
mod vm;

use vm::{VmParser, shares};

/// What a disk of today writes in random clusters without standing out.
const SWAP_SPEED: Bytes = Bytes::mib(100);
/// What a Linux balloon driver takes from a guest that has the memory free or as page cache.
const BALLOON_SPEED: Bytes = Bytes::mib(100);
/// ESXi looks at every page once an hour (`Mem.ShareScanTime` 60 min): 16 GiB in that time.
const SCAN_SPEED: Bytes = Bytes::mib(4);
/// Where pools get no shares: those of four VMs of 1 GiB with normal shares.
const POOL_SHARES: u64 = 20_480;
/// The most pages of a sample: more costs time and teaches little.
const MAX_SAMPLE: u64 = 10_000;

type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

pub(super) fn scenario(text_: &str, read: ReadFile<'_>) -> Result<Scenario, String> {
    let table: toml::Table = toml::from_str(text_).map_err(|e| syntax(text_, &e))?;
    let mut top = Fields::new("", table);
    let title = top.or("title", text, String::new())?.replace(char::is_control, " ");
    let duration = top.required("duration", time)?;
    let step = top.or("step", time, Duration::from_secs(1))?;
    if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&step) {
        return Err(top.refuse("step", format_args!("{step:?}"), "must be 10ms to 60s"));
    }
    if duration < step {
        return Err(top.refuse("duration", format_args!("{duration:?}"), "it is shorter than a step"));
    }
    let seed = top.or("seed", count, 1)?;
    let mut host_fields =
        top.table("host")?.ok_or("host is missing: a table with the host's memory and rules")?;
    let host_overhead = host_fields.optional("overhead", size)?;
    let host = host(host_fields)?;
    let pools = pools(top.list("pool")?)?;
    let mut vms = Vec::new();
    for (i, fields) in top.list("vm")?.into_iter().enumerate() {
        let stream = u64::try_from(i).unwrap_or(u64::MAX);
        let mut parser = VmParser { fields, pools: &pools, host_overhead, read };
        vms.extend(parser.vms(Random::new(seed, stream))?);
        parser.fields.end()?;
        if u64::try_from(vms.len()).unwrap_or(u64::MAX) > MAX_VMS {
            return Err(format!("vm: {} VMs: at most {MAX_VMS} are allowed", vms.len()));
        }
    }
    unique(&vms)?;
    let mut changes = Vec::new();
    for fields in top.list("change")? {
        changes.push(change(fields, &vms)?);
    }
    changes.sort_by_key(|c: &Change| c.at);
    top.end()?;
    let scenario = Scenario { title, duration, step, seed, host, pools, vms, changes };
    let work = scenario.steps().saturating_mul(u64::try_from(scenario.vms.len()).unwrap_or(u64::MAX));
    if work > MAX_WORK {
        return Err(format!(
            "duration {duration:?}: {} steps of {} VMs are too much: make it shorter or step longer",
            scenario.steps(),
            scenario.vms.len()
        ));
    }
    Ok(scenario)
}

/// Returns a syntax error of the TOML in one line.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let at = error.span().map_or(0, |s| s.start);
    let line = 1 + text.bytes().take(at).filter(|&b| b == b'\n').count();
    let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
    format!("line {line}: {}: no TOML: {message}", shown.chars().take(60).collect::<String>())
}

fn unique(vms: &[VmSpec]) -> Result<(), String> {
    let mut names = HashSet::new();
    match vms.iter().find(|vm| !names.insert(vm.name.as_str())) {
        None => Ok(()),
        Some(vm) => Err(format!("vm {:?}: name {:?}: it is taken by another VM", vm.group, vm.name)),
    }
}

fn host(mut fields: Fields) -> Result<HostSpec, String> {
    let host = HostSpec {
        memory: fields.required("memory", size)?,
        tax: fields.or("tax", tax, Tax::DEFAULT)?,
        thresholds: fields.or("thresholds", thresholds, ThresholdRule::Sliding)?,
        swap: fields.or("swap", size, Bytes::ZERO)?,
        swap_speed: fields.or("swap_speed", speed, SWAP_SPEED)?,
        balloon_speed: fields.or("balloon_speed", speed, BALLOON_SPEED)?,
        scan_speed: fields.or("scan_speed", speed, SCAN_SPEED)?,
        sample_pages: fields.or("sample_pages", sample, 100)?,
        sample_period: fields.or("sample_period", positive_time, Estimator::PERIOD)?,
    };
    // More than a petabyte is a slip, and sums of such would overflow.
    if !(Bytes::mib(1)..=Bytes::mib(1 << 30)).contains(&host.memory) {
        return Err(fields.refuse("memory", host.memory, "must be 1MiB to 1024TiB"));
    }
    fields.end().map(|()| host)
}

fn sample(value: &Value) -> Result<u32, String> {
    let needed = || format!("must be 1 to {MAX_SAMPLE} pages");
    let n = count(value).ok().filter(|n| (1..=MAX_SAMPLE).contains(n)).ok_or_else(needed)?;
    u32::try_from(n).map_err(|_| needed())
}

fn positive_time(value: &Value) -> Result<Duration, String> {
    let needed = || "a time above 0 such as \"30s\" is needed".to_owned();
    time(value).ok().filter(|t| !t.is_zero()).ok_or_else(needed)
}

fn tax(value: &Value) -> Result<Tax, String> {
    number(value).ok().and_then(Tax::new).ok_or_else(|| "a number from 0 to 0.99 is needed".to_owned())
}

fn thresholds(value: &Value) -> Result<ThresholdRule, String> {
    match value.as_str() {
        Some("sliding") => Ok(ThresholdRule::Sliding),
        Some("fixed") => Ok(ThresholdRule::Fixed),
        _ => size(value)
            .map(ThresholdRule::MinFree)
            .map_err(|_| "\"sliding\", \"fixed\" or a size, minFree, is needed".to_owned()),
    }
}

fn pools(list: Vec<Fields>) -> Result<PoolTree, String> {
    let mut pools = Vec::new();
    for mut fields in list {
        let pool = Pool {
            shares: fields.or("shares", count, POOL_SHARES)?,
            reservation: Pages::ceil(fields.or("reservation", size, Bytes::ZERO)?),
            limit: fields.optional("limit", size)?.map(Pages::floor),
            expandable: fields.or("expandable", flag, true)?,
        };
        let name = fields.required("name", text)?;
        pools.push(NamedPool { name, parent: fields.optional("parent", text)?, pool });
        fields.end()?;
    }
    PoolTree::new(&pools).map_err(|e| e.to_string())
}

fn change(mut fields: Fields, vms: &[VmSpec]) -> Result<Change, String> {
    let at = fields.required("at", time)?;
    let what = if let Some(tax) = fields.optional("tax", tax)? {
        Changed::Tax(tax)
    } else if let Some(memory) = fields.optional("memory", size)? {
        Changed::Memory(memory)
    } else if let Some(name) = fields.optional("vm", text)? {
        let found = vms.iter().find(|vm| vm.name == name || vm.group == name);
        let vm = found.ok_or_else(|| fields.refuse("vm", format_args!("{name:?}"), "there is no such VM"))?;
        let reservation = fields.optional("reservation", size)?.map(Pages::ceil);
        let limit = fields.optional("limit", size)?.map(|l| Pages::floor(l).min(vm.size));
        let (least, most) = (reservation.unwrap_or(vm.reservation), limit.unwrap_or(vm.limit));
        if least > most {
            let rule = format!("it is over the limit {}", most.bytes());
            return Err(fields.refuse("reservation", least.bytes(), &rule));
        }
        let shares = fields.optional("shares", shares)?.map(|s| s.of(vm.size));
        Changed::Vm { name, shares, reservation, limit }
    } else {
        return Err(format!("{}tax, memory or vm is missing: what changes?", fields.whose));
    };
    fields.end().map(|()| Change { at, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "duration = '10m'\n[host]\nmemory = '1GiB'\nswap = '1GiB'\n[[pool]]\nname = 'web'\n\
        [[vm]]\nname = 'a'\ncount = 3\nevery = '5s'\nsize = '256MiB'\nreservation = '64MiB'\npool = 'web'\n\
        [vm.demand]\nspread = '1m'\npoints = [{ active = '50MiB' }, { at = '5m', ramp = '1m', active = '200MiB' }]\n\
        [[change]]\nat = '3m'\nvm = 'a'\nshares = 'high'\n";

    fn parse(text: &str) -> Result<Scenario, String> {
        scenario(text, &|_| Err("no such file".to_owned()))
    }

    #[test]
    fn a_count_becomes_single_vms() {
        let s = parse(GOOD).unwrap();
        let seen: Vec<(&str, u64)> = s.vms.iter().map(|v| (v.name.as_str(), v.start.as_secs())).collect();
        assert_eq!(seen, [("a-1", 0), ("a-2", 5), ("a-3", 10)]);
        assert_ne!(s.vms[0].guest.demand.spread, s.vms[1].guest.demand.spread);
        assert_eq!((s.vms[0].shares, s.steps()), (2560, 600));
    }

    #[test]
    fn every_error_names_key_and_value_in_one_line() {
        for (from, to, start) in [
            ("'10m'", "'soon'", "duration \"soon\": a time"),
            ("'10m'", "'9999999d'", "duration \"9999999d\": a time"),
            ("'10m'", "'3650d'", "duration 315360000s: 315360000 steps of 3 VMs are too much"),
            ("'1GiB'\nswap", "-5\nswap", "host: memory -5: a size"),
            ("'1GiB'\nswap", "'1GB'\nswap", "host: memory \"1GB\": a size"),
            ("'1GiB'\nswap", "0\nswap", "host: memory 0B: must be 1MiB"),
            ("swap = '1GiB'", "swap_speed = '2TiB/s'", "host: swap_speed \"2TiB/s\": a size a second"),
            ("swap = ", "swop = ", "host: swop \"1GiB\": there is no such key"),
            ("swap = '1GiB'", "tax = 1.0", "host: tax 1.0: a number from 0 to 0.99"),
            ("swap = '1GiB'", "tax = nan", "host: tax nan: a number"),
            ("'64MiB'", "'512MiB'", "vm \"a\": reservation 512MiB: it is over the limit 256MiB"),
            ("pool = 'web'", "pool = 'db'", "vm \"a\": pool \"db\": there is no such pool"),
            ("pool = 'web'", "shares = 0", "vm \"a\": shares 0: \"low\""),
            ("count = 3", "count = 0", "vm \"a\": count 0: must be 1 to"),
            ("count = 3", "colour = 3", "vm \"a\": colour 3: there is no such key"),
            ("name = 'a'\n", "", "vm[0]: name is missing"),
            ("active = '50MiB'", "active = 'x'", "vm \"a\": demand: points[0]: active \"x\": a size"),
            ("ramp = '1m'", "content = '1MiB'", "vm \"a\": demand: points[1]: content 1MiB: it is less"),
            ("spread = '1m'", "spread = '1x'", "vm \"a\": demand: spread \"1x\": a time"),
            (
                "points = [",
                "cycle = { low = 1, high = 2, period = 3 }\npoints = [",
                "vm \"a\": demand: one of",
            ),
            (
                "points = [",
                "trace = { file = 'x.csv' }\n#",
                "vm \"a\": demand: trace: file \"x.csv\": no such",
            ),
            ("vm = 'a'", "vm = 'b'", "change[0]: vm \"b\": there is no such VM"),
            ("vm = 'a'\nshares = 'high'", "", "change[0]: tax, memory or vm is missing"),
            ("name = 'web'", "name = 'web'\nparent = 'web'", "pool \"web\": parent \"web\""),
            ("[host]", "[host", "line 2: [host: no TOML: "),
            (
                "[[change]]",
                "[[vm]]\nname = 'a-1'\nsize = '32MiB'\ndemand = { points = [{ active = 0 }] }\n[[change]]",
                "vm \"a-1\": name \"a-1\": it is taken",
            ),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with(start), "{start}\n{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
