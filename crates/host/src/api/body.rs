use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use tokio::time::timeout;

use super::answer::ApiError;

/// Largest body of a request: a definition with the longest command line and all its disks takes
/// some 40 KB (a path is up to 4096 bytes).
const MOST: usize = 64 << 10;
/// How long a body may take. Bodies fit into a socket's buffer: a slower client has left or means
/// harm, and another client needs its connection.
const TIME: Duration = Duration::from_secs(10);

/// Reads a request's body before its handler runs, within [`MOST`] and [`TIME`].
pub(super) async fn read_within_bounds(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match timeout(TIME, axum::body::to_bytes(body, MOST)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(e)) => {
            let e = e.into_inner();
            if e.is::<LengthLimitError>() {
                let text = format!("the request's body is longer than {MOST} bytes");
                return ApiError::too_long(text).into_response();
            }
            ApiError::invalid(format!("the request's body cannot be read: {e}")).into_response()
        }
        Err(_) => {
            let text =
                format!("the request's body did not arrive within {} s: send it at once", TIME.as_secs());
            ApiError::late(text).into_response()
        }
    }
}
