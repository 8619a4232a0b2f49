//! systemd's journal, in its native protocol: what a line of the log says is the message of an
//! entry, and each field of an event is a field of the entry as well, which `journalctl` finds
//! entries by.
//!
//! Everything that an operator reads is in the message: `journalctl` shows nothing else unless it
//! is asked for fields.

use std::env;
use std::fmt::{self, Debug, Write as _};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::fs::{Stat, fstat};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Where the journal takes entries, each as one datagram.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What the name of each field begins with: a VM is in `PLIMSOLL_VM`.
const PREFIX: &str = "PLIMSOLL_";

/// What writes to the journal; `None`: standard error does not go there, or it cannot be reached.
pub(crate) fn layer<S>() -> Option<impl Layer<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let stream = env::var("JOURNAL_STREAM").ok()?;
    let journal = is_stream(&stream, &fstat(io::stderr().as_fd()).ok()?)
        .then(|| Journal::at(Path::new(SOCKET)))?
        .ok()?;
    let program = env::args_os().next().map(PathBuf::from);
    let identifier = program.as_deref().and_then(Path::file_name).unwrap_or_default();
    Some(entries(journal, identifier.to_string_lossy().into_owned()))
}

/// Whether `found` is the stream that the service manager has named as `DEVICE:INODE`: a program
/// that a service starts may have another standard error, and the variable all the same
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn is_stream(stream: &str, found: &Stat) -> bool {
    stream == format!("{}:{}", found.st_dev, found.st_ino)
}

fn entries<S>(journal: Journal, identifier: String) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .event_format(Entry { identifier })
        .with_writer(journal)
        .with_ansi(false)
        .log_internal_errors(false)
}

/// The journal's socket.
struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // An entry is lost where the journal is too slow: nobody waits for it.
        socket.set_nonblocking(true)?;
        let journal = Self { socket, path: path.to_owned() };
        // It takes no notice of an empty entry.
        journal.socket.send_to(&[], path)?;
        Ok(journal)
    }
}

impl Write for &Journal {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.socket.send_to(entry, &self.path)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Writes an event as an entry: a line `NAME=VALUE` for each field.
struct Entry {
    identifier: String,
}

impl<S, N> FormatEvent<S, N> for Entry
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        context.format_fields(Writer::new(&mut message), event)?;
        let mut fields = Fields(String::new());
        fields.add("MESSAGE", &message);
        fields.add("PRIORITY", priority(*event.metadata().level()));
        fields.add("SYSLOG_IDENTIFIER", &self.identifier);
        fields.add("TARGET", event.metadata().target());
        event.record(&mut fields);
        writer.write_str(&fields.0)
    }
}

/// syslog's number of a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// The fields of an entry, in its format.
struct Fields(String);

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        // A line break would begin another field.
        let value = value.replace('\n', " ");
        // Writing to a string cannot fail.
        writeln!(self.0, "{name}={value}").ok();
    }

    fn add_of_event(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            let valid = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            let name: String = field.name().chars().map(valid).collect();
            self.add(&format!("{PREFIX}{name}"), value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_of_event(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add_of_event(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_journal_is_where_the_service_manager_says_it_is() {
        let file = tempfile::tempfile().unwrap();
        let (found, metadata) = (fstat(&file).unwrap(), file.metadata().unwrap());
        let (device, inode) = (metadata.dev(), metadata.ino());
        assert!(is_stream(&format!("{device}:{inode}"), &found));
        for other in ["", "8:1", &format!("{device}"), &format!("{device}:{}", inode + 1)] {
            assert!(!is_stream(other, &found), "{other:?}");
        }
    }

    /// What a journal gets of what `log` logs, entry by entry.
    fn entries_of(log: impl FnOnce()) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let layer = entries(Journal::at(&path).unwrap(), "plimsolld".to_owned());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let mut buffer = [0; 4096];
        let entries = std::iter::from_fn(|| receiver.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()));
        entries.map(|entry| String::from_utf8(entry).unwrap()).filter(|entry| !entry.is_empty()).collect()
    }

    #[test]
    fn the_message_says_what_a_line_would_and_each_field_is_one_of_the_entry() {
        let entries = entries_of(|| {
            let vm = "web1";
            tracing::info!(%vm, event_id = 7, "runs");
            tracing::error!(error = ?io::Error::other("why"), "is lost");
        });
        let [event, error] = entries.as_slice() else { panic!("{entries:?}") };
        let target = module_path!();
        assert_eq!(
            *event,
            format!(
                "MESSAGE=runs vm=web1 event_id=7\nPRIORITY=6\nSYSLOG_IDENTIFIER=plimsolld\nTARGET={target}\n\
                 PLIMSOLL_VM=web1\nPLIMSOLL_EVENT_ID=7\n"
            )
        );
        assert!(error.starts_with("MESSAGE=is lost error=") && error.contains("why"), "{error}");
        assert!(error.contains("\nPRIORITY=3\n"), "{error}");
    }

    #[test]
    fn a_line_break_begins_no_field() {
        let entries = entries_of(|| tracing::warn!(text = "a\nPRIORITY=0", "first\nPLIMSOLL_VM=web1"));
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        let names: Vec<&str> = entry.lines().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(names, ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "TARGET", "PLIMSOLL_TEXT"]);
    }

    #[test]
    fn a_journal_that_is_gone_or_slow_makes_nobody_wait() {
        assert!(Journal::at(Path::new("/nonexistent/socket")).is_err());
        // More than any queue of datagrams holds, and no reader.
        let entries = entries_of(|| (0..100_000).for_each(|n| tracing::info!(n, "goes on")));
        assert!((1..100_000).contains(&entries.len()), "{}", entries.len());
    }
}
