//! The schemas of what is read and of what is written.
//!
//! The two differ where a type reads more than it writes: a size is read as a number or text, and
//! written as a number. Such a type has two schemas in the description, `NAME` as it is written and
//! `NAMEInput` as it is read. A type of which both are the same has one.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value, json};

use super::tidy;

/// Where references to schemas lead in the description.
const PLACE: &str = "#/components/schemas/";
/// Where references to schemas of what is read lead until all are known.
const GIVEN: &str = "#/given/";
/// Follows the name of a type as it is read, where that differs from what is written.
const INPUT: &str = "Input";

/// The schemas that the description needs, as far as they have been asked for.
#[derive(Debug)]
pub(in crate::api) struct Schemas {
    given: SchemaGenerator,
    answered: SchemaGenerator,
}

/// A member of a type that is read.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) about: Option<Value>,
    pub(super) schema: Value,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = |place: &'static str| {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = place.trim_end_matches('/').into();
                settings.meta_schema = None;
            })
        };
        Self {
            given: settings(GIVEN)
                .for_deserialize()
                .with_transform(RecursiveTransform(tidy::given))
                .into_generator(),
            answered: settings(PLACE)
                .for_serialize()
                .with_transform(RecursiveTransform(tidy::answered))
                .into_generator(),
        }
    }

    /// The schema of a `T` that is read.
    pub(super) fn given<T: JsonSchema>(&mut self) -> Value {
        self.given.subschema_for::<T>().to_value()
    }

    /// The schema of a `T` that is written.
    pub(super) fn answered<T: JsonSchema>(&mut self) -> Value {
        self.answered.subschema_for::<T>().to_value()
    }

    /// The members of a `T` that is read. None of them can be null.
    pub(super) fn members<T: JsonSchema>(&mut self) -> Vec<Member> {
        let mut schema = T::json_schema(&mut self.given);
        RecursiveTransform(tidy::given).transform(&mut schema);
        let schema = schema.to_value();
        let is_required =
            |name: &String| schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
        let members = schema["properties"].as_object().into_iter().flatten();
        members
            .map(|(name, schema)| {
                let mut schema = schema.clone();
                tidy::strip_null(&mut schema);
                let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
                Member { name: name.clone(), required: is_required(name), about, schema }
            })
            .collect()
    }

    /// Puts all schemas into `document`, and leads its references there.
    pub(super) fn settle(mut self, mut document: Value) -> Value {
        let mut given = self.given.take_definitions(true);
        let mut answered = self.answered.take_definitions(true);
        let two = differing(&given, &answered);
        let mut lead = |reference: &mut String| {
            if let Some(name) = reference.strip_prefix(GIVEN) {
                let input = if two.contains(name) { INPUT } else { "" };
                *reference = format!("{PLACE}{name}{input}");
            }
        };
        given.values_mut().for_each(|schema| each_reference(schema, &mut lead));
        each_reference(&mut document, &mut lead);
        for (name, schema) in given {
            let name = if two.contains(&name) { name + INPUT } else { name };
            answered.entry(name).or_insert(schema);
        }
        document["components"]["schemas"] = answered.into();
        document
    }
}

/// The names of types that are read and written, and not as the same.
fn differing(given: &Map<String, Value>, answered: &Map<String, Value>) -> BTreeSet<String> {
    let same = |name: &String, schema: &Value| {
        let mut schema = schema.clone();
        each_reference(&mut schema, &mut |reference| *reference = reference.replacen(GIVEN, PLACE, 1));
        answered.get(name).is_none_or(|answered| *answered == schema)
    };
    let mut two: BTreeSet<String> =
        given.iter().filter(|(name, schema)| !same(name, schema)).map(|(name, _)| name.clone()).collect();
    // What refers to such a type differs, too.
    loop {
        let refers = |schema: &Value| {
            let mut found = false;
            each_reference(&mut schema.clone(), &mut |reference| {
                found |= reference.strip_prefix(GIVEN).is_some_and(|name| two.contains(name));
            });
            found
        };
        let more = given
            .iter()
            .filter(|(name, schema)| !two.contains(*name) && answered.contains_key(*name) && refers(schema));
        let more: Vec<String> = more.map(|(name, _)| name.clone()).collect();
        if more.is_empty() {
            return two;
        }
        two.extend(more);
    }
}

fn each_reference(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(reference) if name == "$ref" => visit(reference),
                    member => each_reference(member, visit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_reference(item, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::VmName;
    use plimsoll_protocol::definition::Disk;

    use super::*;

    #[test]
    fn a_type_that_reads_more_than_it_writes_has_two_schemas() {
        let mut schemas = Schemas::new();
        let document = json!({
            "components": {},
            "names": [schemas.given::<VmName>(), schemas.answered::<VmName>()],
            "disks": [schemas.given::<Disk>(), schemas.answered::<Disk>()],
        });
        let settled = schemas.settle(document);
        let leads = |name: &str| json!({"$ref": format!("{PLACE}{name}")});
        assert_eq!(settled["names"], json!([leads("VmName"), leads("VmName")]));
        assert_eq!(settled["disks"], json!([leads("DiskInput"), leads("Disk")]));
        let bandwidth =
            |name: &str| settled["components"]["schemas"][name]["properties"]["bandwidth"].to_string();
        assert!(bandwidth("DiskInput").contains("/BytesInput\""), "{}", bandwidth("DiskInput"));
        assert!(bandwidth("Disk").contains("/Bytes\""), "{}", bandwidth("Disk"));
    }
}
