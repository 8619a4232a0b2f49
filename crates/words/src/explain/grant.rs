use plimsoll_protocol::explain::{Reserved, VmDecision, VmExplanation};
use plimsoll_protocol::status::{HostStatus, VmStatus};
use plimsoll_units::Bytes;

use super::more_than_nothing;

/// What a VM was granted and holds, and why memory that it waits for was not given.
pub(super) fn text(explanation: &VmExplanation, decision: &VmDecision) -> String {
    let VmExplanation { vm, host, .. } = explanation;
    let waits =
        more_than_nothing(vm.wanted, |wanted| format!(", waiting for {wanted}{}", waits(vm, host, decision)));
    let frames = more_than_nothing(vm.sharing.charged, |charged| format!(" and {charged} of shared frames"));
    format!("{} granted{frames}, {} held{waits}; at most {} now", vm.grant, vm.held, decision.most)
}

/// Why memory that a VM waits for was not given.
fn waits(vm: &VmStatus, host: &HostStatus, decision: &VmDecision) -> String {
    let has = vm.charge();
    if has >= decision.most {
        return ": it has its maximum".to_owned();
    }
    let what = if has < decision.entitlement { " within its entitlement" } else { " above its entitlement" };
    let (free, withheld, left) = (host.free, decision.withheld, decision.left);
    let reserved = holders(&decision.withheld_for);
    if withheld == Bytes::ZERO || reserved.is_empty() {
        format!("{what}; {free} is free, of which it leaves {left} to others")
    } else if free <= withheld {
        format!("{what}; {free} is free, but reserved for {reserved}")
    } else {
        format!(
            "{what}; {free} is free, but {withheld} of it is reserved for {reserved}, and it leaves {left} to others"
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
