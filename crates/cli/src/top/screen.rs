use std::time::Duration;

use anyhow::{Context as _, Result};
use crossterm::event::{self, Event};
use plimsoll_protocol::VmName;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::{DefaultTerminal, TerminalOptions, Viewport};

use super::choice::Choice;
use super::draw::{draw, page};
use super::feed::{Feed, News, Order};
use super::look::{Look, Seen};
use super::overlay::{Overlay, Text};
use super::view::{Act, View};
use crate::client::Client;
use crate::context::Context;
use crate::selection::Filter;

/// How long a key may wait for news to be looked for, and news for a key.
const TICK: Duration = Duration::from_millis(50);
/// A serial line does not know its size and says zero.
const USUAL_SIZE: Rect = Rect { x: 0, y: 0, width: 80, height: 24 };

/// Shows host and VMs until a key ends it.
///
/// # Errors
/// The daemon does not answer at first, or the terminal fails. A daemon that is gone later is told
/// of on the screen.
pub(crate) fn run(context: &Context, filter: &Filter, interval: Duration) -> Result<()> {
    // Its error is better read before the screen is taken.
    let look = Look::new(&context.client, filter)?;
    let mut seen = Seen { look, pools: context.client.pools()? };
    let mut view = View { interval, ..View::default() };
    let path = Choice::path();
    match path.as_deref().map(Choice::load) {
        Some(Ok(choice)) => view.choice = choice,
        Some(Err(error)) => view.message = Some(format!("what was kept is passed over: {error:#}")),
        None => {}
    }
    view.trend.add(&seen.look);
    let feed = Feed::new(Client::new(context.client.address().clone())?, filter.clone(), interval)?;
    let mut terminal = Terminal::new()?;
    loop {
        terminal.show(&mut view, &seen)?;
        loop {
            let news: Vec<News> = feed.news().collect();
            let has_news = !news.is_empty();
            news.into_iter().for_each(|news| take(news, &mut view, &mut seen));
            if has_news {
                break;
            }
            if !event::poll(TICK).context("reading the keyboard")? {
                continue;
            }
            if let Event::Key(key) = event::read().context("reading the keyboard")? {
                match view.press(key, &seen, terminal.page()) {
                    Some(Act::Leave) => return Ok(()),
                    Some(Act::Explain(name)) => feed.order(Order::Explain(name)),
                    Some(Act::Look(every)) => feed.order(Order::Every(every)),
                    Some(Act::Save) => view.message = Some(save(&view.choice)),
                    None => {}
                }
            }
            // A change of the screen's size as well.
            break;
        }
    }
}

fn take(news: News, view: &mut View, seen: &mut Seen) {
    match news {
        News::Seen(now) => {
            view.trend.add(&now.look);
            view.unseen = None;
            *seen = *now;
        }
        // A daemon that is being restarted comes back: the last table stays, and says of when it
        // is.
        News::Unseen(error) => view.unseen = Some(error),
        News::Explained(name, Ok(text)) => view.overlay = Some(Overlay::Text(explained(&name, &text))),
        News::Explained(_, Err(error)) => view.message = Some(error),
    }
}

fn explained(name: &VmName, text: &str) -> Text {
    Text::new(&format!("explain {name}"), text)
}

fn save(choice: &Choice) -> String {
    let Some(path) = Choice::path() else {
        return "cannot be kept: neither XDG_CONFIG_HOME nor HOME names a directory".to_owned();
    };
    choice.save(&path).map_or_else(|e| format!("{e:#}"), |()| format!("kept in {}", path.display()))
}

/// The terminal's other screen in raw mode, until dropped, also by a panic.
struct Terminal {
    terminal: DefaultTerminal,
    plain: bool,
}

impl Terminal {
    fn new() -> Result<Self> {
        let (width, height) = crossterm::terminal::size().context("asking for the size of the screen")?;
        let viewport = match (width, height) {
            (0, _) | (_, 0) => Viewport::Fixed(USUAL_SIZE),
            _ => Viewport::Fullscreen,
        };
        let terminal =
            ratatui::try_init_with_options(TerminalOptions { viewport }).context("taking the screen")?;
        // See no-color.org.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Ok(Self { terminal, plain })
    }

    fn show(&mut self, view: &mut View, seen: &Seen) -> Result<()> {
        let plain = self.plain;
        let drawn = self.terminal.draw(|frame| {
            draw(frame, view, seen);
            if plain {
                for cell in &mut frame.buffer_mut().content {
                    (cell.fg, cell.bg) = (Color::Reset, Color::Reset);
                }
            }
        });
        drawn.map(drop).context("drawing the screen")
    }

    /// Rows of the table that are seen at a time.
    fn page(&mut self) -> usize {
        page(self.terminal.get_frame().area().height)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        ratatui::try_restore().ok();
    }
}
