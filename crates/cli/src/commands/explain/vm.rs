use plimsoll_protocol::explain::{
    ActivityEstimate, ActivityParts, Cause, Change, Mechanism, MechanismKind, PoolExplanation, Remedy,
    Reserved, Sizing, StateThresholds, VmDecision, VmExplanation,
};
use plimsoll_protocol::status::{HostStatus, Power, VmStatus};
use plimsoll_units::Bytes;

use super::{cause, host, level, more_than_nothing};
use crate::commands::{guest, paging, ps, sharing, stall};
use crate::table::{Column, Table, list};

pub(super) fn text(explanation: &VmExplanation) -> String {
    let VmExplanation { vm, decision, .. } = explanation;
    let mut parts = vec![summary(explanation)];
    let mut facts = host::account(&explanation.host, &explanation.host_decision);
    match decision {
        Some(decision) => facts.extend(decided(explanation, decision)),
        None if vm.power == Power::Off => facts.extend(off(explanation)),
        None => facts.push((
            "decision",
            "memory is not divided for it: it is ending, or its VMM is unreachable".to_owned(),
        )),
    }
    if let (Some(note), Some(_)) = (&vm.note, decision) {
        facts.push(("note", note.clone()));
    }
    facts.extend(explanation.pools.iter().map(|pool| ("pool", in_pool(pool))));
    parts.push(list(&facts));
    if let Some(decision) = decision {
        parts.push(remedies(&explanation.vm, decision, explanation.more, &explanation.remedies));
    }
    parts.join("\n\n")
}

fn summary(explanation: &VmExplanation) -> String {
    let VmStatus { name, size, grant, .. } = &explanation.vm;
    let Some(decision) = &explanation.decision else {
        let why = match ps::note(&explanation.vm) {
            note if note.is_empty() => note,
            note => format!(": {note}"),
        };
        return format!("{name} is {} and has {grant}{why}.", explanation.vm.power);
    };
    let VmDecision { entitlement, lent, cause: by, .. } = decision;
    let beyond = grant.saturating_sub(*entitlement);
    let what = if beyond > Bytes::ZERO {
        format!("{beyond} more than it is entitled to")
    } else {
        more_than_nothing(entitlement.saturating_sub(*grant), |left| {
            format!("{left} less than it is entitled to and may take")
        })
    };
    let what = if what.is_empty() { "just what it is entitled to".to_owned() } else { what };
    let lent = more_than_nothing(*lent, |lent| {
        format!(" It uses or lacks more, and is lent {lent} that others leave of what they are entitled to.")
    });
    format!(
        "{name} has {grant} of its {size}, {what}. It is entitled to {entitlement} by {}.{lent}",
        cause(by)
    )
}

fn decided(explanation: &VmExplanation, decision: &VmDecision) -> Vec<(&'static str, String)> {
    let VmExplanation { vm, activity, .. } = explanation;
    let VmDecision { guaranteed, ceiling, pays, tax, working_set, target, above_target, .. } = decision;
    let bounds = format!(
        "at least {guaranteed} (reservation {}), at most {ceiling} (limit {}, size {})",
        vm.reservation, vm.limit, vm.size
    );
    let price = match decision.cause {
        Cause::Level | Cause::PoolLimit(_) | Cause::PoolReservation(_) => "as all do that no bound holds",
        _ => "a bound holds it there",
    };
    let mut facts = vec![
        ("bounds", bounds),
        (
            "price",
            format!(
                "its {} shares pay {}, {price} (level of its pool: {}); idle memory is taxed at {tax}",
                vm.share_count,
                level(*pays),
                level(decision.level)
            ),
        ),
        ("active", active(activity)),
        ("working set", format!("{working_set}, taken from only when no one holds idle memory to give")),
        (
            "target",
            format!(
                "{target}{}",
                more_than_nothing(*above_target, |above| format!(", of which it is {above} above"))
            ),
        ),
        ("balloon", balloon(vm, decision)),
        ("paging", paging::text(&vm.paging)),
        ("sharing", sharing::text(&vm.sharing)),
        ("grant", grant(explanation, decision)),
        ("stalled", stall::text(vm)),
    ];
    facts.extend(
        vm.guest
            .iter()
            .map(|said| ("guest", format!("says of itself: {}; {}", guest::memory(said), guest::pain(said)))),
    );
    facts
}

