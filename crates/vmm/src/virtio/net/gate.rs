use plimsoll_protocol::LinkState;
use plimsoll_protocol::control::NetSettings;
use plimsoll_protocol::definition::MacAddress;

/// Where the source address is in an Ethernet frame (IEEE 802.3, clause 3.2).
const SOURCE: std::ops::Range<usize> = 6..12;

/// What becomes of a frame that the guest sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It leaves.
    Pass,
    /// The cable is unplugged: it is lost.
    Lost,
    /// Its source address is not the guest's.
    Filtered,
}

/// Which frames pass.
#[derive(Debug)]
pub(super) struct Gate {
    mac: MacAddress,
    is_up: bool,
    filters: bool,
}

impl Gate {
    /// A gate for the guest of this address that lets all pass.
    pub(super) fn new(mac: MacAddress) -> Self {
        Self { mac, is_up: true, filters: false }
    }

    /// Whether the cable is plugged in.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Lets pass what `settings` say from now on.
    pub(super) fn change(&mut self, settings: &NetSettings) {
        self.is_up = settings.link == LinkState::Up;
        self.filters = settings.mac_filter;
    }

    /// What becomes of `frame`, without its virtio header.
    pub(super) fn judge(&self, frame: &[u8]) -> Verdict {
        if !self.is_up {
            Verdict::Lost
        } else if self.filters && frame.get(SOURCE) != Some(&self.mac.0[..]) {
            // Also what is too short to have an address.
            Verdict::Filtered
        } else {
            Verdict::Pass
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_of_the_guests_own_address_pass_a_filter() {
        let mut gate = Gate::new(MacAddress([2, 0, 0, 0, 0, 7]));
        let frame = |last: u8| [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, last], &[0x08, 0x06]].concat();
        assert_eq!([gate.judge(&frame(7)), gate.judge(&frame(8)), gate.judge(&[])], [Verdict::Pass; 3]);
        gate.change(&NetSettings { mac_filter: true, ..NetSettings::default() });
        assert_eq!([gate.judge(&frame(7)), gate.judge(&frame(8))], [Verdict::Pass, Verdict::Filtered]);
        assert_eq!(gate.judge(&frame(7)[..11]), Verdict::Filtered, "cut off within the address");
        gate.change(&NetSettings { link: LinkState::Down, ..NetSettings::default() });
        assert_eq!((gate.judge(&frame(7)), gate.is_up()), (Verdict::Lost, false));
    }
}
