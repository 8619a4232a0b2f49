use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use plimsoll_protocol::control::{DeviceOrder, ToVmm};
use plimsoll_protocol::sharing::{MAX_BATCH, ScanBudget};
use plimsoll_protocol::wire::{Wire, WireError};
use plimsoll_units::Pages;
use rustix::io::Errno;

use crate::descriptors::Kept;

/// Most [`ToVmm::Share`] that wait for a VMM: 2 MiB of memory. A VMM that reads has only a few
/// waiting.
const MOST_SHARES: usize = 512;

/// Most answers about connections that wait for a VMM. A VMM that reads has a few waiting.
const MOST_DIALED: usize = 64;

/// Most of them that wait with the descriptor of a connected socket. With fewer, guests are refused
/// whose VMM is late for a moment; with more, one VMM that does not read takes [`Kept`] from all.
const MOST_SOCKETS: usize = 4;

/// A message and its descriptors.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: ToVmm,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Letter {
    fn of(message: ToVmm) -> Self {
        Self { message, fds: Vec::new() }
    }

    /// Makes an answer about a connection one that refuses it.
    fn refuse(&mut self) {
        if let ToVmm::Dialed { connected, .. } = &mut self.message {
            *connected = false;
            self.fds.clear();
        }
    }

    /// Whether it may be sent after `error`, which is neither the end of the connection nor that of
    /// its room. What passes no descriptor always may: the VMM must not lose it.
    pub(crate) fn can_be_sent_after(&self, error: &WireError) -> bool {
        let WireError::Io(error) = error else { return false };
        let for_now = [Errno::NOBUFS, Errno::NOMEM, Errno::TOOMANYREFS, Errno::INTR];
        self.fds.is_empty() || for_now.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }

    pub(crate) fn send(&self, wire: &Wire) -> Result<(), WireError> {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        wire.send(&self.message, &fds)
    }
}

/// The messages that wait for one VMM. Messages of a kind merge, replace each other, or are bounded
/// in number.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    grant: Option<Pages>,
    balloon: Option<Pages>,
    paging: Option<(Option<Pages>, bool)>,
    sharing: Option<Letter>,
    scan: Option<ScanBudget>,
    /// The answer to its last question. A VMM that asks again before it has read the answer loses
    /// it.
    answer: Option<ToVmm>,
    shares: VecDeque<ToVmm>,
    /// Those for which there is no room are lost: their guests wait for a while and give up.
    dialed: VecDeque<Letter>,
    /// One for each of them that has a descriptor.
    kept: Vec<Kept>,
    /// The latest of each device.
    devices: VecDeque<DeviceOrder>,
    power_button: bool,
    pause: Option<bool>,
    reset: bool,
    query: bool,
}

impl Outbox {
    /// Keeps a message until it is taken. Returns a [`ToVmm::Share`] for which there is no room:
    /// the VMM never gets it.
    pub(crate) fn put(&mut self, letter: Letter) -> Option<ToVmm> {
        match letter.message {
            ToVmm::Grant(pages) => {
                self.grant = Some(self.grant.unwrap_or_default().saturating_add(pages));
                // It is sent before the level that it comes after, and would not raise that.
                if let Some((Some(level), _)) = &mut self.paging {
                    *level = level.saturating_add(pages);
                }
            }
            ToVmm::BalloonTarget(pages) => self.balloon = Some(pages),
            ToVmm::Paging { level, block } => self.paging = Some((level, block)),
            ToVmm::Sharing { .. } => {
                (self.sharing, self.scan) = (Some(letter), None);
            }
            ToVmm::Budget(scan) => self.scan = Some(scan),
            ToVmm::Found { .. } | ToVmm::Offered { .. } => self.answer = Some(letter.message),
            ToVmm::Share { .. } => return self.share(letter.message),
            ToVmm::Dialed { .. } if self.dialed.len() < MOST_DIALED => self.dialed.push_back(letter),
            ToVmm::Dialed { .. } => {}
            ToVmm::Device(order) => {
                self.devices.retain(|before| !order.replaces(before));
                self.devices.push_back(order);
            }
            ToVmm::PowerButton => self.power_button = true,
            ToVmm::Pause(paused) => self.pause = Some(paused),
            ToVmm::Reset => self.reset = true,
            ToVmm::Query => self.query = true,
            // Sent by the launch itself, with its descriptors.
            ToVmm::Boot(_) => tracing::error!("a configuration is not sent twice"),
        }
        None
    }

