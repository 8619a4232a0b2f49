//! Events on disk, so that they outlive the daemon: a JSON object a line, of which the first names
//! the version of the format.
//!
//! Lines are appended, and the file is written anew once it has twice as many as are remembered.
//! What cannot be written, because the disk is full for example, is kept in memory and written
//! later. A crash of the daemon loses the events of the last milliseconds.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use plimsoll_protocol::api::Event;
use tokio::sync::mpsc;

use crate::events::MOST;
use crate::format;
use crate::paths::{Paths, free_name, write_atomically};

/// Events that may wait for the disk. More are remembered and told, and not on disk.
const WAITING: usize = 1024;
/// The pause before a failed write is tried again: as long as that of records.
const PAUSE: Duration = Duration::from_secs(5);

/// The events of earlier daemons.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Recorded {
    /// The latest, oldest first.
    pub(crate) events: Vec<Event>,
    /// A note for users where some cannot be read.
    pub(crate) problem: Option<String>,
}

/// Reads the events of earlier daemons. A file that cannot be read in full is kept under a name of
/// its own, and what can be read of it takes its place. A last line that a crash cut off is left
/// out without a word.
///
/// # Errors
/// The file is there and can be neither read nor kept.
pub(crate) fn load(paths: &Paths) -> anyhow::Result<Recorded> {
    let path = paths.events();
    let text = match std::fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Recorded::default()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let (events, error) = parse(&text);
    let problem = match error {
        None => None,
        Some(why) => {
            let kept = free_name(&path);
            // A second name takes no space, and the disk may be full.
            std::fs::hard_link(&path, &kept)
                .with_context(|| format!("cannot keep {} as {}", path.display(), kept.display()))?;
            Some(format!(
                "some earlier events cannot be read in {}: {why:#}; the file is kept as {}",
                path.display(),
                kept.display()
            ))
        }
    };
    Ok(Recorded { events, problem })
}

/// The latest events of a file, and what is wrong with it.
fn parse(text: &[u8]) -> (Vec<Event>, Option<anyhow::Error>) {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    if let Err(why) = format::parse::<serde_json::Value>(lines.next().unwrap_or_default()) {
        return (Vec::new(), Some(why));
    }
    let mut events: VecDeque<Event> = VecDeque::new();
    let mut error = None;
    for (line, number) in lines.filter(|line| line.ends_with(b"\n")).zip(2..) {
        match read(line, events.back()).with_context(|| format!("line {number}")) {
            Ok(event) => events.push_back(event),
            Err(e) => drop(error.get_or_insert(e)),
        }
        if events.len() > MOST {
            events.pop_front();
        }
    }
    (events.into(), error)
}

fn read(line: &[u8], before: Option<&Event>) -> anyhow::Result<Event> {
    let event: Event = serde_json::from_slice(line)?;
    let last = before.map_or(0, |before| before.id);
    ensure!(event.id > last && event.id < u64::MAX, "its id {} does not follow {last}", event.id);
    Ok(event)
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct EventLog(mpsc::Sender<Event>);

impl EventLog {
    /// Starts the writer, which begins with a new file of `recorded` events. Must be called within
    /// a runtime.
    pub(crate) fn start(paths: &Paths, recorded: Vec<Event>) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        tokio::spawn(write(Log::new(paths.events(), recorded), events));
        Self(sender)
    }

    /// Has an event written. It never waits: see [`WAITING`].
    pub(crate) fn record(&self, event: Event) {
        self.0.try_send(event).ok(); // The writer has said why it is slow.
    }
}

async fn write(mut log: Log, mut events: mpsc::Receiver<Event>) {
    let mut batch = Vec::new();
    loop {
        let written = tokio::task::spawn_blocking(move || {
            log.write(std::mem::take(&mut batch));
            (log, batch)
        });
        (log, batch) = match written.await {
            Ok(back) => back,
            Err(e) => return tracing::error!("events are not written to disk any more: {e}"),
        };
        tokio::select! {
            received = events.recv_many(&mut batch, WAITING) => if received == 0 { return },
            () = tokio::time::sleep(PAUSE), if log.lines.is_none() => {}
        }
    }
}

/// The file, and what it ought to hold.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    latest: VecDeque<Event>,
    /// The events that the file holds; `None`: it has to be written anew.
    lines: Option<usize>,
    /// A failure has been told.
    failing: bool,
}

impl Log {
    fn new(path: PathBuf, recorded: Vec<Event>) -> Self {
        Self { path, latest: recorded.into(), lines: None, failing: false }
    }

