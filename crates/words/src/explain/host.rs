use plimsoll_protocol::Place;
use plimsoll_protocol::explain::{HostDecision, HostExplanation, PoolExplanation, VmShare};
use plimsoll_protocol::status::HostStatus;
use plimsoll_units::Bytes;

use super::{cause, level, more_than_nothing};
use crate::stall;
use crate::table::{Column, Table, list};

/// Why VMs are paged though their balloons work and the state is soft.
const STRAINED: &str = "; balloons have not sufficed for 10 s, so all VMs above their targets are paged, too";

/// The host's account, its pools, and how much each VM holds and why.
pub fn text(explanation: &HostExplanation) -> String {
    let HostExplanation { host, decision, pools, vms, .. } = explanation;
    let mut facts = account(host, decision);
    facts.push(("division", division(decision)));
    for shortfall in &decision.shortfalls {
        let text = format!(
            "{}: {} is reserved, but only {} is there",
            place(&shortfall.place),
            shortfall.reserved,
            shortfall.has
        );
        facts.push(("short", text));
    }
    let mut parts = vec![list(&facts)];
    if !pools.is_empty() {
        parts.push(pool_table(pools));
    }
    parts.push(if vms.is_empty() { "No VM runs.".to_owned() } else { vm_table(vms) });
    parts.join("\n\n")
}

/// The host's lines in every explanation.
pub(super) fn account(host: &HostStatus, decision: &HostDecision) -> Vec<(&'static str, String)> {
    let HostStatus { budget, granted, overhead, frames, free, reserved, state, .. } = host;
    let t = &decision.thresholds;
    let mut facts = vec![
        (
            "budget",
            format!(
                "{budget} = granted {granted} + overhead {overhead} + frames {frames} + free {free}; reserved {reserved}"
            ),
        ),
        (
            "state",
            format!(
                "{state}: {free} is free; clear begins below {}, soft below {}, hard below {}, low below {}",
                t.clear, t.soft, t.hard, t.low
            ),
        ),
    ];
    if host.taken > Bytes::ZERO {
        facts.insert(
            1,
            (
                "taken",
                format!("{} of the configured budget is used by other programs on this host", host.taken),
            ),
        );
    }
    let owed = more_than_nothing(decision.owed, |owed| format!(", {owed} of it owed to waiting VMs"));
    facts.push((
        "reclaim",
        if decision.reclaiming {
            let strained = if decision.strained { STRAINED } else { "" };
            format!("{} to reclaim{owed}, until {} is free{strained}", decision.shortage, t.high)
        } else {
            "nothing to reclaim".to_owned()
        },
    ));
    facts.push((
        "sharing",
        format!("all VMs share {} in frames of {frames}, and have {} of zero pages", host.shared, host.zero),
    ));
    facts.push((
        "stalled",
        format!("{} of the last 10, 60 and 300 s, averaged over VMs", stall::of_host(&host.stall)),
    ));
    let of = host.swap.map_or_else(String::new, |swap| format!(" of {swap}"));
    let space = match &host.no_swap {
        None => format!("{}{of} of swap space promised", host.swap_reserved),
        Some(why) => format!("new VMs get no swap space: {why}"),
    };
    facts.push((
        "swapping",
        format!(
            "all VMs have {} compressed into {} and {} swapped out; {space}",
            host.compressed, host.store, host.swapped
        ),
    ));
    facts
}

fn division(decision: &HostDecision) -> String {
    format!(
        "{} is divided (budget less overhead and {} kept free), tax {}, level {}",
        decision.available,
        decision.thresholds.clear,
        decision.tax,
        level(decision.level)
    )
}

fn place(place: &Place) -> String {
    place.pool().map_or_else(|| "the host".to_owned(), |pool| format!("pool {pool}"))
}

fn pool_table(pools: &[PoolExplanation]) -> String {
    let columns = ["ENTITLED", "GRANTED", "TARGET", "RESERV", "UNRESERV", "LIMIT", "SHARES", "LEVEL"]
        .map(Column::right);
    let mut table = Table::new(&[&[Column::left("POOL"), Column::left("IN")][..], &columns].concat());
    for PoolExplanation { pool, unreserved, target, level: pays } in pools {
        table.row([
            pool.name.to_string(),
            pool.parent.to_string(),
            pool.entitled.to_string(),
            pool.granted.to_string(),
            target.to_string(),
            pool.reservation.to_string(),
            unreserved.to_string(),
            pool.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            pool.share_count.to_string(),
            level(*pays),
        ]);
    }
    table.text()
}

/// The VMs, sorted by what they hold beyond their entitlements, the largest first.
fn vm_table(vms: &[VmShare]) -> String {
    let columns = ["GRANT", "ENTITLED", "BEYOND", "TARGET", "ACTIVE"].map(Column::right);
    let first = [Column::left("VM"), Column::left("POOL")];
    let mut table = Table::new(&[&first[..], &columns, &[Column::left("ENTITLED BY")]].concat());
    let mut vms: Vec<&VmShare> = vms.iter().collect();
    let beyond = |share: &VmShare| share.vm.grant.saturating_sub(share.vm.entitlement);
    vms.sort_by_key(|share| std::cmp::Reverse(beyond(share)));
    for share in vms {
        let vm = &share.vm;
        table.row([
            vm.name.to_string(),
            vm.pool.to_string(),
            vm.grant.to_string(),
            vm.entitlement.to_string(),
            beyond(share).to_string(),
            vm.target.to_string(),
            vm.active.to_string(),
            share.decision.as_ref().map_or_else(|| "not divided for it".to_owned(), |d| cause(&d.cause)),
        ]);
    }
    table.text()
}
