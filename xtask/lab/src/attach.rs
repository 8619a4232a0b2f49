//! A lab that goes on (`demo --keep`) takes commands from other terminals, over a socket in the
//! cache.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::lab::{self, Lab, show};
use crate::wire::{self, Frame, Frames, Kind, Next, Request};
use crate::workspace::note;

/// How long a command from another terminal may take.
const LIMIT: Duration = Duration::from_secs(3600);

fn socket() -> Result<PathBuf> {
    Ok(cache::directory()?.join("lab.sock"))
}

/// Runs the commands of other terminals in `lab`, one after the other, until this program is ended.
pub fn serve(lab: &mut Lab) -> Result<()> {
    let path = socket()?;
    if UnixStream::connect(&path).is_ok() {
        bail!("another lab is attached at {}: end that one first", path.display());
    }
    // What is left of one that was ended.
    fs::remove_file(&path).ok();
    let listener = UnixListener::bind(&path).with_context(|| format!("listening at {}", path.display()))?;
    for client in listener.incoming() {
        let served = client.context("accepting a terminal").and_then(|client| serve_one(lab, &client));
        if let Err(error) = served {
            note(&format!("{error:#}"));
        }
    }
    Ok(())
}

fn serve_one(lab: &mut Lab, client: &UnixStream) -> Result<()> {
    let Next::Frame(Frame { kind: Kind::Run, payload }) = Frames::new(client).next(None)? else {
        bail!("a terminal went without a command");
    };
    let request: Request = serde_json::from_slice(&payload).context("reading a command")?;
    let status = lab.run(&request, LIMIT, &mut |kind, bytes| Ok(wire::send(client, kind, bytes)?))?;
    wire::send(client, Kind::Exit, status.to_string().as_bytes()).context("answering a terminal")
}

/// Runs `request` in the lab that goes on, and returns its exit status.
pub fn run(request: &Request) -> Result<i32> {
    let path = socket()?;
    let lab = UnixStream::connect(&path).with_context(|| {
        format!("no lab listens at {}: start one with `cargo xtask demo --keep`", path.display())
    })?;
    wire::send(&lab, Kind::Run, &serde_json::to_vec(request)?)?;
    let mut frames = Frames::new(&lab);
    loop {
        match frames.next(None)? {
            Next::Frame(Frame { kind: Kind::Exit, payload }) => return lab::status(&payload),
            Next::Frame(frame) => show(frame.kind, &frame.payload)?,
            _ => bail!("the lab went away"),
        }
    }
}
