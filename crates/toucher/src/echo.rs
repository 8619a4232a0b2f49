//! Sockets to the host (vsock): a server that sends back what it is sent, and a client of one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::thread;

use plimsoll_sys::vsock;

/// Stack of a thread that serves one connection: there may be a thousand.
const STACK: usize = 64 << 10;
/// Bytes that are sent back at a time.
const PIECE: usize = 16 << 10;

/// Serves `port` from now on.
///
/// # Errors
/// The port cannot be listened at.
pub(crate) fn serve(port: u32) -> io::Result<()> {
    let listener = vsock::listen(port)?;
    thread::Builder::new().stack_size(STACK).spawn(move || {
        while let Ok((socket, _)) = vsock::accept(&listener) {
            let serve = move || echo(File::from(socket));
            // A guest that is short of memory hangs up.
            thread::Builder::new().stack_size(STACK).spawn(serve).ok();
        }
    })?;
    Ok(())
}

/// Sends back what comes, to its end.
fn echo(mut stream: File) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Sends `bytes` bytes to `port` of the host, which sends them back. Returns how many came back,
/// and how many of these were others.
///
/// # Errors
/// Nobody takes the connection, or it ends early.
pub(crate) fn call(port: u32, bytes: usize) -> io::Result<(usize, usize)> {
    let stream = File::from(vsock::connect(vsock::HOST, port)?);
    let mut writer = stream.try_clone()?;
    let piece: Vec<u8> = (0..=250).cycle().take(PIECE).collect();
    let sent = piece.clone();
    let sending = thread::spawn(move || -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let count = left.min(PIECE);
            writer.write_all(&sent[..count])?;
            left -= count;
        }
        Ok(())
    });
    let (mut stream, mut came, mut wrong) = (stream, 0, 0);
    let mut buffer = vec![0; PIECE];
    while came < bytes {
        let count = (bytes - came).min(PIECE);
        stream.read_exact(&mut buffer[..count])?;
        wrong += buffer[..count].iter().zip(&piece).filter(|(got, sent)| got != sent).count();
        came += count;
    }
    sending.join().map_err(|_| io::Error::other("the thread that sends has failed"))??;
    Ok((came, wrong))
}
