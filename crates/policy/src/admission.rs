use std::fmt;

use plimsoll_units::{Bytes, Pages};

/// Machine memory charged for a VM beside its guest's memory: the VMM's own memory and the kernel's
/// tables for it.
///
/// - 8 MiB: the VMM's bound outside guest memory (a benchmark keeps its measured size below that).
/// - 512 KiB a vCPU: its thread's stack, run structure and kernel objects.
/// - 1/128 of the size: host page tables and second-level page tables (8 bytes a page each) and the
///   pmap's per-page records (at most 16 bytes a page), all at their worst.
/// - 256 KiB for each of its `devices`, disks and interfaces, beyond the 12 that the first 8 MiB
///   have room for: threads, queues in the kernel, a buffer for requests that are not aligned.
pub fn overhead(size: Pages, vcpus: u8, devices: usize) -> Pages {
    let vcpu = Bytes(u64::from(vcpus) * (512 << 10));
    let devices = Bytes(devices.saturating_sub(12) as u64 * (256 << 10));
    Pages::ceil(Bytes::mib(8) + vcpu + devices) + Pages(size.0.div_ceil(128))
}

/// The reason why a VM may not power on. Its text gives the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The VM's reservation.
    pub reservation: Pages,
    /// The VM's overhead.
    pub overhead: Pages,
    /// Machine memory that no running VM has reserved.
    pub unreserved: Pages,
    /// Machine memory that is neither granted nor charged at this moment.
    pub free: Pages,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = self.reservation + self.overhead;
        write!(
            f,
            "it needs {} of machine memory (reservation {} + overhead {}), and ",
            needed.bytes(),
            self.reservation.bytes(),
            self.overhead.bytes()
        )?;
        if needed > self.unreserved {
            write!(
                f,
                "{} is unreserved: lower its reservation, stop a VM or raise the budget",
                self.unreserved.bytes()
            )
        } else {
            write!(
                f,
                "only {} is free now, although {} is unreserved: other VMs use it; try again when their balloons have \
                 given it back, or stop one",
                self.free.bytes(),
                self.unreserved.bytes()
            )
        }
    }
}

impl std::error::Error for Refusal {}

/// Checks whether a VM may power on: reservation and overhead must fit into unreserved memory
/// (Waldspurger 2002, section 6.1). They must fit into free memory too, because a promise that
/// depends on another VM's goodwill cannot be kept.
///
/// # Errors
/// The [`Refusal`] with its numbers.
pub fn admit(reservation: Pages, overhead: Pages, unreserved: Pages, free: Pages) -> Result<(), Refusal> {
    match reservation.checked_add(overhead) {
        Some(needed) if needed <= unreserved && needed <= free => Ok(()),
        _ => Err(Refusal { reservation, overhead, unreserved, free }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_short_and_by_how_much() {
        let mib = |n| Pages::floor(Bytes::mib(n));
        assert_eq!(admit(mib(100), mib(10), mib(110), mib(110)), Ok(()));
        let unreserved = admit(mib(100), mib(10), mib(109), mib(110)).unwrap_err().to_string();
        assert!(unreserved.contains("110MiB") && unreserved.contains("109MiB is unreserved"), "{unreserved}");
        let busy = admit(mib(100), mib(10), mib(200), mib(50)).unwrap_err().to_string();
        assert!(busy.contains("50MiB is free"), "{busy}");
        assert!(admit(Pages(u64::MAX), Pages(1), Pages(u64::MAX), Pages(u64::MAX)).is_err());
    }

    #[test]
    fn overhead_grows_with_size_vcpus_and_devices() {
        let overhead = |devices| overhead(Pages::floor(Bytes::mib(256)), 1, devices).bytes();
        assert_eq!(overhead(0), Bytes(Bytes::mib(10).0 + (512 << 10)));
        assert_eq!((overhead(12), overhead(40)), (overhead(0), overhead(0) + Bytes::mib(7)));
    }
}
