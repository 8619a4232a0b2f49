use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of a whole in percent, with two decimals: from 0.00 to 100.00.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u16);

impl Percent {
    /// All of it.
    pub const WHOLE: Self = Self(10_000);

    /// The nearest to a fraction of 1; what lies outside of 0 to 1 counts as the nearer end.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    pub fn of_fraction(fraction: f64) -> Self {
        Self((fraction * 10_000.0).round().clamp(0.0, 10_000.0) as u16)
    }

    /// In hundredths of a percent: 0 to 10 000.
    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// In whole percent, rounded to the nearest.
    pub fn rounded(self) -> u16 {
        (self.0 + 50) / 100
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 100.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(|percent| Self::of_fraction(percent / 100.0))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "minimum": 0, "maximum": 100})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_two_decimals_and_comes_back_from_json() {
        for (fraction, text) in
            [(0.0, "0.00"), (0.123_45, "12.35"), (1.0, "100.00"), (7.0, "100.00"), (-1.0, "0.00")]
        {
            assert_eq!(Percent::of_fraction(fraction).to_string(), text);
        }
        assert_eq!(Percent::of_fraction(f64::NAN), Percent::default());
        let percent = Percent::of_fraction(0.1234);
        let json = serde_json::to_string(&percent).unwrap();
        assert_eq!(json, "12.34");
        assert_eq!(serde_json::from_str::<Percent>(&json).unwrap(), percent);
        assert_eq!((percent.rounded(), Percent::WHOLE.rounded()), (12, 100));
        assert!(serde_json::from_str::<Percent>("\"much\"").is_err());
    }
}
