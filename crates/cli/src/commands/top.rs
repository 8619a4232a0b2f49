use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use crossterm::{cursor, event, queue, style, terminal};
use jiff::Timestamp;
use plimsoll_protocol::status::{HostStatus, VmStatus};
use plimsoll_words::local_time::to_the_second;
use plimsoll_words::stall;
use plimsoll_words::table::{Column, Table};
use serde::Serialize;

use crate::context::Context;
use crate::interval::Interval;
use crate::selection::Filter;

/// Shortest interval: faster, the daemon would work for the table more than for the VMs, whose
/// facts are a second old.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

const HELP: &str = "\
The host's lines:
  budget    machine memory that Plimsoll may use: granted to VMs, overhead of their processes, frames (shared pages), free
  held      what guests hold, as their processes say
  kernel    the same, by the host kernel's account
  reserved  what the VMs that run always have, with their overhead
  state     how short of free memory the host is: high (not at all), clear, soft (balloons work), hard (balloons do not suffice), low (VMs above their targets wait)
  stalled   parts of the last 10, 60 and 300 s in which VMs waited for memory, averaged over all VMs that run: the whole VM (full), at least one fault of it (some)

Columns:
  POOL      resource pool that it is in; /: the host itself
  SIZE      memory that the guest sees
  GRANT     machine memory that the host has promised the VM; it never holds more
  HELD      machine memory that its guest holds
  BALLOON   memory in its balloon: the guest may not use it, the host may give it to others
  TARGET    what its balloon is steered to leave it
  ENTITLED  what policy gives it by shares, reservation, limit and activity
  ACTIVE    estimate of what it actively uses
  SHARED    memory that it shares with others, or has several times
  ZERO      pages of zeros, which cost nothing
  SAVED     what it would hold in addition if no pages were shared
  COMPR     memory whose content is compressed
  SWAPPED   memory whose content is in swap space only
  OUT/s     written to swap space in a second; IN/s: read from there
  STALL%    part of the last 10 s in which all of the VM waited for memory / in which some of it did

Examples:
  plimsoll top                        q leaves
  plimsoll top --once
  plimsoll top --interval 5s --json   one object {\"host\": ..., \"vms\": [...]} a line";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Top {
    #[command(flatten)]
    filter: Filter,
    /// Print it once and return
    #[arg(long)]
    once: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Interval,
}

fn interval(text: &str) -> Result<Interval, String> {
    let interval: Interval = text.parse()?;
    if interval.0 < MIN_INTERVAL {
        return Err(format!("{interval} is too short: at least {} is possible", Interval(MIN_INTERVAL)));
    }
    Ok(interval)
}

/// The host and its VMs at one time.
#[derive(Serialize)]
struct Look {
    at: Timestamp,
    host: HostStatus,
    vms: Vec<VmStatus>,
}

impl Top {
    fn look(&self, context: &Context) -> Result<Look> {
        let vms = self.filter.choose(context.client.vms()?)?;
        Ok(Look { at: Timestamp::now(), host: context.client.host()?, vms })
    }

    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        if self.once {
            return context.output.facts(&self.look(context)?, |l| lines(l).join("\n"));
        }
        if context.output.is_terminal() { self.live(context) } else { self.blocks(context) }
    }

    /// A block of text (or an object in one line) per interval, for pipes and files.
    fn blocks(&self, context: &Context) -> Result<()> {
        loop {
            let next = Instant::now() + self.interval.0;
            context.output.fact_line(&self.look(context)?, |l| format!("{}\n\n", lines(l).join("\n")))?;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Redraws the screen until a key ends it.
    fn live(&self, context: &Context) -> Result<()> {
        // The first look may fail before the screen is taken: its error is better read without.
        let mut shown = lines(&self.look(context)?);
        let screen = Screen::new()?;
        loop {
            draw(&shown).context("drawing the table")?;
            if left_within(self.interval.0).context("reading the keyboard")? {
                drop(screen);
                return Ok(());
            }
            match self.look(context) {
                Ok(now) => shown = lines(&now),
                // A daemon that is being restarted comes back: the last table stays, and says how
                // old it is.
                Err(error) => note_error(&mut shown, &format!("{error:#}")),
            }
        }
    }
}

const ERROR_MARK: &str = "! ";

/// Puts an error below the table, in place of the one before.
fn note_error(lines: &mut Vec<String>, error: &str) {
    lines.retain(|line| !line.starts_with(ERROR_MARK));
    lines.push(format!("{ERROR_MARK}{error}"));
}

const COLUMNS: [Column; 19] = [
    Column::left("NAME"),
    Column::left("POOL"),
    Column::left("POWER"),
    Column::right("SIZE"),
    Column::right("GRANT"),
    Column::right("HELD"),
    Column::right("BALLOON"),
    Column::right("TARGET"),
    Column::right("ENTITLED"),
    Column::right("ACTIVE"),
    Column::right("SHARED"),
    Column::right("ZERO"),
    Column::right("SAVED"),
    Column::right("COMPR"),
    Column::right("SWAPPED"),
    Column::right("OUT/s"),
    Column::right("IN/s"),
    Column::right("STALL%"),
    Column::left("NOTE"),
];

fn lines(look: &Look) -> Vec<String> {
    let HostStatus {
        budget, granted, overhead, frames, free, held, kernel, ballooned, reserved, state, ..
    } = &look.host;
    let mut lines = vec![
        format!(
            "{}  state {state} (high from {} free), {} of {} VMs on",
            to_the_second(look.at),
            look.host.high_threshold,
            look.host.running,
            look.vms.len()
        ),
        format!("budget {budget} = granted {granted} + overhead {overhead} + frames {frames} + free {free}"),
        format!("held {held}, kernel {kernel}, ballooned {ballooned}, reserved {reserved}"),
        format!(
            "shared {}, zero {}, compressed {}, swapped {}",
            look.host.shared, look.host.zero, look.host.compressed, look.host.swapped
        ),
        format!("stalled {}", stall::of_host(&look.host.stall)),
        String::new(),
    ];
    let mut table = Table::new(&COLUMNS);
    for vm in &look.vms {
        table.row([
            vm.name.to_string(),
            vm.pool.to_string(),
            vm.power.to_string(),
            vm.size.to_string(),
            vm.grant.to_string(),
            vm.held.to_string(),
            vm.ballooned.to_string(),
            vm.target.to_string(),
            vm.entitlement.to_string(),
            vm.active.to_string(),
            vm.sharing.shared.to_string(),
            vm.sharing.zero.to_string(),
            vm.sharing.saved.to_string(),
            vm.paging.compressed.to_string(),
            vm.paging.swapped.to_string(),
            vm.paging.out_rate.to_string(),
            vm.paging.in_rate.to_string(),
            stall::column(&vm.stall),
            plimsoll_words::note(vm),
        ]);
    }
    lines.extend(table.lines());
    lines
}

/// The terminal's other screen in raw mode, until dropped.
struct Screen;

impl Screen {
    fn new() -> Result<Self> {
        terminal::enable_raw_mode().context("setting the terminal to raw mode")?;
        let screen = Self;
        crossterm::execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)
            .context("taking the screen")?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        crossterm::execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen).ok();
        terminal::disable_raw_mode().ok();
    }
}

