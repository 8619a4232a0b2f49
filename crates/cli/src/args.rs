use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::DEFAULT_SOCKET;

use crate::address::Address;
use crate::commands::{
    console, cp, create, disk, edit, events, exec, explain, history, image, kill, logs, pause, plan, pool,
    ps, rename, reset, restart, resume, rm, run, set, share, show, start, stop, top, wait,
};

/// Names the daemon's socket where `--socket` does not.
const SOCKET_VARIABLE: &str = "PLIMSOLL_SOCKET";

/// Run virtual machines on less memory than they were promised
///
/// plimsoll talks to plimsolld, the daemon of this host. Only "doctor", "image" and "plan" need no
/// daemon; "plan fit" asks it for its host.
#[derive(Debug, Parser)]
#[command(
    name = "plimsoll",
    version,
    propagate_version = false,
    after_help = format!("{AFTER_HELP}\n\n{}", crate::exit::HELP),
    max_term_width = 100
)]
pub(crate) struct Args {
    /// The daemon's unix socket [default: $PLIMSOLL_SOCKET, else /run/plimsoll/plimsoll.sock]
    #[arg(long, global = true, overrides_with = "socket", value_name = "PATH", help_heading = "Connection")]
    socket: Option<PathBuf>,
    /// The daemon's address, where it listens on TCP
    #[arg(
        long,
        global = true,
        overrides_with = "url",
        value_name = "http[s]://HOST:PORT",
        help_heading = "Connection"
    )]
    url: Option<String>,
    /// File with the token that the daemon asks for on TCP
    #[arg(
        long,
        global = true,
        overrides_with = "token_file",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    token_file: Option<PathBuf>,
    /// File with the certificate of a daemon at https://, or of its authority
    #[arg(long, global = true, overrides_with = "ca_file", value_name = "FILE", help_heading = "Connection")]
    ca_file: Option<PathBuf>,
    /// Print facts as JSON, and errors as {"error": TEXT}; sizes are whole bytes
    #[arg(long, global = true, overrides_with = "json")]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Sizes are a number and a binary unit: 512MiB, 1.5GiB, 64K; a bare number is bytes.
Times are a number and ms, s, m or h: 30s, 5m; a bare number is seconds.
A command for several VMs prints one line a VM, with --json one object a line.

Examples:
  plimsoll doctor                          whether this host can run VMs, and if not, why
  plimsoll run web1.toml --wait            define a VM and start it
  plimsoll run --image debian-12.qcow2     the same of an image that was downloaded
  plimsoll ps                              all VMs
  plimsoll top                             which VMs hold the memory, live
  plimsoll explain web1                    why it has this much, and what would give it more
  plimsoll set web1 --shares high          give it more weight than its siblings
  plimsoll pool create prod --shares high  a pool of VMs that share what it has
  plimsoll disk resize web1 vda 40GiB      have its disk grow
  plimsoll console web1                    attach to its serial console
  plimsoll stop web1 --timeout 2m --kill   shut it down, or end it after two minutes";

/// What to do. One file in [`crate::commands`] each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Define a VM and start it
    Run(run::Run),
    /// Define a VM without starting it
    Create(create::Create),
    /// Start a defined VM that is off
    Start(start::Start),
    /// List the VMs
    #[command(visible_aliases = ["ls", "list"])]
    Ps(ps::Ps),
    /// Show what a VM does and has now
    Show(show::Show),
    /// Print a VM's definition as TOML, as it was given and changed since
    #[command(after_help = crate::commands::inspect::HELP)]
    Inspect(Vm),
    /// Press a VM's power button and wait until it is off
    Stop(stop::Stop),
    /// Shut a VM down and start it again
    #[command(visible_alias = "reboot")]
    Restart(restart::Restart),
    /// Have a VM stand still
    Pause(pause::Pause),
    /// Let a paused VM go on
    Resume(resume::Resume),
    /// Press a VM's reset button
    Reset(reset::Reset),
    /// End a VM at once, as if its power were cut; its guest writes nothing back
    Kill(kill::Kill),
    /// Remove a VM that is off; its disks stay
    Rm(rm::Rm),
    /// Wait until VMs are off, on or removed
    Wait(wait::Wait),
    /// Change a VM's definition in an editor
    Edit(edit::Edit),
    /// Give a VM that is off another name
    Rename(rename::Rename),
    /// Change a VM's shares, limits, pool, tax, sharing or devices, while it runs or not
    Set(set::Set),
    /// Explain why a VM has the memory that it has, or which VMs hold the host's
    Explain(explain::Explain),
    /// Print what VMs used and had over time
    History(history::History),
    /// Set which VMs share pages with each other, and show what that saves
    Share(share::Share),
    /// Make, change, list and remove resource pools
    Pool(pool::PoolCommand),
    /// Have a VM's disk grow
    Disk(disk::Disk),
    /// Attach to a VM's serial console, or talk to it from a script
    Console(console::Console),
    /// Run a command in a VM's guest, by its agent
    Exec(exec::Exec),
    /// Copy a file to a VM's guest or from it, by its agent
    Cp(cp::Cp),
    /// Print what a VM's guest wrote to its console, or the messages of its process
    Logs(logs::Logs),
    /// Print what happened on the host
    Events(events::Events),
    /// Show which VMs hold the host's memory, live
    Top(top::Top),
    /// Simulate a host: what memory VMs would get over time, and how many fit
    Plan(plan::Plan),
    /// Make, copy and look at disk images; needs no daemon
    Image(image::ImageCommand),
    /// Check whether this host can run VMs, and say how to fix it if not; needs no daemon
    #[command(after_help = crate::commands::doctor::HELP)]
    Doctor,
    /// Print the versions of this command and of the daemon
    Version,
}

