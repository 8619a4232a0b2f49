use anyhow::Result;
use plimsoll_protocol::status::Power;

use super::new_vm::{IMAGE_HELP, NewVm};
use super::start;
use crate::client::Client;
use crate::context::Context;

/// What a definition may have, and examples.
const DEFINITION_HELP: &str = "\
A definition is TOML; paths in it are taken from its own directory:
  name = \"web1\"
  size = \"512MiB\"            # memory that the guest sees, a multiple of 2MiB
  vcpus = 2                  # 1 to 8, default 1
  bus = \"pci\"                # or mmio (the default): pci takes 32 disks and 8 interfaces, mmio 8 and 4
  reservation = \"128MiB\"     # machine memory that it always has, default none
  limit = \"384MiB\"           # machine memory that it never exceeds, default its size
  shares = \"normal\"          # low, normal, high (5, 10, 20 per MiB of size) or a number
  pool = \"prod\"              # resource pool that it is in, default none (see plimsoll pool)
  tax = 0.75                 # tax on its idle memory, 0 to 0.99, default the host's
  autostart = true           # starts with the host, default false
  start_order = 10           # 0 to 999, default 100: lower ones start earlier and stop later
  start_delay = \"30s\"        # the next VM waits so long after this one has started
  [labels]
  tier = \"web\"              # words of your own, to find VMs by (--label tier=web)
  [memory]
  sharing = \"prod\"           # own (the default), zero, off, or a domain (see plimsoll share)
  [cpu]
  nested = true              # the guest may run VMs itself, default false
  [boot]
  kernel = \"vmlinuz\"         # a bzImage
  initrd = \"initrd.img\"      # optional
  cmdline = \"console=ttyS0 root=/dev/vda\"
  # from = \"disk\"            # instead of these three: what the first disk's boot loader would boot
  # append = \"console=ttyS0\" # added to the disk's command line
  [[disk]]
  path = \"web1.raw\"
  format = \"raw\"             # raw (the default) or qcow2
  serial = \"web1-root\"       # what its guest sees in /dev/disk/by-id, default plimsoll-disk0
  read_only = true           # default false
  iops = 500                 # most requests a second, at least 10; default: no limit
  bandwidth = \"50MiB\"        # most bytes a second, at least 1MiB; default: no limit
  burst = \"2s\"               # after a rest, as much at once as in 2s; 100ms (the default) to 60s
  cache = \"none\"             # none (O_DIRECT, the default) or host (the default if read_only)
  [[net]]
  tap = \"tap0\"               # a tap device that exists
  mac = \"52:54:00:12:34:56\"  # default one made from the VM's name
  link = \"down\"              # up (the default), or down: its cable is not plugged in
  mac_filter = true          # drops what the guest sends from another address, default false
  packets = 20000            # most packets a second each way, at least 100; default: no limit
  bandwidth = \"10MiB\"        # most bytes a second each way, at least 64KiB; default: no limit
  burst = \"500ms\"            # as for disks
  [cloud_init]               # what cloud-init in the guest is told, on one more disk, the last
  hostname = \"web1.example\"  # default the VM's name
  instance_id = \"one\"        # cloud-init runs once for each; default another when the seed changes
  ssh_authorized_keys = [\"ssh-ed25519 AAAA... you@example\"]
  password_hash = \"$y$...\"   # of the image's default user, as mkpasswd prints it
  packages = [\"nginx\"]       # that the guest installs
  network_config = \"net.yaml\" # files given as they are: this, and user_data and meta_data in place of the others
  [vsock]                    # sockets between guest and host, without a network; default none
  cid = 52                   # the guest's address, default one that no other VM has
  connections = 64           # most at a time, 1 to 1024 (default 64), each charged 72KiB
  agent = true               # a disk with the agent for exec and cp, which cloud_init installs
  [balloon]
  deflate_on_oom = false     # the guest may take memory back before its OOM killer runs, default true
  free_page_reporting = false # the guest reports free memory, which is given back, default true
  [jail]
  allow_missing = [\"cgroup\"] # parts that it may run without: uid, filesystem, seccomp, cgroup

Examples:
  plimsoll run --image debian-12.qcow2 --ssh-key ~/.ssh/id_ed25519.pub --tap tap0
  plimsoll run --image ubuntu.img --format qcow2 --name web1 --size 2GiB --vcpus 2 --disk-size 20GiB --wait
  plimsoll run --image debian-12.qcow2 --name web2 --print > web2.toml
  plimsoll run web1.toml
  plimsoll run web1.toml --pool prod
  plimsoll run web1.toml --wait && plimsoll console web1";

#[derive(Debug, clap::Args)]
#[command(after_help = format!("{IMAGE_HELP}\n\n{DEFINITION_HELP}"))]
pub(crate) struct Run {
    #[command(flatten)]
    new: NewVm,
    /// Return when the guest runs, and fail if it does not
    #[arg(long)]
    wait: bool,
}

impl Run {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let Some(vm) = self.new.define(context, Client::define)? else { return Ok(()) };
        let vm = if self.wait || vm.power == Power::Off { start::running(vm, context)? } else { vm };
        context.output.facts(&vm, start::started)?;
        start::remark_without_swap(context, &vm);
        Ok(())
    }
}
