use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The place of a VM among those that start with the host: a lower one starts earlier and stops
/// later. 0 to 999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("maximum" = MAX_ORDER)))]
#[serde(transparent)]
pub struct StartOrder(pub u16);

/// How long the next VM waits after this one has started: whole seconds up to an hour. In text a
/// number with `s` or `m`, or a bare number of seconds; in JSON seconds or text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StartDelay(pub u32);

/// Longest delay: whatever a guest has to load, the others should not be kept for longer.
const MAX_DELAY: u32 = 3600;
const MAX_ORDER: u16 = 999;

impl Default for StartOrder {
    /// In the middle: there is room before and after those that name no order.
    fn default() -> Self {
        Self(100)
    }
}

impl StartOrder {
    /// # Errors
    /// It is out of its bounds.
    pub(crate) fn check(self) -> Result<(), String> {
        if self.0 <= MAX_ORDER {
            return Ok(());
        }
        Err(format!("start_order {self}: must be 0 to {MAX_ORDER}"))
    }
}

impl StartDelay {
    /// # Errors
    /// It is out of its bounds.
    pub(crate) fn check(self) -> Result<(), String> {
        if self.0 <= MAX_DELAY {
            return Ok(());
        }
        Err(format!("start_delay {self}: at most an hour (60m) is allowed"))
    }
}

impl FromStr for StartOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let order = text.parse().map(Self).ok().filter(|order| order.check().is_ok());
        order.ok_or_else(|| format!("{text:?} is not a start order: must be 0 to {MAX_ORDER}"))
    }
}

impl fmt::Display for StartOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StartDelay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = match text.strip_suffix('m') {
            Some(minutes) => (minutes, 60),
            None => (text.strip_suffix('s').unwrap_or(text), 1),
        };
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let seconds = number.parse::<u32>().ok().filter(|_| is_number).and_then(|n| n.checked_mul(factor));
        let delay = seconds.map(Self).filter(|delay| delay.check().is_ok());
        delay.ok_or_else(|| {
            format!("{text:?} is not a delay: write a number and a unit up to an hour, such as 30s or 5m")
        })
    }
}

impl fmt::Display for StartDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds > 0 && seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

impl<'de> Deserialize<'de> for StartDelay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = StartDelay;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, or a time such as \"30s\"")
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<StartDelay, E> {
                seconds.to_string().parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<StartDelay, E> {
                seconds.to_string().parse().map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<StartDelay, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for StartDelay {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StartDelay".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let seconds = schemars::json_schema!({"type": "integer", "minimum": 0, "maximum": MAX_DELAY});
        if generator.contract().is_serialize() {
            return seconds;
        }
        schemars::json_schema!({
            "description": "Seconds, or text such as \"30s\" or \"5m\"; at most an hour.",
            "anyOf": [seconds, {"type": "string", "pattern": "^[0-9]+[sm]?$"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_from_text_and_seconds() {
        for (json, seconds, shown) in [
            ("30", 30, "30s"),
            ("\"5m\"", 300, "5m"),
            ("\"90s\"", 90, "90s"),
            ("\"7\"", 7, "7s"),
            ("0", 0, "0s"),
        ] {
            let delay: StartDelay = serde_json::from_str(json).unwrap();
            assert_eq!((delay, delay.to_string().as_str()), (StartDelay(seconds), shown), "{json}");
            assert_eq!(serde_json::to_string(&delay).unwrap(), seconds.to_string());
        }
        for bad in [
            "\"\"",
            "\"m\"",
            "\"-1s\"",
            "\"+1s\"",
            "\"61m\"",
            "\"1h\"",
            "3601",
            "-1",
            "1.5",
            "true",
            "99999999999",
        ] {
            assert!(serde_json::from_str::<StartDelay>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn orders_have_a_bound() {
        assert_eq!("7".parse(), Ok(StartOrder(7)));
        for bad in ["", "-1", "1000", "first"] {
            assert!(bad.parse::<StartOrder>().is_err(), "{bad}");
        }
    }
}
