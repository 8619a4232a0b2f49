//! The daemon's metrics, and the rules that read them, judged by Debian's Prometheus.
//!
//! Its programs are unpacked, not installed: installing them would start its service.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plimsoll_lab::command::{output, run};
use plimsoll_lab::workspace;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_units::Bytes;
use preflight::deb;
use serde_json::Value;
use tempfile::TempDir;

/// The step's name.
pub(super) const NAME: &str = "prometheus";

/// What clients over TCP have to show. Nothing outside of this test's directory takes it.
const TOKEN: &str = "prometheus-of-the-tests";

/// What each guest writes.
const WRITTEN: Bytes = Bytes::mib(16);

/// How long Prometheus may take to start, and to have scraped and judged what it is asked for.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Pause between two questions to Prometheus.
const TICK: Duration = Duration::from_millis(200);

/// What must be so of two VMs by what Prometheus has scraped. Each gives 1 where it is.
const TRUTHS: &[&str] = &[
    "sum(plimsoll_host_memory_bytes) == bool sum(plimsoll_host_budget_bytes)",
    "sum(plimsoll_vm_grant_bytes) == bool sum(plimsoll_host_memory_bytes{use='granted'})",
    "sum(plimsoll_vm_overhead_bytes) == bool sum(plimsoll_host_memory_bytes{use='overhead'})",
    "sum(plimsoll_vm_held_bytes) == bool sum(plimsoll_host_held_bytes)",
    "min(plimsoll_vm_held_bytes) >= bool 16777216",
    "sum(plimsoll_vm_running) == bool 2",
    "count(plimsoll_vm_info{pool='/'}) == bool 2",
    "sum(plimsoll_host_state) == bool 1",
    "min(plimsoll_vm_faults_total) > bool 0",
    "count(instance:plimsoll_host_used:ratio) == bool 1",
    "count(vm:plimsoll_vm_stall_full:ratio_rate1m) == bool 2",
];

/// Judges the rules, and a daemon with two model guests.
///
/// # Errors
/// What is wrong.
pub(super) fn check() -> Result<()> {
    let programs = Programs::unpack()?;
    let rules = workspace::root().join("packaging/prometheus");
    programs.promtool(&["check", "rules", "rules.yml"], &rules)?;
    programs.promtool(&["test", "rules", "rules_test.yml"], &rules)?;
    workspace::build_for_models()?;
    let token = programs.token();
    fs::write(&token, TOKEN)?;
    fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).context("closing the token file")?;
    let tcp = format!("[tcp]\nlisten = '127.0.0.1:0'\ntoken_file = {token:?}\n");
    let stage = Stage::open_with(Bytes::mib(512), &tcp)?;
    let result = scraped(&programs, &stage, &rules.join("rules.yml"));
    stage.explained(result)
}

fn scraped(programs: &Programs, stage: &Stage, rules: &Path) -> Result<()> {
    for name in ["prometheus-a", "prometheus-b"] {
        stage.run(&Definition::new(name, Bytes::mib(128), Runs::Model))?;
        stage.toucher(name)?.ask(&format!("touch {} 1", WRITTEN.0), TIMEOUT)?;
    }
    let metrics = stage.ask("GET", "/metrics", "")?.success()?;
    programs.lint(&metrics)?;
    let log = stage.daemon_log();
    let daemon = log
        .split_once("also on tcp ")
        .and_then(|(_, rest)| rest.split_once(','))
        .context("no TCP address")?
        .0;
    let server = Server::start(programs, stage.path(), daemon, rules)?;
    server.wait("the daemon has been scraped", |server| {
        let targets = server.ask("/api/v1/targets?state=active")?;
        let target = &targets["activeTargets"][0];
        let error = target["lastError"].as_str().unwrap_or_default();
        ensure!(error.is_empty(), "it cannot be scraped: {error}");
        Ok(target["health"] == "up")
    })?;
    for truth in TRUTHS {
        server.wait(truth, |server| {
            let answer = server.ask(&format!("/api/v1/query?query={}", encoded(truth)))?;
            Ok(answer["result"][0]["value"][1] == "1")
        })?;
    }
    let judged = |rule: &Value| match rule["health"].as_str() {
        Some("ok") => Ok(true),
        Some("unknown") => Ok(false),
        other => bail!("rule {}: {other:?}: {}", rule["name"], rule["lastError"]),
    };
    server.wait("all rules have been evaluated", |server| {
        let answer = server.ask("/api/v1/rules")?;
        let groups = answer["groups"].as_array().context("no groups of rules")?;
        let rules: Vec<&Value> =
            groups.iter().flat_map(|group| group["rules"].as_array()).flatten().collect();
        ensure!(rules.len() > 10, "only {} rules are loaded", rules.len());
        let judged: Vec<bool> = rules.into_iter().map(judged).collect::<Result<_>>()?;
        Ok(judged.into_iter().all(|judged| judged))
    })
}

