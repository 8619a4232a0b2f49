use std::time::Duration;

use anyhow::Result;
use plimsoll_protocol::api::Event;
use plimsoll_words::local_time::to_the_millisecond;

use crate::context::Context;
use crate::since::Since;

/// How often events are fetched while they are followed: often enough for a person at a screen.
const POLL: Duration = Duration::from_millis(500);

const HELP: &str = "\
Each line: when, which VM (\"host\": the host itself), what.

Examples:
  plimsoll events
  plimsoll events --since 10m
  plimsoll events --since 14:30 -f
  plimsoll events --after 512 --json
  plimsoll events -f --json | jq -r .text    with -f one object a line, else one array";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Events {
    /// Keep printing new events until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Print only events after the one with this ID, which --json shows
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// Print only events since then: 10m for ten minutes ago, 14:30, 2026-11-29, 2026-11-29T14:30
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Since>,
}

impl Events {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let mut events = context.client.events(self.after)?;
        let mut last = events.last().map_or(self.after.unwrap_or(0), |event| event.id);
        if let Some(Since(since)) = self.since {
            events.retain(|event| event.at >= since);
        }
        if !self.follow {
            return context.output.facts(events.as_slice(), text);
        }
        loop {
            print_each(context, &events)?;
            std::thread::sleep(POLL);
            events = context.client.events(Some(last))?;
            last = events.last().map_or(last, |event| event.id);
        }
    }
}

fn print_each(context: &Context, events: &[Event]) -> Result<()> {
    events.iter().try_for_each(|event| context.output.fact_line(event, line))
}

fn text(events: &[Event]) -> String {
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(event: &Event) -> String {
    let vm = event.vm.as_ref().map_or("host", |name| name.as_str());
    format!("{}  {vm}  {}", to_the_millisecond(event.at), event.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_when_whom_and_what() {
        let at = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let events = [
            Event { id: 1, at, vm: None, text: "state soft".into() },
            Event { id: 2, at, vm: Some("a".parse().unwrap()), text: "started".into() },
        ];
        let expected = "\
2026-01-01T00:00:00.500Z  host  state soft
2026-01-01T00:00:00.500Z  a  started";
        assert_eq!(text(&events), plimsoll_words::samples::local(expected));
    }
}
