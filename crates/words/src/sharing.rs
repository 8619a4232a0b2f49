//! Shared pages as text.

use plimsoll_protocol::sharing::Sharing;
use plimsoll_protocol::status::SharingStatus;
use plimsoll_units::Bytes;

/// The sharing domain of a VM, what sharing saves and what it costs.
pub fn text(sharing: &SharingStatus) -> String {
    let with = match &sharing.with {
        Sharing::Off => "switched off".to_owned(),
        Sharing::Zero => "zero pages only".to_owned(),
        Sharing::Own => "with itself".to_owned(),
        Sharing::With(domain) => format!("in domain {domain}"),
    };
    let SharingStatus { shared, charged, zero, saved, scan_rate, break_rate, cpu, .. } = sharing;
    let mut text = format!("{with}; shared {shared} (costs {charged}), zero {zero}, saved {saved}");
    if *scan_rate > Bytes::ZERO || *break_rate > Bytes::ZERO {
        text += &format!("; scans {scan_rate}/s, unshares {break_rate}/s");
    }
    if sharing.with != Sharing::Off {
        text +=
            &format!("; scanner uses {} CPU of {} allowed", percent(*cpu), percent(sharing.budget.into()));
    }
    if sharing.break_large {
        text += "; large pages are broken up to share their parts";
    }
    if sharing.leaving {
        text += "; still gives back pages of its former domain";
    }
    if sharing.mappings_full {
        text += "; no mappings left (see plimsoll doctor): only runs of pages and zero pages are shared";
    }
    if sharing.doubted {
        text += "; its VMM made false claims about pages: its requests are ignored for a while";
    }
    text
}

fn percent(ten_thousandths: u64) -> String {
    format!("{}.{:02}%", ten_thousandths / 100, ten_thousandths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_with_whom_what_it_saves_and_what_is_wrong() {
        let sharing = SharingStatus {
            with: "prod".parse().unwrap(),
            shared: Bytes::mib(40),
            charged: Bytes::mib(8),
            zero: Bytes::mib(4),
            saved: Bytes::mib(36),
            cpu: 31,
            budget: 1250,
            ..SharingStatus::default()
        };
        assert_eq!(
            text(&sharing),
            "in domain prod; shared 40MiB (costs 8MiB), zero 4MiB, saved 36MiB; scanner uses 0.31% CPU of 12.50% allowed"
        );
        let busy = SharingStatus { scan_rate: Bytes::mib(20), break_large: true, leaving: true, ..sharing };
        let busy = text(&SharingStatus { mappings_full: true, doubted: true, ..busy });
        for part in ["scans 20MiB/s", "large pages", "gives back", "mappings", "false claims"] {
            assert!(busy.contains(part), "{part}: {busy}");
        }
        let off = SharingStatus { with: Sharing::Off, ..SharingStatus::default() };
        assert_eq!(text(&off), "switched off; shared 0B (costs 0B), zero 0B, saved 0B");
    }
}
