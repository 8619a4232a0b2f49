//! Schemas as clients in other languages need them: what Rust calls by its own words is put into
//! those of JSON.

use schemars::Schema;
use serde_json::{Value, json};

/// Tidies a schema of what is read. It does not look at the schemas inside.
pub(super) fn given(schema: &mut Schema) {
    if let Some(Value::String(about)) = schema.get_mut("description") {
        *about = plain(about);
    }
    fold_words(schema);
}

/// The same for what is written, where all members are there but those that are left out when they
/// have no value: none of these is null, and none has a default.
pub(super) fn answered(schema: &mut Schema) {
    given(schema);
    let required: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let members = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, member) in members.into_iter().flatten() {
        if let Some(member) = member.as_object_mut() {
            member.remove("default");
        }
        if !required.contains(&json!(name)) {
            strip_null(member);
        }
    }
}

/// Takes null from what a schema permits.
pub(super) fn strip_null(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.retain(|choice| *choice != json!({"type": "null"}));
        if any.len() == 1
            && let Some(Value::Object(only)) = any.pop()
        {
            schema.remove("anyOf");
            for (key, value) in only {
                schema.entry(key).or_insert(value);
            }
        }
    }
}

/// Words that are described one by one become one list of words, which more generators of clients
/// understand.
fn fold_words(schema: &mut Schema) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else { return };
    let words: Option<Vec<(&str, &str)>> = choices.iter().map(word).collect();
    let Some(words) = words else { return };
    let list: Vec<String> =
        words.iter().map(|(word, about)| format!("- `{word}`: {}", plain(about))).collect();
    let words: Vec<String> = words.iter().map(|(word, _)| (*word).to_owned()).collect();
    let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let about = format!("{about}\n\n{}", list.join("\n"));
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), json!(words));
    schema.insert("description".to_owned(), json!(about.trim()));
}

/// A choice that is one word, and its description.
fn word(choice: &Value) -> Option<(&str, &str)> {
    Some((choice.get("const")?.as_str()?, choice.get("description")?.as_str()?))
}

/// A docstring without what only Rust's documentation understands: links to items, and `None`.
/// Lines of one paragraph become one.
fn plain(about: &str) -> String {
    let about = about.replace("[`", "`").replace("`]", "`").replace("`None`", "absent");
    let paragraphs = about.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use schemars::json_schema;

    use super::*;

    #[test]
    fn words_become_a_list_and_other_choices_stay() {
        let mut schema = json_schema!({
            "description": "Which\nof [`These`].",
            "oneOf": [
                {"type": "string", "const": "a", "description": "The\nfirst."},
                {"type": "string", "const": "b", "description": "`None`: none."},
            ],
        });
        given(&mut schema);
        let about = "Which of `These`.\n\n- `a`: The first.\n- `b`: absent: none.";
        assert_eq!(schema.to_value(), json!({"type": "string", "enum": ["a", "b"], "description": about}));
        let mixed = json_schema!({
            "oneOf": [{"const": "a", "description": "A word."}, {"type": "object", "description": "No word."}],
        });
        let mut schema = mixed.clone();
        given(&mut schema);
        assert_eq!(schema, mixed);
    }

    #[test]
    fn what_is_left_out_is_not_null() {
        let mut schema = json_schema!({
            "required": ["kept"],
            "properties": {
                "kept": {"type": ["integer", "null"], "default": 0},
                "left": {"type": ["integer", "null"]},
                "other": {"anyOf": [{"$ref": "#/x"}, {"type": "null"}], "description": "It."},
            },
        });
        answered(&mut schema);
        assert_eq!(
            schema.to_value(),
            json!({
                "required": ["kept"],
                "properties": {
                    "kept": {"type": ["integer", "null"]},
                    "left": {"type": "integer"},
                    "other": {"$ref": "#/x", "description": "It."},
                },
            })
        );
    }
}
