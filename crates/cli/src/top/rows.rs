use plimsoll_protocol::Place;
use plimsoll_protocol::status::{PoolStatus, VmStatus};
use plimsoll_words::table::Column;

use super::choice::Choice;
use super::look::Seen;
use super::pane::Pane;

/// The table of a pane: its columns, and a row for each VM or pool.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// The column that the rows are ordered by.
    pub(super) ordered_by: Option<usize>,
}

/// One VM or pool.
#[derive(Debug)]
pub(super) struct Row {
    /// Its name, by which it stays selected wherever it moves.
    pub(super) name: String,
    pub(super) cells: Vec<String>,
    /// Faults of it wait for memory at this moment, or all of it does.
    pub(super) waits: bool,
    /// It runs.
    pub(super) runs: bool,
}

impl Rows {
    /// The rows that `choice` shows, of those that have `filter` in their names.
    pub(super) fn of(choice: &Choice, filter: &str, seen: &Seen) -> Self {
        let filter = filter.to_lowercase();
        if choice.pane == Pane::Pools { pools(&filter, &seen.pools) } else { vms(choice, &filter, seen) }
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.name == name)
    }
}

fn vms(choice: &Choice, filter: &str, seen: &Seen) -> Rows {
    let columns = choice.columns();
    let (by, reversed) = choice.order();
    let mut vms: Vec<&VmStatus> = seen.look.vms.iter().filter(|vm| is_wanted(filter, vm)).collect();
    vms.sort_by(|one, other| {
        let order = by.compare(one, other);
        (if reversed { order.reverse() } else { order }).then_with(|| one.name.cmp(&other.name))
    });
    let row = |vm: &&VmStatus| Row {
        name: vm.name.to_string(),
        cells: columns.iter().map(|field| field.value(vm, seen.look.at)).collect(),
        waits: vm.stalled.is_some() || vm.wanted.0 > 0,
        runs: vm.pid.is_some(),
    };
    Rows {
        rows: vms.iter().map(row).collect(),
        ordered_by: columns.iter().position(|field| *field == by),
        columns: columns.into_iter().map(|field| field.column()).collect(),
    }
}

/// Whether the filter lets the VM through: it is part of its name, of its pool's, or of a label.
fn is_wanted(filter: &str, vm: &VmStatus) -> bool {
    let holds = |text: String| text.to_lowercase().contains(filter);
    holds(vm.name.to_string()) || holds(vm.pool.to_string()) || holds(vm.labels.to_string())
}

const OF_POOLS: [Column; 9] = [
    Column::left("POOL"),
    Column::right("ENTITLED"),
    Column::right("GRANTED"),
    Column::right("RESERV"),
    Column::right("USED"),
    Column::right("LIMIT"),
    Column::right("SHARES"),
    Column::right("VMS"),
    Column::left("EXPAND"),
];

/// Pools below the pool that they are in, and deeper by two blanks.
fn pools(filter: &str, pools: &[PoolStatus]) -> Rows {
    let mut rows = Vec::new();
    below(&Place::Root, 0, pools, &mut rows);
    rows.retain(|row: &Row| row.name.to_lowercase().contains(filter));
    Rows { columns: OF_POOLS.to_vec(), rows, ordered_by: None }
}

fn below(parent: &Place, depth: usize, pools: &[PoolStatus], rows: &mut Vec<Row>) {
    // Each pool is in one other: no more than there are can lie below each other.
    if depth > pools.len() {
        return;
    }
    for pool in pools.iter().filter(|pool| pool.parent == *parent) {
        rows.push(Row {
            name: pool.name.to_string(),
            cells: vec![
                format!("{}{}", "  ".repeat(depth), pool.name),
                pool.entitled.to_string(),
                pool.granted.to_string(),
                pool.reservation.to_string(),
                pool.reserved.to_string(),
                pool.limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
                pool.share_count.to_string(),
                pool.vms.len().to_string(),
                if pool.expandable { "yes" } else { "no" }.to_owned(),
            ],
            waits: false,
            runs: true,
        });
        below(&Place::In(pool.name.clone()), depth + 1, pools, rows);
    }
}

/// How many columns fit into `width` characters, from `first` on, and how wide each is. The first
/// column of all is always shown, then those from `first` on.
pub(super) fn layout(rows: &Rows, first: usize, width: usize) -> Vec<(usize, usize)> {
    let natural = |column: usize| {
        let cells = rows.rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| cell.chars().count());
        cells.chain([rows.columns[column].title().chars().count()]).max().unwrap_or(0)
    };
    let mut shown = Vec::new();
    let mut left = width;
    for column in (0..1).chain(first.max(1)..rows.columns.len()).filter(|&at| at < rows.columns.len()) {
        let gap = if shown.is_empty() { 0 } else { GAP };
        let wanted = natural(column);
        // Words at the end may be cut; numbers may not, and neither may what stands before others.
        let last = column + 1 == rows.columns.len() && left > gap + LEAST_WORDS;
        if gap + wanted <= left || last || shown.is_empty() {
            let taken = wanted.min(left - gap.min(left));
            shown.push((column, taken));
            left -= (gap + taken).min(left);
        } else {
            break;
        }
    }
    shown
}

/// Blanks between columns.
pub(super) const GAP: usize = 2;
/// A remark that is cut shorter than this says nothing.
const LEAST_WORDS: usize = 12;