fn active(activity: &ActivityParts) -> String {
    let waits = more_than_nothing(activity.waits, |waits| format!(", {waits} is waited for"));
    let missing = more_than_nothing(activity.missing, |missing| format!(", taken to lack {missing}"));
    let seen = activity
        .estimate
        .as_ref()
        .map_or_else(|| "not sampled yet, so all that it holds".to_owned(), samples);
    let greatest = activity.estimate.as_ref().map(|e| e.slow.max(e.fast).max(e.now));
    let account = match (activity.used, greatest) {
        (Some(used), Some(seen)) if used < seen => {
            format!(", of which {used} counts, since the rest is free by its guest's own account")
        }
        _ => String::new(),
    };
    format!("{}: {seen}{account}{waits}{missing}", activity.active)
}

fn samples(estimate: &ActivityEstimate) -> String {
    let ActivityEstimate { slow, fast, now, margin, chunks, pages, inside, arrived } = estimate;
    let touched = [(chunks, "chunks of 2MiB"), (inside, "pages inside such"), (pages, "other pages")]
        .into_iter()
        .filter(|(sampled, _)| sampled.sampled > 0)
        .map(|(sampled, what)| format!("{} of {} {what}", sampled.touched, sampled.sampled))
        .collect::<Vec<_>>()
        .join(", ");
    let touched =
        if touched.is_empty() { "nothing is watched".to_owned() } else { format!("{touched} touched") };
    let arrived = more_than_nothing(*arrived, |arrived| format!(", {arrived} brought in"));
    format!(
        "most of {slow} (slow average), {fast} (fast), {now} (with this period: {touched}{arrived}), give or take {margin}"
    )
}

fn balloon(vm: &VmStatus, decision: &VmDecision) -> String {
    let why = match decision.balloon {
        Sizing::NotNeeded => "it may use all its memory",
        Sizing::FollowsTarget => "what lies between target and size",
        Sizing::WorkingSet => "no more, since it uses the rest while others hold idle memory",
        Sizing::Largest => "as large as any may be",
        Sizing::GuestShort => "as large as its guest can bear: it has no more memory available",
        Sizing::VmLacks => "no larger while the VM lacks memory: it holds no more than its target",
        Sizing::GrowsSlowly => "it grows as fast as any may",
        Sizing::NoDriver => "no driver has been seen",
        Sizing::Stuck => "its driver does not do what it is told: it gets no more than it is entitled to",
    };
    let balloon = |mechanism: &&Mechanism| mechanism.kind == MechanismKind::Balloon;
    let to_take: Bytes =
        decision.reclaim.iter().filter(balloon).map(|Mechanism { to_take, .. }| *to_take).sum();
    let rest = more_than_nothing(to_take, |rest| format!("; {rest} is still to come"));
    format!("{} of {}: {why}{rest}", vm.ballooned, vm.balloon_target)
}

fn grant(explanation: &VmExplanation, decision: &VmDecision) -> String {
    let VmExplanation { vm, host, host_decision, .. } = explanation;
    let waits = more_than_nothing(vm.wanted, |wanted| {
        format!(", waiting for {wanted}{}", waits(vm, host, &host_decision.thresholds, decision))
    });
    let frames = more_than_nothing(vm.sharing.charged, |charged| format!(" and {charged} of shared frames"));
    format!("{} granted{frames}, {} held{waits}; at most {} now", vm.grant, vm.held, decision.most)
}

/// Says why a VM that waits was not given what it waits for.
fn waits(vm: &VmStatus, host: &HostStatus, thresholds: &StateThresholds, decision: &VmDecision) -> String {
    let has = vm.charge();
    if has >= decision.most {
        return ": it has the most that it may have".to_owned();
    }
    let (what, kept) = if has < decision.entitlement {
        (" within its entitlement", thresholds.low)
    } else {
        (" above its entitlement", thresholds.clear)
    };
    let (free, withheld) = (host.free, decision.withheld);
    let reserved = holders(&decision.withheld_for);
    if withheld == Bytes::ZERO || reserved.is_empty() {
        format!("{what}; {free} is free, and the host keeps {kept}")
    } else if free <= withheld {
        format!("{what}; {free} is free, but reserved for {reserved}")
    } else {
        format!(
            "{what}; {free} is free, but {withheld} of it is reserved for {reserved}, and the host keeps {kept}"
        )
    }
}

