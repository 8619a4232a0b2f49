//! The command language of the console.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::attack::{self, Deeds};
use crate::libc_power::{self, End};
use crate::pattern::PAGE;
use crate::state::State;
use crate::{disk, echo, hog, shell, virtio};

/// One line from the driver outside. Numbers are decimal; sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `touch BYTES SEED`: fill new memory with the seed's pattern.
    Touch(usize, u64),
    /// `rewrite SEED`: write the pattern again, over the same pages.
    Rewrite(u64),
    /// `verify [SEED]`: read every page back.
    Verify(Option<u64>),
    /// `free [SEED]`: give the memory back to the guest's kernel.
    Free(Option<u64>),
    /// `disk PATH BYTES SEED`: write the seed's pattern over the start of a disk, flush, and read
    /// it back.
    Disk(PathBuf, usize, u64),
    /// `cache PATH BYTES`: fill the guest's page cache with the start of a file or disk.
    Cache(PathBuf, usize),
    /// `alloc-forever`: take memory in a child process until the guest's kernel kills it.
    AllocForever,
    /// `work BYTES`: keep touching this much memory from now on, again and again. The answer comes
    /// at once.
    Work(usize),
    /// `worked`: how much the worker has touched.
    Worked,
    /// `attack SEED SECONDS ADDRESS BYTES`: drive the virtio devices against their rules, with
    /// memory at a physical address that the kernel does not use.
    Attack(u64, u64, u64, usize),
    /// `echo PORT`: send back what comes to this port of vsock, from now on. The answer comes at
    /// once.
    Echo(u32),
    /// `call PORT BYTES`: send that much to this port of the host, which sends it back.
    Call(u32, usize),
    /// `run COMMAND`: what a shell makes of the rest of the line; answers when it has ended.
    Run(String),
    /// `meminfo`: what the guest's kernel says of its memory.
    Meminfo,
    /// `devices`: the virtio devices and their drivers.
    Devices,
    /// `poweroff`: end the guest.
    PowerOff,
    /// `reboot`: restart it.
    Reboot,
    /// `crash`: make its kernel panic.
    Crash,
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        if let Some(command) = line.strip_prefix("run ") {
            return Ok(Self::Run(command.to_owned()));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let seed =
            |word: &str| word.parse::<u64>().map_err(|error| format!("{line}: seed {word:?}: {error}"));
        let bytes = |word: &str| word.parse().map_err(|error| format!("{line}: bytes {word:?}: {error}"));
        let number =
            |word: &str| word.parse::<u32>().map_err(|error| format!("{line}: port {word:?}: {error}"));
        Ok(match words[..] {
            ["touch", n, s] => Self::Touch(bytes(n)?, seed(s)?),
            ["disk", path, n, s] => Self::Disk(path.into(), bytes(n)?, seed(s)?),
            ["cache", path, n] => Self::Cache(path.into(), bytes(n)?),
            ["rewrite", s] => Self::Rewrite(seed(s)?),
            ["verify"] => Self::Verify(None),
            ["verify", s] => Self::Verify(Some(seed(s)?)),
            ["free"] => Self::Free(None),
            ["free", s] => Self::Free(Some(seed(s)?)),
            ["work", n] => Self::Work(bytes(n)?),
            ["worked"] => Self::Worked,
            ["attack", s, t, a, n] => Self::Attack(seed(s)?, seed(t)?, seed(a)?, bytes(n)?),
            ["echo", port] => Self::Echo(number(port)?),
            ["call", port, n] => Self::Call(number(port)?, bytes(n)?),
            ["alloc-forever"] => Self::AllocForever,
            ["meminfo"] => Self::Meminfo,
            ["devices"] => Self::Devices,
            ["poweroff"] => Self::PowerOff,
            ["reboot"] => Self::Reboot,
            ["crash"] => Self::Crash,
            _ => return Err(format!("{line}: no such command")),
        })
    }
}

