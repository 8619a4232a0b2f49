use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::VmStatus;
use plimsoll_words::age;

use crate::context::Context;

/// How often the daemon is asked while the state of a VM, or of several in one question, is waited
/// for: what a person takes for at once, at a cost to the daemon that is not seen.
pub(super) const POLL: Duration = Duration::from_millis(200);

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
        show(context, &format!("{doing} {name}"), start, deadline);
        let pause = deadline.map_or(POLL, |deadline| deadline.duration_since(now).min(POLL));
        std::thread::sleep(pause);
    }
}

/// Shows a person at the terminal what is being done, how long that has taken since `start` and
/// what is left up to `deadline`.
pub(super) fn show(context: &Context, what: &str, start: Instant, deadline: Option<Instant>) {
    let left = deadline.map_or(String::new(), |deadline| {
        format!(", {} left", age(deadline.saturating_duration_since(Instant::now()).as_secs()))
    });
    context.output.progress(&format!("{what}: {}{left}", age(start.elapsed().as_secs())));
}
