use std::path::PathBuf;

use anyhow::Result;
use plimsoll_protocol::Place;
use plimsoll_protocol::status::VmStatus;

use crate::context::Context;
use crate::definition_file;

const HELP: &str = "\
The definition is that of plimsoll run, which see. A name that is taken is refused: plimsoll edit and plimsoll set change what is defined.

Examples:
  plimsoll create web1.toml && plimsoll start web1
  plimsoll create - --pool prod < web1.toml";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Create {
    /// The VM's definition; "-": the standard input
    #[arg(value_name = "DEF.toml")]
    definition: PathBuf,
    /// Resource pool that it is in, instead of the definition's; "/": the host itself
    #[arg(long, value_name = "POOL")]
    pool: Option<Place>,
}

impl Create {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let mut definition = definition_file::read(&self.definition)?;
        if let Some(pool) = &self.pool {
            definition.pool = pool.clone();
        }
        context.output.facts(&context.client.define_only(&definition)?, told)
    }
}

fn told(vm: &VmStatus) -> String {
    format!("{name} is defined; start it with: plimsoll start {name}", name = vm.name)
}
