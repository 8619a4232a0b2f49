//! KVM's part of a machine: made anew at every boot, from the descriptor of `/dev/kvm` that the
//! daemon passed.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_CAP_PMU_CAPABILITY, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY,
    KVM_PMU_CAP_DISABLE, Msrs, kvm_enable_cap, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use plimsoll_pmap::Pmap;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::boot::cpuid::Offer;
use crate::boot::{cpuid, layout, registers};

/// The host's KVM.
pub(crate) struct Hypervisor {
    kvm: Kvm,
    cpuid: CpuId,
    offer: Offer,
    /// Whether this kernel (5.18 and newer) withholds performance counters when told to.
    counters_optional: bool,
}

/// Capabilities that every VM needs.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SyncMmu, "KVM_CAP_SYNC_MMU"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
];

impl Hypervisor {
    /// Takes the descriptor and asks what KVM can do. VMs get nested virtualization if `nested`.
    ///
    /// # Errors
    /// `fd` is not `/dev/kvm`, or this KVM lacks a capability that VMs need.
    pub(crate) fn new(device: OwnedFd, nested: bool) -> Result<Self> {
        // SAFETY: the descriptor is ours to give away. Whether it is /dev/kvm is asked next;
        // another driver answers ENOTTY.
        let kvm = unsafe { Kvm::from_raw_fd(device.into_raw_fd()) };
        ensure!(
            u32::try_from(kvm.get_api_version()) == Ok(KVM_API_VERSION),
            "/dev/kvm: version 12 of its interface is needed"
        );
        for (capability, name) in NEEDED {
            ensure!(kvm.check_extension(capability), "/dev/kvm: this host's KVM lacks {name}");
        }
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("/dev/kvm: KVM_GET_SUPPORTED_CPUID")?;
        let offer = Offer { tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer), nested };
        let disable = i32::try_from(KVM_PMU_CAP_DISABLE)?;
        let counters_optional = kvm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into()) & disable != 0;
        Ok(Self { kvm, cpuid, offer, counters_optional })
    }

    /// Makes a VM with memory, interrupt controllers and timer, as after power-on.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(crate) fn create_vm(&self, pmap: &Pmap) -> Result<VmFd> {
        let vm = self.kvm.create_vm().context("KVM_CREATE_VM")?;
        self.withhold_counters(&vm)?;
        vm.set_tss_address(usize::try_from(layout::TSS)?).context("KVM_SET_TSS_ADDR")?;
        vm.set_identity_map_address(layout::IDENTITY_MAP).context("KVM_SET_IDENTITY_MAP_ADDR")?;
        vm.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).context("KVM_CREATE_PIT2")?;
        for (slot, region) in (0..).zip(pmap.ram().iter()) {
            let slot = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.host() as u64,
                flags: 0,
            };
            // SAFETY: the region is mapped as long as the pmap lives, which is longer than this VM:
            // the machine holds it.
            unsafe { vm.set_user_memory_region(slot) }.context("KVM_SET_USER_MEMORY_REGION")?;
        }
        Ok(vm)
    }

    /// Has KVM emulate no performance counters. CPUID alone does not: AMD's four oldest have no
    /// bit.
    fn withhold_counters(&self, vm: &VmFd) -> Result<()> {
        if !self.counters_optional {
            return Ok(());
        }
        let mut withhold = kvm_enable_cap { cap: KVM_CAP_PMU_CAPABILITY, ..Default::default() };
        withhold.args[0] = KVM_PMU_CAP_DISABLE.into();
        vm.enable_cap(&withhold).context("KVM_CAP_PMU_CAPABILITY")
    }

    /// Makes `count` vCPUs. The first begins at `entry`; the others wait until it starts them.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(crate) fn create_vcpus(&self, vm: &VmFd, count: u8, entry: u64) -> Result<Vec<VcpuFd>> {
        (0..count)
            .map(|index| {
                let vcpu = vm.create_vcpu(index.into()).context("KVM_CREATE_VCPU")?;
                self.set_up(&vcpu, index, count, entry).with_context(|| format!("vCPU {index}"))?;
                Ok(vcpu)
            })
            .collect()
    }

    fn set_up(&self, vcpu: &VcpuFd, index: u8, count: u8, entry: u64) -> Result<()> {
        let cpuid = cpuid::for_vcpu(&self.cpuid, index, count, self.offer)
            .map_err(|error| anyhow::anyhow!("CPUID: {error:?}"))?;
        vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        set_msrs(vcpu)?;
        vcpu.set_fpu(&registers::fpu()).context("KVM_SET_FPU")?;
        let mut apic = vcpu.get_lapic().context("KVM_GET_LAPIC")?;
        registers::set_lint_pins(&mut apic.regs);
        vcpu.set_lapic(&apic).context("KVM_SET_LAPIC")?;
        if index == 0 {
            let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;
            registers::enter_long_mode(&mut sregs);
            vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
            vcpu.set_regs(&registers::general(entry)).context("KVM_SET_REGS")?;
        }
        Ok(())
    }
}

/// Sets the registers one by one, because KVM stops at the first that it refuses. No register is
/// vital.
fn set_msrs(vcpu: &VcpuFd) -> Result<()> {
    for entry in registers::msrs() {
        let one = Msrs::from_entries(&[entry]).map_err(|error| anyhow::anyhow!("MSRs: {error:?}"))?;
        if vcpu.set_msrs(&one).context("KVM_SET_MSRS")? == 0 {
            tracing::debug!(
                msr = format!("{:#x}", entry.index),
                "KVM refuses a register: the guest does without"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_withholds_counters_where_it_can() {
        // A host without KVM has nothing to withhold them from.
        let Ok(device) = std::fs::File::options().read(true).write(true).open("/dev/kvm") else { return };
        let Ok(hypervisor) = Hypervisor::new(device.into(), false) else { return };
        let vm = hypervisor.kvm.create_vm().unwrap();
        hypervisor.withhold_counters(&vm).unwrap();
        // It holds for vCPUs that are made afterwards, and only for a VM that has none.
        vm.create_vcpu(0).unwrap();
        if hypervisor.counters_optional {
            hypervisor.withhold_counters(&vm).unwrap_err();
        }
    }
}
