use std::fmt;

use plimsoll_units::Bytes;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Metrics of things of one kind.
pub(super) struct Table<T: 'static> {
    /// What they are called; all names of the table begin with it.
    pub(super) kind: &'static str,
    /// The label that tells one thing from the others; `None`: there is one only.
    pub(super) label: Option<Label<T>>,
    pub(super) metrics: &'static [Metric<T>],
}

/// A label, and its value for a thing.
pub(super) type Label<T> = (&'static str, fn(&T) -> &str);

/// One metric.
pub(super) struct Metric<T> {
    /// Without what follows from the table, the unit and the type.
    name: &'static str,
    /// Its meaning, in one line.
    help: &'static str,
    reading: Reading<T>,
}

/// What is read of a thing. Values that another label divides add up to something.
enum Reading<T> {
    Bytes(fn(&T) -> Bytes),
    BytesIfAny(fn(&T) -> Option<Bytes>),
    BytesBy(&'static str, Divided<T, Bytes>),
    Seconds(fn(&T) -> Option<f64>),
    Number(fn(&T) -> u64),
    NumberBy(&'static str, Divided<T, u64>),
    TotalBytes(fn(&T) -> Bytes),
    TotalSeconds(fn(&T) -> f64),
    Total(fn(&T) -> u64),
    TotalIfAny(fn(&T) -> Option<u64>),
}

/// Values by what they are the values of.
type Divided<T, V> = fn(&T) -> Vec<(&'static str, V)>;

macro_rules! readings {
    ($($(#[$meaning:meta])* $name:ident: $reading:ident($read:ty);)*) => {
        $($(#[$meaning])*
        pub(super) const fn $name<T>(name: &'static str, help: &'static str, read: $read) -> Metric<T> {
            Metric { name, help, reading: Reading::$reading(read) }
        })*
    };
}

readings! {
    /// A size.
    bytes: Bytes(fn(&T) -> Bytes);
    /// A size that not all things have.
    bytes_if_any: BytesIfAny(fn(&T) -> Option<Bytes>);
    /// A moment or a time that not all things have.
    seconds: Seconds(fn(&T) -> Option<f64>);
    /// A number, or 1 for what is so and 0 for what is not.
    number: Number(fn(&T) -> u64);
    /// Bytes since a beginning.
    total_bytes: TotalBytes(fn(&T) -> Bytes);
    /// Time since a beginning.
    total_seconds: TotalSeconds(fn(&T) -> f64);
    /// A count since a beginning.
    total: Total(fn(&T) -> u64);
    /// A count that not all things have.
    total_if_any: TotalIfAny(fn(&T) -> Option<u64>);
}

/// Sizes that add up, told apart by `label`.
pub(super) const fn bytes_by<T>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    read: Divided<T, Bytes>,
) -> Metric<T> {
    Metric { name, help, reading: Reading::BytesBy(label, read) }
}

/// Numbers that add up, told apart by `label`.
pub(super) const fn number_by<T>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    read: Divided<T, u64>,
) -> Metric<T> {
    Metric { name, help, reading: Reading::NumberBy(label, read) }
}

/// A value as it is written.
#[derive(Clone, Copy, Debug)]
enum Value {
    Whole(u64),
    Seconds(f64),
}

/// A value, and the label that tells it from others of the same thing.
type Sample = (Option<(&'static str, &'static str)>, Value);

impl<T> Table<T> {
    /// Writes all metrics of `things`. A metric without a value is written with its meaning only.
    pub(super) fn encode<'a>(
        &self,
        things: impl Iterator<Item = &'a T> + Clone,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        for metric in self.metrics {
            let name = format!("{}_{}", self.kind, metric.name);
            let (unit, kind) = (metric.reading.unit(), metric.reading.kind());
            let mut family = encoder.encode_descriptor(&name, metric.help, unit.as_ref(), kind)?;
            for thing in things.clone() {
                let own = self.label.map(|(label, name)| (label, name(thing)));
                for (part, value) in metric.reading.samples(thing) {
                    let labels: Vec<(&str, &str)> = own.into_iter().chain(part).collect();
                    if labels.is_empty() {
                        value.encode(kind, &mut family)?;
                    } else {
                        value.encode(kind, &mut family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl<T> Reading<T> {
    fn unit(&self) -> Option<Unit> {
        match self {
            Self::Bytes(_) | Self::BytesIfAny(_) | Self::BytesBy(..) | Self::TotalBytes(_) => {
                Some(Unit::Bytes)
            }
            Self::Seconds(_) | Self::TotalSeconds(_) => Some(Unit::Seconds),
            Self::Number(_) | Self::NumberBy(..) | Self::Total(_) | Self::TotalIfAny(_) => None,
        }
    }

    fn kind(&self) -> MetricType {
        match self {
            Self::TotalBytes(_) | Self::TotalSeconds(_) | Self::Total(_) | Self::TotalIfAny(_) => {
                MetricType::Counter
            }
            _ => MetricType::Gauge,
        }
    }

    fn samples(&self, thing: &T) -> Vec<Sample> {
        let one = |value| vec![(None, value)];
        let any = |value: Option<Value>| value.map(|value| (None, value)).into_iter().collect();
        match self {
            Self::Bytes(read) | Self::TotalBytes(read) => one(Value::Whole(read(thing).0)),
            Self::BytesIfAny(read) => any(read(thing).map(|bytes| Value::Whole(bytes.0))),
            Self::BytesBy(label, read) => {
                let part = |(part, bytes): (_, Bytes)| (Some((*label, part)), Value::Whole(bytes.0));
                read(thing).into_iter().map(part).collect()
            }
            Self::Seconds(read) => any(read(thing).map(Value::Seconds)),
            Self::TotalSeconds(read) => one(Value::Seconds(read(thing))),
            Self::Number(read) | Self::Total(read) => one(Value::Whole(read(thing))),
            Self::NumberBy(label, read) => {
                let part = |(part, number)| (Some((*label, part)), Value::Whole(number));
                read(thing).into_iter().map(part).collect()
            }
            Self::TotalIfAny(read) => any(read(thing).map(Value::Whole)),
        }
    }
}

impl Value {
    fn encode(self, kind: MetricType, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (MetricType::Counter, Self::Whole(number)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&number, None)
            }
            (MetricType::Counter, Self::Seconds(seconds)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&seconds, None)
            }
            // The encoder refuses more, which a guest may claim.
            (_, Self::Whole(number)) => encoder.encode_gauge(&i64::try_from(number).unwrap_or(i64::MAX)),
            (_, Self::Seconds(seconds)) => encoder.encode_gauge(&seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    const THINGS: Table<u64> = Table {
        kind: "thing",
        label: None,
        metrics: &[
            number("size", "What it is", |thing| *thing),
            total("visits", "How often", |thing| *thing),
            bytes_if_any("weight", "What it weighs, if anything", |_| None),
        ],
    };

    #[derive(Debug)]
    struct Thing;

    impl Collector for Thing {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            THINGS.encode([&u64::MAX].into_iter(), &mut encoder)
        }
    }

    #[test]
    fn values_that_the_format_has_no_room_for_are_the_largest_that_it_has() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Thing));
        let mut written = String::new();
        text::encode(&mut written, &registry).unwrap();
        assert!(written.contains(&format!("thing_size {}\n", i64::MAX)), "{written}");
        assert!(written.contains(&format!("thing_visits_total {}\n", u64::MAX)), "{written}");
        assert!(written.contains("# TYPE thing_weight_bytes gauge\n"), "a metric without a value is there");
    }
}
