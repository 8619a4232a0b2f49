//! What is told of pages that are compressed and swapped out.

use plimsoll_protocol::status::{PagingCause, PagingStatus};
use plimsoll_units::Bytes;

/// What is compressed and swapped out of it, and why.
pub(super) fn text(paging: &PagingStatus) -> String {
    let mut text = format!(
        "{} compressed into {}, {} swapped out, of {} of swap space",
        paging.compressed, paging.store, paging.swapped, paging.space
    );
    if paging.out_rate > Bytes::ZERO || paging.in_rate > Bytes::ZERO {
        text += &format!("; {} a second out, {} in", paging.out_rate, paging.in_rate);
    }
    let level = paging.level.unwrap_or(Bytes::ZERO);
    text += &match paging.why {
        None => String::new(),
        Some(PagingCause::AboveTarget) => format!(
            "; taken down to {level}: it is above its target, and its balloon does not bring that, or not soon enough"
        ),
        Some(PagingCause::Owed) => {
            format!("; taken down to {level}: others wait for what they are entitled to")
        }
        Some(PagingCause::AtLimit) => {
            "; it is at the most that it may have: what it needs beyond that comes from its own pages"
                .to_owned()
        }
        Some(PagingCause::Waited) => {
            "; it has waited in vain: what it needs comes from its own pages".to_owned()
        }
    };
    if paging.blocked {
        text += "; it stands still until it is at its target, because the host is in state low";
    }
    if paging.stuck {
        text += "; nothing more can be taken now";
    }
    if paging.failed {
        text += "; its swap space could not be written, and is not used any more";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_how_much_why_and_what_is_wrong() {
        let paging = PagingStatus { space: Bytes::mib(64), ..PagingStatus::default() };
        assert_eq!(text(&paging), "0B compressed into 0B, 0B swapped out, of 64MiB of swap space");
        let why = |why| text(&PagingStatus { why: Some(why), ..paging });
        assert!(why(PagingCause::Owed).contains("others wait"));
        assert!(why(PagingCause::AtLimit).contains("at the most that it may have"));
        assert!(why(PagingCause::Waited).contains("waited in vain"));
        let bad = text(&PagingStatus { blocked: true, stuck: true, failed: true, ..paging });
        assert!(
            bad.contains("stands still")
                && bad.contains("nothing more")
                && bad.contains("could not be written")
        );
    }
}
