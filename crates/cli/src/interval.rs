use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time as people write it: a number and `ms`, `s`, `m` or `h`; a bare number is seconds,
/// as for `sleep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Duration);

/// Longest interval: a week. More is a slip of the hand, and keeps every deadline far from the
/// clock's end.
const MAX: Duration = Duration::from_secs(7 * 24 * 3600);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("{text:?} is not a time: write a number and a unit, such as 30s, 5m or 500ms");
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor = match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refuse()),
        };
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let duration = Duration::try_from_secs_f64(number * factor).map_err(|_| refuse())?;
        if duration > MAX {
            return Err(format!("{text:?} is too long: at most a week (168h) is allowed"));
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        match (seconds, millis) {
            (0, _) => write!(f, "{millis}ms"),
            (s, 0) if s.is_multiple_of(60) => write!(f, "{}m", s / 60),
            (s, 0) => write!(f, "{s}s"),
            (s, _) => write!(f, "{s}.{millis:03}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, millis) in [("30s", 30_000), ("5m", 300_000), ("500ms", 500), ("1.5s", 1500), ("2", 2000)]
        {
            assert_eq!(text.parse(), Ok(Interval(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "1 s", "1.2.3s", "inf", "999999999h", "."] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_shown_short() {
        for text in ["30s", "5m", "500ms", "1.500s", "90s"] {
            assert_eq!(text.parse::<Interval>().unwrap().to_string(), text);
        }
    }
}
