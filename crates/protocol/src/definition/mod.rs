//! A virtual machine as its operator writes it down: what it is, as opposed to what it does
//! ([`crate::status`]) and to what an operator changes of it later ([`crate::change`]).
//!
//! A definition is read from TOML ([`VmDefinition::from_toml`]) or JSON, checked
//! ([`VmDefinition::check`]), and written back as it was given: a key that has its default value is
//! left out.
//!
//! ```toml
//! name = "web1"
//! size = "512MiB"            # memory that the guest sees, a multiple of 2MiB
//! vcpus = 2                  # 1 to 8, default 1
//! bus = "pci"                # or mmio (the default): where its disks, interfaces, balloon are
//! reservation = "128MiB"     # machine memory that it always has, default none
//! limit = "384MiB"           # machine memory that it never exceeds, default its size
//! shares = "normal"          # low, normal (the default), high (5, 10, 20 per MiB of size) or a number
//! pool = "prod"              # the resource pool that it is in, default "/": the host itself
//! tax = 0.5                  # tax on its idle memory, 0 to 0.99, default the host's
//! autostart = true           # starts with the host, default false
//! start_order = 10           # 0 to 999, default 100: lower ones start earlier, and stop later
//! start_delay = "30s"        # the next VM waits so long after this one, default 0, at most 60m
//!
//! [labels]                   # words of the operator's own, to find VMs by
//! tier = "web"
//!
//! [memory]
//! sharing = "prod"           # shares pages with: own (itself, the default), zero, off, or a domain's name
//!
//! [cpu]
//! nested = true              # the guest may run VMs itself, default false
//!
//! [boot]
//! kernel = "/srv/vm/vmlinuz" # a bzImage; a relative path is taken from the definition's directory
//! initrd = "/srv/vm/initrd"  # optional
//! cmdline = "console=ttyS0 root=/dev/vda"
//! # from = "disk"            # instead of these three: what the first disk's boot loader would boot,
//! # append = "console=ttyS0" # and what is added to its command line, default nothing
//!
//! [[disk]]
//! path = "/srv/vm/web1.raw"  # a file or a block device
//! format = "raw"             # raw (the default) or qcow2
//! serial = "web1-root"       # what its guest sees in /dev/disk/by-id, default plimsoll-disk0
//! read_only = true           # default false
//! iops = 500                 # most requests a second, at least 10; default: no limit
//! bandwidth = "50MiB"        # most bytes a second, at least 1MiB; default: no limit
//! burst = "2s"               # after a rest, as much at once as in 2s; 100ms (the default) to 60s
//! cache = "none"             # none (O_DIRECT, the default) or host (the default if read_only)
//!
//! [[net]]
//! tap = "tap0"               # a tap device that exists
//! mac = "52:54:00:12:34:56"  # default one that is made from the VM's name
//! link = "down"              # up (the default), or down: its cable is not plugged in
//! mac_filter = true          # drops what the guest sends from another address, default false
//! packets = 20000            # most packets a second each way, at least 100; default: no limit
//! bandwidth = "10MiB"        # most bytes a second each way, at least 64KiB; default: no limit
//! burst = "500ms"            # as for disks
//!
//! [cloud_init]               # what cloud-init in the guest is told, on one more disk, the last
//! hostname = "web1.example"  # default the VM's name
//! instance_id = "one"        # cloud-init runs once for each; default: another when the seed changes
//! ssh_authorized_keys = ["ssh-ed25519 AAAA... you@example"]
//! password_hash = "$y$..."   # of the image's default user, as mkpasswd prints it
//! packages = ["nginx"]       # that the guest installs
//! network_config = "net.yaml" # files given as they are: this, and user_data and meta_data in place of the others
//!
//! [vsock]                    # sockets between guest and host, without a network; default none
//! cid = 52                   # the guest's address, default one that no other VM has
//! connections = 64           # most at a time, 1 to 1024 (default 64), each charged 72KiB
//! agent = true               # a disk with the agent for exec and cp, which cloud_init installs
//!
//! [balloon]
//! deflate_on_oom = false     # the guest may take memory back before its OOM killer runs, default true
//! free_page_reporting = true # the guest reports free memory, which is given back at once, default true
//!
//! [jail]
//! allow_missing = ["cgroup"] # parts of the jail that it may run without: uid, filesystem, seccomp, cgroup
//! ```

mod boot;
mod bus;
mod changed;
mod cloud_init;
mod devices;
mod error;
mod jail;
mod limits;
mod mac;
mod net;
mod rate;
mod text;
mod vm;
mod vsock;

#[cfg(test)]
mod tests;

pub use boot::{Boot, BootFrom};
pub use bus::Bus;
pub use cloud_init::{CloudInit, MAX_SEED, MAX_SEED_FILE};
pub use devices::{Balloon, Cache, Disk, ImageFormat, MAX_SERIAL, MIN_BANDWIDTH, MIN_IOPS};
pub use error::DefinitionError;
pub use jail::{Jail, JailPart};
pub use limits::{MAX_SIZE, MAX_VCPUS, MIN_SIZE};
pub use mac::MacAddress;
pub use net::{MIN_NET_BANDWIDTH, MIN_PACKETS, Net};
pub use vm::{Cpu, Memory, VmDefinition};
pub use vsock::{
    AGENT_SERIAL, CONNECTION_BUFFER, CONNECTION_OVERHEAD, MAX_CID, MAX_CONNECTIONS, MIN_CID, SOCKET_BUFFER,
    Vsock,
};
