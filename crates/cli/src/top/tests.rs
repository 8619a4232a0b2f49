use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use plimsoll_protocol::stall::{StallCause, Standstill};
use plimsoll_units::Bytes;
use plimsoll_words::samples;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw::{draw, page};
use super::look::{Look, Seen};
use super::overlay::{Overlay, Text};
use super::view::{Act, View};

/// `count` VMs, of which the last one is off and the one before it stands still.
fn seen(count: usize) -> Seen {
    let name = |number: usize| format!("web{number:03}");
    let mut vms: Vec<_> = (1..count).map(|number| samples::vm(&name(number))).collect();
    for (number, vm) in (1..).zip(&mut vms) {
        vm.held = Bytes::mib(number);
    }
    let last = vms.last_mut().unwrap();
    last.stalled = Some(Standstill {
        since: "2026-01-01T01:00:00Z".parse().unwrap(),
        cause: StallCause::AtLimit(last.limit),
    });
    last.stall.full.avg10 = plimsoll_protocol::Percent::WHOLE;
    vms.push(samples::off(&name(count)));
    let look = Look { at: "2026-01-01T02:00:00Z".parse().unwrap(), host: samples::host(), vms };
    let pool = |name: &str, parent: &str, vms: &[&str]| {
        serde_json::from_value(serde_json::json!({
            "name": name, "parent": parent, "shares": "normal", "share_count": 163_840, "reservation": 1 << 30,
            "expandable": true, "reserved": 1 << 29, "entitled": 2_u64 << 30, "granted": 1 << 30, "pools": [], "vms": vms
        }))
        .unwrap()
    };
    Seen { look, pools: vec![pool("web", "prod", &["a", "b"]), pool("prod", "/", &[])] }
}

fn view() -> View {
    View { interval: Duration::from_secs(1), ..View::default() }
}

/// The screen as lines without blanks at their ends.
fn screen(view: &mut View, seen: &Seen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, seen)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn press(view: &mut View, seen: &Seen, keys: &[KeyCode]) -> Option<Act> {
    keys.iter().map(|key| view.press(KeyEvent::from(*key), seen, page(24))).last().flatten()
}

fn char_keys(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

#[test]
fn a_screen_of_80_by_24_shows_what_matters() {
    let lines = screen(&mut view(), &seen(3), 80, 24);
    let expected = "\
2026-01-01T02:00:00Z  state soft  2 of 3 VMs on
███████████████████████████████████████████████████████████████████████████▓▓▒··
budget 640MiB = granted 600MiB + overhead 16MiB + frames 9MiB + free 15MiB
held 560MiB, balloons 300MiB, shared 30MiB, zero 12MiB, compr 0B, swapped 0B
stalled full 5.26% 2.00% 0.50%, some 6.17% 2.50% 0.75%
1 memory  2 paging  3 sharing  4 settings  5 pools
NAME    STALL%v   SIZE  HELD  ENTITLED  ACTIVE  BALLOON   GRANT  TARGET  SAVED
web002  100/12  256MiB  2MiB    160MiB   40MiB    56MiB  200MiB  160MiB  30MiB
web001   11/12  256MiB  1MiB    160MiB   40MiB    56MiB  200MiB  160MiB  30MiB
web003     0/0  256MiB    0B        0B      0B       0B      0B      0B     0B";
    assert_eq!(lines[..10].join("\n"), samples::local(expected));
    assert_eq!(lines[22], samples::local("web002: stalled since 2026-01-01T01:00:00Z"));
    assert!(lines[23].starts_with("q leaves  h help  1-5 pane"), "{}", lines[23]);
}

#[test]
fn a_wide_screen_shows_all_columns_and_curves() {
    let (mut view, seen) = (view(), seen(100));
    (0..30).for_each(|_| view.trend.add(&seen.look));
    let lines = screen(&mut view, &seen, 200, 50);
    let titles = lines[6].split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        titles,
        "NAME STALL%v SIZE HELD ENTITLED ACTIVE BALLOON GRANT TARGET SAVED COMPR SWAPPED WANTED POOL POWER NOTE"
    );
    assert!(lines[7].starts_with("web099  100/12") && lines[7].contains("stalled since"), "{}", lines[7]);
    assert!(lines[2].contains(" free, up to 15MiB ███"), "{}", lines[2]);
    assert!(lines[4].contains(" stalled, up to 6.17% ███"), "{}", lines[4]);
    // Lines 8 to 48 are VMs.
    assert!(lines[47].starts_with("web0"), "{}", lines[47]);
}

