//! Recorded courses as CSV, with a line of titles:
//! `seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes`. That is what a running
//! host records and what the simulator writes. Of it a demand takes what was active, and as content
//! what was held: what a balloon kept from the guest then cannot be known. Other columns may follow
//! or be missing.

use std::time::Duration;

use plimsoll_units::Bytes;

use crate::demand::{Trace, Want};

/// The titles that every recorded history has; the simulator's own files add some.
pub const COLUMNS: [&str; 6] =
    ["seconds", "vm", "active_bytes", "held_bytes", "entitlement_bytes", "ballooned_bytes"];

/// The course of `vm` in `text`, from its first line on; without a name that of the only VM that it
/// has.
///
/// # Errors
/// What is missing or no number, with its line.
pub(crate) fn read(text: &str, vm: Option<&str>, repeat: bool) -> Result<Trace, String> {
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let (_, titles) = lines.next().ok_or("the file is empty")?;
    let columns = Columns::find(titles)?;
    let mut points: Vec<(Duration, Want)> = Vec::new();
    let (mut start, mut only) = (None, None);
    for (i, line) in lines {
        let whose = |e: String| format!("line {}: {e}", i + 1);
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let name = columns.vm.and_then(|c| cells.get(c)).copied().unwrap_or_default();
        if vm.is_some_and(|vm| vm != name) {
            continue;
        }
        if *only.get_or_insert(name) != name {
            return Err(whose(format!("vm {name:?}: there are several VMs: say which with vm = \"NAME\"")));
        }
        let seconds = columns.seconds(&cells).map_err(whose)?;
        let want = columns.want(&cells).map_err(whose)?;
        let since = seconds - *start.get_or_insert(seconds);
        if since < points.last().map_or(0.0, |last| last.0.as_secs_f64()) {
            return Err(whose(format!("seconds {seconds}: it is earlier than the line before")));
        }
        points.push((Duration::from_secs_f64(since), want));
    }
    if points.is_empty() {
        return Err(match vm {
            Some(vm) => format!("vm {vm:?} does not occur in it"),
            None => "it has titles and no lines".to_owned(),
        });
    }
    Ok(Trace { points, repeat })
}

struct Columns {
    seconds: usize,
    vm: Option<usize>,
    active: usize,
    held: Option<usize>,
}

impl Columns {
    fn find(titles: &str) -> Result<Self, String> {
        let titles: Vec<&str> = titles.split(',').map(str::trim).collect();
        let find = |title: &str| titles.iter().position(|t| *t == title);
        let need = |title: &str| {
            find(title)
                .ok_or_else(|| format!("line 1: {}: there is no column {title}", shorten(&titles.join(","))))
        };
        Ok(Self {
            seconds: need("seconds")?,
            vm: find("vm"),
            active: need("active_bytes")?,
            held: find("held_bytes"),
        })
    }

    fn seconds(&self, cells: &[&str]) -> Result<f64, String> {
        let text = cells.get(self.seconds).copied().unwrap_or_default();
        let number = text.parse::<f64>().ok().filter(|s| (0.0..=1e11).contains(s));
        number.ok_or_else(|| format!("seconds {:?}: a number from 0 on is needed", shorten(text)))
    }

    fn want(&self, cells: &[&str]) -> Result<Want, String> {
        let bytes = |column: usize, title: &str| {
            let text = cells.get(column).copied().unwrap_or_default();
            text.parse()
                .map(Bytes)
                .map_err(|_| format!("{title} {:?}: whole bytes are needed", shorten(text)))
        };
        let active = bytes(self.active, "active_bytes")?;
        let held = self.held.map(|c| bytes(c, "held_bytes")).transpose()?;
        Ok(Want { active, content: held.map(|h| h.max(active)) })
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes\n\
        1000,a,100,200,300,0\n1000,b,1,2,3,0\n1015,a,150,200,300,0\n";

    #[test]
    fn a_vms_course_begins_at_its_first_line() {
        let trace = read(GOOD, Some("a"), false).unwrap();
        let seen: Vec<(u64, u64, u64)> =
            trace.points.iter().map(|(at, w)| (at.as_secs(), w.active.0, w.content.unwrap().0)).collect();
        assert_eq!(seen, [(0, 100, 200), (15, 150, 200)]);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, vm, error) in [
            ("", None, "the file is empty"),
            ("seconds,vm\n", None, "line 1: seconds,vm: there is no column active_bytes"),
            (GOOD, None, "line 3: vm \"b\": there are several VMs: say which with vm = \"NAME\""),
            (GOOD, Some("c"), "vm \"c\" does not occur in it"),
            ("seconds,active_bytes\n1,-3\n", None, "line 2: active_bytes \"-3\": whole bytes are needed"),
            ("seconds,active_bytes\nNaN,3\n", None, "line 2: seconds \"NaN\": a number from 0 on is needed"),
            (
                "seconds,active_bytes\n9,3\n8,3\n",
                None,
                "line 3: seconds 8: it is earlier than the line before",
            ),
        ] {
            assert_eq!(read(text, vm, false).unwrap_err(), error);
        }
    }
}
