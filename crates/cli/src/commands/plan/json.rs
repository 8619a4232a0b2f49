//! A [`Problem`] as JSON. Read by hand rather than derived, so that every error names VM or pool,
//! field and value.

use plimsoll_policy::{PoolClaim, Problem, Tax, VmClaim};
use plimsoll_units::Bytes;
use serde_json::{Map, Value};

/// Longest value that an error repeats; of longer ones it shows the beginning.
const SHOWN: usize = 60;

/// Largest whole number up to which every one has its own floating-point number, as tools write
/// them (1e9).
const MAX_FLOAT: f64 = 9_007_199_254_740_992.0;

/// The problem in `text`. Bounds are for [`Problem::solve`] to check.
///
/// # Errors
/// One line: what is no JSON, missing, unknown, or of the wrong kind.
pub(super) fn problem(text: &str) -> Result<Problem, String> {
    let value = serde_json::from_str(text).map_err(|e| syntax(text, &e))?;
    let mut fields = Fields::new(String::new(), value)?;
    let problem = Problem {
        machine: fields.required("machine_bytes", amount)?,
        tax: fields.optional("tax", number)?.unwrap_or(Tax::DEFAULT.rate()),
        vms: fields.list("vms", "vm", vm)?.ok_or("vms is missing: a list of VMs")?,
        pools: fields.list("pools", "pool", pool)?.unwrap_or_default(),
    };
    fields.end().map(|()| problem)
}

fn vm(fields: &mut Fields) -> Result<VmClaim, String> {
    Ok(VmClaim {
        name: fields.required("name", text)?,
        size: fields.required("size", amount)?,
        reservation: fields.required("reservation", amount)?,
        limit: fields.optional("limit", amount)?,
        shares: fields.required("shares", count)?,
        active: fields.required("active", amount)?,
        tax: fields.optional("tax", number)?,
        pool: fields.optional("pool", text)?,
    })
}

fn pool(fields: &mut Fields) -> Result<PoolClaim, String> {
    Ok(PoolClaim {
        name: fields.required("name", text)?,
        parent: fields.optional("parent", text)?,
        shares: fields.required("shares", count)?,
        reservation: fields.optional("reservation", amount)?.unwrap_or_default(),
        limit: fields.optional("limit", amount)?,
        expandable: fields.optional("expandable", flag)?.unwrap_or(true),
    })
}

/// How a value is read; the error says what would do.
type Read<T> = fn(&Value) -> Result<T, &'static str>;

fn amount(value: &Value) -> Result<Bytes, &'static str> {
    count(value).map(Bytes).map_err(|_| "a whole number of bytes from 0 to 2^64 - 1 is needed")
}

fn count(value: &Value) -> Result<u64, &'static str> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within bounds")]
    let whole = |x: f64| (x.fract() == 0.0 && (0.0..=MAX_FLOAT).contains(&x)).then_some(x as u64);
    let float = || value.as_f64().and_then(whole);
    value.as_u64().or_else(float).ok_or("a whole number from 0 to 2^64 - 1 is needed")
}

fn number(value: &Value) -> Result<f64, &'static str> {
    value.as_f64().ok_or("a number is needed")
}

fn text(value: &Value) -> Result<String, &'static str> {
    value.as_str().map(str::to_owned).ok_or("a text is needed")
}

fn flag(value: &Value) -> Result<bool, &'static str> {
    value.as_bool().ok_or("true or false is needed")
}

/// An object whose fields are taken out one by one.
struct Fields {
    /// Whose they are, with a colon and a blank; empty at the top.
    whose: String,
    left: Map<String, Value>,
}

impl Fields {
    fn new(whose: String, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(left) => Ok(Self { whose, left }),
            other => Err(format!("{whose}{}: an object is needed", shown(&other))),
        }
    }

    /// A field that may be missing or null.
    fn optional<T>(&mut self, key: &str, read: Read<T>) -> Result<Option<T>, String> {
        let Some(value) = self.left.remove(key).filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        read(&value).map(Some).map_err(|rule| format!("{}{key} {}: {rule}", self.whose, shown(&value)))
    }

    fn required<T>(&mut self, key: &str, read: Read<T>) -> Result<T, String> {
        self.optional(key, read)?.ok_or_else(|| format!("{}{key} is missing", self.whose))
    }

    /// A list of objects, each told as `kind` and its name.
    fn list<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: fn(&mut Fields) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, String> {
        let values = match self.left.remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(format!("{key} {}: a list is needed", shown(&other))),
        };
        let one = |(i, value): (usize, Value)| {
            let whose = match value.get("name").and_then(Value::as_str) {
                Some(name) => format!("{kind} {name:?}: "),
                None => format!("{key}[{i}]: "),
            };
            let mut fields = Fields::new(whose, value)?;
            let item = read(&mut fields)?;
            fields.end().map(|()| item)
        };
        values.into_iter().enumerate().map(one).collect::<Result<_, _>>().map(Some)
    }

    /// All fields must have been taken.
    fn end(self) -> Result<(), String> {
        match self.left.into_iter().next() {
            None => Ok(()),
            Some((key, value)) => {
                Err(format!("{}{key} {}: there is no such field", self.whose, shown(&value)))
            }
        }
    }
}

