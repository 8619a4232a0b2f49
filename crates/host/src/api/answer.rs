use axum::Json;
use axum::http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use plimsoll_protocol::api::{ErrorBody, UNSAVED_HEADER};
use plimsoll_text::without_controls;

use crate::core::{Answer, Failure, FailureKind};
use crate::version::Version;

/// What a handler returns.
pub(super) type ApiResult = Result<Response, ApiError>;

/// An answer that is an error: its kind and one line.
#[derive(Debug)]
pub(super) struct ApiError {
    kind: ErrorKind,
    text: String,
}

/// The kinds of errors: the table of [`plimsoll_protocol::api`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    Invalid,
    Unauthorized,
    Forbidden,
    NoPath,
    Unknown,
    NoMethod,
    Late,
    Conflict,
    Outdated,
    TooLong,
    Unfit,
    TooOften,
    Internal,
    Busy,
    NoMemory,
}

impl ErrorKind {
    /// All of them.
    pub(super) const ALL: [Self; 15] = [
        Self::Invalid,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NoPath,
        Self::Unknown,
        Self::NoMethod,
        Self::Late,
        Self::Conflict,
        Self::Outdated,
        Self::TooLong,
        Self::Unfit,
        Self::TooOften,
        Self::Internal,
        Self::Busy,
        Self::NoMemory,
    ];

    pub(super) fn status(self) -> StatusCode {
        self.described().0
    }

    /// Its name, which ends its type.
    pub(super) fn word(self) -> &'static str {
        self.described().1
    }

    pub(super) fn title(self) -> &'static str {
        self.described().2
    }

    /// Its type in problem details.
    pub(super) fn urn(self) -> String {
        format!("urn:plimsoll:problem:{}", self.word())
    }

    /// Status, word and title.
    fn described(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Invalid => (StatusCode::BAD_REQUEST, "invalid", "The request is invalid"),
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "The bearer token is missing or wrong")
            }
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "The token permits to look only"),
            Self::NoPath => (StatusCode::NOT_FOUND, "no-path", "There is no such path"),
            Self::Unknown => (StatusCode::NOT_FOUND, "unknown", "There is no such VM or pool"),
            Self::NoMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "no-method", "The path does not support the method")
            }
            Self::Late => (StatusCode::REQUEST_TIMEOUT, "late", "The body did not arrive in time"),
            Self::Conflict => {
                (StatusCode::CONFLICT, "conflict", "The state of the VM or pool does not allow it")
            }
            Self::Outdated => {
                (StatusCode::PRECONDITION_FAILED, "outdated", "The definition is another by now")
            }
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "too-long", "The body is too long"),
            Self::Unfit => {
                (StatusCode::UNPROCESSABLE_ENTITY, "unfit", "Something that the VM needs does not work")
            }
            Self::TooOften => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-often",
                "Too many changes or costly questions of this client",
            ),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The daemon could not do it"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many requests of this client"),
            Self::NoMemory => {
                (StatusCode::INSUFFICIENT_STORAGE, "no-memory", "It does not fit into machine memory")
            }
        }
    }
}

impl ApiError {
    pub(super) fn invalid(text: String) -> Self {
        Self { kind: ErrorKind::Invalid, text }
    }

    pub(super) fn no_path() -> Self {
        Self { kind: ErrorKind::NoPath, text: "no such path in this API".to_owned() }
    }

    pub(super) fn no_method() -> Self {
        let text = "this path of the API does not support that method".to_owned();
        Self { kind: ErrorKind::NoMethod, text }
    }

    pub(super) fn unauthorized() -> Self {
        let text = "the bearer token is missing or wrong: it is in the daemon's token file".to_owned();
        Self { kind: ErrorKind::Unauthorized, text }
    }

    pub(super) fn forbidden() -> Self {
        let text = "this token permits to look, and to change nothing".to_owned();
        Self { kind: ErrorKind::Forbidden, text }
    }

    pub(super) fn too_long(text: String) -> Self {
        Self { kind: ErrorKind::TooLong, text }
    }

    pub(super) fn late(text: String) -> Self {
        Self { kind: ErrorKind::Late, text }
    }

    pub(super) fn busy(text: String) -> Self {
        Self { kind: ErrorKind::Busy, text }
    }

    pub(super) fn internal(text: String) -> Self {
        Self { kind: ErrorKind::Internal, text }
    }

    pub(super) fn too_often(text: String) -> Self {
        Self { kind: ErrorKind::TooOften, text }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::Unknown => ErrorKind::Unknown,
            FailureKind::Conflict => ErrorKind::Conflict,
            FailureKind::Outdated => ErrorKind::Outdated,
            FailureKind::Invalid => ErrorKind::Invalid,
            FailureKind::NoMemory => ErrorKind::NoMemory,
            FailureKind::Unfit => ErrorKind::Unfit,
            FailureKind::Internal => ErrorKind::Internal,
        };
        Self { kind, text: failure.text }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (kind, status) = (self.kind, self.kind.status());
        let problem = ErrorBody {
            kind: kind.urn(),
            title: kind.title().to_owned(),
            status: status.as_u16(),
            detail: self.text.clone(),
            error: self.text,
        };
        let mut answer = (status, Json(problem)).into_response();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match kind {
            ErrorKind::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // A pace leaves a turn within that.
            ErrorKind::TooOften | ErrorKind::Busy => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        answer
    }
}

/// What was asked for, as JSON.
pub(super) fn success(answer: Answer) -> Response {
    match answer {
        Answer::Host(host) => Json(host).into_response(),
        Answer::Vms(vms) => Json(vms).into_response(),
        Answer::Vm(vm) => Json(vm).into_response(),
        Answer::Definition(definition) => {
            let tag = HeaderValue::try_from(format!("\"{}\"", Version::of(&definition).0));
            (tag.ok().map(|tag| [(ETAG, tag)]), Json(definition)).into_response()
        }
        Answer::History(recording) => Json(recording.history(None, Timestamp::now())).into_response(),
        Answer::Explanation(explanation) => Json(explanation).into_response(),
        Answer::Explained(explained) => Json(explained.finish()).into_response(),
        Answer::Pools(pools) => Json(pools).into_response(),
        Answer::Pool(pool) => Json(pool).into_response(),
        Answer::Sharing(domains) => Json(domains).into_response(),
        Answer::Events(events) => Json(events).into_response(),
        Answer::Overview(overview) => Json(overview).into_response(),
        Answer::DiskSize(size) => Json(size).into_response(),
        Answer::Done => StatusCode::NO_CONTENT.into_response(),
        Answer::Unsaved(done, why) => {
            let why = HeaderValue::from_bytes(without_controls(&why).as_bytes());
            let why = why.unwrap_or(HeaderValue::from_static("its file cannot be written"));
            ([(UNSAVED_HEADER, why)], success(*done)).into_response()
        }
    }
}
