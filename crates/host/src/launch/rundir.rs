use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::{JailPart, VmDefinition};
use plimsoll_protocol::wire::Wire;
use plimsoll_units::Pages;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::survey::{Look, look};
use crate::domains::Known;
use crate::format;
use crate::log_pipe::LogPipe;
use crate::paths::{CONSOLE_SOCKET, CONTROL_SOCKET, GRANT_RECORD, Paths, RUN_RECORD};

/// The run directory of one VM: it is there while the VM runs, and for the daemon's user alone.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    /// `None` until [`RunDir::open_grant`], for a VM that an earlier daemon started.
    grant: Option<File>,
    keep: bool,
}

/// What a restarted daemon has to know of a VM that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) pid: u32,
    /// See [`crate::process::start_time`].
    pub(crate) start_time: u64,
    /// See [`crate::process::boot_id`].
    pub(crate) boot_id: String,
    pub(crate) uid: Option<u32>,
    pub(crate) started: Timestamp,
    pub(crate) definition: VmDefinition,
    pub(crate) missing_jail: Vec<JailPart>,
    /// Its swap space.
    #[serde(default)]
    pub(crate) swap: Pages,
    /// Domains whose frames its VMM may map: the one that it was told of last, and the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) domains: Vec<Known>,
    /// Domains before those, which it can still read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) former: Vec<Known>,
}

impl RunRecord {
    /// The VMM is about to be told of a domain.
    pub(crate) fn joins(&mut self, domain: Known) {
        self.domains.retain(|known| known.id != domain.id);
        self.former.retain(|known| known.id != domain.id);
        // It does not join a third one before it has given back all frames of the first.
        let before = self.domains.pop();
        self.former.extend(self.domains.drain(..).filter(|known| known.name.is_some()));
        self.domains = before.into_iter().chain([domain]).collect();
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!("cannot remove {}: {e}", self.path.display());
        }
    }
}

