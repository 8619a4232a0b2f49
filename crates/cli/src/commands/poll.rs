use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::VmStatus;
use plimsoll_words::age;

use crate::context::Context;

/// How often a VM is asked about while its state is waited for: what a person takes for at once, at
/// a cost to the daemon that is not seen.
const POLL: Duration = Duration::from_millis(200);

/// Waits until `done` holds for a VM; `None` where it does not by `deadline`. A person at the
/// terminal sees `doing` and the time that has passed.
pub(super) fn until(
    context: &Context,
    name: &VmName,
    doing: &str,
    deadline: Option<Instant>,
    done: impl Fn(&VmStatus) -> bool,
) -> Result<Option<VmStatus>> {
    let start = Instant::now();
    loop {
        let vm = context.client.vm(name).inspect_err(|_| context.output.end_progress())?;
        let now = Instant::now();
        if done(&vm) {
            context.output.end_progress();
            return Ok(Some(vm));
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            context.output.end_progress();
            return Ok(None);
        }
        let left = deadline.map_or(String::new(), |deadline| {
            format!(", {} left", age(deadline.duration_since(now).as_secs()))
        });
        let passed = age(now.duration_since(start).as_secs());
        context.output.progress(&format!("{doing} {name}: {passed}{left}"));
        let pause = deadline.map_or(POLL, |deadline| deadline.duration_since(now).min(POLL));
        std::thread::sleep(pause);
    }
}
