use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes as Body;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use plimsoll_protocol::api::{ErrorBody, Event, UNSAVED_HEADER};
use plimsoll_protocol::change::{DiskResize, PoolChange, Rename, VmChange};
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::explain::{HostExplanation, VmExplanation};
use plimsoll_protocol::history::History;
use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_protocol::status::{DiskSize, DomainStatus, HostStatus, PoolStatus, VmStatus};
use plimsoll_protocol::{PoolName, VmName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::address::Address;
use crate::exit::{Status, failed};

/// How long a connection may take: a unix socket takes it at once or never, a TCP connection a few
/// round trips.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long an answer may take. Starting a VM opens disks and starts a process, which a host short
/// of memory does slowly; a daemon that is silent for longer hangs, and the operator should know.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Largest answer: logs are the largest ones. More, and the owner of the socket could fill our
/// memory.
const MAX_ANSWER: usize = 256 << 20;

/// The daemon, as the CLI sees it: one method per entry of the API. Each call makes one connection.
pub(crate) struct Client {
    address: Address,
    runtime: Runtime,
    /// Why the last change that was made is not on disk.
    unsaved: RefCell<Option<String>>,
}

/// What is done to a VM's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Start,
    Stop,
    Kill,
    Pause,
    Resume,
    Reset,
}

/// Which of a VM's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogSource {
    Vmm,
    Console,
}

impl Client {
    pub(crate) fn new(address: Address) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        Ok(Self { address, runtime, unsaved: RefCell::new(None) })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Why a change that was made is not on disk.
    pub(crate) fn unsaved(&self) -> Option<String> {
        self.unsaved.borrow().clone()
    }

    pub(crate) fn host(&self) -> Result<HostStatus> {
        self.json(Method::GET, "/v1/host", Vec::new())
    }

    pub(crate) fn vms(&self) -> Result<Vec<VmStatus>> {
        self.json(Method::GET, "/v1/vms", Vec::new())
    }

    pub(crate) fn vm(&self, name: &VmName) -> Result<VmStatus> {
        self.json(Method::GET, &format!("/v1/vms/{name}"), Vec::new())
    }

    pub(crate) fn definition(&self, name: &VmName) -> Result<VmDefinition> {
        self.tagged_definition(name).map(|(definition, _)| definition)
    }

    /// A VM's definition, and its tag for [`Client::redefine`].
    pub(crate) fn tagged_definition(&self, name: &VmName) -> Result<(VmDefinition, Option<String>)> {
        let (method, path) = (Method::GET, format!("/v1/vms/{name}/definition"));
        let what = format!("{method} {path}");
        let answer = self.ask(method, &path, Vec::new(), None)?;
        Ok((read(&what, &answer.body)?, answer.tag))
    }

    pub(crate) fn define(&self, definition: &VmDefinition) -> Result<VmStatus> {
        self.json(Method::POST, "/v1/vms", serde_json::to_vec(definition)?)
    }

    pub(crate) fn define_only(&self, definition: &VmDefinition) -> Result<VmStatus> {
        self.json(Method::POST, "/v1/vms?start=false", serde_json::to_vec(definition)?)
    }

    /// Replaces a VM's definition; with a tag only if that is still the one of the tag.
    pub(crate) fn redefine(&self, definition: &VmDefinition, tag: Option<&str>) -> Result<VmStatus> {
        let (method, path) = (Method::PUT, format!("/v1/vms/{}/definition", definition.name));
        let what = format!("{method} {path}");
        let answer = self.ask(method, &path, serde_json::to_vec(definition)?, tag)?;
        read(&what, &answer.body)
    }

    pub(crate) fn rename(&self, name: &VmName, new: &VmName) -> Result<VmStatus> {
        let rename = Rename { name: new.clone() };
        self.json(Method::POST, &format!("/v1/vms/{name}/rename"), serde_json::to_vec(&rename)?)
    }

    pub(crate) fn change(&self, name: &VmName, change: &VmChange) -> Result<VmStatus> {
        self.json(Method::PATCH, &format!("/v1/vms/{name}"), serde_json::to_vec(change)?)
    }

    pub(crate) fn resize_disk(&self, name: &VmName, resize: DiskResize) -> Result<DiskSize> {
        self.json(Method::POST, &format!("/v1/vms/{name}/resize-disk"), serde_json::to_vec(&resize)?)
    }

