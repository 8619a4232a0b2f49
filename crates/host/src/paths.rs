//! Paths in the state directory and the run directory.

use std::path::{Path, PathBuf};

use plimsoll_protocol::VmName;

/// The daemon's two directories, and that of base images.
///
/// | path | holds |
/// |---|---|
/// | `STATE/lock`, `RUN/lock` | locked by the daemon that uses the directory |
/// | `STATE/vms/NAME.json` | the VM's definition and how its last run ended |
/// | `STATE/pools.json` | all resource pools |
/// | `STATE/events.jsonl` | the latest events |
/// | `STATE/images` | base images, unless the configuration names another directory |
/// | `STATE/disks` | disks that `plimsoll run --image` makes; the daemon only tells where |
/// | `STATE/logs/NAME.console`, `NAME.vmm` | its console's output and its VMM's messages |
/// | `RUN/vms/NAME/control.sock` | where its VMM listens for the daemon |
/// | `RUN/vms/NAME/console.sock` | where its VMM listens for clients of the console |
/// | `RUN/vms/NAME/vsock.sock` | where programs reach ports of its guest, if it has vsock |
/// | `RUN/vms/NAME/vsock.sock_PORT` | where a program listens for its guest, as that port of the host |
/// | `RUN/vms/NAME/run.json` | its process, for a daemon that is restarted |
/// | `RUN/vms/NAME/grant` | what the ledger promised it last |
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
    /// Where backing files of disks' images lie.
    pub(crate) images: PathBuf,
}

/// What is left of the 107 bytes of a unix socket's address in the run directory of a VM whose name
/// has the most bytes, 32.
const LEFT: usize = 107 - "/vms/".len() - 32;
/// Longest run directory: the sockets that each VM has fit.
pub(crate) const MAX_RUN_DIRECTORY: usize = LEFT - "/console.sock".len();
/// The same with all sockets at which programs may listen for guests. A guest does not reach those
/// whose names are too long, and all else works. Earlier versions had no such bound, so it keeps no
/// daemon from VMs that run.
const MAX_FOR_PORTS: usize = LEFT - "/vsock.sock_".len() - "4294967295".len();

impl Paths {
    #[cfg(test)]
    pub(crate) fn below(directory: &Path) -> Self {
        Self { state: directory.to_owned(), run: directory.to_owned(), images: directory.join("images") }
    }

    /// What does not fit into the run directory, for operators.
    pub(crate) fn too_long(&self) -> Option<String> {
        let length = self.run.as_os_str().len();
        (length > MAX_FOR_PORTS).then(|| {
            format!(
                "run_directory {}: it has {length} bytes: of VMs with long names guests do not reach programs that \
                 listen at vsock.sock_PORT; with at most {MAX_FOR_PORTS} bytes they always do",
                self.run.display()
            )
        })
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    pub(crate) fn run_lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.state.join("vms")
    }

    pub(crate) fn record(&self, vm: &VmName) -> PathBuf {
        self.records().join(format!("{vm}.json"))
    }

    pub(crate) fn pools(&self) -> PathBuf {
        self.state.join("pools.json")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.state.join("events.jsonl")
    }

    pub(crate) fn disks(&self) -> PathBuf {
        self.state.join("disks")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    pub(crate) fn console_log(&self, vm: &VmName) -> PathBuf {
        self.logs().join(format!("{vm}.console"))
    }

    pub(crate) fn vmm_log(&self, vm: &VmName) -> PathBuf {
        self.logs().join(format!("{vm}.vmm"))
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.run.join("vms")
    }

    pub(crate) fn run_of(&self, vm: &VmName) -> PathBuf {
        self.runs().join(vm.as_str())
    }

    pub(crate) fn console_socket(&self, vm: &VmName) -> PathBuf {
        self.run_of(vm).join(CONSOLE_SOCKET)
    }

    pub(crate) fn vsock_socket(&self, vm: &VmName) -> PathBuf {
        self.run_of(vm).join(VSOCK_SOCKET)
    }
}

/// In the run directory `run` of a VM: where programs listen for its guest, as `port` of the host.
pub(crate) fn port_socket(run: &Path, port: u32) -> PathBuf {
    run.join(format!("{VSOCK_SOCKET}_{port}"))
}

/// In a VM's run directory: its VMM listens here for the daemon.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";
/// In a VM's run directory: its VMM listens here for clients of the console.
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";
/// In a VM's run directory: its VMM listens here for programs that want to reach the guest. With
/// `_PORT` appended: where the daemon looks for a program when the guest connects to that port.
pub(crate) const VSOCK_SOCKET: &str = "vsock.sock";
/// In a VM's run directory: its process.
pub(crate) const RUN_RECORD: &str = "run.json";
/// In a VM's run directory: its grant.
pub(crate) const GRANT_RECORD: &str = "grant";

/// A free name beside `path`, for a file that cannot be read: nothing is written in its place then.
pub(crate) fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if n == 0 { ".bad".to_owned() } else { format!(".bad.{n}") });
        PathBuf::from(name)
    };
    (0..).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(0))
}

/// Writes `bytes` to `path` so that a crash leaves the old or the new content, never a part. An
/// error leaves the old one alone.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace(path, bytes, |file| file.sync_all())?;
    std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// The same for a file that means nothing once the machine has crashed: a crash of the daemon
/// leaves one of the contents. No disk is waited for.
pub(crate) fn write_for_this_boot(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace(path, bytes, |_| Ok(()))
}

fn replace(
    path: &Path,
    bytes: &[u8],
    sync: impl FnOnce(&std::fs::File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
        file.write_all(bytes)?;
        sync(&file)?;
        std::fs::rename(new, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(new))) // Often it was not even made.
}

/// Removes what a crash has cut off of [`write_atomically`] in `directory`. Nothing may write there
/// meanwhile.
pub(crate) fn remove_cut_off(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "new") {
            std::fs::remove_file(entry.path()).ok(); // What stays does no harm.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_socket_path_fits_its_address() {
        let name: VmName = "n".repeat(32).parse().unwrap();
        let paths = |length: usize| Paths {
            run: format!("/{}", "r".repeat(length - 1)).into(),
            ..Paths::below(Path::new("/s"))
        };
        let run = paths(MAX_FOR_PORTS).run_of(&name);
        assert_eq!(port_socket(&run, u32::MAX).as_os_str().len(), 107);
        assert!(rustix::net::SocketAddrUnix::new(port_socket(&run, u32::MAX)).is_ok());
        assert_eq!(paths(MAX_FOR_PORTS).too_long(), None);
        // What VMs run in is not refused, and its operator is told.
        for length in MAX_FOR_PORTS + 1..=MAX_RUN_DIRECTORY {
            assert!(paths(length).too_long().unwrap().contains(&format!("{length} bytes")));
        }
        let run = paths(MAX_RUN_DIRECTORY).run_of(&name);
        let all = [CONTROL_SOCKET, CONSOLE_SOCKET, VSOCK_SOCKET].map(|socket| run.join(socket));
        assert_eq!(all.iter().map(|path| path.as_os_str().len()).max(), Some(107));
    }

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        write_atomically(&path, b"1").unwrap();
        write_atomically(&path, b"2").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        std::fs::write(directory.path().join("a.json.new"), b"3, and then a cr").unwrap();
        remove_cut_off(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        // Nothing takes the place of a directory.
        let taken = directory.path().join("b.json");
        std::fs::create_dir_all(taken.join("c")).unwrap();
        assert!(write_atomically(&taken, b"3").is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        write_for_this_boot(&path, b"4").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"4");
        assert!(write_for_this_boot(&taken, b"5").is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
