use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::Page;

/// The page of the metrics: what `/metrics` says of each.
///
/// # Errors
/// The text is not as it was.
pub(super) fn page() -> Result<Page> {
    let text = plimsoll_host::metrics()?;
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helps = Vec::new();
    for line in text.lines() {
        let words = |kind: &str| line.strip_prefix(kind).and_then(|rest| rest.split_once(' '));
        if let Some((name, help)) = words("# HELP ") {
            helps.push((name, help));
        } else if let Some((name, kind)) = words("# TYPE ") {
            types.insert(name, kind);
        }
    }
    ensure!(helps.len() > 50, "only {} metrics have a meaning", helps.len());
    let mut body = String::from(
        "`GET /metrics` of the [API](api.md) answers in OpenMetrics, or in Prometheus' own format. Metrics of VMs carry the\n\
         label `vm`, those of pools the label `pool`. A metric that is divided has one more label, and its parts add up:\n\
         the sum of `plimsoll_host_memory_bytes` over `use` is `plimsoll_host_budget_bytes`.\n\
         Metrics of what VMs have and do are there for VMs that run, those of their settings for all.\n\n\
         | metric | type | meaning |\n|---|---|---|\n",
    );
    for (name, help) in helps {
        let kind = types.get(name).with_context(|| format!("{name} has no type"))?;
        let suffix = match *kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        body +=
            &format!("| `{name}{suffix}` | {kind} | {} |\n", help.trim_end_matches('.').replace('|', "\\|"));
    }
    Ok(Page::new("metrics.md", "Metrics", &body))
}