    pub(crate) fn remove(&self, name: &VmName) -> Result<()> {
        self.answer(Method::DELETE, &format!("/v1/vms/{name}"), Vec::new()).map(drop)
    }

    pub(crate) fn act(&self, name: &VmName, act: Act) -> Result<VmStatus> {
        let act = match act {
            Act::Start => "start",
            Act::Stop => "stop",
            Act::Kill => "kill",
            Act::Pause => "pause",
            Act::Resume => "resume",
            Act::Reset => "reset",
        };
        self.json(Method::POST, &format!("/v1/vms/{name}/{act}"), Vec::new())
    }

    pub(crate) fn log(&self, name: &VmName, source: LogSource) -> Result<Vec<u8>> {
        let source = match source {
            LogSource::Vmm => "vmm",
            LogSource::Console => "console",
        };
        let path = format!("/v1/vms/{name}/log?source={source}");
        self.answer(Method::GET, &path, Vec::new()).map(|body| body.to_vec())
    }

    /// The events with ids above `after`, or all that are remembered.
    pub(crate) fn events(&self, after: Option<u64>) -> Result<Vec<Event>> {
        let after = after.map_or_else(String::new, |id| format!("?after={id}"));
        self.json(Method::GET, &format!("/v1/events{after}"), Vec::new())
    }

    pub(crate) fn history(&self, vm: Option<&VmName>) -> Result<History> {
        let vm = vm.map_or_else(String::new, |vm| format!("?vm={vm}"));
        self.json(Method::GET, &format!("/v1/history{vm}"), Vec::new())
    }

    pub(crate) fn history_csv(&self, vm: Option<&VmName>) -> Result<Vec<u8>> {
        let vm = vm.map_or_else(String::new, |vm| format!("&vm={vm}"));
        let path = format!("/v1/history?format=csv{vm}");
        self.answer(Method::GET, &path, Vec::new()).map(|body| body.to_vec())
    }

    pub(crate) fn explain(&self) -> Result<HostExplanation> {
        self.json(Method::GET, "/v1/explain", Vec::new())
    }

    pub(crate) fn explain_vm(&self, name: &VmName) -> Result<VmExplanation> {
        self.json(Method::GET, &format!("/v1/vms/{name}/explain"), Vec::new())
    }

    pub(crate) fn domains(&self) -> Result<Vec<DomainStatus>> {
        self.json(Method::GET, "/v1/sharing", Vec::new())
    }

    pub(crate) fn pools(&self) -> Result<Vec<PoolStatus>> {
        self.json(Method::GET, "/v1/pools", Vec::new())
    }

    pub(crate) fn define_pool(&self, definition: &PoolDefinition) -> Result<PoolStatus> {
        self.json(Method::POST, "/v1/pools", serde_json::to_vec(definition)?)
    }

    pub(crate) fn change_pool(&self, name: &PoolName, change: &PoolChange) -> Result<PoolStatus> {
        self.json(Method::PATCH, &format!("/v1/pools/{name}"), serde_json::to_vec(change)?)
    }

    pub(crate) fn remove_pool(&self, name: &PoolName) -> Result<()> {
        self.answer(Method::DELETE, &format!("/v1/pools/{name}"), Vec::new()).map(drop)
    }

    fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T> {
        let what = format!("{method} {path}");
        let answer = self.answer(method, path, body)?;
        read(&what, &answer)
    }