impl RunDir {
    /// Makes the directory anew.
    ///
    /// # Errors
    /// The directory cannot be made, or there is one whose VM may still run.
    pub(super) fn create(paths: &Paths, vm: &VmName) -> anyhow::Result<Self> {
        let path = paths.run_of(vm);
        if path.exists() {
            ensure!(
                matches!(look(vm, &path), Look::Gone(_)),
                "{} belongs to a VM that may still run: restart plimsolld, which takes it over",
                path.display()
            );
            remove(&path)?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let grant = grant_file(&path).inspect_err(|_| drop(std::fs::remove_dir(&path)))?;
        Ok(Self { path, grant: Some(grant), keep: false })
    }

    /// Takes over the directory of a VM that runs. Nothing is opened yet.
    pub(crate) fn adopt(path: PathBuf) -> Self {
        Self { path, grant: None, keep: true }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the record of the grant, for [`RunDir::write_grant`]. One that is lost is made anew.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open_grant(&mut self) -> anyhow::Result<()> {
        self.grant = Some(grant_file(&self.path)?);
        Ok(())
    }

    /// From now on the directory outlives the daemon; [`RunDir::remove`] ends it.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    /// The VM is off.
    pub(crate) fn remove(mut self) {
        self.keep = false;
    }

    /// The way of the VMM's messages to its log, of this run alone, and the VMM's end of it.
    pub(super) fn log_pipe(&self, paths: &Paths, vm: &VmName) -> anyhow::Result<(LogPipe, File)> {
        let path = paths.vmm_log(vm);
        log(&path)?;
        LogPipe::create(&self.path, path)
            .with_context(|| format!("cannot make a pipe for the log in {}", self.path.display()))
    }

    pub(super) fn listen_for_daemon(&self) -> anyhow::Result<OwnedFd> {
        // One daemon at a time, and one that comes while the last connection still ends.
        listen(&self.path.join(CONTROL_SOCKET), SocketType::SEQPACKET, 2)
    }

    /// The console's socket. A VM's own user may not reach it by its path; the descriptor is all it
    /// gets.
    pub(super) fn listen_for_console(&self, _uid: Option<u32>) -> anyhow::Result<OwnedFd> {
        listen(&self.path.join(CONSOLE_SOCKET), SocketType::STREAM, 8)
    }

    pub(crate) fn write_record(&self, record: &RunRecord) -> anyhow::Result<()> {
        format::write(&self.path.join(RUN_RECORD), record)
    }

    /// Writes down what the VM was granted: before the VMM hears of it, so that a daemon that comes
    /// after a crash knows how much it may claim. Eight bytes in one write on a memory file system:
    /// they are there whole, and cost about a microsecond. Nothing is granted to a VM whose record
    /// of it is not open.
    pub(crate) fn write_grant(&self, grant: Pages) -> io::Result<()> {
        self.grant.as_ref().map_or(Ok(()), |file| file.write_all_at(&grant.0.to_le_bytes(), 0))
    }

    /// Connects to the VMM; the socket is non-blocking from then on.
    pub(crate) fn connect(&self) -> anyhow::Result<Wire> {
        connect(&self.path).map(Wire::new).with_context(|| {
            format!("cannot connect to the VMM at {}", self.path.join(CONTROL_SOCKET).display())
        })
    }
}

/// Reads the run record in `directory`.
///
/// # Errors
/// It cannot be read in full, or is not that of `vm`: why. [`crate::outline`] reads a part of it.
pub(crate) fn read_record(directory: &Path, vm: &VmName) -> anyhow::Result<RunRecord> {
    let path = directory.join(RUN_RECORD);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let record: RunRecord =
        format::parse(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    ensure!(
        record.definition.name == *vm,
        "{} is the record of another VM, {}",
        path.display(),
        record.definition.name
    );
    record.definition.check().with_context(|| path.display().to_string())?;
    Ok(record)
}

/// What a VM was granted, as written down last in `directory`; `None`: that is not known.
pub(crate) fn read_grant(directory: &Path) -> Option<Pages> {
    let mut bytes = [0; 8];
    File::open(directory.join(GRANT_RECORD)).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    Some(Pages(u64::from_le_bytes(bytes)))
}

/// Whether it is certain that no process listens at the control socket in `directory`.
pub(crate) fn is_deserted(directory: &Path) -> bool {
    let none = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    connect(directory).is_err_and(|e| none.contains(&e.kind()))
}

/// Connects to the VMM in `directory`; the kernel adds its sender to each message.
///
/// # Errors
/// The kernel's.
pub(super) fn connect_and_name_senders(directory: &Path) -> io::Result<Wire> {
    let socket = socket(SocketType::SEQPACKET, SocketFlags::NONBLOCK)?;
    set_socket_passcred(&socket, true)?;
    connect_by(&socket, directory)?;
    Ok(Wire::new(socket))
}

fn connect(directory: &Path) -> io::Result<OwnedFd> {
    let socket = socket(SocketType::SEQPACKET, SocketFlags::NONBLOCK)?;
    connect_by(&socket, directory)?;
    Ok(socket)
}

fn connect_by(socket: &OwnedFd, directory: &Path) -> io::Result<()> {
    rustix::net::connect(socket, &SocketAddrUnix::new(directory.join(CONTROL_SOCKET))?)?;
    Ok(())
}

/// Removes what an earlier life of a VM left.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn grant_file(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join(GRANT_RECORD);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn socket(kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | flags, None)?)
}

fn listen(path: &Path, kind: SocketType, backlog: i32) -> anyhow::Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        let socket = socket(kind, SocketFlags::empty())?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, backlog)?;
        Ok(socket)
    };
    make().with_context(|| format!("cannot listen at {}", path.display()))
}

/// The file that takes the console's output, of this run alone.
pub(super) fn console_log(paths: &Paths, vm: &VmName) -> anyhow::Result<OwnedFd> {
    log(&paths.console_log(vm)).map(OwnedFd::from)
}

fn log(path: &Path) -> anyhow::Result<File> {
    let open = || -> io::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(file)
    };
    open().with_context(|| format!("cannot open the log {}", path.display()))
}
