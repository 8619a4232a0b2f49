use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A new value for something that may be absent: in text and JSON a value, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrNone<T> {
    /// It is to be absent.
    None,
    /// It is to be this.
    To(T),
}

impl<T> OrNone<T> {
    /// The value that is to hold.
    pub fn option(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::To(value) => Some(value),
        }
    }
}

/// Reads a key of a definition that may be absent: its value, or the word `none`, as a change of it
/// has. `null` is absent, too.
///
/// # Errors
/// It is neither.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<OrNone<T>>::deserialize(deserializer).map(|value| value.and_then(OrNone::option))
}

impl<T: FromStr<Err: fmt::Display>> FromStr for OrNone<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            value => value.parse().map(Self::To).map_err(|e| format!("{e}, or none")),
        }
    }
}

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::To(value) => value.fmt(f),
        }
    }
}

impl<T: Serialize> Serialize for OrNone<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::To(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Value<T> {
            type Value = OrNone<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or \"none\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OrNone<T>, E> {
                match text {
                    "none" => Ok(OrNone::None),
                    value => T::deserialize(value.into_deserializer()).map(OrNone::To),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<OrNone<T>, E> {
                T::deserialize(number.into_deserializer()).map(OrNone::To)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<OrNone<T>, E> {
                T::deserialize(number.into_deserializer()).map(OrNone::To)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<OrNone<T>, E> {
                T::deserialize(number.into_deserializer()).map(OrNone::To)
            }
        }
        deserializer.deserialize_any(Value(PhantomData))
    }
}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for OrNone<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrNone", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let value = generator.subschema_for::<T>();
        schemars::json_schema!({"anyOf": [value, {"type": "string", "const": "none"}]})
    }
}

/// The schema of a key that is read by [`optional`]. It is never written as `none`.
#[cfg(feature = "schema")]
pub(crate) fn optional_schema<T>(generator: &mut schemars::SchemaGenerator) -> schemars::Schema
where
    T: schemars::JsonSchema,
{
    if generator.contract().is_serialize() {
        generator.subschema_for::<T>()
    } else {
        generator.subschema_for::<Option<OrNone<T>>>()
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    #[test]
    fn a_value_or_none_survives_text_and_json() {
        for (text, json, value) in
            [("none", "\"none\"", OrNone::None), ("1GiB", "1073741824", OrNone::To(Bytes::mib(1024)))]
        {
            assert_eq!(text.parse(), Ok(value));
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<OrNone<Bytes>>(json).unwrap(), value);
        }
        assert!("nothing".parse::<OrNone<Bytes>>().unwrap_err().ends_with("or none"));
        for bad in ["-1", "1.5", "true", "\"x\"", "null"] {
            assert!(serde_json::from_str::<OrNone<Bytes>>(bad).is_err(), "{bad}");
        }
    }
}
