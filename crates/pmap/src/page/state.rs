use plimsoll_units::FrameNo;

use super::step::State;
use super::touch::Touch;
use crate::address::Spare;
use crate::content::{Handle, SwapSlot};

/// The state of one page of a small chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageState {
    /// Never touched, or given back: zeros, nothing resident.
    Absent,
    /// As absent; it was resident, and was dropped because it held zeros.
    Zero,
    /// As absent, and in the guest's balloon.
    Ballooned,
    /// Resident, and only this VM's.
    Private,
    /// Resident and write-protected, and the swap holds the same: can be dropped without a write.
    Clean(SwapSlot),
    /// In the store.
    Compressed(Handle),
    /// On its way into the swap: its content is in a write buffer.
    Leaving(SwapSlot),
    /// In the swap and nowhere else.
    Swapped(SwapSlot),
    /// Being read from the swap; charged already.
    Arriving {
        /// Where it is read from.
        from: SwapSlot,
        /// What waits for it. After a write its copy in the swap is not kept.
        touch: Touch,
    },
    /// Set aside as a sample: its next touch is a fault.
    Aside(Spare),
    /// The mapping of a frame that other VMs may have too. Write-protected.
    Shared(FrameNo),
}

const _: () = assert!(size_of::<PageState>() == 8, "half of what a page's bookkeeping may cost");

/// What a state costs, and where it shows in the VM's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Absent,
    Zero,
    Ballooned,
    Charged,
    Compressed,
    Swapped,
    Shared,
}

pub(super) const CLASSES: usize = 7;

impl PageState {
    pub(super) fn class(self) -> Class {
        match self {
            Self::Absent => Class::Absent,
            Self::Zero => Class::Zero,
            Self::Ballooned => Class::Ballooned,
            Self::Private | Self::Clean(_) | Self::Arriving { .. } | Self::Aside(_) => Class::Charged,
            Self::Compressed(_) => Class::Compressed,
            Self::Leaving(_) | Self::Swapped(_) => Class::Swapped,
            Self::Shared(_) => Class::Shared,
        }
    }

    pub(super) fn name(self) -> State {
        match self {
            Self::Absent => State::Absent,
            Self::Zero => State::Zero,
            Self::Ballooned => State::Ballooned,
            Self::Private => State::Private,
            Self::Clean(_) => State::Clean,
            Self::Compressed(_) => State::Compressed,
            Self::Leaving(_) => State::Leaving,
            Self::Swapped(_) => State::Swapped,
            Self::Arriving { .. } => State::Arriving,
            Self::Aside(_) => State::Aside,
            Self::Shared(_) => State::Shared,
        }
    }

    /// Whether it is being read from the swap, and a fault waits for it.
    pub(super) fn is_awaited(self) -> bool {
        matches!(self, Self::Arriving { touch, .. } if touch != Touch::ReadAhead)
    }

    /// Whether it costs the grant a page.
    pub(crate) fn is_charged(self) -> bool {
        self.class() == Class::Charged
    }

    /// Whether the page is resident: its content is guest memory itself.
    pub(crate) fn is_resident(self) -> bool {
        matches!(self, Self::Private | Self::Clean(_))
    }

    /// The frame that it is a mapping of.
    pub(crate) fn frame(self) -> Option<FrameNo> {
        if let Self::Shared(frame) = self { Some(frame) } else { None }
    }

    /// Whether it reads as zeros, and is not in the balloon.
    pub(crate) fn is_blank(self) -> bool {
        matches!(self, Self::Absent | Self::Zero)
    }

    /// Whether its content is elsewhere and would be brought back by a touch.
    pub(crate) fn is_elsewhere(self) -> bool {
        matches!(self.class(), Class::Compressed | Class::Swapped)
    }
}
