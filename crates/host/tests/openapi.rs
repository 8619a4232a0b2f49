//! The description of the API: it is valid, it is of what is served, and answers are compared with
//! it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests use it")]

mod host;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use host::document::{Document, document};
use host::{Answer, Host};
use serde_json::{Value, json};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Where the table of paths and that of errors are.
const TABLES: &str = include_str!("../../protocol/src/api.rs");

/// Methods and paths that are described.
fn described(document: &Document) -> BTreeSet<(String, String)> {
    let paths = document.value["paths"].as_object().unwrap().iter();
    let of_path = |(path, item): (&String, &Value)| {
        let path = path.clone();
        let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
        methods.into_iter().map(move |method| (method, path.clone()))
    };
    paths.flat_map(of_path).collect()
}

#[test]
fn the_description_is_valid() {
    let _host = Host::new(512, "");
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let whole = read(include_str!("openapi/schema-base.json"));
    let parts = [
        read(include_str!("openapi/schema.json")),
        read(include_str!("openapi/dialect.json")),
        read(include_str!("openapi/meta.json")),
    ];
    let parts = parts.into_iter().map(|part| (part["$id"].as_str().unwrap().to_owned(), part));
    let registry = jsonschema::Registry::new().extend(parts).unwrap().prepare().unwrap();
    let validator = jsonschema::options().with_registry(&registry).build(&whole).unwrap();
    let errors = |value: &Value| -> Vec<String> {
        validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
    };
    let value = &document().value;
    assert_eq!(errors(value), Vec::<String>::new());
    // It is looked at closely: schemas inside, too.
    for (place, wrong) in [
        ("/paths/~1v1~1host/get/responses", json!({"200": {}})),
        ("/paths/~1v1~1vms~1{name}/get/parameters/0/in", json!("body")),
        ("/components/schemas/VmStatus/properties/size", json!({"type": "size"})),
        ("/components/schemas/VmStatus/required", json!("size")),
    ] {
        let mut changed = value.clone();
        *changed.pointer_mut(place).unwrap() = wrong;
        assert!(!errors(&changed).is_empty(), "{place}");
    }
}

/// Checks what the schema of OpenAPI cannot: names are unique, references lead somewhere, and names
/// in a path are parameters.
#[test]
fn the_description_is_coherent() {
    let _host = Host::new(512, "");
    let document = document();
    let mut ids = BTreeSet::new();
    for (method, path) in described(document) {
        let operation = &document.value["paths"][&path][&method];
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        let parameters: &[Value] = operation["parameters"].as_array().map_or(&[], Vec::as_slice);
        let in_path = |parameter: &&Value| parameter["in"] == "path";
        let names: Vec<&str> =
            parameters.iter().filter(in_path).map(|p| p["name"].as_str().unwrap()).collect();
        let parts: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        assert_eq!(names, parts, "{path}");
    }
    let mut left = vec![&document.value];
    let mut references = 0;
    while let Some(value) = left.pop() {
        references += usize::from(value.get("$ref").is_some());
        document.resolved(value);
        left.extend(value.as_object().into_iter().flat_map(|members| members.values()));
        left.extend(value.as_array().into_iter().flatten());
    }
    assert!(references > 300, "{references}");
    let text = document.value.to_string();
    for words in ["`None`", "[`", "#/given/"] {
        assert!(!text.contains(words), "{words}");
    }
}

/// Status of an answer, and the type of its error.
fn status(host: &Host, method: &str, path: &str) -> (u16, String) {
    let mut stream = host.connect();
    let path = path.replace("{name}", "x");
    let method = method.to_uppercase();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = String::new();
    // What is no error may go on for ever.
    if status >= 400 {
        stream.read_to_string(&mut rest).unwrap();
    }
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let error = serde_json::from_str::<Value>(body).unwrap_or_default();
    (status, error["type"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn all_that_is_described_is_served_and_no_other_method() {
    let host = Host::new(512, "");
    let described = described(document());
    for path in described.iter().map(|(_, path)| path).collect::<BTreeSet<_>>() {
        for method in METHODS {
            let (status, error) = status(&host, method, path);
            let is_described = described.contains(&(method.to_owned(), path.clone()));
            assert_eq!(status != 405, is_described, "{method} {path}: {status}");
            assert_ne!(error, "urn:plimsoll:problem:no-path", "{method} {path}");
        }
    }
}

/// Methods and paths of the table, with `{name}` for NAME.
fn table() -> BTreeSet<(String, String)> {
    let rows = TABLES.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let routes = rows.filter_map(|row| row.split_once('`')?.0.split_once(' '));
    let plain = |path: &str| path.split('?').next().unwrap().replace("NAME", "{name}");
    routes.map(|(method, path)| (method.to_lowercase(), plain(path))).collect()
}

#[test]
fn the_table_of_paths_is_that_of_the_description() {
    let _host = Host::new(512, "");
    let page = |path: &str| document().value["paths"][path]["get"]["tags"] == json!(["page"]);
    let mut described = described(document());
    described.retain(|(_, path)| !page(path));
    assert_eq!(described, table());
}

#[test]
fn the_table_of_errors_is_that_of_the_description() {
    let _host = Host::new(512, "");
    let described = document().value["components"]["responses"].as_object().unwrap();
    let mut count = 0;
    for (kind, answer) in described {
        let example = &answer["content"]["application/problem+json"]["example"];
        let row = match example["status"].as_u64() {
            Some(status) => format!("//! | {status} | `{kind}` |"),
            None => "//! | 431 | |".to_owned(),
        };
        assert!(TABLES.contains(&row), "{row}");
        count += 1;
    }
    let rows = TABLES.lines().filter(|line| line.starts_with("//! | 4") || line.starts_with("//! | 5"));
    assert_eq!(rows.count(), count);
}

#[test]
fn an_answer_that_is_not_as_described_is_found() {
    let host = Host::new(512, "");
    let right = host.ask("GET", "/v1/host", "").1;
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body: Value = serde_json::from_str(&right).unwrap();
        change(&mut body);
        body.to_string()
    };
    let found = |path: &str, status: u16, media: &str, body: String| {
        let answer = Answer { status, head: String::new(), media: Some(media.to_owned()), body };
        catch_unwind(AssertUnwindSafe(|| document().check("GET", path, "", &answer))).is_err()
    };
    let is_json = "application/json";
    assert!(!found("/v1/host", 200, is_json, right.clone()));
    for (why, wrong) in [
        ("a member is missing", changed(&|host| drop(host.as_object_mut().unwrap().remove("budget")))),
        ("a member is not described", changed(&|host| host["colour"] = json!("blue"))),
        ("a size is text", changed(&|host| host["budget"] = json!("512MiB"))),
        ("a word is none of the list", changed(&|host| host["state"] = json!("dire"))),
        ("a member is null", changed(&|host| host["no_swap"] = Value::Null)),
    ] {
        assert!(found("/v1/host", 200, is_json, wrong), "{why}");
    }
    assert!(found("/v1/host", 201, is_json, right.clone()), "the status");
    assert!(found("/v1/host", 200, "text/plain", right.clone()), "the type");
    assert!(found("/v1/hosts", 200, is_json, right), "the path");
    let (_, error) = host.ask("GET", "/v1/vms/nobody", "");
    assert!(!found("/v1/vms/nobody", 404, "application/problem+json", error.clone()));
    assert!(found("/v1/vms", 404, "application/problem+json", error), "nothing is unknown there");
}
