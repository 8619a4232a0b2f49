//! Spans of time.

/// How long ago something was, in its two largest units: `3d 4h`, `5m 6s`.
pub fn age(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) => format!("{m}m {s}s"),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_short() {
        assert_eq!([age(59), age(61), age(3700), age(90_000)], ["59s", "1m 1s", "1h 1m", "1d 1h"]);
    }
}