/// Prometheus' programs, and the token that it shows the daemon.
struct Programs {
    directory: TempDir,
}

impl Programs {
    fn unpack() -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory")?;
        for package in deb::PROMETHEUS {
            run(Command::new("dpkg-deb").arg("-x").arg(deb::file(package)?).arg(directory.path()))?;
        }
        Ok(Self { directory })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory.path().join("usr/bin").join(name)
    }

    fn token(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    fn promtool(&self, arguments: &[&str], directory: &Path) -> Result<()> {
        output(Command::new(self.program("promtool")).args(arguments).current_dir(directory)).map(drop)
    }

    /// Has promtool judge `metrics` in Prometheus' own format.
    fn lint(&self, metrics: &str) -> Result<()> {
        let file = self.directory.path().join("metrics");
        fs::write(&file, metrics)?;
        let mut promtool = Command::new(self.program("promtool"));
        promtool.args(["check", "metrics"]).stdin(fs::File::open(&file)?);
        let told = promtool.output().context("starting promtool")?;
        let said = [told.stdout, told.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(told.status.success() && said.trim().is_empty(), "promtool check metrics: {}", said.trim());
        Ok(())
    }
}

/// A Prometheus that scrapes one daemon each second. Dropping it ends it.
struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    fn start(programs: &Programs, directory: &Path, daemon: &str, rules: &Path) -> Result<Self> {
        // Another program may take the port before Prometheus does; then its log says so.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (file, log) = (directory.join("prometheus.yml"), directory.join("prometheus.log"));
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "plimsoll",
                "authorization": {"credentials_file": programs.token()},
                "static_configs": [{"targets": [daemon]}],
            }],
        });
        // JSON is YAML.
        fs::write(&file, config.to_string())?;
        let mut prometheus = Command::new(programs.program("prometheus"));
        prometheus.arg(format!("--config.file={}", file.display()));
        prometheus.arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()));
        prometheus.arg(format!("--web.listen-address={address}"));
        prometheus.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        let child = prometheus.spawn().context("starting prometheus")?;
        let mut server = Self { child, address, log };
        let deadline = Instant::now() + TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("prometheus ended with {status}: {}", server.log());
            }
            ensure!(Instant::now() < deadline, "prometheus does not answer: {}", server.log());
            std::thread::sleep(TICK);
        }
        Ok(server)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `condition` holds.
    fn wait(&self, what: &str, condition: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !condition(self).with_context(|| what.to_owned())? {
            ensure!(Instant::now() < deadline, "in vain: {what}\n{}", self.log());
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// The data of an answer of Prometheus' API; nothing while it is not ready.
    fn ask(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer of prometheus")?;
        if head.split(' ').nth(1) == Some("503") {
            return Ok(Value::Null);
        }
        let mut body: Value = serde_json::from_str(body).with_context(|| format!("{path}: {body}"))?;
        ensure!(body["status"] == "success", "{path}: {body}");
        Ok(body["data"].take())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `text` as part of a URL's query.
fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}
