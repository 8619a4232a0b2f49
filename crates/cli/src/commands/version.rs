use anyhow::Result;
use serde::Serialize;

use crate::context::Context;

#[derive(Serialize)]
struct Version {
    plimsoll: &'static str,
    /// `None` where no daemon was reached.
    daemon: Option<String>,
}

pub(crate) fn run(context: &Context) -> Result<()> {
    // A host without a daemon is a good answer, not a failure.
    let daemon = context.client.host().ok().map(|host| host.version);
    let version = Version { plimsoll: env!("CARGO_PKG_VERSION"), daemon };
    context.output.facts(&version, |v| {
        let daemon = v.daemon.as_deref().unwrap_or("not reached");
        format!("plimsoll {}\nplimsolld {daemon}", v.plimsoll)
    })
}
