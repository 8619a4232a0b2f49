//! What the daemon says of its API, and whether its answers are so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::Answer;

/// The description by the first daemon of the test. All are the same program.
static DOCUMENT: OnceLock<Document> = OnceLock::new();

/// The description of an API, with which answers are compared.
pub struct Document {
    pub value: Value,
    /// Its components, with objects that have no members but those that are described.
    strict: Value,
    /// By schema: building one takes milliseconds.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// Takes the description from `ask`, unless it is known.
pub fn learn(ask: impl FnOnce() -> Answer) {
    DOCUMENT.get_or_init(|| {
        let answer = ask();
        assert_eq!(answer.status, 200, "{answer:?}");
        Document::new(serde_json::from_str(&answer.body).unwrap())
    });
}

/// What the first daemon of the test says of its API.
pub fn document() -> &'static Document {
    DOCUMENT.get().unwrap()
}

/// Checks that `answer` to a request is as described.
pub fn check(method: &str, path: &str, sent: &str, answer: &Answer) {
    // Without it, it is what is asked for.
    if let Some(document) = DOCUMENT.get() {
        document.check(method, path, sent, answer);
    }
}

impl Document {
    pub fn new(value: Value) -> Self {
        let mut strict = value["components"].clone();
        close(&mut strict["schemas"]);
        Self { value, strict, validators: Mutex::default() }
    }

    /// Whether a path is described, or one like it with a name in it.
    fn item(&self, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap();
        let fits = |template: &str| {
            let (template, asked) = (template.split('/'), path.split('/'));
            let same =
                |(part, asked): (&str, &str)| part == asked || part.starts_with('{') && !asked.is_empty();
            template.clone().count() == asked.clone().count() && template.zip(asked).all(same)
        };
        let paths = &self.value["paths"];
        paths.get(path).or_else(|| Some(paths.as_object()?.iter().find(|(template, _)| fits(template))?.1))
    }

    /// Checks that `answer` to a request is as described.
    ///
    /// # Panics
    /// It is not.
    pub fn check(&self, method: &str, path: &str, sent: &str, answer: &Answer) {
        let what = format!("{method} {path}: {answer:?}");
        let operation = self.item(path).map(|item| &item[method.to_lowercase()]);
        let described = match operation {
            None | Some(Value::Null) => {
                let undescribed: &[u16] = if operation.is_none() { &[401, 404] } else { &[401, 403, 405] };
                assert!(undescribed.contains(&answer.status), "it is not described: {what}");
                let kinds = ["no-path", "no-method", "unauthorized", "forbidden"];
                let mut kinds = kinds.iter().map(|kind| &self.value["components"]["responses"][kind]);
                let of_status = |kind: &&Value| {
                    kind["content"]["application/problem+json"]["example"]["status"] == answer.status
                };
                kinds.find(of_status).unwrap()
            }
            Some(operation) => {
                let described = &operation["responses"][answer.status.to_string()];
                assert!(described.is_object(), "the status is not described: {what}");
                if answer.status < 300 {
                    self.check_request(operation, path, sent);
                }
                self.resolved(described)
            }
        };
        let Some(content) = described.get("content") else {
            assert!(answer.body.is_empty(), "a body is not described: {what}");
            return;
        };
        let media = answer.media.as_deref().unwrap_or_default();
        let content = content.get(media).unwrap_or_else(|| panic!("the type is not described: {what}"));
        if media.ends_with("json") {
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            self.validate(&content["schema"], &body, &what);
            for member in ["type", "title", "status"] {
                let same = content["example"].get(member).is_none_or(|told| *told == body[member]);
                assert!(same, "{member} is not as described: {what}");
            }
        }
    }

    /// Checks the data of an event that `path` has sent.
    pub fn check_event(&self, path: &str, data: &str) {
        let content = &self.item(path).unwrap()["get"]["responses"]["200"]["content"]["text/event-stream"];
        let schema = &content["x-event-data"];
        assert!(schema.is_object(), "{path} sends no events");
        self.validate(schema, &serde_json::from_str(data).unwrap(), path);
    }

    /// Checks that a request that was carried out is described.
    fn check_request(&self, operation: &Value, path: &str, sent: &str) {
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let (_, query) = path.split_once('?').unwrap_or_default();
        for (name, _) in query.split('&').filter_map(|part| part.split_once('=')) {
            let described = |parameter: &Value| parameter["name"] == name && parameter["in"] == "query";
            assert!(parameters.iter().any(described), "{name} is not described: {path}");
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        if body.is_object() {
            self.validate(body, &serde_json::from_str(sent).unwrap(), &format!("{path} took {sent}"));
        }
    }

    /// What a reference leads to.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let pointer = reference.strip_prefix('#').unwrap();
        self.value.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    fn validate(&self, schema: &Value, value: &Value, what: &str) {
        let validator = {
            let mut validators = self.validators.lock().unwrap();
            let build = || {
                let mut whole = schema.clone();
                whole["components"] = self.strict.clone();
                let options = jsonschema::draft202012::options().should_validate_formats(true);
                Arc::new(options.build(&whole).unwrap_or_else(|e| panic!("{schema}: {e}")))
            };
            Arc::clone(validators.entry(schema.to_string()).or_insert_with(build))
        };
        let errors: Vec<String> =
            validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "not as described: {what}\n{}", errors.join("\n"));
    }
}

/// Has objects with described members have no others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            keys.values_mut().for_each(close);
            if keys.contains_key("properties") && keys.get("type") == Some(&json!("object")) {
                keys.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}
