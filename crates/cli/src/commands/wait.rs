use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::VmStatus;

use crate::context::Context;
use crate::interval::age;

/// How often a VM is asked about while its state is waited for: what a person takes for at once, at
/// a cost to the daemon that is not seen.
const POLL: Duration = Duration::from_millis(200);

/// Waits until `done` holds for a VM; `None` where it does not within `limit`. A person at the
/// terminal sees `doing` and the time that has passed.
pub(crate) fn until(
    context: &Context,
    name: &VmName,
    doing: &str,
    limit: Duration,
    done: impl Fn(&VmStatus) -> bool,
) -> Result<Option<VmStatus>> {
    let start = Instant::now();
    loop {
        let vm = context.client.vm(name)?;
        if done(&vm) {
            context.output.end_progress();
            return Ok(Some(vm));
        }
        let passed = start.elapsed();
        if passed >= limit {
            context.output.end_progress();
            return Ok(None);
        }
        let (passed_text, limit_text) = (age(passed.as_secs()), age(limit.as_secs()));
        context.output.progress(&format!("{doing} {name}: {passed_text} of {limit_text}"));
        std::thread::sleep(POLL.min(limit - passed));
    }
}
