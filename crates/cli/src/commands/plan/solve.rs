use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use plimsoll_policy::{Problem, Solution};
use plimsoll_units::Bytes;
use serde::{Serialize, Serializer};

use super::json;
use crate::output::Output;

/// Largest input that is read: a million VMs. A disk image named by mistake is refused before it
/// fills memory.
const MAX_LEN: u64 = 256 << 20;

const HELP: &str = "\
Input, all amounts in bytes; keys with a remark are optional, and so is \"pools\":
  {\"machine_bytes\": 1073741824,
   \"tax\": 0.75,                     tax on idle memory, 0 to 0.99; 0.75 if left out
   \"vms\": [{\"name\": \"a\", \"size\": 536870912, \"reservation\": 0, \"shares\": 1000, \"active\": 104857600,
            \"limit\": 268435456,     its size if left out
            \"pool\": \"web\",          the root if left out
            \"tax\": 0.5}],           the host's if left out
   \"pools\": [{\"name\": \"web\", \"shares\": 4000,
              \"parent\": \"prod\",     the root if left out
              \"reservation\": 0,     none if left out
              \"limit\": 1073741824,  none if left out
              \"expandable\": true}]} true if left out

Output:
  entitlements  what each VM gets
  water_level   what one share pays among the root's children: 1 for a byte in use and
                1 / (1 - tax) for an idle one
  pools         what each pool's VMs get together, if there are pools
  shortfalls    pools that have less than is reserved in them, if any: reservations are scaled down in proportion; \"pool\": null is the host
Entitlements add up to machine_bytes unless the VMs can use less. If all amounts are whole pages of 4096 bytes, entitlements are, too.

Examples:
  plimsoll plan solve host.json
  jq '.tax = 0' host.json | plimsoll plan solve - | jq .entitlements";

/// Divide a host's memory among VMs and resource pools
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Solve {
    /// JSON file with the host, its VMs and pools; "-" reads the standard input
    #[arg(value_name = "FILE.json")]
    file: PathBuf,
}

impl Solve {
    pub(super) fn run(&self, output: &Output) -> Result<()> {
        let name =
            if self.is_stdin() { "standard input".to_owned() } else { self.file.display().to_string() };
        let text = self.read().with_context(|| format!("reading {name}"))?;
        let problem = json::problem(&text).map_err(|e| anyhow!("{name}: {e}"))?;
        let solution = problem.solve().map_err(|e| anyhow!("{name}: {e}"))?;
        let answer = Answer::new(&problem, &solution);
        let text = serde_json::to_string_pretty(&answer)?;
        output.facts(&answer, |_| text)
    }

    fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    fn read(&self) -> Result<String> {
        let source: Box<dyn Read> =
            if self.is_stdin() { Box::new(io::stdin()) } else { Box::new(File::open(&self.file)?) };
        let mut bytes = Vec::new();
        source.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_LEN {
            return Err(anyhow!("longer than {}: is it the right file?", Bytes(MAX_LEN)));
        }
        String::from_utf8(bytes).map_err(|_| anyhow!("not a text: name a JSON file"))
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    entitlements: Named<'a>,
    water_level: f64,
    #[serde(skip_serializing_if = "Named::is_empty")]
    pools: Named<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shortfalls: Vec<Shortfall<'a>>,
}

#[derive(Serialize)]
struct Shortfall<'a> {
    pool: Option<&'a str>,
    reserved: Bytes,
    has: Bytes,
}

/// Amounts by name, in the order of the input.
struct Named<'a>(Vec<(&'a str, Bytes)>);

impl Named<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl<'a> Answer<'a> {
    fn new(problem: &'a Problem, solution: &'a Solution) -> Self {
        let vms = problem.vms.iter().map(|vm| vm.name.as_str());
        let pools = problem.pools.iter().map(|pool| pool.name.as_str());
        let shortfalls = solution.shortfalls.iter();
        Self {
            entitlements: Named(vms.zip(solution.entitlements.iter().copied()).collect()),
            water_level: solution.water_level,
            pools: Named(pools.zip(solution.pools.iter().copied()).collect()),
            shortfalls: shortfalls
                .map(|s| Shortfall { pool: s.pool.as_deref(), reserved: s.reserved, has: s.has })
                .collect(),
        }
    }
}