/// A value for an error's one line. Whole numbers beyond 64 bits have become floating-point ones,
/// but are shown whole.
fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if value.is_f64() && x.fract() == 0.0 && x.abs() < 1e30 => format!("{x:.0}"),
        _ => shorten(&value.to_string()),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    format!("{}...", text.chars().take(SHOWN).collect::<String>())
}

/// What is no JSON, with the field before it: programs write NaN and Infinity where a number failed
/// them.
fn syntax(text: &str, error: &serde_json::Error) -> String {
    let place = || {
        let line = text.split_inclusive('\n').nth(error.line().checked_sub(1)?)?;
        let bytes = line.get(..error.column()).unwrap_or(line);
        let start = bytes.rfind([':', ',', '['])?;
        let key = line.get(..start)?.trim_end().strip_suffix('"')?.rsplit('"').next()?;
        let rest = line.get(start + 1..)?;
        let end = rest.find([',', '}', ']', '\n']).unwrap_or(rest.len());
        let value = rest.get(..end)?.trim();
        (!value.is_empty() && bytes.ends_with(|c| c != ':')).then(|| format!("{key} {}: ", shorten(value)))
    };
    format!("{}no JSON: {error}", place().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"machine_bytes": 8192, "tax": 0.5,
        "vms": [{"name": "a", "size": 4096, "reservation": 0, "shares": 10, "active": 1e3, "pool": "p"}],
        "pools": [{"name": "p", "parent": null, "shares": 1, "limit": 4096}]}"#;

    #[test]
    fn what_is_left_out_has_its_default() {
        let problem = problem(GOOD).unwrap();
        assert_eq!((problem.tax, problem.vms[0].active, problem.vms[0].limit), (0.5, Bytes(1000), None));
        assert!(problem.pools[0].expandable && problem.pools[0].parent.is_none());
        assert_eq!(super::problem(r#"{"machine_bytes": 1, "vms": []}"#).unwrap().tax, 0.75);
    }

    #[test]
    fn every_error_names_field_and_value_in_one_line() {
        for (from, to, start) in [
            ("4096, \"res", "-4096, \"res", "vm \"a\": size -4096: a whole number of bytes"),
            ("4096, \"res", "1.5, \"res", "vm \"a\": size 1.5: a whole"),
            ("4096, \"res", "\"big\", \"res", "vm \"a\": size \"big\": a whole"),
            ("4096, \"res", "18446744073709551616, \"res", "vm \"a\": size 18446744073709551616: a"),
            ("8192", "1e300", "machine_bytes 1e+300: a whole"),
            ("\"size\": 4096, ", "", "vm \"a\": size is missing"),
            ("\"name\": \"a\", ", "", "vms[0]: name is missing"),
            ("\"shares\": 10", "\"shares\": -1", "vm \"a\": shares -1: a whole number"),
            (
                "\"shares\": 1,",
                "\"shares\": 1, \"expandable\": \"no\",",
                "pool \"p\": expandable \"no\": true or",
            ),
            (
                "\"shares\": 1,",
                "\"shares\": 1, \"colour\": 3,",
                "pool \"p\": colour 3: there is no such field",
            ),
            ("\"tax\": 0.5", "\"tax\": \"0.5\"", "tax \"0.5\": a number is needed"),
            ("\"tax\": 0.5", "\"tax\": NaN", "tax NaN: no JSON: expected value at line 1"),
            ("\"tax\": 0.5", "\"tax\": -Infinity", "tax -Infinity: no JSON: "),
            ("\"tax\": 0.5", "\"tax\": 1e999", "tax 1e999: no JSON: number out of range"),
            ("\"vms\": [", "\"vms\": [3, ", "vms[0]: 3: an object is needed"),
        ] {
            let error = problem(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with(start), "{start}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn what_is_no_problem_at_all_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            "{\"vms\": {}}",
            "{}",
            "nul",
            "{\"machine_bytes\": 1, \"vms\": 3}",
            "\"é",
            "{é: 1}",
        ] {
            assert!(problem(text).is_err(), "{text}");
        }
    }
}
