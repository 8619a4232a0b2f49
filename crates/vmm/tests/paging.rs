//! The whole process with a model guest that has less memory than it uses: levels, the store, swap
//! space, blocking.

mod daemon;

use daemon::{Daemon, model_config};
use plimsoll_protocol::control::{FdRole, SwapConfig, ToVmm};
use plimsoll_units::{Bytes, Pages};

const SIZE: Bytes = Bytes::mib(64);
/// What the guest uses.
const USED: Bytes = Bytes::mib(40);

/// A guest that uses [`USED`], with encrypted swap space for all of its memory.
fn start() -> Daemon {
    let mut config = model_config(SIZE);
    config.store = Pages::floor(Bytes::mib(6));
    config.swap = Some(SwapConfig { slots: config.size, encrypt: true });
    let file = tempfile::tempfile().expect("a temporary file");
    file.set_len(SIZE.0).expect("room for swap space");
    let mut daemon = Daemon::start(config, vec![(FdRole::Swap, file.into())], SIZE);
    daemon.until_said(0, "toucher: ready");
    assert_eq!(daemon.command("touch 41943040 1"), "ok touch bytes=41943040 seed=1");
    // Once more is granted, the level would rise with it.
    daemon.budget = Pages::ZERO;
    daemon
}

fn level(daemon: &Daemon, level: Option<Bytes>, block: bool) {
    daemon.send(&ToVmm::Paging { level: level.map(Pages::floor), block });
}

fn verify(daemon: &mut Daemon) {
    assert_eq!(daemon.command("verify"), "ok verify bytes=41943040 pages=10240 mismatched=0");
}

#[test]
fn a_guest_gives_what_is_above_its_level_and_gets_its_content_back() {
    let mut daemon = start();
    let low = Bytes::mib(8);
    level(&daemon, Some(low), false);
    daemon.until("the grant to come back", |d| (d.granted <= Pages::floor(low)).then_some(()));
    let facts = daemon.facts();
    assert!(facts.held <= Pages::floor(low) && facts.grant == daemon.granted, "{facts:?}");
    assert!(facts.swapped + facts.compressed >= Pages::floor(USED - low), "{facts:?}");
    assert!(!facts.swap_failed, "{facts:?}");
    // With nothing granted, what it brings back it must make room for by itself.
    verify(&mut daemon);
    let facts = daemon.facts();
    assert!(facts.swapped_in + facts.unzipped >= Pages::floor(USED - low).0, "{facts:?}");
    assert!(facts.held <= facts.grant && facts.grant <= Pages::floor(low), "{facts:?}");
    // And what it writes over what was taken is not lost either.
    assert_eq!(daemon.command("rewrite 1"), "ok rewrite bytes=41943040 seed=1");
    verify(&mut daemon);
    daemon.budget = Pages::floor(SIZE);
    level(&daemon, None, false);
    verify(&mut daemon);
}

#[test]
fn a_guest_beyond_its_level_stands_still_where_it_is_to_and_goes_on_after() {
    let mut daemon = start();
    level(&daemon, Some(Bytes::ZERO), true);
    // It lasts as long as paging out does: seen in one round or another.
    daemon.until("a guest that stands still", |daemon| {
        if daemon.facts().blocked {
            return Some(());
        }
        daemon.budget = Pages::floor(SIZE);
        level(daemon, None, false);
        verify(daemon);
        daemon.budget = Pages::ZERO;
        level(daemon, Some(Bytes::ZERO), true);
        None
    });
    let from = daemon.said.len();
    daemon.type_line("verify");
    daemon.until("the grant to come back", |d| (d.granted <= Pages(4)).then_some(()));
    daemon.budget = Pages::floor(SIZE);
    level(&daemon, None, false);
    daemon.grant();
    daemon.until_said(from, "ok verify bytes=41943040 pages=10240 mismatched=0");
    let facts = daemon.facts();
    assert!(!facts.blocked && !facts.paging_stuck, "{facts:?}");
}
