//! The command line of `cargo xtask fuzz`.

use std::path::PathBuf;

use clap::Args;

/// What to fuzz, and for how long.
#[derive(Clone, Debug, Args)]
pub struct FuzzArgs {
    /// Targets; all where none is named.
    #[arg(value_name = "TARGET")]
    pub(super) targets: Vec<String>,
    /// Executions of all these targets together; default: a million.
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) executions: Option<u64>,
    /// Seconds that each of these targets is run for.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seconds: Option<u64>,
    /// Run the target with this input, once.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["executions", "seconds", "json"])]
    pub(super) input: Option<PathBuf>,
    /// Name all targets, and run nothing.
    #[arg(long)]
    pub(super) list: bool,
    /// Print the outcome as one JSON object, too, in the last line.
    #[arg(long)]
    pub(super) json: bool,
}
