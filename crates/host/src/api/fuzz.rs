//! What a client may send over a connection, for a fuzzer, to an API with a core behind it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::client::{Client, Listener};
use super::gate::{Gate, Peer};
use super::{router, server};
use crate::core::fuzz::Host;
use crate::daemon::Caller;
use crate::incoming::Incoming;
use crate::paths::Paths;

/// Room for all that a client sends and is answered, so that neither waits for the other.
const ROOM: usize = 4 << 20;
/// How long a client waits for an answer. Answers that take a thread come later on a busy machine,
/// and are not looked at then.
const TIMEOUT: Duration = Duration::from_millis(2);

/// Sends `input` over a connection, and reads the answers. The first is whole, is of a status that
/// the API has, and tells of an error in one line.
///
/// # Panics
/// It is not.
pub(crate) fn api(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answers = runtime.expect("descriptors are left").block_on(answers(input));
    // The answer to HEAD has no body.
    if !answers.is_empty() && !input.trim_ascii_start().starts_with(b"HEAD") {
        check(&answers);
    }
}

/// What the API answers to `input`.
async fn answers(input: &[u8]) -> Vec<u8> {
    let (sender, mut inbox) = mpsc::channel(16);
    let paths = Paths { state: "/nowhere".into(), run: "/nowhere".into(), images: "/nowhere".into() };
    let api = router(Caller::to(sender), paths, watch::channel(0).1);
    let (mut client, end) = duplex(ROOM);
    let peer = Peer::User(1);
    let passage = Gate::new(1, 1).enter(peer).expect("it is the first");
    let serve = server::serve(end, passage, Client { peer, listener: Listener::new() }, api);
    let daemon = async {
        let mut host = Host::new();
        while let Some(incoming) = inbox.recv().await {
            if let Incoming::Call(request, answer) = incoming
                && let Some(result) = host.answered(*request)
            {
                answer.send(result).ok();
            }
        }
    };
    let talk = async {
        client.write_all(input).await.ok();
        let mut answers = Vec::new();
        // A client that closes its end is not answered any more.
        while let Ok(Ok(1..)) = timeout(TIMEOUT, client.read_buf(&mut answers)).await {}
        client.shutdown().await.ok();
        client.read_to_end(&mut answers).await.ok();
        answers
    };
    // Once the connection is over nobody asks the daemon any more.
    let ((), (), answers) = tokio::join!(serve, daemon, talk);
    answers
}

/// Checks the first of `answers`.
#[expect(clippy::panic, reason = "an answer that is none is what is looked for")]
fn check(answers: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(answers) else {
        panic!("no head of an answer: {:?}", String::from_utf8_lossy(answers));
    };
    let status = head.code.expect("the head is whole");
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let Some(told) = header("content-length") else {
        assert!(matches!(status, 100 | 200 | 204), "status {status} without a length");
        return;
    };
    let body = answers[length..].get(..told.parse().expect("a length")).expect("the body is whole");
    if status < 400 && header("content-type") == Some("application/json") {
        let _: serde_json::Value = serde_json::from_slice(body).expect("an answer is JSON");
    } else if status >= 400 && !body.is_empty() {
        let error: plimsoll_protocol::api::ErrorBody =
            serde_json::from_slice(body).expect("an error is JSON");
        assert!(!error.error.is_empty() && !error.error.contains('\n'), "{}", error.error);
        assert_eq!((error.status, &error.detail), (status, &error.error), "{error:?}");
        assert_eq!(header("content-type"), Some("application/problem+json"), "{error:?}");
        assert!(status < 500 || matches!(status, 500 | 507), "{status}: {}", error.error);
    }
}
