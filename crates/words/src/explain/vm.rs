use plimsoll_protocol::explain::{
    ActivityEstimate, ActivityParts, Cause, Mechanism, MechanismKind, PoolExplanation, Sizing, ToStart,
    VmDecision, VmExplanation,
};
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_units::Bytes;

use super::{cause, grant, host, level, more_than_nothing, remedy};
use crate::table::list;
use crate::{guest, note, paging, sharing, stall};

/// Why a VM has the memory that it has, and what would give it more.
pub fn text(explanation: &VmExplanation) -> String {
    let VmExplanation { vm, decision, .. } = explanation;
    let mut parts = vec![summary(explanation)];
    let mut facts = host::account(&explanation.host, &explanation.host_decision);
    match decision {
        Some(decision) => facts.extend(decided(explanation, decision)),
        None if vm.power == Power::Off => facts.extend(off(explanation)),
        None => facts.push(("decision", "none: the VM is ending, or its VMM is unreachable".to_owned())),
    }
    if let (Some(note), Some(_)) = (&vm.note, decision) {
        facts.push(("note", note.clone()));
    }
    facts.extend(explanation.pools.iter().map(|pool| ("pool", in_pool(pool))));
    parts.push(list(&facts));
    if decision.is_some() {
        parts.push(remedy::text(&explanation.vm, &explanation.remedies));
    }
    parts.join("\n\n")
}

fn summary(explanation: &VmExplanation) -> String {
    let VmStatus { name, size, grant, .. } = &explanation.vm;
    let Some(decision) = &explanation.decision else {
        let why = match note(&explanation.vm) {
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
    let what = if what.is_empty() { "exactly what it is entitled to".to_owned() } else { what };
    let lent = more_than_nothing(*lent, |lent| {
        format!(" It needs more and is lent {lent} that other VMs leave of their entitlements.")
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
    let at_level = matches!(decision.cause, Cause::Level | Cause::PoolLimit(_) | Cause::PoolReservation(_));
    let (shares, pays, of_pool) = (vm.share_count, level(*pays), level(decision.level));
    let price = if at_level {
        format!("{pays}, the level of its pool, for {shares} shares; idle memory is taxed at {tax}")
    } else {
        let by = cause(&decision.cause);
        format!(
            "{pays} (level of its pool: {of_pool}); its entitlement is set by {by}, not by its {shares} shares; \
             idle memory is taxed at {tax}"
        )
    };
    let mut facts = vec![
        ("bounds", bounds),
        ("price", price),
        ("active", active(activity)),
        ("working set", format!("{working_set}: reclaimed only when no other VM has idle memory left")),
        (
            "target",
            format!("{target}{}", more_than_nothing(*above_target, |above| format!("; it is {above} above"))),
        ),
        ("balloon", balloon(vm, decision, explanation.host_decision.largest_balloon)),
        ("paging", paging::text(&vm.paging)),
        ("sharing", sharing::text(&vm.sharing)),
        ("grant", grant::text(explanation, decision)),
        ("stalled", stall::text(vm)),
    ];
    facts.extend(
        vm.guest.iter().map(|said| {
            ("guest", format!("reports {}; faults {}", guest::memory(said), guest::faults(said)))
        }),
    );
    facts
}

fn active(activity: &ActivityParts) -> String {
    let waits = more_than_nothing(activity.waits, |waits| format!(", waiting for {waits}"));
    let missing = more_than_nothing(activity.missing, |missing| format!(", lacks an estimated {missing}"));
    let seen = activity
        .estimate
        .as_ref()
        .map_or_else(|| "not sampled yet; counted as all that it holds".to_owned(), samples);
    let greatest = activity.estimate.as_ref().map(|e| e.slow.max(e.fast).max(e.now));
    let account = match (activity.used, greatest) {
        (Some(used), Some(seen)) if used < seen => {
            format!(", of which {used} counts: its guest reports the rest as free")
        }
        _ => String::new(),
    };
    format!("{}: {seen}{account}{waits}{missing}", activity.active)
}

fn samples(estimate: &ActivityEstimate) -> String {
    let ActivityEstimate { slow, fast, now, margin, chunks, pages, inside, arrived } = estimate;
    let touched = [(chunks, "chunks of 2MiB"), (inside, "pages inside them"), (pages, "other pages")]
        .into_iter()
        .filter(|(sampled, _)| sampled.sampled > 0)
        .map(|(sampled, what)| format!("{} of {} {what}", sampled.touched, sampled.sampled))
        .collect::<Vec<_>>()
        .join(", ");
    let touched = if touched.is_empty() { "no samples yet".to_owned() } else { format!("{touched} touched") };
    let arrived = more_than_nothing(*arrived, |arrived| format!(", {arrived} brought in"));
    format!(
        "largest of {slow} (slow average), {fast} (fast average) and {now} (this period: {touched}{arrived}), within {margin}"
    )
}

fn balloon(vm: &VmStatus, decision: &VmDecision, largest: u8) -> String {
    let maximum = format!("at the maximum ({largest}% of its size)");
    let why = match decision.balloon {
        Sizing::NotNeeded => "none needed",
        Sizing::FollowsTarget => "its size less its target",
        Sizing::WorkingSet => "spares its working set while other VMs have idle memory",
        Sizing::Largest => maximum.as_str(),
        Sizing::GuestShort => "at the maximum for its guest, which has no more memory available",
        Sizing::VmLacks => "does not grow: the VM lacks memory and holds no more than its target",
        Sizing::Unhurried => "grows step by step: no other VM needs the memory now",
        Sizing::TooSlow => "grows step by step: it is slow and would bring nothing within 10 s; paging does",
        Sizing::GrowsSlowly => "growing at the maximum rate",
        Sizing::NoDriver => "the guest has no balloon driver",
        Sizing::Stuck => "its driver does not follow: the VM gets no more than its entitlement",
    };
    let balloon = |mechanism: &&Mechanism| mechanism.kind == MechanismKind::Balloon;
    let to_take: Bytes =
        decision.reclaim.iter().filter(balloon).map(|Mechanism { to_take, .. }| *to_take).sum();
    let rest = more_than_nothing(to_take, |rest| format!("; {rest} still to come"));
    format!("{} of {}: {why}{rest}", vm.ballooned, vm.balloon_target)
}

fn off(explanation: &VmExplanation) -> Vec<(&'static str, String)> {
    let start = |start: &ToStart| {
        let needed = start.reservation.saturating_add(start.overhead);
        format!(
            "it needs {needed} (reservation {} + overhead {}); {} is unreserved in its pool",
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
