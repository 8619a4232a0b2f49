//! Compares the transitions that occur with the table in `transition/mod.rs`: each state that
//! changes must be in a row of its step, and the model check sees to it that every state of every
//! row occurs.

mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{State, Step};

/// The table, of which the documentation is the only copy.
const DOCUMENTATION: &str = include_str!("../../transition/mod.rs");

/// One change of state in the table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    step: String,
    from: String,
    to: String,
}

/// The changes that the table allows, and which of them have occurred.
static TABLE: LazyLock<BTreeMap<Change, AtomicBool>> = LazyLock::new(|| parse(DOCUMENTATION));

fn parse(documentation: &str) -> BTreeMap<Change, AtomicBool> {
    let rows = documentation.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let mut table = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [step, from, to, ..] = cells[..] else { panic!("a row of four cells: {row}") };
        for from in from.split(',') {
            for to in to.split(',') {
                let (step, from, to) = (step.trim_end_matches('`'), from.trim(), to.trim());
                let change = Change { step: step.to_owned(), from: from.to_owned(), to: to.to_owned() };
                table.insert(change, AtomicBool::new(false));
            }
        }
    }
    table
}

/// The states as the table names them, in the order of [`State`].
const NAMES: [&str; 15] = [
    "absent",
    "zero",
    "ballooned",
    "private",
    "clean",
    "compressed",
    "leaving",
    "swapped",
    "arriving",
    "aside",
    "shared",
    "EMPTY",
    "LARGE",
    "ASIDE",
    "SMALL",
];
const _: () = assert!(State::SmallChunk as usize + 1 == NAMES.len());

/// By step, old state and new state, whether a change has occurred: tests change millions of pages.
static OCCURRED: [[[AtomicBool; NAMES.len()]; NAMES.len()]; Step::Defect as usize] =
    [const { [const { [const { AtomicBool::new(false) }; NAMES.len()] }; NAMES.len()] };
        Step::Defect as usize];

pub(in super::super) fn note(step: Step, from: State, to: State) {
    if step == Step::Defect {
        return;
    }
    let (from, to) = (from as usize, to as usize);
    let known = &OCCURRED[step as usize][from][to];
    if known.load(Ordering::Relaxed) {
        return;
    }
    let (from, to) = (NAMES[from].to_owned(), NAMES[to].to_owned());
    let change = Change { step: format!("{step:?}"), from, to };
    match TABLE.get(&change) {
        Some(occurred) => [occurred, known].into_iter().for_each(|seen| seen.store(true, Ordering::Relaxed)),
        None => panic!("the table of transitions has no row for {change:?}"),
    }
}

/// The states of the table, as "step: from" or "step: to", that have not occurred in this process.
///
/// Not every pair of the states of a row need occur: some take rare coincidences.
pub(crate) fn missing() -> BTreeSet<String> {
    let states = |change: &Change| {
        let Change { step, from, to } = change;
        [format!("{step}: from {from}"), format!("{step}: to {to}")]
    };
    let occurred = TABLE.iter().filter(|(_, occurred)| occurred.load(Ordering::Relaxed));
    let occurred: BTreeSet<_> = occurred.flat_map(|(change, _)| states(change)).collect();
    TABLE.keys().flat_map(states).filter(|state| !occurred.contains(state)).collect()
}
