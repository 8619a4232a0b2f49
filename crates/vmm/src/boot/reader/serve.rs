use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use plimsoll_bootdisk::{Boot, find};
use plimsoll_image::Error;

use super::disk::Files;
use super::libc_fork;
use super::message::{Answer, Head, MAX_PIECE, MAX_TEXT, REQUEST, Request, Which, cut};
use crate::jail;

/// The life of the reader's process: enters its jail and answers at `socket` until that is closed.
/// `parent` is the VMM's process.
pub(super) fn run(files: Files, socket: OwnedFd, rules: jail::Rules<'_>, parent: u32) -> ! {
    // The VMM's hook would tell its control thread, which this process does not have.
    std::panic::set_hook(Box::new(|_| {}));
    let confined = confine(&files, &socket, rules, parent);
    let mut reader = Reader { files, confined, boot: None, piece: Vec::new() };
    reader.serve(&socket).ok();
    libc_fork::exit()
}

/// Closes the jail; what cannot be closed is the error.
fn confine(files: &Files, socket: &OwnedFd, rules: jail::Rules<'_>, parent: u32) -> Result<(), String> {
    let keep = files.descriptors().chain([socket.as_raw_fd()]).collect();
    libc_fork::close_all_but(keep).map_err(|e| format!("cannot close descriptors: {e}"))?;
    jail::close(rules).map_err(|e| e.to_string())?;
    libc_fork::end_with_parent(parent).map_err(|e| format!("cannot bind its life to the VMM's: {e}"))?;
    libc_fork::limit_memory().map_err(|e| format!("cannot limit its memory: {e}"))?;
    jail::filter_reader(rules, socket.as_raw_fd()).map_err(|e| e.to_string())?;
    Ok(())
}

struct Reader {
    files: Files,
    /// Nothing is read by a reader that is not confined.
    confined: Result<(), String>,
    boot: Option<Boot>,
    piece: Vec<u8>,
}

impl Reader {
    /// Answers requests until the socket is closed.
    fn serve(&mut self, socket: &OwnedFd) -> io::Result<()> {
        loop {
            let mut bytes = [0; REQUEST];
            read_exact(socket, &mut bytes)?;
            let Some((sequence, request)) = Request::decode(&bytes) else { return Ok(()) };
            // A parser that panics has met what no test has; the VMM gets a sentence.
            let answer = catch_unwind(AssertUnwindSafe(|| self.answer(request)));
            let answer = answer.unwrap_or_else(|_| Err("internal error while the disk was read".to_owned()));
            let (failed, body) = match &answer {
                Ok(()) => (false, self.piece.as_slice()),
                Err(text) => (true, cut(text, MAX_TEXT).as_bytes()),
            };
            let length = u32::try_from(body.len()).map_err(io::Error::other)?;
            write_all(socket, &Head { sequence, failed, length }.encode())?;
            write_all(socket, body)?;
        }
    }

    /// Leaves the answer in `piece`.
    fn answer(&mut self, request: Request) -> Result<(), String> {
        self.confined.clone().map_err(|why| format!("the boot reader cannot be confined: {why}"))?;
        self.piece.clear();
        match request {
            Request::Find => {
                self.boot = None;
                // What an earlier boot has seen of an image's tables may be wrong by now.
                let disk = self.files.disk().map_err(|e| unreadable(&e))?;
                let size = disk.size();
                let boot = find(Box::new(disk), size).map_err(|e| e.to_string())?;
                let description =
                    format!("{:?} of {}: {}", boot.entry, boot.configuration, boot.kernel.name());
                let initrd = boot.initrd.as_ref().map_or(0, plimsoll_bootdisk::File::len);
                let cmdline = boot.cmdline.clone();
                self.piece = Answer { kernel: boot.kernel.len(), initrd, cmdline, description }.encode();
                self.boot = Some(boot);
            }
            Request::Read { which, offset, length } => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let file = self.boot.as_mut().and_then(|boot| match which {
                    Which::Kernel => Some(&mut boot.kernel),
                    Which::Initrd => boot.initrd.as_mut(),
                });
                let file = file.filter(|_| length <= MAX_PIECE).ok_or("there is no such file")?;
                self.piece.resize(length, 0);
                let read = file.read_exact_at(&mut self.piece, offset);
                read.map_err(|e| format!("{} cannot be read: {e}", file.name()))?;
            }
            Request::Forget => {
                self.boot = None;
                self.piece = Vec::new();
                libc_fork::give_memory_back();
            }
        }
        Ok(())
    }
}

fn unreadable(error: &Error) -> String {
    match error {
        Error::Io(source) => format!("the disk cannot be read: {source}"),
        other => format!("the disk cannot be read: {other}"),
    }
}

fn read_exact(socket: &OwnedFd, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut *buffer))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(())
}

fn write_all(socket: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(socket, bytes))?;
        bytes = &bytes[count..];
    }
    Ok(())
}
