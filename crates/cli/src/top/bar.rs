use plimsoll_protocol::status::HostStatus;
use plimsoll_units::Bytes;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

/// The budget as a bar of `width` characters: what it is made of, to scale.
pub(super) fn bar(host: &HostStatus, width: u16) -> Line<'static> {
    let kinds = [("█", Color::Blue), ("▓", Color::Magenta), ("▒", Color::Cyan), ("·", Color::Green)];
    let lengths = parts([host.granted, host.overhead, host.frames, host.free], width.into());
    let spans = kinds.into_iter().zip(lengths);
    spans.map(|((mark, colour), length)| Span::styled(mark.repeat(length), Style::new().fg(colour))).collect()
}

/// `width` divided in the ratio of `sizes`: whole characters, rounded to the nearest, that add up
/// to it. What is there at all has at least one, as far as they go.
fn parts<const N: usize>(sizes: [Bytes; N], width: usize) -> [usize; N] {
    let total: u128 = sizes.iter().map(|size| u128::from(size.0)).sum();
    if total == 0 || width == 0 {
        return [0; N];
    }
    let nearest = |size: Bytes| (u128::from(size.0) * width as u128 + total / 2) / total;
    let mut parts =
        sizes.map(|size| usize::try_from(nearest(size)).unwrap_or(0).max(usize::from(size.0 > 0)));
    // The largest one takes what rounding has left or taken: it is felt least there.
    let largest = (0..N).max_by_key(|&at| sizes[at]).unwrap_or(0);
    let others: usize = (0..N).filter(|&at| at != largest).map(|at| parts[at]).sum();
    parts[largest] = width.saturating_sub(others);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_the_screen_is_wide() {
        let mib = Bytes::mib;
        for width in 4..300 {
            let parts = parts([mib(600), mib(16), mib(9), mib(15)], width);
            assert_eq!(parts.iter().sum::<usize>(), width);
            assert!(parts.iter().all(|part| *part > 0), "{width}: {parts:?}");
        }
        assert_eq!(parts([mib(3), mib(0), mib(0), mib(1)], 80), [60, 0, 0, 20]);
        assert_eq!(parts([mib(0); 4], 80), [0; 4]);
        assert_eq!(parts([Bytes(u64::MAX), Bytes(u64::MAX)], 10), [5, 5]);
    }
}
