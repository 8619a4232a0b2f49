//! The command line of `cargo xtask test`.

use clap::Args;

/// What to test.
#[derive(Clone, Debug, Args)]
pub struct TestArgs {
    /// Run only the step or system test of this name. May be repeated. Slow ones run only so.
    #[arg(long, value_name = "NAME")]
    pub(super) only: Vec<String>,
    /// Name all steps and system tests, and run nothing.
    #[arg(long)]
    pub(super) list: bool,
    /// Leave out what needs the lab.
    #[arg(long)]
    pub(super) no_lab: bool,
    /// Run every system test on every host: kernels 6.1 and 6.12, nested paging on and off.
    #[arg(long)]
    pub(super) matrix: bool,
    /// Show what the steps print, not only when they fail.
    #[arg(short, long)]
    pub(super) verbose: bool,
}

impl TestArgs {
    /// Whether the step or system test `name` is to run.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.names(name)
    }

    /// Whether the step or system test `name` was asked for by its name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.only.iter().any(|only| only == name)
    }
}
