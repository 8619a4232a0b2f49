//! JSON as programs of all languages write it.
//!
//! JSON has one kind of number: some languages write 64.0 for 64, or 6.7108864e7. And many write
//! `null` for what they leave out.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Track};

use super::answer::ApiError;

/// What `null` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nulls {
    /// The member is left out.
    LeftOut,
    /// Something of its own, such as that a label is removed.
    Mean,
}

/// Reads a request's body, whatever content type it claims. Errors call it `what`.
pub(super) fn parse<T: DeserializeOwned>(what: &str, body: &[u8], nulls: Nulls) -> Result<T, ApiError> {
    read(body, nulls).map_err(|e| ApiError::invalid(format!("{what}: {e}")))
}

fn read<T: DeserializeOwned>(body: &[u8], nulls: Nulls) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut track = Track::new();
    let value = Tidy(nulls).deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let value = value.map_err(|e| of_member(&track.path(), &e.to_string()))?;
    json.end().map_err(|e| e.to_string())?;
    serde_path_to_error::deserialize(value)
        .map_err(|e| of_member(e.path(), &in_words(&e.inner().to_string())))
}

/// The error with the member where it is, if it is in one.
fn of_member(path: &Path, error: &str) -> String {
    match path.to_string().as_str() {
        // The whole, or between two members.
        "." | "?" => error.to_owned(),
        member => format!("{member}: {error}"),
    }
}

/// The words of JSON in place of types' names.
fn in_words(error: &str) -> String {
    let Some((found, expected)) = error.rsplit_once("expected ") else { return error.to_owned() };
    let words = match expected {
        "u8" => "a whole number up to 255",
        "u16" => "a whole number up to 65535",
        "u32" | "u64" | "usize" => "a whole number",
        "f64" => "a number",
        expected if expected.starts_with("struct ") => "an object",
        expected => expected,
    };
    format!("{found}expected {words}")
}

/// A value whose whole numbers have no fraction, with nulls as told.
#[derive(Clone, Copy)]
struct Tidy(Nulls);

impl<'de> DeserializeSeed<'de> for Tidy {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tidy {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        /// Up to here each whole number has a value of its own.
        const MOST: f64 = 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and fits")]
        Ok(if value.fract() == 0.0 && value.abs() <= MOST { (value as i64).into() } else { value.into() })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            list.push(element);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if value.is_null() && self.0 == Nulls::LeftOut {
                continue;
            }
            if object.contains_key(&name) {
                return Err(Error::custom(format!("{name:?} is there twice")));
            }
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::change::VmChange;
    use plimsoll_protocol::definition::VmDefinition;
    use plimsoll_units::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn definition(more: &str) -> Result<VmDefinition, String> {
        let body = format!(r#"{{"name": "a", "boot": {{"model": true}}, {more}}}"#);
        read(body.as_bytes(), Nulls::LeftOut)
    }

    #[test]
    fn whole_numbers_may_have_a_fraction_of_zero() {
        let plain = definition(r#""size": 67108864, "vcpus": 1, "shares": 2000"#).unwrap();
        for size in ["67108864.0", "6.7108864e7"] {
            let more = format!(r#""size": {size}, "vcpus": 1.0, "shares": 2.0e3"#);
            assert_eq!(definition(&more).unwrap(), plain, "{size}");
        }
        assert_eq!(plain.size, Bytes::mib(64));
    }

    #[test]
    fn null_is_left_out_unless_it_means_something() {
        let plain = definition(r#""size": "64MiB""#).unwrap();
        let more =
            r#""size": "64MiB", "vcpus": null, "shares": null, "limit": null, "pool": null, "labels": null"#;
        assert_eq!(definition(more).unwrap(), plain);
        let body = br#"{"limit": null, "labels": {"env": null}}"#;
        let change: VmChange = read(body, Nulls::Mean).unwrap();
        assert_eq!((change.limit, change.labels.len()), (None, 1));
    }

    #[test]
    fn errors_name_the_member_and_speak_of_json() {
        for (more, text) in [
            (
                r#""size": 1.5"#,
                "size: invalid type: floating point `1.5`, expected a size such as \"512MiB\", or a whole number of bytes",
            ),
            (
                r#""size": "64MiB", "vcpus": 300"#,
                "vcpus: invalid value: integer `300`, expected a whole number up to 255",
            ),
            (
                r#""size": "64MiB", "vcpus": 1.5"#,
                "vcpus: invalid type: floating point `1.5`, expected a whole number up to 255",
            ),
            (
                r#""size": "64MiB", "shares": -5"#,
                "shares: shares \"-5\": write low, normal, high or a number from 1 to 200000000",
            ),
            (r#""size": "64MiB", "jail": 7"#, "jail: invalid type: integer `7`, expected an object"),
            (r#""size": 64MiB"#, "expected `,` or `}` at line 1"),
            (r#""size": "64MiB", "shares": NaN"#, "shares: expected value"),
            (r#""size": 1, "size": 2"#, "\"size\" is there twice at line 1"),
        ] {
            let error = definition(more).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_tidy_stays(number: i64, text in ".*", flag: bool) {
            let value = json!({"a": [number, text, flag, 0.5], "b": {"c": number}});
            let read: Value = read(value.to_string().as_bytes(), Nulls::LeftOut).map_err(TestCaseError::fail)?;
            prop_assert_eq!(read, value);
        }
    }
}
