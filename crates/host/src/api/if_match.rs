use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;

use super::openapi::{Part, Taken};
use crate::version::Version;

/// The versions for which a request is meant: those that `If-Match` names. `None`: any.
pub(super) struct IfMatch(pub(super) Option<Vec<Version>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut lists = parts.headers.get_all(IF_MATCH).iter().peekable();
        if lists.peek().is_none() {
            return Ok(Self(None));
        }
        let tags: Vec<&str> = lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .collect();
        if tags.contains(&"*") {
            return Ok(Self(None));
        }
        // A tag that is not ours, such as a weak one, matches no version.
        let versions = tags.iter().filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
        Ok(Self(Some(versions.map(|tag| Version(tag.to_owned())).collect())))
    }
}

impl Part for IfMatch {
    fn describe(taken: &mut Taken<'_>) {
        let about = "The `ETag` of what the client has read. If it is another by now, nothing is changed.";
        taken.header::<String>("If-Match", about);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn tags_are_versions_and_what_is_none_is_no_version() {
        let versions = |all: &[&str]| Some(all.iter().map(|tag| Version((*tag).to_owned())).collect());
        for (values, expected) in [
            (&[][..], None),
            (&["*"], None),
            (&["\"a\""], versions(&["a"])),
            (&["\"a\", \"b\"", "\"c\""], versions(&["a", "b", "c"])),
            (&["W/\"a\"", "b", ""], versions(&[])),
        ] {
            let mut request = Request::builder();
            for value in values {
                request = request.header(IF_MATCH, *value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let Ok(IfMatch(found)) = IfMatch::from_request_parts(&mut parts, &()).await;
            assert_eq!(found, expected, "{values:?}");
        }
    }
}
