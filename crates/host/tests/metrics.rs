//! `/metrics`: what adds up in the ledger adds up there, and what rules and the dashboard name is
//! there.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use host::document::document;
use host::{Answer, Host, definition, wait_until};
use plimsoll_protocol::status::{PoolStatus, Power, VmStatus};
use serde_json::json;

/// One line of metrics.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All metrics of an answer.
struct Metrics {
    samples: Vec<Sample>,
    /// The types of families, by name.
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads Prometheus' own format, in which every family has a meaning and a type.
    fn read(text: &str) -> Self {
        let (mut samples, mut types) = (Vec::new(), BTreeMap::new());
        let mut explained = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, meaning) = help.split_once(' ').unwrap();
                assert!(meaning.len() > 10, "{line}");
                explained = name.to_owned();
            } else if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert_eq!(name, explained);
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
            } else {
                let sample = sample(line);
                assert!(types.contains_key(&sample.name), "{line}");
                samples.push(sample);
            }
        }
        Self { samples, types }
    }

    fn of<'a>(
        &'a self,
        name: &'a str,
        label: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = &'a Sample> {
        assert!(self.types.contains_key(name), "there is no {name}");
        self.samples.iter().filter(move |sample| {
            let fits =
                label.is_none_or(|(label, value)| sample.labels.get(label).is_some_and(|v| v == value));
            sample.name == name && fits
        })
    }

    fn sum(&self, name: &str) -> f64 {
        self.of(name, None).map(|sample| sample.value).sum()
    }

    /// The sum of those that have `label`.
    fn sum_where(&self, name: &str, label: (&str, &str)) -> f64 {
        self.of(name, Some(label)).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Sample {
    let (what, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match what.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (what, ""),
    };
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
}

/// A host on which something of everything happens.
fn busy_host() -> Host {
    let host = Host::new(640, "");
    assert_eq!(host.ask("POST", "/v1/pools", r#"{"name": "prod", "limit": "400MiB"}"#).0, 200);
    for name in ["a", "greedy", "sharer-1", "sharer-2"] {
        let mut definition = definition(name, "96MiB");
        definition["memory"] = json!({"sharing": "prod"});
        if name != "a" {
            definition["pool"] = json!("prod");
        }
        let (status, body) = host.ask("POST", "/v1/vms", &definition.to_string());
        assert_eq!(status, 200, "{body}");
    }
    host.run("off", "64MiB");
    assert_eq!(host.ask("POST", "/v1/vms/off/kill", "").0, 200);
    wait_until("it is off", || Some(host.vm("off")).filter(|vm| vm.power == Power::Off));
    wait_until("VMs share", || Some(host.status()).filter(|host| host.frames.0 > 0));
    host
}

#[test]
fn what_adds_up_in_the_ledger_adds_up_in_the_metrics() {
    let host = busy_host();
    let (status, text) = host.ask("GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
    let metrics = Metrics::read(&text);
    let used = |part| metrics.sum_where("plimsoll_host_memory_bytes", ("use", part));
    assert!(["granted", "overhead", "frames", "free"].iter().all(|part| used(part) > 0.0), "{text}");
    assert_eq!(metrics.sum("plimsoll_host_memory_bytes"), metrics.sum("plimsoll_host_budget_bytes"));
    assert_eq!(metrics.sum("plimsoll_vm_grant_bytes"), used("granted"));
    assert_eq!(metrics.sum("plimsoll_vm_overhead_bytes"), used("overhead"));
    // Parts of frames are whole pages.
    let (parts, vms) = (metrics.sum("plimsoll_vm_frames_bytes"), 4.0);
    assert!(parts > 0.0 && (parts - used("frames")).abs() <= vms * 4096.0, "{parts} {}", used("frames"));
    for part in ["held", "resident", "ballooned", "shared", "zero", "compressed", "store", "swapped"] {
        let [host, vms] = ["host", "vm"].map(|of| metrics.sum(&format!("plimsoll_{of}_{part}_bytes")));
        assert_eq!(host, vms, "{part}");
    }
    for (of_host, of_vms) in
        [("running_vms", "running"), ("stalled_vms", "stalled"), ("blocked_vms", "blocked")]
    {
        let of_host = metrics.sum(&format!("plimsoll_host_{of_host}"));
        assert_eq!(of_host, metrics.sum(&format!("plimsoll_vm_{of_vms}")), "{of_vms}");
    }
    assert_eq!(metrics.sum("plimsoll_host_state"), 1.0);
    assert_eq!(metrics.of("plimsoll_vm_running", None).count(), 5);
    // A pool is charged what its VMs are.
    let charged = |vm: &str| {
        ["grant", "frames"]
            .map(|part| metrics.sum_where(&format!("plimsoll_vm_{part}_bytes"), ("vm", vm)))
            .iter()
            .sum::<f64>()
    };
    let inside = metrics.of("plimsoll_vm_info", Some(("pool", "prod")));
    let inside: f64 = inside.map(|vm| charged(&vm.labels["vm"])).sum();
    assert_eq!(metrics.sum("plimsoll_pool_charged_bytes"), inside);
}

#[test]
fn the_metrics_are_what_the_api_says() {
    let host = busy_host();
    let metrics = Metrics::read(&host.ask("GET", "/metrics", "").1);
    let vms: Vec<VmStatus> = host.get("/v1/vms");
    let names: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
    let told: Vec<&str> =
        metrics.of("plimsoll_vm_size_bytes", None).map(|s| s.labels["vm"].as_str()).collect();
    assert_eq!(told, names);
    for vm in &vms {
        let of = |name: &str| metrics.sum_where(&format!("plimsoll_vm_{name}"), ("vm", vm.name.as_str()));
        assert_eq!(of("size_bytes"), vm.size.0 as f64);
        assert_eq!(of("reservation_bytes"), vm.reservation.0 as f64);
        assert_eq!(of("limit_bytes"), vm.limit.0 as f64);
        assert_eq!(of("shares"), vm.share_count as f64);
        assert_eq!(of("overhead_bytes"), vm.overhead.0 as f64);
    }
    assert_eq!(metrics.of("plimsoll_vm_held_bytes", Some(("vm", "off"))).count(), 0, "it is off");
    let pools: Vec<PoolStatus> = host.get("/v1/pools");
    assert_eq!(metrics.sum("plimsoll_pool_limit_bytes"), pools[0].limit.unwrap().0 as f64);
    // Only names of VMs and pools, which operators give, and words of ours tell series apart.
    let labels: BTreeSet<&str> =
        metrics.samples.iter().flat_map(|sample| sample.labels.keys()).map(String::as_str).collect();
    assert_eq!(labels, ["model", "parent", "pool", "sharing", "state", "use", "version", "vm"].into());
    let of_a = metrics.samples.iter().filter(|s| s.labels.get("vm").is_some_and(|vm| vm == "a")).count();
    assert!(of_a < 64, "{of_a} series of one VM");
}

/// The head of the answer to a client that accepts `accept`, and its body.
fn asked(host: &Host, accept: &str) -> (String, String) {
    let mut stream = UnixStream::connect(host.path("run/plimsoll.sock")).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{accept}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    document().check("GET", "/metrics", "", &Answer::read(&answer));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn clients_are_answered_in_the_format_that_they_read() {
    let host = busy_host();
    let (head, open) = asked(&host, "accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(open.ends_with("\n# EOF\n") && open.contains("# TYPE plimsoll_vm_swap_in_bytes counter\n"));
    assert!(open.contains("# UNIT plimsoll_vm_swap_in_bytes bytes\n"), "{open}");
    for accept in ["", "accept: text/plain\r\n"] {
        let (head, classic) = asked(&host, accept);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        assert!(classic.contains("# TYPE plimsoll_vm_swap_in_bytes_total counter\n"), "{classic}");
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&classic), samples(&open));
    }
    host.refused(405, "POST", "/metrics", "");
}

#[test]
fn what_rules_and_dashboard_name_is_there() {
    let host = Host::new(512, "");
    let metrics = Metrics::read(&host.ask("GET", "/metrics", "").1);
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let read = |file: &str| std::fs::read_to_string(packaging.join(file)).unwrap();
    let rules = read("prometheus/rules.yml");
    let recorded: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    assert!(recorded.len() > 5);
    for file in ["prometheus/rules.yml", "prometheus/rules_test.yml", "grafana/plimsoll.json"] {
        let text = read(file);
        // Words as PromQL has them, with colons in the names of recorded ones.
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let named: BTreeSet<&str> =
            text.split(|c| !word(c)).filter(|word| word.contains("plimsoll_")).collect();
        assert!(named.len() > 10, "{file}: {named:?}");
        for name in named {
            let name = name.trim_end_matches(':');
            assert!(metrics.types.contains_key(name) || recorded.contains(name), "{file}: {name}");
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana/plimsoll.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 8);
}
