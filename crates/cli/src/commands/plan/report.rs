use std::time::Duration;

use plimsoll_sim::{Course, Frame, STATES, Scenario, VmTotals};
use plimsoll_units::Pages;
use plimsoll_words::age;
use plimsoll_words::table::{Column, Table};

use super::series::{self, Group, mib};

/// Lines of the time course.
const TIMES: u32 = 12;
/// Events that are told; the JSON has all.
const EVENTS: usize = 8;

/// The tables, with `chart` between them.
pub(super) fn text(scenario: &Scenario, course: &Course, chart: &str) -> String {
    let mut parts = Vec::new();
    if !scenario.title.is_empty() {
        parts.push(scenario.title.clone());
    }
    parts.extend([times(scenario, course), chart.to_owned(), vms(scenario, course), summary(course)]);
    parts.join("\n\n")
}

/// The host at some times.
fn times(scenario: &Scenario, course: &Course) -> String {
    let mut table = Table::new(&[
        Column::left("TIME"),
        Column::left("STATE"),
        Column::right("FREE"),
        Column::right("ACTIVE"),
        Column::right("HELD"),
        Column::right("BALLOON"),
        Column::right("SHARED"),
        Column::right("SWAP"),
        Column::right("SHORT"),
    ]);
    for i in 0..=TIMES {
        // The last look is before the end.
        let at = (scenario.duration * i / TIMES).min(scenario.duration.saturating_sub(scenario.step));
        if let Some(frame) = course.at(at) {
            table.row(at_one_time(frame));
        }
    }
    table.text()
}

fn at_one_time(frame: &Frame) -> [String; 9] {
    let sums = frame.sums();
    let amounts = [frame.free, sums.active, sums.held, sums.ballooned, sums.saved, sums.swapped, sums.short];
    let [free, active, held, balloon, shared, swap, short] = amounts.map(mib);
    let state = format!("{:?}", frame.state).to_lowercase();
    [age(frame.at.as_secs()), state, free, active, held, balloon, shared, swap, short]
}

/// VMs of a count in one line.
fn vms(scenario: &Scenario, course: &Course) -> String {
    let mut table = Table::new(&[
        Column::left("VM"),
        Column::right("N"),
        Column::right("SIZE"),
        Column::right("ACTIVE"),
        Column::right("MEAN"),
        Column::right("MOST"),
        Column::right("BALLOON"),
        Column::right("SWAP"),
        Column::right("LACKED"),
        Column::right("SHORT"),
    ]);
    for group in series::of_groups(scenario, course) {
        table.row(line(scenario, course, &group));
    }
    let note = "ACTIVE: mean. MEAN, MOST: guest memory that is backed, shared pages included.\n\
                BALLOON, SWAP, LACKED: most. LACKED: memory that it needed and did not get.\n\
                SHORT: part of the time in which a VM lacked memory.";
    format!("{}\n{note}", table.text())
}

fn line(scenario: &Scenario, course: &Course, group: &Group) -> [String; 10] {
    let ran: Vec<&VmTotals> =
        group.vms.iter().filter_map(|&i| course.vms.get(i)).filter(|vm| !vm.ran.is_zero()).collect();
    let mean = |of: fn(&VmTotals) -> Pages| {
        let sum: u64 = ran.iter().map(|vm| of(vm).0).sum();
        mib(Pages(sum / u64::try_from(ran.len()).unwrap_or(u64::MAX).max(1)))
    };
    let most = |of: fn(&VmTotals) -> Pages| mib(ran.iter().map(|vm| of(vm)).max().unwrap_or_default());
    let size = group.vms.first().and_then(|&i| scenario.vms.get(i)).map_or(Pages::ZERO, |vm| vm.size);
    let time = |of: fn(&VmTotals) -> Duration| ran.iter().map(|vm| of(vm)).sum::<Duration>();
    let name = group.name.chars().take(14).collect();
    [
        name,
        group.vms.len().to_string(),
        mib(size),
        mean(|vm| vm.mean(&vm.active)),
        mean(|vm| vm.mean(&vm.allocated)),
        most(|vm| vm.allocated.most),
        most(|vm| vm.ballooned.most),
        most(|vm| vm.swapped.most),
        most(|vm| vm.lack.most),
        percent(time(|vm| vm.short), time(|vm| vm.ran)),
    ]
}

fn percent(part: Duration, whole: Duration) -> String {
    let part = if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() * 100.0 };
    if part > 0.0 && part < 0.5 { "<1%".to_owned() } else { format!("{part:.0}%") }
}

fn summary(course: &Course) -> String {
    let whole: Duration = course.in_state.iter().sum();
    let states = STATES.iter().zip(course.in_state).filter(|(_, time)| !time.is_zero());
    let states: Vec<String> = states
        .map(|(s, time)| format!("{} {}", format!("{s:?}").to_lowercase(), percent(time, whole)))
        .collect();
    let peaks = &course.peaks;
    let mut lines = vec![
        format!("states    {}", states.join(", ")),
        format!(
            "peaks     active {}, held {}, balloons {}, shared {}",
            mib(peaks.active),
            mib(peaks.held),
            mib(peaks.ballooned),
            mib(peaks.saved)
        ),
        format!(
            "swap      {} written, {} read, at most {} used",
            mib(course.swapped_out),
            mib(course.swapped_in),
            mib(peaks.swapped)
        ),
    ];
    for event in course.events.iter().take(EVENTS) {
        lines.push(format!("{:9} {}: {}", age(event.at.as_secs()), event.vm, event.text));
    }
    if course.events.len() > EVENTS {
        lines.push(format!("          and {} more events", course.events.len() - EVENTS));
    }
    lines.join("\n")
}