    /// Writes `events`, and what could not be written before.
    fn write(&mut self, events: Vec<Event>) {
        let new = events.len();
        self.latest.extend(events);
        self.latest.drain(..self.latest.len().saturating_sub(MOST));
        let appended = self.lines.map(|lines| lines + new).filter(|lines| *lines <= 2 * MOST && new <= MOST);
        let (result, lines) = match appended {
            Some(lines) => (append(&self.path, self.latest.range(self.latest.len() - new..)), lines),
            None => (replace(&self.path, &self.latest), self.latest.len()),
        };
        self.lines = result.is_ok().then_some(lines);
        match result {
            Err(e) if !self.failing => {
                tracing::warn!("events cannot be written to {}, and will be later: {e}", self.path.display());
            }
            _ => {}
        }
        self.failing = self.lines.is_none();
    }
}

fn append<'a>(path: &Path, events: impl Iterator<Item = &'a Event>) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(lines(events)?.as_bytes())?;
    file.sync_data()
}

fn replace(path: &Path, events: &VecDeque<Event>) -> std::io::Result<()> {
    let header = format!("{{\"version\":{}}}\n", format::VERSION);
    write_atomically(path, (header + &lines(events.iter())?).as_bytes())
}

fn lines<'a>(events: impl Iterator<Item = &'a Event>) -> std::io::Result<String> {
    events.into_iter().try_fold(String::new(), |mut text, event| {
        writeln!(text, "{}", serde_json::to_string(event)?).map_err(std::io::Error::other)?;
        Ok(text)
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;

    fn place() -> (TempDir, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        (directory, paths)
    }

    fn event(id: u64) -> Event {
        Event { id, at: Timestamp::UNIX_EPOCH, vm: None, text: format!("\"{id}\"\n") }
    }

    fn log(paths: &Paths) -> Log {
        Log::new(paths.events(), load(paths).unwrap().events)
    }

    fn file(paths: &Paths) -> String {
        std::fs::read_to_string(paths.events()).unwrap()
    }

    #[test]
    fn events_outlive_the_daemon_and_their_file_is_bounded() {
        let (_directory, paths) = place();
        let mut written = log(&paths);
        written.write(Vec::new());
        for id in 1..=3 * MOST as u64 {
            written.write(vec![event(id)]);
            assert!(file(&paths).lines().count() <= 2 * MOST + 1);
        }
        let Recorded { events, problem } = load(&paths).unwrap();
        assert_eq!((events.len(), problem), (MOST, None));
        assert_eq!(events.last(), Some(&event(3 * MOST as u64)));
        // Events that came while there was no time to write are as many as are remembered.
        log(&paths).write((2000..4000).map(event).collect());
        assert_eq!(load(&paths).unwrap().events.first(), Some(&event(4000 - MOST as u64)));
    }

    #[test]
    fn an_event_that_cannot_be_written_is_written_later() {
        let (directory, paths) = place();
        let mut written = log(&paths);
        written.write(vec![event(1)]);
        std::fs::remove_file(paths.events()).unwrap();
        std::fs::create_dir_all(paths.events().join("in the way")).unwrap();
        written.write(vec![event(2)]);
        written.write(vec![event(3)]);
        assert_eq!(written.lines, None);
        std::fs::remove_dir_all(paths.events()).unwrap();
        written.write(Vec::new());
        assert_eq!(load(&paths).unwrap().events, [1, 2, 3].map(event));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_in_full_is_kept_and_a_line_that_was_cut_off_is_nothing() {
        let (directory, paths) = place();
        log(&paths).write([1, 2, 3].map(event).to_vec());
        let whole = file(&paths);
        std::fs::write(paths.events(), &whole[..whole.len() - 5]).unwrap();
        assert_eq!(load(&paths).unwrap(), Recorded { events: [1, 2].map(event).to_vec(), problem: None });
        let newer = whole.replace("\"version\":2", "\"version\":3");
        let wrong = whole.replace("\"id\":2,", "\"id\":1,");
        let no_id = whole.replace("\"id\":2,", "");
        for (text, events, why) in [
            (newer, &[][..], "newer plimsolld"),
            (wrong, &[1, 3], "line 3: its id 1 does not follow 1"),
            (no_id, &[1, 3], "line 3: missing field `id`"),
            (String::new(), &[], "empty"),
        ] {
            std::fs::write(paths.events(), &text).unwrap();
            let recorded = load(&paths).unwrap();
            assert_eq!(recorded.events, events.iter().copied().map(event).collect::<Vec<_>>());
            let problem = recorded.problem.unwrap();
            assert!(problem.contains(why), "{problem}");
            let kept = directory.path().join("events.jsonl.bad");
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), text);
            std::fs::remove_file(kept).unwrap();
        }
    }
}
