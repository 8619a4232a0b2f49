//! How a request ends: what its guest is answered, and what the operator is told of failures.

use std::fs::File;
use std::io;
use std::sync::Arc;

use plimsoll_image::SyncLatch;
use rustix::io::Errno;

use super::super::notices::Notices;
use super::geometry::Geometry;
use super::request::Status;
use super::work::Work;
use super::zeros;

/// Judges the ends of a disk's tasks.
pub(super) struct Judge {
    /// A raw disk's file; `None`: the disk is an image.
    file: Option<Arc<File>>,
    /// Of a raw disk in the host's page cache; an image has one of its own.
    latch: Option<SyncLatch>,
    notices: Notices,
    /// That all flushes fail from now on: a guest may try none again, so the first that has failed
    /// is told whatever was told before.
    losses: Notices,
}

impl Judge {
    pub(super) fn new(file: Option<Arc<File>>, geometry: Geometry, notices: Notices) -> Self {
        let is_cached = file.is_some() && geometry.direct.is_none();
        let losses = notices.of_another_kind();
        Self { file, latch: is_cached.then(SyncLatch::default), notices, losses }
    }

    /// Whether a flush may succeed: nothing that was written is lost.
    pub(super) fn may_flush(&self) -> bool {
        self.latch.as_ref().is_none_or(|latch| latch.check().is_ok())
    }

    /// The answer to a request whose last task has ended with `result`. A failure is told.
    pub(super) fn status(&mut self, work: &Work, geometry: Geometry, result: io::Result<usize>) -> Status {
        let done = match (work, result) {
            // The kernel ends a transfer early only at the end of the file or of the space: see how
            // io_uring and preadv handle regular files and block devices.
            (Work::Transfer(transfer), Ok(done)) if transfer.part_is(done) => Ok(()),
            (Work::Transfer(transfer), Ok(_)) if transfer.is_write() => {
                Err(io::ErrorKind::StorageFull.into())
            }
            (Work::Transfer(_), Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            (Work::Flush, result) => match &self.latch {
                Some(latch) => latch.note(result.map(drop)),
                None => result.map(drop),
            },
            (Work::Discard | Work::Zero { .. }, Ok(_)) => Ok(()),
            // The content of a discarded sector is undefined, so its old content is valid.
            (Work::Discard, Err(error)) => {
                if !is_unsupported(&error) {
                    self.tell(work, &error);
                }
                Ok(())
            }
            (&Work::Zero { offset, length }, Err(error)) if is_unsupported(&error) => {
                let granularity = geometry.granularity();
                if [offset, length].iter().any(|bytes| !bytes.is_multiple_of(granularity)) {
                    // The guest then writes the zeros itself.
                    return Status::Unsupported;
                }
                self.file.as_ref().map_or(Err(error), |file| zeros::write(file, offset, length))
            }
            (_, Err(error)) => Err(error),
        };
        match done {
            Ok(()) => Status::Ok,
            Err(error) => {
                self.tell(work, &error);
                Status::IoError
            }
        }
    }

    fn tell(&mut self, work: &Work, error: &io::Error) {
        let what = match work {
            Work::Transfer(transfer) if transfer.is_write() => "a write has failed",
            Work::Transfer(_) => "a read has failed",
            // Past the page cache the guest's next flush tries again.
            Work::Flush if self.latch.is_some() => {
                "a flush has failed, and all that follow fail until its VM is off"
            }
            Work::Flush => "a flush has failed",
            Work::Discard => "discarded space was not given back",
            Work::Zero { .. } => "zeros were not written",
        };
        let is_loss = matches!(work, Work::Flush) && self.latch.is_some();
        let notices = if is_loss { &mut self.losses } else { &mut self.notices };
        notices.tell(&format!("{what} ({error}): {}", remedy(error)));
    }
}

/// The kernel, the file system or the device cannot do that at all.
fn is_unsupported(error: &io::Error) -> bool {
    let none = [Errno::OPNOTSUPP, Errno::NOSYS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| none.contains(&code))
}

/// What an operator does about `error`.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room where its file lies",
        io::ErrorKind::FileTooLarge => {
            "its file may not become longer: make it longer with plimsoll disk resize, or stop its VM and start it again"
        }
        io::ErrorKind::InvalidData => "stop its VM, and look at its image with qemu-img check",
        _ => "the guest sees errors of its disk: look at the host's log (dmesg) and at what its file lies on",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn judge(geometry: Geometry) -> (Judge, Arc<Mutex<Vec<String>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let notices = Notices::new("disk0", Arc::new(move |text| sink.lock().unwrap().push(text)));
        (Judge::new(Some(Arc::new(tempfile::tempfile().unwrap())), geometry, notices), told)
    }

