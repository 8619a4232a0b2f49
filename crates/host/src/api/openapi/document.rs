use plimsoll_protocol::api::{DEFAULT_SOCKET, ErrorBody};
use serde_json::{Map, Value, json};

use super::operation::{Described, LONG_HEAD, Tag};
use super::schemas::Schemas;
use crate::api::answer::ErrorKind;

/// Describes `routes`, and `files` that are served beside them: path and type each.
pub(super) fn document(
    routes: &[Described],
    files: impl Iterator<Item = (&'static str, &'static str)>,
) -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.word()] = route.described(&mut schemas);
    }
    for (path, kind) in files {
        paths.insert(path.to_owned(), json!({"get": file(path, kind)}));
    }
    let error = schemas.answered::<ErrorBody>();
    let answers = ErrorKind::ALL.iter().map(|kind| (kind.word().to_owned(), refusal(*kind, &error)));
    let mut answers: Map<String, Value> = answers.collect();
    let about = "The head of the request is too long. The answer has no body.";
    answers.insert(LONG_HEAD.to_owned(), json!({"description": about}));
    let tags: Vec<Value> =
        Tag::ALL.iter().map(|tag| json!({"name": tag.word(), "description": tag.about()})).collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Plimsoll",
            "version": env!("CARGO_PKG_VERSION"),
            "description": about_the_api(),
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "tags": tags,
        "paths": paths,
        "components": {
            "responses": answers,
            "headers": {
                "unsaved": header("The change is in effect and not on disk yet: why not."),
                "tag": header("Another one whenever the answer is another. For `If-Match`."),
            },
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "The token in the daemon's token file, for TCP. The unix socket needs none.",
            }},
        },
    });
    schemas.settle(document)
}

fn about_the_api() -> String {
    format!(
        "The API of plimsolld, on the unix socket {DEFAULT_SOCKET} and, where its configuration says so, on TCP. \
         Sizes are whole bytes in answers, and bytes or text such as \"512MiB\" in requests. Errors are problem \
         details (RFC 9457). A path that is not here is answered with 404, and a method that its path does not \
         have with 405."
    )
}

/// An error's answer. The example has the values that all errors of the kind have.
fn refusal(kind: ErrorKind, schema: &Value) -> Value {
    let example = json!({
        "type": kind.urn(),
        "title": kind.title(),
        "status": kind.status().as_u16(),
        "detail": "what failed, on what, and what to do, in one line",
        "error": "the same text as that of detail",
    });
    let mut answer = json!({
        "description": kind.title(),
        "content": {"application/problem+json": {"schema": schema, "example": example}},
    });
    match kind {
        ErrorKind::Unauthorized => {
            answer["headers"] = json!({"WWW-Authenticate": header("The scheme: Bearer.")});
        }
        ErrorKind::TooOften | ErrorKind::Busy => {
            answer["headers"] = json!({"Retry-After": header("Seconds after which to try again.")});
        }
        _ => {}
    }
    answer
}

fn header(about: &str) -> Value {
    json!({"description": about, "schema": {"type": "string"}})
}

/// A file of the web page.
fn file(path: &str, kind: &str) -> Value {
    let media = kind.split(';').next().unwrap_or(kind);
    json!({
        "tags": [Tag::Page.word()],
        "operationId": format!("page{}", path.replace(['/', '.'], "_")),
        "summary": format!("The file {path} of the web page"),
        "security": [],
        "responses": {
            "200": {"description": "The file.", "content": {media: {"schema": {"type": "string"}}}},
            "431": {"$ref": format!("#/components/responses/{LONG_HEAD}")},
            "503": {"$ref": format!("#/components/responses/{}", ErrorKind::Busy.word())},
        },
    })
}