    /// Pages that share go with those before them, where they fit one message.
    fn share(&mut self, message: ToVmm) -> Option<ToVmm> {
        if let (ToVmm::Share { domain, pages }, Some(ToVmm::Share { domain: before, pages: waiting })) =
            (&message, self.shares.back_mut())
            && domain == before
            && waiting.len() + pages.len() <= MAX_BATCH
        {
            waiting.extend(pages);
            return None;
        }
        if self.shares.len() >= MOST_SHARES {
            return Some(message);
        }
        self.shares.push_back(message);
        None
    }

    /// Takes the message that is sent next.
    pub(crate) fn take(&mut self) -> Option<Letter> {
        let grant = self.grant.take().map(ToVmm::Grant);
        grant
            .or_else(|| self.balloon.take().map(ToVmm::BalloonTarget))
            .or_else(|| self.paging.take().map(|(level, block)| ToVmm::Paging { level, block }))
            .map(Letter::of)
            .or_else(|| self.sharing.take())
            .or_else(|| {
                self.scan
                    .take()
                    .map(ToVmm::Budget)
                    .or_else(|| self.answer.take())
                    .or_else(|| self.shares.pop_front())
                    .or_else(|| self.devices.pop_front().map(ToVmm::Device))
                    .or_else(|| std::mem::take(&mut self.power_button).then_some(ToVmm::PowerButton))
                    .or_else(|| self.pause.take().map(ToVmm::Pause))
                    .or_else(|| std::mem::take(&mut self.reset).then_some(ToVmm::Reset))
                    .or_else(|| std::mem::take(&mut self.query).then_some(ToVmm::Query))
                    .map(Letter::of)
            })
            .or_else(|| self.dialed.pop_front())
    }

    /// Bounds the descriptors of what waits, once as much was sent as the VMM reads. The guest is
    /// refused connections beyond the bound.
    pub(crate) fn bound(&mut self) {
        let has_socket = |letter: &&mut Letter| !letter.fds.is_empty();
        let sockets = self.dialed.iter_mut().filter(has_socket).count();
        while self.kept.len() < sockets.min(MOST_SOCKETS)
            && let Some(kept) = Kept::new()
        {
            self.kept.push(kept);
        }
        self.kept.truncate(sockets);
        self.dialed.iter_mut().filter(has_socket).skip(self.kept.len()).for_each(Letter::refuse);
    }

