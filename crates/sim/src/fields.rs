//! Strict reading of a scenario's TOML: every error is one line that names the place, the key and
//! the value.

use std::time::Duration;

use plimsoll_units::Bytes;
use toml::{Table, Value};

/// Longest value that an error repeats; of longer ones it shows the beginning.
const SHOWN: usize = 60;

/// A table whose keys are taken out one by one.
pub(crate) struct Fields {
    /// Whose they are, with a colon and a blank; empty at the top.
    pub(crate) whose: String,
    left: Table,
}

/// How a value is read; the error says what would do.
type Read<T> = fn(&Value) -> Result<T, String>;

impl Fields {
    pub(crate) fn new(whose: impl Into<String>, left: Table) -> Self {
        Self { whose: whose.into(), left }
    }

    pub(crate) fn optional<T>(&mut self, key: &str, read: Read<T>) -> Result<Option<T>, String> {
        let Some(value) = self.left.remove(key) else { return Ok(None) };
        read(&value).map(Some).map_err(|rule| self.wrong(key, &value, &rule))
    }

    pub(crate) fn required<T>(&mut self, key: &str, read: Read<T>) -> Result<T, String> {
        self.optional(key, read)?.ok_or_else(|| format!("{}{key} is missing", self.whose))
    }

    pub(crate) fn or<T>(&mut self, key: &str, read: Read<T>, default: T) -> Result<T, String> {
        Ok(self.optional(key, read)?.unwrap_or(default))
    }

    /// A table within this one.
    pub(crate) fn table(&mut self, key: &str) -> Result<Option<Self>, String> {
        match self.left.remove(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Self::new(format!("{}{key}: ", self.whose), table))),
            Some(other) => Err(self.wrong(key, &other, "a table is needed")),
        }
    }

    /// A list of tables, each told by its name where it has one.
    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<Self>, String> {
        let values = match self.left.remove(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(self.wrong(key, &other, "a list of tables is needed")),
        };
        let one = |(i, value): (usize, Value)| {
            let whose = match value.get("name").and_then(Value::as_str) {
                Some(name) => format!("{}{key} {name:?}: ", self.whose),
                None => format!("{}{key}[{i}]: ", self.whose),
            };
            match value {
                Value::Table(table) => Ok(Self::new(whose, table)),
                other => Err(format!("{whose}{}: a table is needed", shown(&other))),
            }
        };
        values.into_iter().enumerate().map(one).collect()
    }

    /// All keys must have been taken.
    pub(crate) fn end(self) -> Result<(), String> {
        match self.left.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(self.wrong(key, value, "there is no such key")),
        }
    }

    /// An error of `key`, which had `value`.
    pub(crate) fn wrong(&self, key: &str, value: &Value, rule: &str) -> String {
        format!("{}{key} {}: {rule}", self.whose, shown(value))
    }

    /// An error of a value that was read and contradicts another.
    pub(crate) fn refuse(&self, key: &str, value: impl std::fmt::Display, rule: &str) -> String {
        format!("{}{key} {value}: {rule}", self.whose)
    }
}

pub(crate) fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "a text is needed".to_owned())
}

pub(crate) fn flag(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "true or false is needed".to_owned())
}

pub(crate) fn number(value: &Value) -> Result<f64, String> {
    #[expect(clippy::cast_precision_loss, reason = "numbers that people write")]
    let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    number.filter(|n| n.is_finite()).ok_or_else(|| "a number is needed".to_owned())
}

/// A part of a whole.
pub(crate) fn fraction(value: &Value) -> Result<f64, String> {
    let needed = || "a number from 0 to 1 is needed".to_owned();
    number(value).ok().filter(|n| (0.0..=1.0).contains(n)).ok_or_else(needed)
}

pub(crate) fn count(value: &Value) -> Result<u64, String> {
    let whole = value.as_integer().and_then(|n| u64::try_from(n).ok());
    whole.ok_or_else(|| "a whole number from 0 on is needed".to_owned())
}

/// A size as people write it, or a whole number of bytes.
pub(crate) fn size(value: &Value) -> Result<Bytes, String> {
    let needed = || "a size such as \"512MiB\" is needed".to_owned();
    match value {
        Value::String(text) => text.parse().map_err(|_| needed()),
        other => count(other).map(Bytes).map_err(|_| needed()),
    }
}

/// The highest speed, 1 TiB a second: memory itself is slower, and sums of moved bytes stay far
/// from overflow.
const MAX_SPEED: Bytes = Bytes::mib(1 << 20);

/// An amount a second: a size, with or without "/s".
pub(crate) fn speed(value: &Value) -> Result<Bytes, String> {
    let needed = || "a size a second such as \"50MiB/s\", at most 1TiB/s, is needed".to_owned();
    let text = value.as_str().ok_or_else(needed)?.trim();
    let speed = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    speed.filter(|speed| *speed <= MAX_SPEED).ok_or_else(needed)
}

/// A time: a number and `ms`, `s`, `m`, `h` or `d`; a bare number is seconds.
pub(crate) fn time(value: &Value) -> Result<Duration, String> {
    let needed = || "a time such as \"90s\", \"30m\" or \"8h\" is needed".to_owned();
    let seconds = match value {
        Value::String(text) => seconds(text.trim()),
        other => number(other).ok(),
    };
    // Longer than ten years is a slip, and would overflow sums.
    let within = seconds.filter(|s| (0.0..=3.2e8).contains(s)).ok_or_else(needed)?;
    Ok(Duration::from_secs_f64(within))
}

fn seconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|n| n * scale)
}

fn shown(value: &Value) -> String {
    let text = value.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= SHOWN {
        return text;
    }
    format!("{}...", text.chars().take(SHOWN).collect::<String>())
}
