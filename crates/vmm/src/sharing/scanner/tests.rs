use plimsoll_pmap::PpnRange;
use plimsoll_protocol::sharing::WINDOW;
use plimsoll_units::Ppn;

use super::*;
use crate::virtio::testing::Guest;

/// Waits until `condition` holds.
fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_vm_that_gets_no_descriptors_of_a_domain_leaves_the_one_that_it_had() {
    let guest = Guest::of(vec![PpnRange::new(Ppn(0), Pages::CHUNK)]);
    let mailbox = Arc::new(Mailbox::new().unwrap());
    let exchange = Arc::new(Exchange::new(Arc::clone(&mailbox)));
    assert!(exchange.suspend());
    exchange.connected();
    exchange.resume();
    let scanner = Scanner::start(&guest.pmap, &exchange, &mailbox).unwrap();
    let memory = |pages: usize| {
        let file = tempfile::tempfile().unwrap();
        file.set_len((pages * 4096) as u64).unwrap();
        OwnedFd::from(file)
    };
    let order = |domain, fds| {
        let key = DigestKey::new([1; DigestKey::LEN]);
        let kind = SharingKind::Frames { domain: DomainId(domain), limit: Pages(16), key };
        scanner.order(kind, ScanBudget::default(), fds);
    };
    let domain = || lock(&scanner.0.active).as_ref().map(|active| active.domain);
    // Another domain, and the same one from a new daemon.
    for next in [8, 7] {
        order(7, vec![memory(16), memory(WINDOW)]);
        eventually(|| domain() == Some(DomainId(7)));
        order(next, Vec::new());
        eventually(|| mailbox.take().notices.iter().any(|notice| notice.contains("no descriptors")));
        assert_eq!(domain(), None);
    }
}