/// A command that takes nothing but a VM.
#[derive(Debug, clap::Args)]
pub(crate) struct Vm {
    /// Name of the VM
    #[arg(value_name = "VM")]
    pub(crate) name: VmName,
}

impl Args {
    /// Where the daemon is.
    ///
    /// # Errors
    /// Options that contradict each other or cannot be used.
    pub(crate) fn address(&self) -> Result<Address> {
        match (&self.socket, &self.url, &self.token_file) {
            (Some(_), Some(_), _) => bail!("--socket and --url name two daemons: use one of them"),
            (_, None, _) if self.ca_file.is_some() => {
                bail!("--ca-file is for --url: a unix socket is not encrypted")
            }
            (_, None, Some(_)) => bail!("--token-file is for --url: a unix socket asks for no token"),
            (None, Some(url), token_file) => {
                Address::tcp(url, token_file.as_deref(), self.ca_file.as_deref())
            }
            (Some(socket), None, None) => Ok(Address::Socket(socket.clone())),
            (None, None, None) => {
                let socket = std::env::var_os(SOCKET_VARIABLE).filter(|s| !s.is_empty());
                Ok(Address::Socket(socket.unwrap_or_else(|| DEFAULT_SOCKET.into()).into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("plimsoll").chain(line.split_whitespace()))
    }

    #[test]
    fn the_manual_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_those_with_options_have_examples() {
        for mut command in Args::command().get_subcommands().cloned().collect::<Vec<_>>() {
            let help = command.render_long_help().to_string();
            assert!(command.get_about().is_some(), "{}", command.get_name());
            if command.get_opts().next().is_some() {
                assert!(help.contains("Examples:"), "{}: {help}", command.get_name());
            }
        }
    }

    #[test]
    fn no_help_is_wrapped_by_hand() {
        fn look(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                let [line, next] = pair else { continue };
                let indent = next.len() - next.trim_start().len();
                let goes_on = indent >= 8 && next.trim_start().starts_with(|c: char| c.is_alphabetic());
                let is_prose = |line: &str| line.starts_with(|c: char| c.is_alphabetic());
                let breaks = is_prose(line) && is_prose(next) && !line.ends_with(['.', ':']);
                assert!(!goes_on && !breaks, "{}: {line}\n{next}", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&Args::command());
    }

    #[test]
    fn options_of_all_commands_stand_before_or_after_them() {
        for line in ["--json ps", "ps --json", "--json ps --json", "--socket /s ps", "ps --socket /s"] {
            assert!(parse(line).is_ok(), "{line}");
        }
        // The last one counts, so that a script's own can be overridden.
        for line in ["ps --socket /s", "--socket /t --socket /s ps", "--socket /t ps --socket /s"] {
            let address = parse(line).unwrap().address().unwrap();
            assert_eq!(address, Address::Socket("/s".into()), "{line}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for line in
            ["ps --socket /s --url http://a:1", "ps --token-file /t", "ps --ca-file /c", "ps --url ftp://a:1"]
        {
            assert!(parse(line).unwrap().address().is_err(), "{line}");
        }
    }

    #[test]
    fn command_lines_that_make_no_sense_are_refused() {
        for line in [
            "",
            "fly",
            "show",
            "show ../a",
            "inspect",
            "stop a --timeout soon",
            "set a",
            "set a --shares 0",
            "set a --reservation -1",
            "set a --limit 1e9",
            "set a --limit 99999999999999999999",
            "set a --tax 1",
            "set a --tax nan",
            "set a --pool a/b",
            "explain a/b",
            "share",
            "share set a",
            "share set a a/b",
            "set a --sharing a/b",
            "pool",
            "pool create a/b",
            "pool create /",
            "pool create a --shares -1",
            "pool create a --expandable maybe",
            "pool set a",
            "pool rm",
            "set a --reservation 512MB",
            "console a --expect",
            "console a --timeout 5s",
            "console a --seen",
            "top --interval 1ms",
            "ps --extra",
            "ps -o name,nam",
            "ps -o name --format {name}",
            "ps --format {nam}",
            "logs a -n -1",
            "logs a --vmm --console",
            "events --since yesterday",
            "stop",
            "stop a --all",
            "create",
            "create a.toml --pool a/b",
            "run",
            "run a.toml --image b.qcow2",
            "run a.toml --size 1GiB",
            "create --name a",
            "run --image b.qcow2 --ssh-key k --user-data u",
            "run --image b.img --format vmdk",
            "restart",
            "pause",
            "resume a/b",
            "reset a --all",
            "restart a --timeout soon",
            "rename a",
            "rename a a/b",
            "edit",
            "edit a b",
            "stop a --label tier=web",
            "stop --all --label tier=web",
            "stop --label =web",
            "ps --label a,b",
            "set a --add-label tier",
            "set a --add-label tier=a,b",
            "set a --remove-label =",
            "set a --autostart maybe",
            "set a --start-order 1000",
            "set a --start-order -1",
            "set a --start-delay 2h",
            "start --autostart a",
            "start --autostart --all",
            "stop a --no-wait --kill",
            "start --all --wait now",
            "wait a --for nothing",
            "rm --ignore-missing",
            "kill",
            "set --shares high",
            "set a --disk vda",
            "disk",
            "disk resize a",
            "disk resize a sda 1GiB",
            "disk resize a vda -1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