/// Names of VMs and pools in one line; more would hide the numbers beside them.
const MOST_HOLDERS: usize = 3;

fn holders(reserved: &[Reserved]) -> String {
    let named = reserved.iter().take(MOST_HOLDERS).map(|reserved| reserved.holder.to_string());
    let more = match reserved.len().saturating_sub(MOST_HOLDERS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    named.collect::<Vec<_>>().join(", ") + &more
}

fn off(explanation: &VmExplanation) -> Vec<(&'static str, String)> {
    let start = |start: &plimsoll_protocol::explain::ToStart| {
        let needed = start.reservation.saturating_add(start.overhead);
        format!(
            "it needs {needed} (reservation {} + overhead {}); {} is unreserved where it is",
            start.reservation, start.overhead, start.unreserved
        )
    };
    explanation.start.iter().map(|s| ("to start", start(s))).collect()
}

fn in_pool(PoolExplanation { pool, target, level: pays, .. }: &PoolExplanation) -> String {
    let limit = pool.limit.map_or_else(|| "no limit".to_owned(), |limit| format!("limit {limit}"));
    format!(
        "{} in {}: entitled to {} together, {} granted, target {target}; {} shares, reservation {}, {limit}; level {}",
        pool.name,
        pool.parent,
        pool.entitled,
        pool.granted,
        pool.share_count,
        pool.reservation,
        level(*pays)
    )
}

fn remedies(vm: &VmStatus, decision: &VmDecision, more: Bytes, remedies: &[Remedy]) -> String {
    let goal = decision.entitlement.saturating_add(more);
    if remedies.is_empty() {
        return format!("Nothing that can be changed would entitle {} to more.", vm.name);
    }
    let mut table = Table::new(&[Column::right("ENTITLED"), Column::left("IF")]);
    for remedy in remedies {
        table.row([remedy.entitlement.to_string(), change(vm, &remedy.change)]);
    }
    format!(
        "To be entitled to {goal}, or as near as it gets, one of these would have to change:\n{}",
        table.text()
    )
}

fn change(vm: &VmStatus, change: &Change) -> String {
    let name = &vm.name;
    match change {
        Change::Active(bytes) => format!("its guest uses {} actively", exact(*bytes)),
        Change::Untaxed => format!("plimsoll set {name} --tax 0"),
        Change::Limit(bytes) => format!("plimsoll set {name} --limit {}", exact(*bytes)),
        Change::Size(bytes) => format!("it is stopped and defined anew with size {}", exact(*bytes)),
        Change::Shares(shares) => format!("plimsoll set {name} --shares {shares}"),
        Change::Reservation(bytes) => format!("plimsoll set {name} --reservation {}", exact(*bytes)),
        Change::PoolLimit(pool, bytes) => format!("plimsoll pool set {pool} --limit {}", exact(*bytes)),
        Change::PoolShares(pool, shares) => format!("plimsoll pool set {pool} --shares {shares}"),
        Change::PoolReservation(pool, bytes) => {
            format!("plimsoll pool set {pool} --reservation {}", exact(*bytes))
        }
        Change::Memory(bytes) => {
            format!("the host has {} more for guests (a VM less, or a larger budget)", exact(*bytes))
        }
    }
}

/// A size that a command takes: in whole MiB, rounded up.
fn exact(bytes: Bytes) -> Bytes {
    Bytes(bytes.0.div_ceil(1 << 20) << 20)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::samples;

    fn explanation() -> VmExplanation {
        let mib = |n: u64| n << 20;
        let mut vm = samples::vm("web1");
        vm.pool = "prod".parse().unwrap();
        serde_json::from_value(json!({
            "at": "2026-01-01T00:00:00Z", "host": samples::host(), "vm": vm,
            "host_decision": {
                "thresholds": {"high": mib(154), "clear": mib(38), "soft": mib(25), "hard": mib(12), "low": mib(6)},
                "tax": 0.75, "largest_balloon": 65, "available": mib(586), "owed": mib(4), "reclaiming": true,
                "shortage": mib(134), "level": 41_234.5, "shortfalls": []
            },
            "activity": {
                "active": mib(40), "used": mib(35), "waits": mib(4), "missing": 0,
                "estimate": {
                    "slow": mib(36), "fast": mib(30), "now": mib(32), "margin": mib(8), "arrived": mib(2),
                    "chunks": {"population": 60, "sampled": 40, "touched": 5},
                    "inside": {"population": 60, "sampled": 64, "touched": 3},
                    "pages": {"population": 5120, "sampled": 17, "touched": 1},
                },
            },
            "pools": [{
                "pool": {
                    "name": "prod", "parent": "/", "shares": "high", "share_count": 327_680, "reservation": mib(64),
                    "expandable": true, "reserved": mib(64), "entitled": mib(320), "granted": mib(390),
                    "pools": [], "vms": ["web1"]
                },
                "unreserved": mib(100), "target": mib(330), "level": 131_072.0
            }],
            "decision": {
                "entitlement": mib(160), "lent": mib(8), "cause": "level", "tax": 0.75, "active": mib(40), "pays": 131_072.0,
                "level": 131_072.0, "guaranteed": mib(64), "ceiling": mib(256), "working_set": mib(50),
                "target": mib(160), "most": mib(256), "above_target": mib(40),
                "reclaim": [{"kind": "balloon", "to_take": mib(40), "taken": mib(56)}], "balloon": "follows-target"
            },
            "more": mib(40),
            "remedies": [
                {"change": {"active": mib(200)}, "entitlement": mib(200)},
                {"change": "untaxed", "entitlement": mib(180)},
                {"change": {"shares": 4000}, "entitlement": mib(200)},
                {"change": {"pool-shares": ["prod", 500_000]}, "entitlement": mib(190)},
                {"change": {"memory": mib(60) + 1}, "entitlement": mib(200)}
            ]
        }))
        .unwrap()
    }

    #[test]
    fn an_explanation_says_what_why_and_what_to_do() {
        let expected = "\
web1 has 200MiB of its 256MiB, 40MiB more than it is entitled to. It is entitled to 160MiB by its shares against everybody's. It uses or lacks more, and is lent 8MiB that others leave of what they are entitled to.

budget       640MiB = granted 600MiB + overhead 16MiB + frames 9MiB + free 15MiB; reserved 144MiB
state        soft: 15MiB is free; clear begins below 38MiB, soft below 25MiB, hard below 12MiB, low below 6MiB
reclaim      134MiB is to be taken back, 4MiB of it owed to VMs that wait for it, until 154MiB is free
sharing      all VMs read 30MiB in frames of 9MiB, and have 12MiB of zero pages
stalled      full 5.26% 2.00% 0.50%, some 6.17% 2.50% 0.75% of the last 10, 60 and 300 s, in the mean over VMs
swapping     all VMs have 0B compressed into 0B and 0B swapped out; 0B of swap space promised
bounds       at least 64MiB (reservation 64MiB), at most 256MiB (limit 256MiB, size 256MiB)
price        its 2560 shares pay 128.0KiB a share, as all do that no bound holds (level of its pool: 128.0KiB a share); idle memory is taxed at 0.75
active       40MiB: most of 36MiB (slow average), 30MiB (fast), 32MiB (with this period: 5 of 40 chunks of 2MiB, 3 of 64 pages inside such, 1 of 17 other pages touched, 2MiB brought in), give or take 8MiB, of which 35MiB counts, since the rest is free by its guest's own account, 4MiB is waited for
working set  50MiB, taken from only when no one holds idle memory to give
target       160MiB, of which it is 40MiB above
balloon      56MiB of 96MiB: what lies between target and size; 40MiB is still to come
paging       8MiB compressed into 3MiB, 16MiB swapped out, of 192MiB of swap space; 1MiB a second out, 512KiB in; taken down to 170MiB: it is above its target, and its balloon does not bring that, or not soon enough
sharing      in domain prod; 24MiB shared at the price of 6MiB, 12MiB zero: 30MiB saved; 5MiB a second looked at, 8KiB written again; takes 0.40% of a processor of 2.00% that it may; large pages are broken for it
grant        200MiB granted and 6MiB of shared frames, 180MiB held; at most 256MiB now
stalled      full 10.51% of 10s, 4.00% of 60s, 1.00% of 300s, 1m 1s in all; some 12.34% of 10s, 5.00% of 60s, 1.50% of 300s, 1m 23s in all
guest        says of itself: 240MiB in all, 20MiB free, 90MiB available, 70MiB cache; 3 major faults, 0 OOM kills
pool         prod in /: entitled to 320MiB together, 390MiB granted, target 330MiB; 327680 shares, reservation 64MiB, no limit; level 128.0KiB a share

To be entitled to 200MiB, or as near as it gets, one of these would have to change:
ENTITLED  IF
  200MiB  its guest uses 200MiB actively
  180MiB  plimsoll set web1 --tax 0
  200MiB  plimsoll set web1 --shares 4000
  190MiB  plimsoll pool set prod --shares 500000
  200MiB  the host has 61MiB more for guests (a VM less, or a larger budget)";
        assert_eq!(text(&explanation()), expected);
    }

    #[test]
    fn a_vm_that_is_off_is_told_what_it_needs() {
        let mut off = explanation();
        off.vm = samples::off("web1");
        (off.decision, off.remedies) = (None, Vec::new());
        off.start = serde_json::from_value(
            json!({"reservation": 64 << 20, "overhead": 8 << 20, "unreserved": 100 << 20}),
        )
        .unwrap();
        let text = text(&off);
        assert!(text.starts_with("web1 is off and has 0B: the guest shut down."), "{text}");
        assert!(
            text.contains(
                "to start  it needs 72MiB (reservation 64MiB + overhead 8MiB); 100MiB is unreserved"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_vm_that_waits_is_told_why() {
        let mut explained = explanation();
        let mut decision = explained.decision.clone().unwrap();
        (explained.vm.grant, explained.vm.wanted) = (Bytes::mib(100), Bytes::mib(8));
        let told = |explained: &VmExplanation, decision: &VmDecision, text: &str| {
            let grant = grant(explained, decision);
            assert!(grant.contains(text), "{grant}");
        };
        told(
            &explained,
            &decision,
            ", waiting for 8MiB within its entitlement; 15MiB is free, and the host keeps 6MiB; at most",
        );
        explained.vm.grant = decision.entitlement;
        told(
            &explained,
            &decision,
            "waiting for 8MiB above its entitlement; 15MiB is free, and the host keeps 38MiB",
        );
        decision.withheld = Bytes::mib(20);
        decision.withheld_for = serde_json::from_value(json!([
            {"holder": {"pool": "prod"}, "amount": 12 << 20}, {"holder": {"vm": "db"}, "amount": 8 << 20}
        ]))
        .unwrap();
        told(
            &explained,
            &decision,
            " above its entitlement; 15MiB is free, but reserved for pool prod, VM db; at most",
        );
        explained.host.free = Bytes::mib(50);
        told(&explained, &decision, "; 50MiB is free, but 20MiB of it is reserved for pool prod, VM db, and");
        decision.withheld_for.extend_from_within(..);
        told(&explained, &decision, " for pool prod, VM db, pool prod and 1 more, and the host keeps 38MiB");
        decision.most = explained.vm.grant;
        told(&explained, &decision, "the most that it may have; at most 160MiB now");
    }

    #[test]
    fn the_host_is_told_with_who_holds_most_beyond_its_entitlement_first() {
        let VmExplanation { at, host, host_decision, pools, vm, decision, .. } = explanation();
        let mut modest = samples::vm("db");
        modest.grant = Bytes::mib(100);
        let share = |vm, decision| plimsoll_protocol::explain::VmShare { vm, decision };
        let vms = vec![share(modest, None), share(vm, decision)];
        let whole =
            plimsoll_protocol::explain::HostExplanation { at, host, decision: host_decision, pools, vms };
        let text = host::text(&whole);
        let table: Vec<&str> = text.lines().rev().take(3).collect();
        assert_eq!(
            table,
            [
                "db    /     100MiB    160MiB      0B  160MiB   40MiB  it takes no part",
                "web1  prod  200MiB    160MiB   40MiB  160MiB   40MiB  its shares against everybody's",
                "VM    POOL   GRANT  ENTITLED  BEYOND  TARGET  ACTIVE  ENTITLED BY",
            ]
        );
        assert!(
            text.contains("586MiB is divided (budget less overhead and 38MiB that stays free), tax 0.75"),
            "{text}"
        );
    }
}
