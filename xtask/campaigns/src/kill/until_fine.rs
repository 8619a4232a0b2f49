//! Waiting for a state that must come.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const TICK: Duration = Duration::from_millis(20);

/// Waits until there is no `complaint`, at most `limit`.
///
/// # Errors
/// The last complaint, when the time is over; or the first error in asking for it.
pub(super) fn until_fine(
    limit: Duration,
    mut complaint: impl FnMut() -> Result<Option<String>>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    while let Some(complaint) = complaint()? {
        if Instant::now() >= deadline {
            bail!("for {} s: {complaint}", limit.as_secs_f64());
        }
        thread::sleep(TICK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_that_ends_is_waited_for_and_one_that_lasts_is_told() {
        let mut times = 0;
        let ends = || {
            times += 1;
            Ok((times < 3).then(|| "too early".to_owned()))
        };
        until_fine(Duration::from_secs(60), ends).unwrap();
        assert_eq!(times, 3);
        let lasts = until_fine(Duration::from_millis(30), || Ok(Some("a frame is left".to_owned())));
        assert!(lasts.unwrap_err().to_string().ends_with("a frame is left"));
    }
}
