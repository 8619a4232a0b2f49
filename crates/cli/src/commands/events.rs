use std::time::Duration;

use anyhow::Result;
use plimsoll_protocol::api::Event;

use crate::context::Context;

/// How often events are fetched while they are followed: often enough for a person who watches.
const POLL: Duration = Duration::from_millis(500);

const HELP: &str = "\
Each line: when (UTC), which VM (\"host\": the host itself), what.

Examples:
  plimsoll events
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
}

impl Events {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let mut events = context.client.events(self.after)?;
        if !self.follow {
            return context.output.facts(events.as_slice(), text);
        }
        let mut last = self.after.unwrap_or(0);
        loop {
            print_each(context, &events)?;
            last = events.last().map_or(last, |event| event.id);
            std::thread::sleep(POLL);
            events = context.client.events(Some(last))?;
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
    format!("{:.3}  {vm}  {}", event.at, event.text)
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
        assert_eq!(text(&events), expected);
    }
}