fn draw(lines: &[String]) -> io::Result<()> {
    let (width, height) = terminal::size()?;
    // A serial line does not know its size and says zero.
    let or = |size: u16, usual: u16| usize::from(if size == 0 { usual } else { size });
    let (width, height) = (or(width, 80), or(height, 24));
    let mut stdout = io::stdout().lock();
    queue!(stdout, cursor::MoveTo(0, 0))?;
    for line in lines.iter().take(height.saturating_sub(1)) {
        let line: String = line.chars().filter(|c| !c.is_control()).take(width).collect();
        queue!(stdout, style::Print(line), terminal::Clear(terminal::ClearType::UntilNewLine))?;
        queue!(stdout, style::Print("\r\n"))?;
    }
    queue!(stdout, style::Print("q leaves"), terminal::Clear(terminal::ClearType::FromCursorDown))?;
    stdout.flush()
}

/// Whether a key to leave is pressed before `interval` has passed. A change of the screen's size
/// ends the wait early, for the table to be drawn anew.
fn left_within(interval: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + interval;
    while event::poll(deadline.saturating_duration_since(Instant::now()))? {
        match event::read()? {
            Event::Key(key) if leaves(key) => return Ok(true),
            Event::Resize(..) => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

fn leaves(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c' | 'd') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn the_table_adds_up_before_the_readers_eyes() {
        let at = "2026-01-01T00:00:00.9Z".parse().unwrap();
        let vms = vec![samples::vm("web1"), samples::off("db")];
        let expected = "\
2026-01-01T00:00:00Z  state soft (high from 38MiB free), 2 of 2 VMs on
budget 640MiB = granted 600MiB + overhead 16MiB + frames 9MiB + free 15MiB
held 560MiB, kernel 561MiB, ballooned 300MiB, reserved 144MiB
shared 30MiB, zero 12MiB, compressed 0B, swapped 0B
stalled full 5.26% 2.00% 0.50%, some 6.17% 2.50% 0.75%

NAME  POOL  POWER    SIZE   GRANT    HELD  BALLOON  TARGET  ENTITLED  ACTIVE  SHARED   ZERO  SAVED  COMPR  SWAPPED  OUT/s    IN/s  STALL%  NOTE
web1  /     on     256MiB  200MiB  180MiB    56MiB  160MiB    160MiB   40MiB   24MiB  12MiB  30MiB   8MiB    16MiB   1MiB  512KiB   11/12
db    /     off    256MiB      0B      0B       0B      0B        0B      0B      0B     0B     0B     0B       0B     0B      0B     0/0  the guest shut down";
        assert_eq!(lines(&Look { at, host: samples::host(), vms }).join("\n"), samples::local(expected));
    }

    #[test]
    fn an_error_replaces_the_one_before() {
        let mut lines = vec!["table".to_owned()];
        note_error(&mut lines, "one");
        note_error(&mut lines, "two");
        assert_eq!(lines, ["table", "! two"]);
    }
}
