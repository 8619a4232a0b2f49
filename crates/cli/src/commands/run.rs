use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use plimsoll_protocol::Place;
use plimsoll_protocol::status::{Power, VmStatus};

use super::{Context, start, wait};
use crate::definition_file;

/// Longest wait for a VM to run: loading a kernel takes moments; a grant on a host short of memory
/// takes as long as balloons do.
const START_TIME: Duration = Duration::from_secs(60);

const HELP: &str = "\
A definition is TOML; paths in it are taken from its own directory:
  name = \"web1\"
  size = \"512MiB\"            # memory that the guest sees, a multiple of 2MiB
  vcpus = 2                  # 1 to 8, default 1
  reservation = \"128MiB\"     # machine memory that it always has, default none
  limit = \"384MiB\"           # machine memory that it never exceeds, default its size
  shares = \"normal\"          # low, normal, high (5, 10, 20 per MiB of size) or a number
  pool = \"prod\"              # resource pool that it is in, default none (see plimsoll pool)
  tax = 0.75                 # tax on its idle memory, 0 to 0.99, default the host's
  [cpu]
  nested = true              # the guest may run VMs itself, default no
  [boot]
  kernel = \"vmlinuz\"         # a bzImage
  initrd = \"initrd.img\"      # optional
  cmdline = \"console=ttyS0 root=/dev/vda\"
  [[disk]]
  path = \"web1.raw\"
  [[net]]
  tap = \"tap0\"

Examples:
  plimsoll run web1.toml
  plimsoll run web1.toml --pool prod
  plimsoll run web1.toml --wait && plimsoll console web1";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Run {
    /// The VM's definition
    #[arg(value_name = "DEF.toml")]
    definition: PathBuf,
    /// Resource pool to run it in, in place of the definition's; "/": none, the host itself
    #[arg(long, value_name = "POOL")]
    pool: Option<Place>,
    /// Return when the guest runs, and fail where it does not
    #[arg(long)]
    wait: bool,
}

impl Run {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let mut definition = definition_file::read(&self.definition)?;
        if let Some(pool) = &self.pool {
            definition.pool = pool.clone();
        }
        let mut vm = context.client.define(&definition)?;
        if self.wait && vm.power == Power::Starting {
            let begun = |vm: &VmStatus| vm.power != Power::Starting;
            vm = match wait::until(context, &vm.name, "starting", START_TIME, begun)? {
                Some(vm) => vm,
                None => bail!(
                    "{name} still starts after {} s: see plimsoll show {name} and plimsoll logs {name}",
                    START_TIME.as_secs(),
                    name = vm.name
                ),
            };
        }
        if vm.power == Power::Off {
            let why = vm.exit.map_or_else(|| "nobody knows why".to_owned(), |exit| exit.to_string());
            bail!("{name} did not stay on: {why}; see plimsoll logs {name}", name = vm.name);
        }
        context.output.facts(&vm, start::started)?;
        start::remark_without_swap(context, &vm);
        Ok(())
    }
}