#[test]
fn rows_are_paged_and_the_selected_one_stays_in_sight() {
    let (mut view, seen) = (view(), seen(100));
    press(&mut view, &seen, &char_keys("<"));
    assert_eq!(view.choice.order().0.key(), "name");
    let first = screen(&mut view, &seen, 80, 24);
    assert!(first[7].starts_with("web001") && first[21].starts_with("web015"), "{first:#?}");
    press(&mut view, &seen, &[KeyCode::PageDown]);
    let next = screen(&mut view, &seen, 80, 24);
    assert!(next[21].starts_with("web016"), "{next:#?}");
    press(&mut view, &seen, &[KeyCode::End]);
    let last = screen(&mut view, &seen, 80, 24);
    assert!(last[21].starts_with("web100") && last[7].starts_with("web086"), "{last:#?}");
    assert_eq!(last[22], "web100: the guest shut down");
    // It stays selected where the order changes.
    press(&mut view, &seen, &char_keys("r"));
    let turned = screen(&mut view, &seen, 80, 24);
    assert_eq!((view.selected.as_deref(), view.above), (Some("web100"), 0));
    assert!(turned[7].starts_with("web100"), "{turned:#?}");
}

#[test]
fn rows_are_ordered_and_filtered() {
    let (mut view, seen) = (view(), seen(30));
    press(&mut view, &seen, &char_keys(">>"));
    assert_eq!(view.choice.order().0.key(), "held");
    assert!(screen(&mut view, &seen, 80, 24)[7].starts_with("web029"));
    press(&mut view, &seen, &char_keys("/B01"));
    let lines = screen(&mut view, &seen, 80, 24);
    assert!(lines[7].starts_with("web019") && lines[17].is_empty(), "{lines:#?}");
    assert!(lines[5].ends_with("with \"B01\"") && lines[23].ends_with("B01_"), "{lines:#?}");
    press(&mut view, &seen, &[KeyCode::Enter]);
    // Labels count, too.
    press(&mut view, &seen, &char_keys("/x"));
    assert!(screen(&mut view, &seen, 80, 24)[7].starts_with("nothing has \"B01x\""));
    press(&mut view, &seen, &[KeyCode::Esc]);
    press(&mut view, &seen, &char_keys("/tier=web"));
    assert!(screen(&mut view, &seen, 80, 24)[7].starts_with("web029"));
    assert_eq!(press(&mut view, &seen, &[KeyCode::Enter, KeyCode::Esc]), None);
    assert_eq!(press(&mut view, &seen, &[KeyCode::Esc]), Some(Act::Leave));
}

#[test]
fn columns_are_chosen_moved_and_scrolled() {
    let (mut view, seen) = (view(), seen(3));
    // The stall is hidden, and the size moves behind what is held.
    press(&mut view, &seen, &char_keys("c"));
    press(&mut view, &seen, &[KeyCode::Down, KeyCode::Char(' '), KeyCode::Down, KeyCode::Char('+')]);
    let lines = screen(&mut view, &seen, 80, 24);
    assert!(lines[6].contains("columns") && lines[10].contains("[x] SIZE"), "{lines:#?}");
    press(&mut view, &seen, &[KeyCode::Enter]);
    let lines = screen(&mut view, &seen, 80, 24);
    assert!(lines[6].starts_with("NAME    HELD    SIZE  ENTITLED"), "{}", lines[6]);
    // The name cannot be hidden.
    press(&mut view, &seen, &char_keys("c c"));
    assert!(screen(&mut view, &seen, 80, 24)[6].starts_with("NAME  "));
    press(&mut view, &seen, &[KeyCode::Right, KeyCode::Right]);
    let lines = screen(&mut view, &seen, 80, 24);
    assert!(lines[6].starts_with("NAME    ENTITLED  ACTIVE"), "{}", lines[6]);
}