    /// [`Outbox::take`]'s message could not be sent yet.
    pub(crate) fn put_back(&mut self, letter: Letter) {
        match letter.message {
            // The level was raised when the grant was put.
            ToVmm::Grant(pages) => {
                self.grant = Some(self.grant.unwrap_or_default().saturating_add(pages));
            }
            ToVmm::Share { .. } => self.shares.push_front(letter.message),
            ToVmm::Device(order) => self.devices.push_front(order),
            ToVmm::Sharing { .. } => self.sharing = Some(letter),
            ToVmm::Dialed { .. } => self.dialed.push_front(letter),
            _ => drop(self.put(letter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::control::{NetSettings, RateLimit};
    use plimsoll_protocol::sharing::{DomainId, SharingKind};
    use plimsoll_units::{Bytes, FrameNo, PageNo};

    use super::*;
    use crate::descriptors::MOST_KEPT;

    fn share(domain: u64, pages: usize) -> ToVmm {
        ToVmm::Share { domain: DomainId(domain), pages: vec![(PageNo(1), FrameNo(2)); pages] }
    }

    fn put(outbox: &mut Outbox, message: ToVmm) -> Option<ToVmm> {
        outbox.put(Letter::of(message))
    }

    #[test]
    fn a_grant_raises_the_level_that_it_overtakes() {
        let mut outbox = Outbox::default();
        put(&mut outbox, ToVmm::Paging { level: Some(Pages(100)), block: true });
        put(&mut outbox, ToVmm::Grant(Pages(10)));
        for _ in 0..3 {
            let grant = outbox.take().unwrap();
            outbox.put_back(grant);
        }
        let mut next = || outbox.take().map(|letter| letter.message);
        assert_eq!(next(), Some(ToVmm::Grant(Pages(10))));
        assert_eq!(next(), Some(ToVmm::Paging { level: Some(Pages(110)), block: true }));
        assert_eq!(next(), None);
    }

    #[test]
    fn pages_that_share_are_told_in_order_in_full_packets_and_only_so_many() {
        let mut outbox = Outbox::default();
        for message in [share(1, 500), share(1, 12), share(1, 1), share(2, 1)] {
            assert_eq!(put(&mut outbox, message), None);
        }
        let first = outbox.take().unwrap();
        outbox.put_back(first);
        for message in [share(1, 512), share(1, 1), share(2, 1)] {
            assert_eq!(outbox.take().unwrap().message, message);
        }
        for _ in 0..MOST_SHARES {
            assert_eq!(put(&mut outbox, share(1, MAX_BATCH)), None);
        }
        assert_eq!(put(&mut outbox, share(3, 1)), Some(share(3, 1)));
    }

    /// Puts `count` answers into `outbox`, each with a descriptor.
    fn connect(outbox: &mut Outbox, count: u64) {
        for id in 0..count {
            let fds = vec![std::fs::File::open("/dev/null").unwrap().into()];
            let message = ToVmm::Dialed { id, connected: true };
            assert_eq!(outbox.put(Letter { message, fds }), None);
            outbox.bound();
        }
    }

    #[test]
    fn answers_about_connections_keep_their_order_and_few_descriptors() {
        let mut outbox = Outbox::default();
        connect(&mut outbox, 1000);
        let first = outbox.take().unwrap();
        outbox.put_back(first);
        outbox.bound();
        let left: Vec<Letter> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(left.len(), MOST_DIALED);
        for (letter, id) in left.iter().zip(0..) {
            let connected = !letter.fds.is_empty();
            assert_eq!(letter.message, ToVmm::Dialed { id, connected });
            assert!(letter.fds.len() <= 1 && (!connected || id < MOST_SOCKETS as u64), "{letter:?}");
        }
        outbox.bound();
        assert!(outbox.kept.is_empty());
    }

    #[test]
    fn vmms_that_do_not_read_keep_few_descriptors_together() {
        // Each as a guest has it that asks for connections and stops its VMM from reading.
        let mut all: Vec<Outbox> = (0..100).map(|_| Outbox::default()).collect();
        all.iter_mut().for_each(|outbox| connect(outbox, 64));
        let waiting = |outbox: &Outbox| outbox.dialed.iter().map(|letter| letter.fds.len()).sum::<usize>();
        let kept: usize = all.iter().map(waiting).sum();
        assert!(kept <= MOST_KEPT, "{kept} descriptors");
        assert!(all.iter().all(|outbox| outbox.dialed.len() == MOST_DIALED));
    }

    #[test]
    fn of_each_device_the_latest_order_is_told_and_in_order() {
        let mut outbox = Outbox::default();
        let rate = |disk, n| {
            let rate = RateLimit { operations: Some(n), ..RateLimit::default() };
            ToVmm::Device(DeviceOrder::DiskRate { disk, rate })
        };
        let size = ToVmm::Device(DeviceOrder::DiskSize { disk: 0, size: Bytes(512) });
        let net = ToVmm::Device(DeviceOrder::Net { net: 0, settings: NetSettings::default() });
        for n in 0..1000 {
            for message in [rate(0, n), rate(1, n), size.clone(), net.clone()] {
                assert_eq!(put(&mut outbox, message), None);
            }
        }
        let first = outbox.take().unwrap();
        outbox.put_back(first);
        let told: Vec<_> = std::iter::from_fn(|| outbox.take().map(|letter| letter.message)).collect();
        assert_eq!(told, [rate(0, 999), rate(1, 999), size, net]);
    }

    #[test]
    fn a_budget_never_comes_before_the_domain_that_it_is_for() {
        let mut outbox = Outbox::default();
        let sharing = ToVmm::Sharing { domain: SharingKind::Zero, scan: ScanBudget::default() };
        put(&mut outbox, ToVmm::Budget(ScanBudget { share: 1, break_large: false }));
        put(&mut outbox, sharing.clone());
        put(&mut outbox, ToVmm::Budget(ScanBudget { share: 2, break_large: false }));
        assert_eq!(outbox.take().unwrap().message, sharing);
        assert_eq!(
            outbox.take().unwrap().message,
            ToVmm::Budget(ScanBudget { share: 2, break_large: false })
        );
        assert!(outbox.take().is_none());
    }
}
