use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a device may do at once after a rest, as time at its full rate: 100 ms to 60 s. Written as
/// a number with `ms`, `s` or `m`.
///
/// Longer, and a guest that rests now and then takes a slow disk away from others for as long;
/// shorter, and rounding a wait up to the clock's next tick costs a busy guest a part of its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = r"^[0-9]+(ms|s|m)$")))]
#[serde(try_from = "String", into = "String")]
pub struct Burst(Duration);

impl Burst {
    /// The shortest, and the default.
    pub const SHORTEST: Self = Self(Duration::from_millis(100));
    /// The longest.
    pub const LONGEST: Self = Self(Duration::from_secs(60));

    /// The time.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::SHORTEST
    }
}

impl FromStr for Burst {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("burst {text:?}: write a time from 100ms to 60s, such as 500ms or 2s");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => return Err(refuse()),
        };
        let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
        let burst = number.map(Duration::from_millis).map(Self);
        let possible = |burst: &Self| (Self::SHORTEST.0..=Self::LONGEST.0).contains(&burst.0);
        burst.filter(possible).ok_or_else(refuse)
    }
}

impl TryFrom<String> for Burst {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Burst> for String {
    fn from(burst: Burst) -> Self {
        burst.to_string()
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            whole if whole.is_multiple_of(1000) => write!(f, "{}s", whole / 1000),
            milliseconds => write!(f, "{milliseconds}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_read_with_their_units_within_bounds() {
        for (text, milliseconds, shown) in
            [("100ms", 100, "100ms"), ("2s", 2000, "2s"), ("1500ms", 1500, "1500ms"), ("1m", 60_000, "60s")]
        {
            let burst: Burst = text.parse().unwrap();
            assert_eq!(
                (burst.duration(), burst.to_string().as_str()),
                (Duration::from_millis(milliseconds), shown)
            );
            assert_eq!(
                serde_json::from_str::<Burst>(&serde_json::to_string(&burst).unwrap()).unwrap(),
                burst
            );
            let packet = postcard::to_stdvec(&burst).unwrap();
            assert_eq!(postcard::from_bytes::<Burst>(&packet).unwrap(), burst);
        }
        for bad in ["", "s", "99ms", "61s", "2m", "-1s", "+1s", "1.5s", "2", "2h", "99999999999999999999s"] {
            assert!(bad.parse::<Burst>().unwrap_err().contains("100ms to 60s"), "{bad}");
        }
        assert!(serde_json::from_str::<Burst>("2").is_err(), "a number has no unit");
    }
}
