use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use super::answer::ApiError;
use super::openapi::{Part, Taken};
use crate::config::Tokens;

/// The same API, for clients that show one of the tokens.
pub(crate) fn with_tokens(api: Router, tokens: Tokens) -> Router {
    api.layer(from_fn_with_state(Arc::new(tokens), check))
}

async fn check(State(tokens): State<Arc<Tokens>>, mut request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
    let Some(right) = shown.and_then(|shown| right(&tokens, shown)) else {
        return ApiError::unauthorized().into_response();
    };
    if right == Right::View && !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::forbidden().into_response();
    }
    request.extensions_mut().insert(right);
    next.run(request).await
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Everything: it shows that token, or is on the unix socket.
    All,
    /// Read all but secrets.
    View,
}

impl<S: Send + Sync> FromRequestParts<S> for Right {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Only a listener with tokens tells.
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self::All))
    }
}

/// The description of the API has tokens for all operations.
impl Part for Right {
    fn describe(_: &mut Taken<'_>) {}
}

/// What the token `shown` permits.
fn right(tokens: &Tokens, shown: &str) -> Option<Right> {
    let is = |token: &str| same(shown.as_bytes(), token.as_bytes());
    // Both are compared, so that the time tells nothing.
    let (all, view) = (is(&tokens.all), tokens.view.as_deref().is_some_and(is));
    if all { Some(Right::All) } else { view.then_some(Right::View) }
}

/// Compares in a time that does not depend on how much is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |acc, (a, b)| std::hint::black_box(acc | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let tokens = Tokens { all: "secret".to_owned(), view: Some("looking".to_owned()) };
        assert_eq!(right(&tokens, "secret"), Some(Right::All));
        assert_eq!(right(&tokens, "looking"), Some(Right::View));
        for wrong in ["secre", "secrets", "Secret", "", "lookin"] {
            assert_eq!(right(&tokens, wrong), None);
        }
        let tokens = Tokens { view: None, ..tokens };
        assert_eq!(right(&tokens, "looking"), None);
        assert_eq!(right(&tokens, ""), None);
    }
}
