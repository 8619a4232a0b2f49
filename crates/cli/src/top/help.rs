/// The keys, for the screen and for `plimsoll top --help`.
pub(crate) const KEYS: &str = "\
  1-5, Tab     pane: memory, paging, sharing, settings, pools
  arrows       move; PgUp, PgDn, Home and End too; left and right for more columns
  Enter, e     explain why the VM has the memory that it has
  < >          order by the column to the left, to the right; r: the other way round
  /            show only VMs with this text in their name, pool or labels; Esc: all
  c            choose columns: Space shows or hides one, + and - move it
  + -          look more often, less often
  w            keep pane, columns and order for the next time
  h, ?         help
  q            leave";

const COLOURS: &str = "\
A VM is bright while faults of it wait for memory, and dim while it is off.
STALL% is the part of the last 10 s in which all of a VM waited for memory, and in which some of it did.
The bar is the budget: granted to VMs, overhead of their processes, frames that they share, free.
All columns and lines are described by: plimsoll top --help";

/// The text of the help on the screen.
pub(super) fn text() -> &'static str {
    static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| format!("{KEYS}\n\n{COLOURS}"));
    &TEXT
}
