use plimsoll_protocol::explain::{Cause, HostExplanation, Sizing, VmDecision, VmExplanation, VmShare};
use plimsoll_units::Bytes;
use serde_json::json;

use super::{grant, host, vm};
use crate::samples;

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
web1 has 200MiB of its 256MiB, 40MiB more than it is entitled to. It is entitled to 160MiB by its shares. It needs more and is lent 8MiB that other VMs leave of their entitlements.

budget       640MiB = granted 600MiB + overhead 16MiB + frames 9MiB + free 15MiB; reserved 144MiB
state        soft: 15MiB is free; clear begins below 38MiB, soft below 25MiB, hard below 12MiB, low below 6MiB
reclaim      134MiB to reclaim, 4MiB of it owed to waiting VMs, until 154MiB is free
sharing      all VMs share 30MiB in frames of 9MiB, and have 12MiB of zero pages
stalled      full 5.26% 2.00% 0.50%, some 6.17% 2.50% 0.75% of the last 10, 60 and 300 s, averaged over VMs
swapping     all VMs have 0B compressed into 0B and 0B swapped out; 0B of swap space promised
bounds       at least 64MiB (reservation 64MiB), at most 256MiB (limit 256MiB, size 256MiB)
price        128.0KiB a share, the level of its pool, for 2560 shares; idle memory is taxed at 0.75
active       40MiB: largest of 36MiB (slow average), 30MiB (fast average) and 32MiB (this period: 5 of 40 chunks of 2MiB, 3 of 64 pages inside them, 1 of 17 other pages touched, 2MiB brought in), within 8MiB, of which 35MiB counts: its guest reports the rest as free, waiting for 4MiB
working set  50MiB: reclaimed only when no other VM has idle memory left
target       160MiB; it is 40MiB above
balloon      56MiB of 96MiB: its size less its target; 40MiB still to come
paging       8MiB compressed into 3MiB, 16MiB swapped out; swap space 192MiB; swaps 1MiB/s out, 512KiB/s in; paged out down to 170MiB: above its target, and its balloon is too small or too slow
sharing      in domain prod; shared 24MiB (costs 6MiB), zero 12MiB, saved 30MiB; scans 5MiB/s, unshares 8KiB/s; scanner uses 0.40% CPU of 2.00% allowed; large pages are broken up to share their parts
grant        200MiB granted and 6MiB of shared frames, 180MiB held; at most 256MiB now
stalled      full 10.51% of 10s, 4.00% of 60s, 1.00% of 300s, total 1m 1s; some 12.34% of 10s, 5.00% of 60s, 1.50% of 300s, total 1m 23s
guest        reports 240MiB total, 20MiB free, 90MiB available, 70MiB cache; faults 3 major, 0 OOM kills
pool         prod in /: entitled to 320MiB together, 390MiB granted, target 330MiB; 327680 shares, reservation 64MiB, no limit; level 128.0KiB a share

Any one of these would entitle it to up to 200MiB:
ENTITLED  IF
  200MiB  its guest uses 200MiB actively
  180MiB  plimsoll set web1 --tax 0
  200MiB  plimsoll set web1 --shares 4000
  190MiB  plimsoll pool set prod --shares 500000
  200MiB  the host has 61MiB more for guests (fewer VMs, or a larger budget)";
    assert_eq!(vm::text(&explanation()), expected);
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
    let text = vm::text(&off);
    assert!(text.starts_with("web1 is off and has 0B: the guest shut down."), "{text}");
    assert!(
        text.contains("to start  it needs 72MiB (reservation 64MiB + overhead 8MiB); 100MiB is unreserved"),
        "{text}"
    );
}

#[test]
fn a_vm_that_waits_is_told_why() {
    let mut explained = explanation();
    let mut decision = explained.decision.clone().unwrap();
    (explained.vm.grant, explained.vm.wanted, decision.left) =
        (Bytes::mib(100), Bytes::mib(8), Bytes::mib(6));
    let told = |explained: &VmExplanation, decision: &VmDecision, text: &str| {
        let grant = grant::text(explained, decision);
        assert!(grant.contains(text), "{grant}");
    };
    told(
        &explained,
        &decision,
        ", waiting for 8MiB within its entitlement; 15MiB is free, of which it leaves 6MiB to others; at most",
    );
    (explained.vm.grant, decision.left) = (decision.entitlement, Bytes::mib(38));
    told(
        &explained,
        &decision,
        "waiting for 8MiB above its entitlement; 15MiB is free, of which it leaves 38MiB to others",
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
    told(&explained, &decision, " for pool prod, VM db, pool prod and 1 more, and it leaves 38MiB to others");
    decision.most = explained.vm.grant;
    told(&explained, &decision, "it has its maximum; at most 160MiB now");
}

#[test]
fn the_host_is_told_with_who_holds_most_beyond_its_entitlement_first() {
    let VmExplanation { at, host, host_decision, pools, vm, decision, .. } = explanation();
    let mut modest = samples::vm("db");
    modest.grant = Bytes::mib(100);
    let share = |vm, decision| VmShare { vm, decision };
    let vms = vec![share(modest, None), share(vm, decision)];
    let mut whole = HostExplanation { at, host, decision: host_decision, pools, vms };
    let text = host::text(&whole);
    let table: Vec<&str> = text.lines().rev().take(3).collect();
    assert_eq!(
        table,
        [
            "db    /     100MiB    160MiB      0B  160MiB   40MiB  not divided for it",
            "web1  prod  200MiB    160MiB   40MiB  160MiB   40MiB  its shares",
            "VM    POOL   GRANT  ENTITLED  BEYOND  TARGET  ACTIVE  ENTITLED BY",
        ]
    );
    assert!(
        text.contains("586MiB is divided (budget less overhead and 38MiB kept free), tax 0.75"),
        "{text}"
    );
    whole.decision.strained = true;
    let strained = host::text(&whole);
    assert!(strained.contains("balloons have not sufficed for 10 s") && !text.contains("sufficed"), "{text}");
}

#[test]
fn a_bound_that_sets_the_entitlement_is_named() {
    let mut explained = explanation();
    let decision = explained.decision.as_mut().unwrap();
    (decision.cause, decision.pays, decision.balloon) = (Cause::Size, 419_430.4, Sizing::Largest);
    let text = vm::text(&explained);
    let price = "409.6KiB a share (level of its pool: 128.0KiB a share); its entitlement is set by its size, not by its 2560 shares";
    assert!(text.contains(price), "{text}");
    assert!(text.contains("56MiB of 96MiB: at the maximum (65% of its size); 40MiB still to come"), "{text}");
}
