//! What is told of pages that VMs share.

use plimsoll_protocol::sharing::Sharing;
use plimsoll_protocol::status::SharingStatus;
use plimsoll_units::Bytes;

/// With whom a VM shares, how much that saves, and what it costs.
pub(super) fn text(sharing: &SharingStatus) -> String {
    let with = match &sharing.with {
        Sharing::Off => "switched off".to_owned(),
        Sharing::Zero => "zero pages only".to_owned(),
        Sharing::Own => "with itself".to_owned(),
        Sharing::With(domain) => format!("in domain {domain}"),
    };
    let SharingStatus { shared, charged, zero, saved, scan_rate, break_rate, cpu, .. } = sharing;
    let mut text = format!("{with}; {shared} shared at the price of {charged}, {zero} zero: {saved} saved");
    if *scan_rate > Bytes::ZERO || *break_rate > Bytes::ZERO {
        text += &format!("; {scan_rate} a second looked at, {break_rate} written again");
    }
    if sharing.with != Sharing::Off {
        text += &format!(
            "; takes {} of a processor of {} that it may",
            percent(*cpu),
            percent(sharing.budget.into())
        );
    }
    if sharing.break_large {
        text += "; large pages are broken for it";
    }
    if sharing.leaving {
        text += "; pages of the domain that it was in before are still to be given back";
    }
    if sharing.mappings_full {
        text += "; it has as many mappings as a process may (see plimsoll doctor): only runs of pages and zero pages are shared";
    }
    if sharing.doubted {
        text += "; it said too much of pages that was not true, and is not answered for a while";
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
            "in domain prod; 40MiB shared at the price of 8MiB, 4MiB zero: 36MiB saved; takes 0.31% of a processor of 12.50% that it may"
        );
        let busy = SharingStatus { scan_rate: Bytes::mib(20), break_large: true, leaving: true, ..sharing };
        let busy = text(&SharingStatus { mappings_full: true, doubted: true, ..busy });
        for part in ["20MiB a second", "large pages", "given back", "mappings", "not true"] {
            assert!(busy.contains(part), "{part}: {busy}");
        }
        let off = SharingStatus { with: Sharing::Off, ..SharingStatus::default() };
        assert_eq!(text(&off), "switched off; 0B shared at the price of 0B, 0B zero: 0B saved");
    }
}
