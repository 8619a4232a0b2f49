//! Compressed and swapped pages as text.

use plimsoll_protocol::status::{PagingCause, PagingStatus};
use plimsoll_units::Bytes;

/// How much of a VM is compressed and swapped out, and why.
pub fn text(paging: &PagingStatus) -> String {
    let mut text = format!(
        "{} compressed into {}, {} swapped out; swap space {}",
        paging.compressed, paging.store, paging.swapped, paging.space
    );
    if paging.out_rate > Bytes::ZERO || paging.in_rate > Bytes::ZERO {
        text += &format!("; swaps {}/s out, {}/s in", paging.out_rate, paging.in_rate);
    }
    let level = paging.level.unwrap_or(Bytes::ZERO);
    text += &match paging.why {
        None => String::new(),
        Some(PagingCause::AboveTarget) => {
            format!("; paged out down to {level}: above its target, and its balloon is too small or too slow")
        }
        Some(PagingCause::Owed) => {
            format!("; paged out down to {level}: other VMs wait for memory that they are entitled to")
        }
        Some(PagingCause::AtLimit) => "; at its limit: it makes room by paging out its own memory".to_owned(),
        Some(PagingCause::Waited) => {
            "; waited in vain for memory: it makes room by paging out its own".to_owned()
        }
    };
    if paging.blocked {
        text += "; held until it is at its target: the host is in state low";
    }
    if paging.stuck {
        text += "; nothing left to page out";
    }
    if paging.failed {
        text += "; its swap space could not be written and is no longer used";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_how_much_why_and_what_is_wrong() {
        let paging = PagingStatus { space: Bytes::mib(64), ..PagingStatus::default() };
        assert_eq!(text(&paging), "0B compressed into 0B, 0B swapped out; swap space 64MiB");
        let why = |why| text(&PagingStatus { why: Some(why), ..paging });
        assert!(why(PagingCause::Owed).contains("other VMs wait"));
        assert!(why(PagingCause::AtLimit).contains("at its limit"));
        assert!(why(PagingCause::Waited).contains("waited in vain"));
        let bad = text(&PagingStatus { blocked: true, stuck: true, failed: true, ..paging });
        assert!(
            bad.contains("held until")
                && bad.contains("nothing left")
                && bad.contains("could not be written")
        );
    }
}
