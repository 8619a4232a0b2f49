//! Answers that may take much memory until they are read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// What the server is given at a time. Pieces are copies: over TLS the server keeps what it was
/// given last until the client has read it, after it has forgotten the body, and part of the text
/// would keep all of it in memory without being counted.
const PIECE: usize = 64 << 10;

/// The body of an answer that keeps its place for as long as its text is in memory.
#[derive(Debug)]
pub(super) struct Long {
    left: Bytes,
    _place: OwnedSemaphorePermit,
}

impl Long {
    pub(super) fn new(text: String, place: OwnedSemaphorePermit) -> Self {
        Self { left: text.into(), _place: place }
    }
}

impl Body for Long {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = PIECE.min(self.left.len());
        let piece = Bytes::copy_from_slice(&self.left.split_to(piece));
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn an_answer_comes_whole_and_keeps_its_place_until_then() {
        let places = Arc::new(Semaphore::new(1));
        let text: String = ('a'..='z').cycle().take(3 * PIECE + 1).collect();
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let mut long = Long::new(text.clone(), place);
        assert_eq!(long.size_hint().exact(), Some(text.len() as u64));
        let mut read = Vec::new();
        while let Some(frame) = long.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            read.extend_from_slice(&piece);
            assert_eq!(places.available_permits(), 0);
        }
        assert_eq!(read, text.as_bytes());
        drop(long);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn pieces_that_wait_for_their_client_do_not_keep_the_rest_in_memory() {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut long = Long::new("x".repeat(3 * PIECE), place);
        let mut kept = Vec::new();
        while let Some(frame) = long.frame().await {
            kept.push(frame.unwrap().into_data().unwrap());
            assert!(long.left.is_empty() || long.left.is_unique());
        }
        assert_eq!(kept.len(), 3);
    }
}
