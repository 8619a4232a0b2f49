use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, Zoned};
use plimsoll_words::local_time::zone;

use crate::interval::Interval;

/// A moment in the past as people write it: how long ago (`10m`), a time of today (`14:30`), a
/// date, or both, in the operator's time zone unless they name another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(pub(crate) Timestamp);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text, &Timestamp::now().to_zoned(zone())).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is not a time: write 10m for ten minutes ago, 14:30, 2026-11-29 or 2026-11-29T14:30"
            )
        })
    }
}

fn read(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(Interval(ago)) = text.parse() {
        return now.timestamp().checked_sub(ago).ok();
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let local = |at: DateTime| at.to_zoned(now.time_zone().clone()).ok().map(|at| at.timestamp());
    if let Ok(date) = text.parse::<Date>()
        && !text.contains([':', 'T', ' '])
    {
        return local(date.to_datetime(Time::midnight()));
    }
    if let Ok(time) = text.parse::<Time>()
        && !text.contains('-')
    {
        return local(now.date().to_datetime(time));
    }
    text.parse::<DateTime>().ok().and_then(local)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let zone = TimeZone::posix("IST-5:30").unwrap();
        let now = "2026-11-29T12:00:00Z".parse::<Timestamp>().unwrap().to_zoned(zone);
        for (text, expected) in [
            ("10m", "2026-11-29T11:50:00Z"),
            ("90", "2026-11-29T11:58:30Z"),
            ("2026-11-28T10:00:00Z", "2026-11-28T10:00:00Z"),
            ("2026-11-28T10:00:00.5+01:00", "2026-11-28T09:00:00.5Z"),
            ("14:30", "2026-11-29T09:00:00Z"),
            ("2026-11-29", "2026-11-28T18:30:00Z"),
            ("2026-11-29T14:30", "2026-11-29T09:00:00Z"),
            ("2026-11-29 14:30:05", "2026-11-29T09:00:05Z"),
        ] {
            assert_eq!(read(text, &now), Some(expected.parse().unwrap()), "{text}");
        }
        for bad in ["", "yesterday", "-5m", "25:00", "2026-13-01", "10d", "2026-11-29T"] {
            assert_eq!(read(bad, &now), None, "{bad}");
        }
    }
}