    fn failed(errno: Errno) -> io::Result<usize> {
        Err(errno.into())
    }

    #[test]
    fn after_a_flush_in_the_page_cache_has_failed_none_succeeds() {
        let cached = Geometry { logical: 512, direct: None };
        let (mut judge, told) = judge(cached);
        assert_eq!(judge.status(&Work::Flush, cached, Ok(0)), Status::Ok);
        assert!(judge.may_flush());
        assert_eq!(judge.status(&Work::Flush, cached, failed(Errno::IO)), Status::IoError);
        assert!(!judge.may_flush());
        // One that was in flight beside it: the kernel tells only one of them.
        assert_eq!(judge.status(&Work::Flush, cached, Ok(0)), Status::IoError);
        let told = told.lock().unwrap();
        assert!(matches!(&told[..], [told] if told.contains("all that follow fail")), "{told:?}");
    }

    #[test]
    fn that_all_flushes_fail_from_now_on_is_told_soon_after_another_failure() {
        let cached = Geometry { logical: 512, direct: None };
        let (mut judge, told) = judge(cached);
        assert_eq!(judge.status(&Work::Discard, cached, failed(Errno::IO)), Status::Ok);
        for _ in 0..2 {
            assert_eq!(judge.status(&Work::Flush, cached, failed(Errno::IO)), Status::IoError);
        }
        let told = told.lock().unwrap();
        assert!(matches!(&told[..], [_, told] if told.contains("all that follow fail")), "{told:?}");
    }

    #[test]
    fn a_flush_past_the_page_cache_may_succeed_after_one_that_has_failed() {
        let alignment = plimsoll_sys::direct::Alignment { memory: 512, block: 512 };
        let direct = Geometry { logical: 512, direct: Some(alignment) };
        let (mut judge, _) = judge(direct);
        assert_eq!(judge.status(&Work::Flush, direct, failed(Errno::IO)), Status::IoError);
        assert!(judge.may_flush());
        assert_eq!(judge.status(&Work::Flush, direct, Ok(0)), Status::Ok);
    }

    #[test]
    fn space_that_is_not_given_back_is_told_and_fails_no_request() {
        let cached = Geometry { logical: 512, direct: None };
        let (mut judge, told) = judge(cached);
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS] {
            assert_eq!(judge.status(&Work::Discard, cached, failed(errno)), Status::Ok);
        }
        assert!(told.lock().unwrap().is_empty(), "a file system that never does it");
        assert_eq!(judge.status(&Work::Discard, cached, failed(Errno::PERM)), Status::Ok);
        assert_eq!(judge.status(&Work::Discard, cached, failed(Errno::PERM)), Status::Ok);
        let told = told.lock().unwrap();
        assert!(matches!(&told[..], [told] if told.contains("not given back")), "{told:?}");
    }

    #[test]
    fn what_an_operator_can_do_is_told() {
        for (errno, part) in
            [(Errno::NOSPC, "make room"), (Errno::DQUOT, "make room"), (Errno::FBIG, "longer")]
        {
            assert!(remedy(&errno.into()).contains(part), "{errno}");
        }
        assert!(remedy(&io::ErrorKind::InvalidData.into()).contains("qemu-img check"));
        assert!(remedy(&Errno::IO.into()).contains("dmesg"));
    }
}