    fn answer(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Body> {
        self.ask(method, path, body, None).map(|answer| answer.body)
    }

    /// Asks; with `tag` only if what `path` has is still of that tag.
    fn ask(&self, method: Method, path: &str, body: Vec<u8>, tag: Option<&str>) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path);
        request = match &self.address {
            Address::Socket(_) => request.header("host", "localhost"),
            Address::Tcp { authority, .. } => request.header("host", authority),
        };
        if let Address::Tcp { token: Some(token), .. } = &self.address {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let request = request.body(Full::new(Body::from(body))).context("forming the request")?;
        let answer = self.runtime.block_on(async {
            match &self.address {
                Address::Socket(path) => {
                    let connected = timeout(CONNECT_TIME, UnixStream::connect(path)).await;
                    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    exchange(connected.map_err(|e| no_socket(path, &e))?, request).await
                }
                Address::Tcp { authority, tls, .. } => {
                    let connected = timeout(CONNECT_TIME, TcpStream::connect(authority)).await;
                    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    let connected = connected.map_err(|e| {
                        let text = format!(
                            "no daemon answers at {authority}: \
                             check host and port, and that plimsolld was told to listen there: {e}"
                        );
                        failed(Status::NoDaemon, text)
                    });
                    let Some(tls) = tls else { return exchange(connected?, request).await };
                    let agreed = timeout(CONNECT_TIME, tls.connect(connected?)).await;
                    let agreed =
                        agreed.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                    let agreed = agreed.map_err(|e| {
                        let text = format!(
                            "TLS with the daemon at {authority} failed: check --ca-file, and [tcp] in plimsolld's configuration: {e:#}"
                        );
                        failed(Status::NoDaemon, text)
                    });
                    exchange(agreed?, request).await
                }
            }
        })?;
        if answer.unsaved.is_some() {
            self.unsaved.borrow_mut().clone_from(&answer.unsaved);
        }
        Ok(answer)
    }
}

/// What the daemon has answered.
struct Answer {
    body: Body,
    /// Why the change is not on disk, if it is not.
    unsaved: Option<String>,
    /// The `ETag`.
    tag: Option<String>,
}

/// Reads the body of the answer to `what`.
fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).with_context(|| {
        format!(
            "the daemon's answer to {what} cannot be read by this version ({})",
            env!("CARGO_PKG_VERSION")
        )
    })
}

/// Sends `request` over `stream` and reads the answer.
async fn exchange<S>(stream: S, request: Request<Full<Body>>) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let what = format!("{} {}", request.method(), request.uri());
    let talk = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let (unsaved, tag) = (header(UNSAVED_HEADER), header("etag"));
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| anyhow!(e))?;
        connection.abort();
        anyhow::Ok((status, Answer { body: body.to_bytes(), unsaved, tag }))
    };
    let late = || format!("the daemon has not answered {what} within {} s", ANSWER_TIME.as_secs());
    let (status, answer) =
        timeout(ANSWER_TIME, talk).await.map_err(|_| failed(Status::NoDaemon, late()))?.map_err(|e| {
            let text = format!("the daemon closed the connection during {what}: see its log: {e:#}");
            failed(Status::NoDaemon, text)
        })?;
    if status.is_success() { Ok(answer) } else { Err(refusal(&what, status, &answer.body)) }
}

/// The error of a refused request. The daemon's text names what failed and what to do, so nothing
/// is added to it.
fn refusal(what: &str, status: StatusCode, body: &[u8]) -> anyhow::Error {
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) if status == StatusCode::UNAUTHORIZED => {
            format!("the daemon refuses the token for {what}: check --token-file")
        }
        Err(_) => format!("the daemon answered {status} to {what}: is it plimsolld, and of this version?"),
    };
    let status = match status {
        StatusCode::BAD_REQUEST => Status::Invalid,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Status::NoDaemon,
        StatusCode::NOT_FOUND => Status::Unknown,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Status::Conflict,
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::INSUFFICIENT_STORAGE => Status::Refused,
        _ => Status::Other,
    };
    failed(status, text)
}

/// Why there is no connection over a unix socket, and what to do about it.
fn no_socket(path: &Path, error: &io::Error) -> anyhow::Error {
    let shown = path.display();
    let text = match error.kind() {
        io::ErrorKind::NotFound => format!(
            "no daemon: the socket {shown} does not exist; start plimsolld, or name its socket with --socket"
        ),
        io::ErrorKind::ConnectionRefused => format!(
            "no daemon: no process listens at {shown}; start plimsolld again, or name its socket with --socket"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "no right to talk to the daemon at {shown}: run as root, or as a user that may write to the socket"
        ),
        io::ErrorKind::TimedOut => {
            format!("the daemon at {shown} accepts no connection: it hangs, or has too many; see its log")
        }
        _ => format!("connecting to the daemon at {shown}: {error}; name its socket with --socket"),
    };
    failed(Status::NoDaemon, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_own_words_are_not_repeated() {
        let body = br#"{"error":"VM a is on: stop it first"}"#;
        assert_eq!(refusal("X", StatusCode::CONFLICT, body).to_string(), "VM a is on: stop it first");
        assert!(refusal("GET /", StatusCode::NOT_FOUND, b"<html>").to_string().contains("404"));
    }
}
