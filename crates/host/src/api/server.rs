//! Takes connections and serves them, each within bounds: see [`super::gate`], [`super::stalls`],
//! [`super::body`] and [`super::pace`] for those beyond the heads of requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::{Accept, TlsAcceptor};

use super::client::{Client, Listener};
use super::gate::{Gate, Passage, Peer};
use super::pace::Pace;
use super::stalls::Unstalled;

/// How long a client may take for the head of a request, and a connection be open without any. A
/// head is sent in one go; less, and a client that asks each few seconds connects anew each time.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// Longest head of a request: longer ones are answered with 431.
const MOST_HEAD: usize = 16 << 10;
/// Most headers of a request: more are answered with 431.
const MOST_HEADERS: usize = 64;
/// How long to wait where no connection can be taken, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

/// The answer to a client that has too many connections.
const REFUSAL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nconnection: close\r\n",
    "retry-after: 1\r\ncontent-length: 275\r\n\r\n",
    r#"{"type":"urn:plimsoll:problem:busy","title":"Too many requests of this client","status":503,"#,
    r#""detail":"too many requests of this client are being answered: wait for them and try again","#,
    r#""error":"too many requests of this client are being answered: wait for them and try again"}"#
);

/// Serves `api` on the unix socket, to users of this machine.
pub(crate) async fn serve_unix(socket: UnixListener, api: Router, gate: Arc<Gate>) {
    let listener = Listener::new();
    loop {
        gate.opens().await;
        let accepted = socket.accept().await.and_then(|(stream, _)| {
            let user = stream.peer_cred()?.uid();
            Ok((stream, user))
        });
        match accepted {
            Ok((stream, user)) => admit(stream, Peer::User(user), &api, &gate, &listener, None),
            Err(e) => pause(&e).await,
        }
        // A flood does not keep those that were taken from being served.
        tokio::task::yield_now().await;
    }
}

/// Serves `api` over TCP, encrypted where there is `tls`.
pub(crate) async fn serve_tcp(socket: TcpListener, api: Router, gate: Arc<Gate>, tls: Option<TlsAcceptor>) {
    let listener = Listener::new();
    let tls = tls.map(|acceptor| Tls { acceptor, pace: Pace::of_handshakes() });
    loop {
        gate.opens().await;
        match socket.accept().await {
            Ok((stream, address)) => {
                admit(stream, Peer::at(address.ip()), &api, &gate, &listener, tls.as_ref());
            }
            Err(e) => pause(&e).await,
        }
        tokio::task::yield_now().await; // As above.
    }
}

async fn pause(e: &io::Error) {
    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!("no connection of the API can be taken: {e}");
    tokio::time::sleep(PAUSE).await;
}

fn admit<S>(
    stream: S,
    peer: Peer,
    api: &Router,
    gate: &Arc<Gate>,
    listener: &Arc<Listener>,
    tls: Option<&Tls>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = Unstalled::new(stream);
    match gate.enter(peer) {
        Some(passage) => {
            let client = Client { peer, listener: Arc::clone(listener) };
            match tls {
                Some(tls) => {
                    let Some(turn) = tls.pace.turn(peer, 1, Instant::now()) else {
                        return tracing::debug!(
                            "a peer, or all of them, agree on TLS too often: it is not answered"
                        );
                    };
                    let handshake = tls.acceptor.accept(stream);
                    tokio::spawn(serve_encrypted(turn, handshake, passage, client, api.clone()));
                }
                None => drop(tokio::spawn(serve(stream, passage, client, api.clone()))),
            }
        }
        // What is not encrypted would make no sense there.
        None if tls.is_some() => {}
        None => {
            tokio::spawn(async move {
                // What fits into the socket at once.
                let told = stream.write_all(REFUSAL.as_bytes());
                tokio::time::timeout(PAUSE, told).await.ok();
            });
        }
    }
}

/// What encrypts connections, and how often peers may agree on that.
struct Tls {
    acceptor: TlsAcceptor,
    pace: Pace,
}

