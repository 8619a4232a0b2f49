use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A quantity of memory in bytes.
///
/// Text form: a decimal number with an optional binary unit (`KiB`, `MiB`, `GiB`, `TiB`, or their
/// first letters, in either case); `512MiB`, `1.5G` and `4096` are all read. Decimal units (`MB`)
/// are refused, because operators who write them may mean either. [`fmt::Display`] writes the
/// largest unit that loses nothing where four digits do, else one decimal.
///
/// Serialized as an integer number of bytes; deserialized from an integer or from the text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No memory.
    pub const ZERO: Self = Self(0);

    /// `n` MiB. Panics in a constant context if that does not fit 64 bits.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The sum, or `None` above 2^64 - 1.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or zero where `other` is larger.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or the largest value there is.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::Sub for Bytes {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |a, b| a + b)
    }
}

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        let largest = UNITS.iter().find(|(_, shift)| self.0 >> shift != 0);
        let text = match (exact, largest) {
            (_, None) => "0B".to_owned(),
            // Four digits and a unit lose nothing and are still read at a glance.
            (Some((unit, shift)), _) if self.0 >> shift < 10_000 => format!("{}{unit}", self.0 >> shift),
            (_, Some((unit, shift))) => {
                #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
                let value = self.0 as f64 / (1u64 << shift) as f64;
                format!("{value:.1}{unit}")
            }
        };
        f.pad(&text)
    }
}

/// A text that is no size, with what a size looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseBytesError(String);

impl fmt::Display for ParseBytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a size: write a number and a unit, such as 512MiB, 1.5GiB or 4096 (bytes)",
            self.0
        )
    }
}

impl std::error::Error for ParseBytesError {}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseBytesError(text.to_owned());
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => return Err(refuse()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty()
            || (number.contains('.') && (fraction.is_empty() || shift == 0))
            || fraction.len() > 9
        {
            return Err(refuse());
        }
        let whole: u64 = whole.parse().map_err(|_| refuse())?;
        let mut bytes = u128::from(whole) << shift;
        if !fraction.is_empty() {
            let digits: u64 = fraction.parse().map_err(|_| refuse())?;
            let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| refuse())?);
            bytes += (u128::from(digits) << shift) / scale;
        }
        u64::try_from(bytes).map(Self).map_err(|_| refuse())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Formats that do not describe themselves (postcard, between daemon and VMM) carry the
        // integer.
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512MiB\", or a whole number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Bytes, E> {
                u64::try_from(bytes)
                    .map(Bytes)
                    .map_err(|_| E::custom(format!("{bytes} is not a size: a size cannot be negative")))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// In answers whole bytes, in requests also the text form.
#[cfg(feature = "schema")]
impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let number = schemars::json_schema!({"type": "integer", "format": "uint64", "minimum": 0});
        if generator.contract().is_serialize() {
            return number;
        }
        schemars::json_schema!({
            "description": "A size: whole bytes, or text such as \"512MiB\" or \"1.5GiB\".",
            "anyOf": [number, {
                "type": "string",
                "pattern": r"^\s*([0-9]+\s*[bB]?|[0-9]+(\.[0-9]{1,9})?\s*[kKmMgGtT]([iI][bB])?)\s*$",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4k", 4096),
            ("512MiB", 512 << 20),
            ("1.5 GiB", 3 << 29),
            ("2t", 2 << 40),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1.",
            ".5G",
            "1.5",
            "512MB",
            "1e3",
            "16777216TiB",
            "99999999999999999999",
            "1 2",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_takes_integers_and_text_and_writes_integers() {
        assert_eq!(serde_json::from_str::<Bytes>("\"2MiB\"").unwrap(), Bytes::mib(2));
        assert_eq!(serde_json::from_str::<Bytes>("42").unwrap(), Bytes(42));
        assert!(serde_json::from_str::<Bytes>("-42").is_err());
        assert_eq!(serde_json::to_string(&Bytes(42)).unwrap(), "42");
    }

    proptest! {
        #[test]
        fn whole_units_survive_a_round_trip(n in 1u64..10_000, shift in prop::sample::select(vec![0u32, 10, 20, 30])) {
            let bytes = Bytes(n << shift);
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ignored: Result<Bytes, _> = text.parse();
        }
    }
}
