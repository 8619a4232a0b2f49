//! Moments, in the time zone of this machine.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};

/// The operator's time zone.
pub fn zone() -> TimeZone {
    TimeZone::system()
}

/// A time to the second in the operator's time zone, with its distance from UTC.
pub fn to_the_second(at: Timestamp) -> String {
    text(at, &zone(), "")
}

/// A time to the millisecond.
pub fn to_the_millisecond(at: Timestamp) -> String {
    text(at, &zone(), "%.3f")
}

fn text(at: Timestamp, zone: &TimeZone, fraction: &str) -> String {
    let unit = if fraction.is_empty() { Unit::Second } else { Unit::Millisecond };
    // A time never seems later than it was.
    let cut = jiff::TimestampRound::new().smallest(unit).mode(jiff::RoundMode::Trunc);
    let local = at.round(cut).unwrap_or(at).to_zoned(zone.clone());
    let distance = if local.offset().is_zero() { "Z" } else { "%:z" };
    local.strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}{distance}")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_where_the_operator_is() {
        let at = "2026-06-30T22:15:00.9996Z".parse().unwrap();
        let kolkata = TimeZone::posix("IST-5:30").unwrap();
        assert_eq!(text(at, &kolkata, ""), "2026-07-01T03:45:00+05:30");
        assert_eq!(text(at, &kolkata, "%.3f"), "2026-07-01T03:45:00.999+05:30");
        assert_eq!(text(at, &TimeZone::UTC, ""), "2026-06-30T22:15:00Z");
        assert_eq!(to_the_second(at), text(at, &zone(), ""));
    }
}
