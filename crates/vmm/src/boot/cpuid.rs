//! What CPUID shows of a vCPU: what KVM supports on this host, with the VM's own topology.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// What a VM is offered of what KVM can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// The APIC's timer with a deadline.
    pub(crate) tsc_deadline: bool,
    /// Nested virtualization.
    pub(crate) nested: bool,
}

/// Makes the CPUID of vCPU `index` of `count` from what KVM supports: one package of `count` cores,
/// one thread each.
///
/// # Errors
/// KVM's list has no room for the topology leaves.
pub(crate) fn for_vcpu(
    supported: &CpuId,
    index: u8,
    count: u8,
    offer: Offer,
) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let mut leaves: Vec<kvm_cpuid_entry2> =
        supported.as_slice().iter().filter(|leaf| !matches!(leaf.function, 0xb | 0x1f)).copied().collect();
    let highest = leaves.iter().find(|leaf| leaf.function == 0).map_or(0, |leaf| leaf.eax);
    for leaf in &mut leaves {
        adapt(leaf, u32::from(index), u32::from(count), offer);
    }
    if highest >= 0xb {
        leaves.extend(topology(u32::from(index), u32::from(count)));
    }
    CpuId::from_entries(&leaves)
}

/// KVM's paravirtual features.
const KVM_FEATURES: u32 = 0x4000_0001;

fn adapt(leaf: &mut kvm_cpuid_entry2, index: u32, count: u32, offer: Offer) {
    let many = count > 1;
    match leaf.function {
        1 => {
            leaf.ebx = leaf.ebx & 0xffff | count << 16 | index << 24;
            leaf.ecx |= 1 << 31; // a hypervisor is there
            set(&mut leaf.ecx, 24, offer.tsc_deadline);
            leaf.ecx &= !(1 << 15); // PDCM: a register that describes counters
            if !offer.nested {
                leaf.ecx &= !(1 << 5); // VMX
            }
            set(&mut leaf.edx, 28, many);
        }
        // Caches, Intel's and AMD's: the first two levels belong to a core, the others to all.
        4 | 0x8000_001d => {
            let shared = if leaf.eax >> 5 & 7 <= 2 { 0 } else { count - 1 };
            leaf.eax = leaf.eax & 0x3fff | shared << 14;
            if leaf.function == 4 {
                leaf.eax |= (count - 1) << 26;
            }
        }
        // No performance counters, Intel's and AMD's: they would show a guest more of the host than
        // it needs.
        0xa | 0x8000_0022 => clear(leaf),
        0x8000_0001 => {
            // PerfCtrExtCore, PerfCtrExtNB and PerfCtrExtLLC.
            leaf.ecx &= !(1 << 23 | 1 << 24 | 1 << 28);
            if !many {
                // The bit that says "more than one core", on processors that have it.
                leaf.ecx &= !(1 << 1);
            }
            if !offer.nested {
                leaf.ecx &= !(1 << 2); // SVM
            }
        }
        // What SVM can do.
        0x8000_000a if !offer.nested => clear(leaf),
        0x8000_0008 => leaf.ecx = (count - 1) | (id_bits(count) << 12),
        // A page fault may last as long as the VM waits for a grant. A guest that is told of it
        // (asynchronous page faults, bits 4, 10 and 14) puts the task to sleep in a state that does
        // not last on ordinary hosts. Without these bits the task waits in place.
        KVM_FEATURES => leaf.eax &= !(1 << 4 | 1 << 10 | 1 << 14),
        0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (index, index, 0),
        _ => {}
    }
}

fn clear(leaf: &mut kvm_cpuid_entry2) {
    (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0);
}

fn set(register: &mut u32, bit: u32, value: bool) {
    *register = *register & !(1 << bit) | u32::from(value) << bit;
}

/// Bits of an APIC number that tell `count` cores apart.
fn id_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Leaf 0xb: threads of a core, then cores of the package.
fn topology(index: u32, count: u32) -> [kvm_cpuid_entry2; 2] {
    let leaf = |level, shift, number, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: number,
        ecx: level | kind << 8,
        edx: index,
        ..Default::default()
    };
    [leaf(0, 0, 1, 1), leaf(1, id_bits(count), count, 2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let leaf = |function, eax, ecx| kvm_cpuid_entry2 { function, eax, ecx, ..Default::default() };
        CpuId::from_entries(&[
            leaf(0, 0xd, 0),
            leaf(1, 0, 0),
            leaf(KVM_FEATURES, u32::MAX, 0),
            leaf(0xb, 99, 99),
            leaf(0x1f, 99, 99),
            leaf(0x8000_0008, 0x3028, 0),
        ])
        .unwrap()
    }

    const OFFER: Offer = Offer { tsc_deadline: true, nested: false };

    /// What KVM would support where every bit of every leaf is set.
    fn everything() -> CpuId {
        let leaf = |function| kvm_cpuid_entry2 {
            function,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        CpuId::from_entries(&[1, 0xa, 0x8000_0001, 0x8000_000a, 0x8000_0022].map(leaf)).unwrap()
    }

    #[test]
    fn nested_virtualization_is_there_only_when_asked_for() {
        for nested in [false, true] {
            let cpuid = for_vcpu(&everything(), 0, 1, Offer { nested, ..OFFER }).unwrap();
            assert_eq!(find(&cpuid, 1, 0).ecx >> 5 & 1, u32::from(nested), "VMX");
            assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx >> 2 & 1, u32::from(nested), "SVM");
            let svm = find(&cpuid, 0x8000_000a, 0);
            assert_eq!(svm.eax | svm.ebx | svm.ecx | svm.edx != 0, nested, "SVM's features");
        }
    }

    #[test]
    fn no_guest_has_performance_counters() {
        let cpuid = for_vcpu(&everything(), 0, 2, Offer { nested: true, ..OFFER }).unwrap();
        assert_eq!(find(&cpuid, 1, 0).ecx & 1 << 15, 0);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & (1 << 23 | 1 << 24 | 1 << 28), 0);
        for function in [0xa, 0x8000_0022] {
            let leaf = find(&cpuid, function, 0);
            assert_eq!(leaf.eax | leaf.ebx | leaf.ecx | leaf.edx, 0, "{function:#x}");
        }
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid.as_slice().iter().find(|l| l.function == function && l.index == index).unwrap()
    }

    #[test]
    fn guests_wait_for_pages_in_place() {
        let cpuid = for_vcpu(&supported(), 0, 1, OFFER).unwrap();
        assert_eq!(find(&cpuid, KVM_FEATURES, 0).eax, !(1 << 4 | 1 << 10 | 1 << 14));
    }

    #[test]
    fn each_vcpu_is_one_core_of_one_package() {
        for (count, bits) in [(1, 0), (2, 1), (3, 2), (8, 3)] {
            for index in 0..count {
                let cpuid = for_vcpu(&supported(), index, count, OFFER).unwrap();
                let one = find(&cpuid, 1, 0);
                assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff), (index.into(), count.into()));
                assert_eq!((one.ecx >> 24 & 1, one.ecx >> 31), (1, 1));
                let (threads, cores) = (find(&cpuid, 0xb, 0), find(&cpuid, 0xb, 1));
                assert_eq!((threads.ebx, threads.ecx, threads.edx), (1, 0x100, index.into()));
                assert_eq!((cores.eax, cores.ebx, cores.ecx), (bits, count.into(), 0x201));
                assert!(cpuid.as_slice().iter().all(|leaf| leaf.function != 0x1f));
            }
        }
    }
}
