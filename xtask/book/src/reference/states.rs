use plimsoll_policy::{Mechanisms, Paging, State, States, Thresholds};
use plimsoll_units::Bytes;

use super::Page;

const STATES: [State; 5] = [State::High, State::Clear, State::Soft, State::Hard, State::Low];

/// The page of the host's states.
pub(super) fn page() -> Page {
    let mut body = String::from(
        "The state of a host says how short of free memory it is. `plimsoll top`, `plimsoll explain` and the\n\
         [events](events.md) name it. [States of a host](../explanation/states.md) explains what it means.\n\n\
         ## What each state does\n\n\
         | state | begins | balloons | compression and swap | processors |\n|---|---|---|---|---|\n",
    );
    for state in STATES {
        let Mechanisms { balloon, paging, block } = Mechanisms::of(state);
        let balloons = if balloon { "inflate" } else { "reclaim for VMs that are owed memory" };
        let paging = match paging {
            Paging::Off => "for VMs that are owed memory",
            Paging::WhereNoBalloonCan => "of VMs whose balloons cannot give enough",
            Paging::Everybody => "of all VMs above their targets",
        };
        let processors = if block { "VMs above their targets wait" } else { "run" };
        body += &format!("| `{state}` | {} | {balloons} | {paging} | {processors} |\n", begins(state));
    }
    body += &format!(
        "\nIn `soft` the pages of all VMs above their targets are taken as well once balloons have not sufficed for {} s.\n",
        States::STRAIN.as_secs()
    );
    body += "\nA better state is entered once an eighth more than its threshold is free, so that the state does not flap.\n\n\
        ## Thresholds\n\n\
        By default minFree slides with the budget, as in ESXi: 6 % of the first 4 GiB, 4 % up to 12 GiB, 2 % up to 28 GiB,\n\
        1 % beyond. `min_free` in the [configuration](configuration.md) sets it; `thresholds = \"fixed\"` takes 6, 4, 2 and\n\
        1 % of the budget instead.\n\n\
        | budget | minFree: clear below | soft below | hard below | low below | reclaiming aims at |\n|---|---|---|---|---|---|\n";
    for gib in [1, 4, 16, 64, 256, 1024] {
        let budget = Bytes::mib(gib << 10);
        let of = Thresholds::sliding(budget);
        let cells = [of.clear, of.soft, of.hard, of.low, of.high].map(|pages| pages.bytes().to_string());
        body += &format!("| {budget} | {} |\n", cells.join(" | "));
    }
    Page::new("states.md", "States of the host", &body)
}

/// Where a state begins, in parts of minFree.
fn begins(state: State) -> String {
    // Of a minFree of 100 pages.
    let of = Thresholds::of_min_free(Bytes(100 * 4096));
    let below = |percent: u64| format!("below {percent} % of minFree");
    match state {
        State::High => "at minFree or more".to_owned(),
        State::Clear => "below minFree".to_owned(),
        State::Soft => below(of.soft.0),
        State::Hard => below(of.hard.0),
        State::Low => below(of.low.0),
    }
}
