//! What the VM's threads have to tell the daemon.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use plimsoll_pmap::{Error, GrantSource};
use plimsoll_protocol::control::{ExitReason, MAX_NOTICE};
use plimsoll_protocol::definition::{JailPart, MAX_CONNECTIONS};
use plimsoll_sys::{Event, lock};
use plimsoll_text::one_line;
use plimsoll_units::{Bytes, Pages};

/// Most notices that wait for the control thread. A guest can cause them, for example by driving a
/// device wrongly. Notices that come faster than they are fetched are counted and dropped.
const MAX_NOTICES: usize = 32;

/// Most questions for connections that wait for the control thread: those of all connections that a
/// VM may have.
const MAX_DIALS: usize = MAX_CONNECTIONS as usize;

/// Holds what the VM's threads have to tell the daemon until the control thread fetches it. Posting
/// never blocks.
#[derive(Debug)]
pub(crate) struct Mailbox {
    mail: Mutex<Posted>,
    arrived: Event,
}

/// Everything that was posted since the last [`Mailbox::take`].
#[derive(Debug, Default)]
pub(crate) struct Posted {
    /// Pages that faults wait for, if that has changed.
    pub(crate) want: Option<Pages>,
    /// Guest memory was given back: there may be grant to return.
    pub(crate) freed: bool,
    /// The guest runs now; the parts of the jail that it runs without.
    pub(crate) running: Option<Vec<JailPart>>,
    /// How often the guest rebooted.
    pub(crate) reboots: u32,
    /// Ports of the host that the guest wants to reach, each with the number of the question.
    pub(crate) dials: Vec<(u64, u32)>,
    /// Disks by their places, with their bytes after a wish to grow, or why they are as they were.
    pub(crate) resized: Vec<(u8, Result<Bytes, String>)>,
    /// In order.
    pub(crate) notices: Vec<String>,
    /// Notices that were dropped.
    pub(crate) dropped: usize,
    /// The VM ends: the first reason counts.
    pub(crate) exit: Option<ExitReason>,
}

impl AsFd for Mailbox {
    /// Readable while there is mail.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

impl Mailbox {
    /// Makes an empty mailbox.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { mail: Mutex::default(), arrived: Event::new()? })
    }

    fn post(&self, write: impl FnOnce(&mut Posted)) {
        write(&mut lock(&self.mail));
        self.arrived.signal();
    }

    /// Wakes the control thread without mail: something has changed elsewhere that it acts on.
    pub(crate) fn wake(&self) {
        self.arrived.signal();
    }

    /// Posts that the guest begins to run, and the parts of the jail that it runs without.
    pub(crate) fn running(&self, missing: Vec<JailPart>) {
        self.post(|mail| mail.running = Some(missing));
    }

    /// Posts that the guest has rebooted.
    pub(crate) fn rebooted(&self) {
        self.post(|mail| mail.reboots = mail.reboots.saturating_add(1));
    }

    /// Posts that the guest wants to reach `port` of the host, as question `id`. Returns false if
    /// too many of them wait.
    pub(crate) fn dial(&self, id: u64, port: u32) -> bool {
        let mut posted = false;
        self.post(|mail| {
            posted = mail.dials.len() < MAX_DIALS;
            if posted {
                mail.dials.push((id, port));
            }
        });
        posted
    }

    /// Posts what came of the wish that a disk grows.
    pub(crate) fn resized(&self, disk: u8, outcome: Result<Bytes, String>) {
        self.post(|mail| mail.resized.push((disk, outcome.map_err(|why| one_line(&why, MAX_NOTICE)))));
    }

    /// Posts a message that the operator should see.
    pub(crate) fn notice(&self, text: impl AsRef<str>) {
        let text = one_line(text.as_ref(), MAX_NOTICE);
        tracing::info!(text, "notice");
        self.post(|mail| {
            if mail.notices.len() < MAX_NOTICES {
                mail.notices.push(text);
            } else {
                mail.dropped += 1;
            }
        });
    }

    /// Posts that the VM ends. Only the first reason counts.
    pub(crate) fn exit(&self, reason: ExitReason) {
        let reason = match reason {
            ExitReason::Shutdown => ExitReason::Shutdown,
            ExitReason::Crashed(how) => ExitReason::Crashed(one_line(&how, MAX_NOTICE)),
            ExitReason::Failed(what) => ExitReason::Failed(one_line(&what, MAX_NOTICE)),
        };
        tracing::info!(%reason, "the VM ends");
        self.post(|mail| {
            mail.exit.get_or_insert(reason);
        });
    }

    /// Fetches everything.
    pub(crate) fn take(&self) -> Posted {
        let mut mail = lock(&self.mail);
        self.arrived.clear();
        std::mem::take(&mut mail)
    }
}

impl GrantSource for Mailbox {
    fn want(&self, total: Pages) {
        self.post(|mail| mail.want = Some(total));
    }

    fn freed(&self) {
        self.post(|mail| mail.freed = true);
    }

    fn trouble(&self, what: Error) {
        let read = matches!(what, Error::SwapRead { .. });
        let text = format!("{:#}", anyhow::Error::from(what));
        if read {
            self.exit(ExitReason::Failed(format!("guest memory could not be read back: {text}")));
        } else {
            self.notice(format!("swap space has failed: {text}; the VM goes on without"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_bounded_and_single_lines() {
        let mailbox = Mailbox::new().unwrap();
        for n in 0..100 {
            mailbox.notice(format!("{n}\nö{}", "ö".repeat(MAX_NOTICE)));
        }
        let mail = mailbox.take();
        assert_eq!((mail.notices.len(), mail.dropped), (MAX_NOTICES, 100 - MAX_NOTICES));
        assert!(mail.notices.iter().all(|n| n.len() <= MAX_NOTICE && n.lines().count() == 1));
    }

    #[test]
    fn questions_for_connections_are_bounded() {
        let mailbox = Mailbox::new().unwrap();
        assert!((0..MAX_DIALS as u64).all(|id| mailbox.dial(id, 5)));
        assert!(!mailbox.dial(0, 5));
        assert_eq!(mailbox.take().dials.len(), MAX_DIALS);
        assert!(mailbox.dial(0, 5));
    }

    #[test]
    fn the_first_reason_to_end_counts() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.exit(ExitReason::Crashed("first".to_owned()));
        mailbox.exit(ExitReason::Shutdown);
        assert_eq!(mailbox.take().exit, Some(ExitReason::Crashed("first".to_owned())));
        assert_eq!(mailbox.take().exit, None);
    }
}