impl Command {
    /// Carries out the command. Returns the answer: the command's name, then `key=value` facts.
    pub(crate) fn run(self, state: &mut State, say: &dyn Fn(&str)) -> Result<String, String> {
        match self {
            Self::Touch(bytes, seed) => {
                state.regions.touch(bytes, seed).map(|bytes| format!("touch bytes={bytes} seed={seed}"))
            }
            Self::Rewrite(seed) => {
                state.regions.rewrite(seed).map(|bytes| format!("rewrite bytes={bytes} seed={seed}"))
            }
            Self::Verify(seed) => {
                let verdict = state.regions.verify(seed);
                let first = verdict.first.map(|(seed, page)| format!(" first_seed={seed} first_page={page}"));
                let (pages, mismatched) = (verdict.pages, verdict.mismatched);
                let bytes = pages * PAGE;
                Ok(format!(
                    "verify bytes={bytes} pages={pages} mismatched={mismatched}{}",
                    first.unwrap_or_default()
                ))
            }
            Self::Free(seed) => Ok(format!("free bytes={}", state.regions.free(seed))),
            Self::Disk(path, bytes, seed) => {
                let result = disk::write_and_read(&path, bytes, seed);
                let (bytes, mismatched) =
                    result.map_err(|error| format!("disk {}: {error}", path.display()))?;
                Ok(format!("disk bytes={bytes} mismatched={mismatched}"))
            }
            Self::Cache(path, bytes) => {
                let read = disk::cache(&path, bytes);
                read.map(|bytes| format!("cache bytes={bytes}"))
                    .map_err(|error| format!("cache {}: {error}", path.display()))
            }
            Self::AllocForever => {
                say("note alloc-forever started");
                let (end, bytes) = hog::run().map_err(|error| format!("alloc-forever {error}"))?;
                let (signal, status) = match end {
                    End::Signal(signal) => (signal, 0),
                    End::Status(status) => (0, status),
                };
                Ok(format!("alloc-forever bytes={bytes} signal={signal} status={status}"))
            }
            Self::Work(bytes) => {
                let worker = state.worker().map_err(|error| format!("work {error}"))?;
                Ok(format!("work bytes={}", worker.set(bytes)))
            }
            Self::Worked => {
                let worker = state.worker().map_err(|error| format!("worked {error}"))?;
                Ok(format!("worked pages={}", worker.touched()))
            }
            Self::Attack(seed, seconds, at, len) => {
                let done = attack::run(seed, Duration::from_secs(seconds), at, len);
                let Deeds { deeds, started, refused } = done.map_err(|error| format!("attack {error}"))?;
                Ok(format!("attack deeds={deeds} started={started} refused={refused}"))
            }
            Self::Echo(port) => {
                echo::serve(port).map_err(|error| format!("echo {error}"))?;
                Ok(format!("echo port={port}"))
            }
            Self::Call(port, bytes) => {
                let (bytes, mismatched) = echo::call(port, bytes).map_err(|error| format!("call {error}"))?;
                Ok(format!("call bytes={bytes} mismatched={mismatched}"))
            }
            Self::Run(line) => {
                let (status, said) = shell::run(&line).map_err(|error| format!("run sh: {error}"))?;
                Ok(format!("run status={status} said: {said}"))
            }
            Self::Meminfo => meminfo(),
            Self::Devices => {
                let devices =
                    virtio::devices().map_err(|error| format!("devices /sys/bus/virtio: {error}"))?;
                Ok(format!("devices count={} {}", devices.len(), devices.join(" ")))
            }
            Self::PowerOff => {
                say("ok poweroff");
                Err(format!("poweroff {}", libc_power::power_off()))
            }
            Self::Reboot => {
                say("ok reboot");
                Err(format!("reboot {}", libc_power::restart()))
            }
            Self::Crash => {
                say("ok crash");
                let refused = fs::write("/proc/sysrq-trigger", "c").err();
                Err(format!("crash /proc/sysrq-trigger: {refused:?}"))
            }
        }
    }
}

/// Total, free and available memory in bytes, as the guest's kernel counts them, and how often it
/// killed for memory.
fn meminfo() -> Result<String, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("meminfo {path}: {error}"));
    let (text, counts) = (read("/proc/meminfo")?, read("/proc/vmstat")?);
    let bytes = |key: &str| field(&text, &format!("{key}:")).map_or(0, |kib| kib * 1024);
    let kills = field(&counts, "oom_kill").unwrap_or(0);
    let (total, free, available) = (bytes("MemTotal"), bytes("MemFree"), bytes("MemAvailable"));
    Ok(format!("meminfo total={total} free={free} available={available} oom_kills={kills}"))
}

/// The number after `key` in a text of `key number` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_nonsense_is_refused() {
        assert_eq!("touch 4096 7".parse(), Ok(Command::Touch(4096, 7)));
        assert_eq!("verify".parse(), Ok(Command::Verify(None)));
        assert_eq!("free 3".parse(), Ok(Command::Free(Some(3))));
        assert_eq!("call 5000 70000".parse(), Ok(Command::Call(5000, 70_000)));
        assert_eq!("run echo  a | cat".parse(), Ok(Command::Run("echo  a | cat".to_owned())));
        for line in ["touch", "touch 1MiB 7", "touch -1 7", "verify x", "dance"] {
            assert!(line.parse::<Command>().is_err(), "{line}");
        }
    }

    #[test]
    fn facts_are_found_by_their_whole_key() {
        let text = "oom_kill_x 5\noom_kill 2\nMemTotal:  100 kB\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "MemTotal:"), Some(100));
        assert_eq!(field(text, "Absent"), None);
    }

    #[test]
    fn answers_carry_their_facts() {
        let mut state = State::default();
        let mut run =
            |line: &str| line.parse::<Command>().and_then(|command| command.run(&mut state, &|_| ()));
        assert_eq!(run("touch 8192 1").unwrap(), "touch bytes=8192 seed=1");
        assert_eq!(run("verify").unwrap(), "verify bytes=8192 pages=2 mismatched=0");
        assert_eq!(run("free").unwrap(), "free bytes=8192");
        assert_eq!(run("run echo touched").unwrap(), "run status=0 said: touched");
        assert!(run("meminfo").unwrap().starts_with("meminfo total="));
    }
}
