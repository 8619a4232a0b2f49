use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use plimsoll_protocol::api::{ErrorBody, UNSAVED_HEADER};
use serde::de::DeserializeOwned;

use crate::core::{Answer, Failure, FailureKind};

/// What a handler returns.
pub(super) type ApiResult = Result<Response, ApiError>;

/// An answer that is an error: a status and one line.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    pub(super) fn invalid(text: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text }
    }

    pub(super) fn no_path() -> Self {
        Self { status: StatusCode::NOT_FOUND, text: "no such path in this API".to_owned() }
    }

    pub(super) fn no_method() -> Self {
        let text = "this path of the API does not support that method".to_owned();
        Self { status: StatusCode::METHOD_NOT_ALLOWED, text }
    }

    pub(super) fn unauthorized() -> Self {
        let text = "the bearer token is missing or wrong: it is in the daemon's token file".to_owned();
        Self { status: StatusCode::UNAUTHORIZED, text }
    }

    pub(super) fn forbidden() -> Self {
        let text = "this token permits to look, and to change nothing".to_owned();
        Self { status: StatusCode::FORBIDDEN, text }
    }

    pub(super) fn too_long(text: String) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, text }
    }

    pub(super) fn late(text: String) -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, text }
    }

    pub(super) fn too_often(text: String) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, text }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            FailureKind::Unknown => StatusCode::NOT_FOUND,
            FailureKind::Conflict => StatusCode::CONFLICT,
            FailureKind::Invalid => StatusCode::BAD_REQUEST,
            FailureKind::NoMemory => StatusCode::INSUFFICIENT_STORAGE,
            FailureKind::Unfit => StatusCode::UNPROCESSABLE_ENTITY,
            FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, text: failure.text }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.text })).into_response()
    }
}

/// What was asked for, as JSON.
pub(super) fn success(answer: Answer) -> Response {
    match answer {
        Answer::Host(host) => Json(host).into_response(),
        Answer::Vms(vms) => Json(vms).into_response(),
        Answer::Vm(vm) => Json(vm).into_response(),
        Answer::Definition(definition) => Json(definition).into_response(),
        Answer::History(history) => Json(history).into_response(),
        Answer::Explanation(explanation) => Json(explanation).into_response(),
        Answer::Explained(explained) => Json(explained.finish()).into_response(),
        Answer::Pools(pools) => Json(pools).into_response(),
        Answer::Pool(pool) => Json(pool).into_response(),
        Answer::Sharing(domains) => Json(domains).into_response(),
        Answer::Events(events) => Json(events).into_response(),
        Answer::Overview(overview) => Json(overview).into_response(),
        Answer::Done => StatusCode::NO_CONTENT.into_response(),
        Answer::Unsaved(done, why) => {
            let why: String = why.chars().filter(|c| !c.is_control()).collect();
            let why = HeaderValue::from_bytes(why.as_bytes());
            let why = why.unwrap_or(HeaderValue::from_static("its file cannot be written"));
            ([(UNSAVED_HEADER, why)], success(*done)).into_response()
        }
    }
}

/// Reads a request's body, whatever content type it claims.
pub(super) fn parse<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let field = match e.path().to_string() {
            root if root == "." => String::new(),
            field => format!("{field}: "),
        };
        ApiError::invalid(format!("{what}: {field}{}", e.into_inner()))
    })?;
    json.end().map_err(|e| ApiError::invalid(format!("{what}: {e}")))?;
    Ok(value)
}
