use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};
use serde::Serialize;

use crate::address::Address;
use crate::client::LogSource;
use crate::console::{attach, script};
use crate::context::Context;
use crate::exit::{Status, failed};
use crate::interval::Interval;
use crate::unix_stream::{self, ANSWER_TIMEOUT};

/// How long `--expect` waits unless told otherwise: a Debian guest boots within it even in the lab.
const EXPECT_TIME: Interval = Interval(Duration::from_secs(60));

const HELP: &str = "\
Without --send and --expect the terminal is attached; Ctrl-] leaves, and the guest notices nothing. An input that is not a terminal is sent to the guest, and the output is printed until the VM ends.

With --expect, the first line that contains TEXT is printed and the exit status is 0; it is 1 if no such line comes in time. The guest's echo of what was sent does not count. With several TEXTs, the first that comes counts.

Examples:
  plimsoll console web1
  plimsoll console web1 --send 'uptime' --expect 'load average' --timeout 10s
  plimsoll console web1 --expect 'login:' --seen      also lines printed before";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Console {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// Type TEXT and the enter key
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    send: Option<String>,
    /// Wait for a line that contains TEXT and print it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    expect: Vec<String>,
    /// How long to wait for it [default: 60s]
    #[arg(long, value_name = "TIME", requires = "expect")]
    timeout: Option<Interval>,
    /// Accept a line that is already in the console's log
    #[arg(long, requires = "expect", conflicts_with = "send")]
    seen: bool,
}

#[derive(Serialize)]
struct Matched<'a> {
    vm: &'a VmName,
    line: String,
}

impl Console {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vm = context.client.vm(&self.name)?;
        let mut stream = connect(&vm, context)?;
        if let Some(text) = &self.send {
            script::send(&mut stream, text)?;
        }
        if self.expect.is_empty() {
            return if self.send.is_some() { Ok(()) } else { self.attach(stream, context) };
        }
        let mut watch = script::Watch::new(&self.expect, self.send.as_deref());
        if self.seen {
            watch.feed(&context.client.log(&self.name, LogSource::Console)?);
        }
        let limit = self.timeout.unwrap_or(EXPECT_TIME);
        match watch.wait(&mut stream, limit.0)? {
            script::End::Line(line) => {
                context.output.facts(&Matched { vm: &self.name, line }, |m| m.line.clone())
            }
            script::End::Timeout(last) => {
                bail!("{}: no line with {} within {limit}; {}", self.name, self.wanted(), shown(last))
            }
            script::End::Closed(last) => bail!(
                "{name}: the console ended without a line with {wanted}; {last}; see plimsoll show {name}",
                name = self.name,
                wanted = self.wanted(),
                last = shown(last)
            ),
        }
    }

    fn attach(&self, stream: UnixStream, context: &Context) -> Result<()> {
        let name = &self.name;
        let at_terminal = attach::at_terminal();
        if at_terminal {
            context.output.remark(&format!("attached to {name}; Ctrl-] leaves"));
        }
        let end = attach::attach(stream, &context.output)?;
        if at_terminal {
            context.output.remark(match end {
                attach::End::Left => "\nleft the console",
                attach::End::Closed => "\nthe console ended",
            });
        }
        Ok(())
    }

    fn wanted(&self) -> String {
        self.expect.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" or ")
    }
}

fn shown(last: Option<String>) -> String {
    last.map_or_else(|| "nothing was printed".to_owned(), |line| format!("the last line was {line:?}"))
}

/// Connects to a VM's console.
fn connect(vm: &VmStatus, context: &Context) -> Result<UnixStream> {
    let name = &vm.name;
    if matches!(context.client.address(), Address::Tcp { .. }) {
        bail!("the console of {name} is a unix socket on the daemon's host: run plimsoll console there");
    }
    if vm.power == Power::Off {
        let text = format!(
            "{name} is off and has no console: plimsoll start {name}, or plimsoll logs {name} for what it printed"
        );
        return Err(failed(Status::Conflict, text));
    }
    let path = vm.console.display();
    unix_stream::connect(&vm.console, ANSWER_TIMEOUT).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => anyhow!(
            "no right to attach to the console of {name} ({path}): run as root, or as a user that may write to it"
        ),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!("no process listens at the console of {name} ({path}): see plimsoll show {name}")
        }
        _ => anyhow!("attaching to the console of {name} ({path}): {e}"),
    })
}