#[test]
fn panes_turn_and_pools_lie_in_each_other() {
    let (mut view, seen) = (view(), seen(3));
    press(&mut view, &seen, &char_keys("5"));
    let lines = screen(&mut view, &seen, 80, 24);
    assert!(lines[6].starts_with("POOL   ENTITLED  GRANTED"), "{}", lines[6]);
    assert!(lines[7].starts_with("prod       2GiB") && lines[8].starts_with("  web      2GiB"), "{lines:#?}");
    assert_eq!(press(&mut view, &seen, &[KeyCode::Enter]), None);
    press(&mut view, &seen, &[KeyCode::Tab, KeyCode::Char('2')]);
    assert!(screen(&mut view, &seen, 80, 24)[6].starts_with("NAME    STALL%v HELD  TARGET"));
}

#[test]
fn an_explanation_is_read_over_the_table() {
    let (mut view, seen) = (view(), seen(3));
    screen(&mut view, &seen, 80, 24);
    assert_eq!(press(&mut view, &seen, &[KeyCode::Enter]), Some(Act::Explain("web002".parse().unwrap())));
    view.overlay = Some(Overlay::Text(Text::new("explain web002", "first\n\u{1b}[2Jsecond")));
    let lines = screen(&mut view, &seen, 80, 24);
    assert!(lines[6].contains(" explain web002 ") && lines[8].contains("[2Jsecond"), "{lines:#?}");
    press(&mut view, &seen, &[KeyCode::Down]);
    assert!(screen(&mut view, &seen, 80, 24)[7].contains("second"));
    press(&mut view, &seen, &[KeyCode::Esc]);
    assert!(view.overlay.is_none());
    press(&mut view, &seen, &char_keys("h"));
    assert!(screen(&mut view, &seen, 80, 24).iter().any(|line| line.contains("why the VM has the memory")));
}

#[test]
fn other_keys_say_what_they_did() {
    let (mut view, seen) = (view(), seen(3));
    assert_eq!(press(&mut view, &seen, &char_keys("+")), Some(Act::Look(Duration::from_millis(500))));
    assert_eq!(screen(&mut view, &seen, 80, 24)[22], "looks every 500 ms");
    assert_eq!(press(&mut view, &seen, &char_keys("++++")), Some(Act::Look(Duration::from_millis(250))));
    assert_eq!(press(&mut view, &seen, &char_keys("w")), Some(Act::Save));
    assert_eq!(press(&mut view, &seen, &char_keys("q")), Some(Act::Leave));
}

#[test]
fn no_screen_is_too_small() {
    for (width, height) in [(1, 1), (10, 5), (20, 9), (79, 10)] {
        let (mut view, seen) = (view(), seen(40));
        screen(&mut view, &seen, width, height);
        press(&mut view, &seen, &[KeyCode::End, KeyCode::Right, KeyCode::Char('c'), KeyCode::PageDown]);
        screen(&mut view, &seen, width, height);
    }
    let nobody = Seen { look: Look { vms: Vec::new(), ..seen(2).look }, pools: Vec::new() };
    let mut view = view();
    assert!(screen(&mut view, &nobody, 80, 24)[7].starts_with("no VMs"));
    press(&mut view, &nobody, &[KeyCode::Down, KeyCode::End, KeyCode::Enter]);
}
