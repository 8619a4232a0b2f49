use plimsoll_pmap::uffd::Uffd;
use plimsoll_pmap::{Config, GrantSource};
use plimsoll_sys::Event;
use plimsoll_units::Ppn;

use super::*;

#[derive(Debug)]
struct NoMore;

impl GrantSource for NoMore {
    fn want(&self, _total: Pages) {}
}

#[test]
fn a_page_that_left_the_balloon_before_it_was_given_back_keeps_its_content() {
    let regions = vec![PpnRange::new(Ppn(0), Pages::CHUNK)];
    let config = Config {
        regions: regions.clone(),
        uffd: Uffd::open().unwrap(),
        huge_pages: false,
        grant: Pages::CHUNK,
        store: Pages::ZERO,
        swap: None,
    };
    let pmap = Pmap::new(config, Arc::new(NoMore)).unwrap();
    let stop = Event::new().unwrap();
    let (server, end) = (Arc::clone(&pmap), stop.clone());
    let faults = thread::spawn(move || server.serve_faults(&end).unwrap());
    let parts = Parts {
        pmap,
        regions: regions.clone(),
        balloon: Balloon { deflate_on_oom: true, ..Balloon::default() },
        mailbox: Arc::new(Mailbox::new().unwrap()),
        output: Arc::new(Output::new().unwrap()),
        input: Arc::new(Input::new(Event::new().unwrap())),
        brake: Arc::new(Brake::default()),
    };
    let guest = Shared::new(parts);
    guest.target.store(BALLOON_BATCH as u64, Ordering::Relaxed);
    // Too little for a chunk that is given back at once.
    assert!(guest.step(&mut lock(&guest.memory)));
    assert_eq!(guest.allocate(ALLOCATION).len(), ALLOCATION - BALLOON_BATCH);
    let popped = guest.allocate(1);
    assert_eq!(popped.len(), 1);
    guest.write(popped[0], 7, 0).unwrap();
    lock(&guest.inflation).flush();
    let mut found = [0; PAGE];
    guest.parts.pmap.ram().read_slice(&mut found, guest.address(popped[0]).unwrap()).unwrap();
    assert_eq!(found, pattern::page(7, 0));
    stop.signal();
    faults.join().unwrap();
}