/// Serves one connection over TLS, once it is the peer's `turn` and both sides have agreed on it.
async fn serve_encrypted<S>(
    turn: Instant,
    handshake: Accept<S>,
    passage: Passage,
    client: Client,
    api: Router,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let agree = async {
        sleep_until(turn).await;
        tokio::time::timeout(HEAD_TIME, handshake).await
    };
    let agreed = tokio::select! {
        agreed = agree => agreed,
        () = passage.ends() => return,
    };
    match agreed {
        Ok(Ok(stream)) => serve(stream, passage, client, api).await,
        Ok(Err(e)) => tracing::debug!("a client does not agree on TLS: {e}"),
        Err(_) => {}
    }
}

/// Serves one connection until it ends, fails, is late, or has to end for another one.
pub(super) async fn serve<S>(stream: S, passage: Passage, client: Client, api: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let passage = Arc::new(passage);
    let api = TowerToHyperService::new(api);
    let answer = |mut request: Request<Incoming>| {
        let answering = passage.answer();
        request.extensions_mut().insert(client.clone());
        let answer = hyper::service::Service::call(&api, request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::select! {
        served = connection => {
            if let Err(e) = served {
                tracing::debug!("a connection of the API ended: {e}");
            }
        }
        () = passage.ends() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use axum::body::Bytes;
    use axum::middleware::{Next, from_fn};
    use axum::routing::{get, post};
    use plimsoll_protocol::api::ErrorBody;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::api::pace;

    /// A client whose connection is served by an API that echoes.
    fn connect() -> DuplexStream {
        let echo = async |body: Bytes| format!("<{}>", String::from_utf8_lossy(&body));
        let ask = |request: axum::extract::Request, next: Next| pace::ask(10, request, next);
        let costly = get(echo).layer(from_fn(ask));
        let api = Router::new().route("/", post(echo).get(echo)).route("/costly", costly);
        let api = super::super::within_bounds(api);
        let (client, server) = duplex(1 << 20);
        let peer = Peer::User(1);
        let passage = Gate::new(1, 1).enter(peer).unwrap();
        tokio::spawn(serve(server, passage, Client { peer, listener: Listener::new() }, api));
        client
    }

    /// Returns the answer to `request` up to the end of the connection, and the time that it took.
    async fn answered(request: &str) -> (String, Duration) {
        let (mut client, begin) = (connect(), Instant::now());
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        (answer, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_request_is_given_up() {
        for begun in ["", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            let (_, after) = answered(begun).await;
            assert_eq!(after, HEAD_TIME, "{begun}");
        }
        let (answer, after) = answered("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("<>"), "{answer}");
        assert_eq!(after, HEAD_TIME, "it is kept for another request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (answer, after) = answered("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("did not arrive within 10 s"));
        assert!(after <= Duration::from_secs(10) + HEAD_TIME, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_no_longer_than_they_may_be() {
        let long = "x".repeat(70_000);
        let body = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\n\r\n{long}");
        let (answer, _) = answered(&body).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("longer than 65536 bytes"));
        let chunked =
            format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n11170\r\n{long}");
        assert!(answered(&chunked).await.0.starts_with("HTTP/1.1 413 "));
        let (answer, _) = answered(&format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        let mut many = "GET / HTTP/1.1\r\nhost: x\r\n".to_owned();
        (0..MOST_HEADERS).for_each(|n| write!(many, "x{n}: y\r\n").unwrap());
        assert!(answered(&format!("{many}\r\n")).await.0.starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_changes_in_a_loop_is_slowed_and_reading_is_not() {
        let one = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        let (answer, after) = answered(&one.repeat(400)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 400);
        assert!(after >= Duration::from_secs(2) + HEAD_TIME, "{after:?}");
        let (answer, after) = answered(&one.replace("POST", "GET").repeat(400)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 400);
        assert_eq!(after, HEAD_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_costly_questions_in_a_loop_is_slowed() {
        let one = "GET /costly HTTP/1.1\r\nhost: x\r\n\r\n";
        let (answer, after) = answered(&one.repeat(400)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 400);
        // A hundred at once, and fifty a second.
        assert!(after >= Duration::from_secs(6) + HEAD_TIME, "{after:?}");
    }

    #[test]
    fn the_refusal_is_whole() {
        let (head, body) = REFUSAL.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let problem: ErrorBody = serde_json::from_str(body).unwrap();
        assert_eq!((problem.status, problem.detail), (503, problem.error));
    }
}
