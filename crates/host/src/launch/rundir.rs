use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use plimsoll_protocol::VmName;
use plimsoll_protocol::wire::Wire;
use plimsoll_units::Pages;
use rustix::net::SocketType;

use super::record::RunRecord;
use super::socket::{connect, connect_stream, listen};
use super::survey::{Look, look};
use crate::format;
use crate::log_pipe::LogPipe;
use crate::paths::{
    CONSOLE_SOCKET, CONTROL_SOCKET, GRANT_RECORD, Paths, RUN_RECORD, VSOCK_SOCKET, port_socket,
};

/// The run directory of one VM: it is there while the VM runs, and for the daemon's user alone.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    /// `None` until [`RunDir::open_grant`], for a VM that an earlier daemon started.
    grant: Option<File>,
    keep: bool,
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
    /// Makes the directory, in place of one whose VM is gone.
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

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the record of the grant, for [`RunDir::write_grant`]. A lost record is made anew.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open_grant(&mut self) -> anyhow::Result<()> {
        self.grant = Some(grant_file(&self.path)?);
        Ok(())
    }

    /// From now on the directory outlives the daemon; [`RunDir::remove`] ends it.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// The VM is off.
    pub(crate) fn remove(mut self) {
        self.keep = false;
    }

    /// Makes the pipe for the VMM's messages to its log, which begins anew. Returns both ends.
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

    /// The socket at which programs of the host reach the guest's ports.
    pub(super) fn listen_for_vsock(&self) -> anyhow::Result<OwnedFd> {
        listen(&self.path.join(VSOCK_SOCKET), SocketType::STREAM, 128)
    }

    /// Connects to the socket that stands for `port` of the host, for a guest. Never waits.
    ///
    /// # Errors
    /// The kernel's. Nobody listens there, as a rule.
    pub(crate) fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        connect_stream(&port_socket(&self.path, port))
    }

    /// Writes the run record. No VM outlives a crash of the machine, and the daemon's loop does not
    /// wait for a disk.
    pub(crate) fn write_record(&self, record: &RunRecord) -> anyhow::Result<()> {
        format::write_for_this_boot(&self.path.join(RUN_RECORD), record)
    }

    /// Writes the VM's grant: before the VMM is told, so that a daemon that comes after a crash
    /// knows how much the VMM may claim. Eight bytes in one write on a memory file system: they are
    /// there whole, and cost about a microsecond. A VM whose record is not open is granted nothing.
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

/// Removes the run directory of a VM that is gone.
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
