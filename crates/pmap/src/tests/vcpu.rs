//! A guest of a few instructions that starts in user mode, so that it runs wherever `/dev/kvm`
//! opens, also where the CPU has no hardware virtualization and no guest kernel would boot. Its
//! page faults are real second-level ones.

use std::io::Write;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use plimsoll_units::PAGE_SIZE;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::Pmap;

/// Where page tables and code are: in a slot of their own, which is not guest RAM.
const SYSTEM: u64 = 1 << 30;
const PML4: u64 = SYSTEM;
const PDPT: u64 = SYSTEM + 0x1000;
const LOW_DIRECTORY: u64 = SYSTEM + 0x2000;
const SYSTEM_DIRECTORY: u64 = SYSTEM + 0x3000;
const WRITE: u64 = SYSTEM + 0x4000;
const VERIFY: u64 = SYSTEM + 0x4100;
const COUNT: u64 = SYSTEM + 0x4200;
const SYSTEM_SIZE: usize = 0x5000;
/// Where a program writes when it is at its end: in no slot, so that KVM tells us. Not `out`, which
/// user mode may only do while its I/O privilege lasts: a KVM without hardware virtualization was
/// seen to lose that on the way through a fault.
const DONE: u64 = SYSTEM + 0x20_0000;

/// Writes rdi + rdx to both ends of the page at rdi, for rsi pages; then writes to [`DONE`].
const WRITE_CODE: &[u8] = &[
    0x48, 0x89, 0xf8, // next: mov rax, rdi
    0x48, 0x01, 0xd0, // add rax, rdx
    0x48, 0x89, 0x07, // mov [rdi], rax
    0x48, 0x89, 0x87, 0xf8, 0x0f, 0x00, 0x00, // mov [rdi + 0xff8], rax
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add rdi, 0x1000
    0x48, 0xff, 0xce, // dec rsi
    0x75, 0xe4, // jnz next
    0x88, 0x04, 0x25, 0x00, 0x00, 0x20, 0x40, // mov [DONE], al
];

/// Counts in r8 the pages, of rsi from rdi on, that do not hold what the code above writes; then
/// writes to [`DONE`].
const VERIFY_CODE: &[u8] = &[
    0x48, 0x89, 0xf8, // again: mov rax, rdi
    0x48, 0x01, 0xd0, // add rax, rdx
    0x48, 0x39, 0x07, // cmp [rdi], rax
    0x75, 0x1e, // jne bad
    0x48, 0x39, 0x87, 0xf8, 0x0f, 0x00, 0x00, // cmp [rdi + 0xff8], rax
    0x75, 0x15, // jne bad
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // next: add rdi, 0x1000
    0x48, 0xff, 0xce, // dec rsi
    0x75, 0xe0, // jnz again
    0x88, 0x04, 0x25, 0x00, 0x00, 0x20, 0x40, // mov [DONE], al
    0xeb, 0xfe, // jmp here
    0x49, 0xff, 0xc0, // bad: inc r8
    0xeb, 0xe6, // jmp next
];

/// For each of rsi pages, rdx bytes apart from rdi on: counts in r8 the words that are not r10,
/// `r10 + r13`, `r10 + 2 * r13` and so on, and writes r12, `r12 + r14` and so on in their place;
/// then writes to [`DONE`].
const COUNT_CODE: &[u8] = &[
    0x48, 0x89, 0xfb, // next: mov rbx, rdi
    0x4d, 0x89, 0xd1, // mov r9, r10
    0x4d, 0x89, 0xe3, // mov r11, r12
    0xb9, 0x00, 0x02, 0x00, 0x00, // mov ecx, 512
    0x4c, 0x39, 0x0b, // word: cmp [rbx], r9
    0x75, 0x22, // jne bad
    0x4c, 0x89, 0x1b, // store: mov [rbx], r11
    0x4d, 0x01, 0xe9, // add r9, r13
    0x4d, 0x01, 0xf3, // add r11, r14
    0x48, 0x83, 0xc3, 0x08, // add rbx, 8
    0xff, 0xc9, // dec ecx
    0x75, 0xea, // jnz word
    0x48, 0x01, 0xd7, // add rdi, rdx
    0x48, 0xff, 0xce, // dec rsi
    0x75, 0xd4, // jnz next
    0x88, 0x04, 0x25, 0x00, 0x00, 0x20, 0x40, // mov [DONE], al
    0xeb, 0xfe, // jmp here
    0x49, 0xff, 0xc0, // bad: inc r8
    0xeb, 0xd9, // jmp store
];

/// One vCPU in user mode with a pmap's memory below 1 GiB, mapped to itself.
pub(crate) struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    _system: GuestMemoryMmap,
}

impl Guest {
    /// A guest with the pmap's memory, or `None`, loudly, where there is no usable `/dev/kvm`.
    pub(crate) fn new(pmap: &Pmap) -> Option<Self> {
        let kvm = match Kvm::new() {
            Ok(kvm) => kvm,
            Err(error) => {
                // Not by eprintln, which the test harness keeps to itself where a test passes.
                let reason = format!("SKIPPED: no native guest on this machine: /dev/kvm: {error}\n");
                std::io::stderr().write_all(reason.as_bytes()).unwrap();
                return None;
            }
        };
        let vm = kvm.create_vm().unwrap();
        vm.set_tss_address(0xfffb_d000).unwrap();
        let system = system_memory();
        let host = system.get_host_address(GuestAddress(SYSTEM)).unwrap();
        map(&vm, 0, SYSTEM, SYSTEM_SIZE as u64, host);
        for (slot, region) in (1..).zip(pmap.regions()) {
            map(&vm, slot, region.start_addr().0, region.len(), region.host());
        }
        let vcpu = vm.create_vcpu(0).unwrap();
        let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).unwrap();
        vcpu.set_cpuid2(&cpuid).unwrap();
        user_mode(&vcpu);
        Some(Self { vcpu, _vm: vm, _system: system })
    }

    /// Writes to both ends of each page what [`Guest::differing`] looks for.
    pub(crate) fn write(&mut self, first: u64, pages: u64, salt: u64) {
        self.run(WRITE, first, pages, kvm_regs { rdx: salt, ..Default::default() });
    }

    /// How many of the pages do not hold what was written with `salt`.
    pub(crate) fn differing(&mut self, first: u64, pages: u64, salt: u64) -> u64 {
        self.run(VERIFY, first, pages, kvm_regs { rdx: salt, ..Default::default() })
    }

    /// Verifies that each word of `pages` pages, `apart` pages from each other, holds `old`, and
    /// makes it `new`; returns how many words did not.
    pub(crate) fn count(&mut self, first: u64, pages: u64, apart: u64, old: Words, new: Words) -> u64 {
        let regs = kvm_regs {
            rdx: apart * PAGE_SIZE,
            r10: old.first,
            r13: old.step,
            r12: new.first,
            r14: new.step,
            ..Default::default()
        };
        self.run(COUNT, first, pages, regs)
    }

    fn run(&mut self, rip: u64, first: u64, pages: u64, regs: kvm_regs) -> u64 {
        let (rdi, rsi) = (first * PAGE_SIZE, pages);
        let interrupts_enabled = 0x202;
        self.vcpu.set_regs(&kvm_regs { rip, rdi, rsi, rflags: interrupts_enabled, ..regs }).unwrap();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::MmioWrite(DONE, _)) => return self.vcpu.get_regs().unwrap().r8,
                Ok(other) => {
                    let why = format!("{other:?}");
                    panic!("the guest stopped: {why}, {:x?}", self.vcpu.get_regs());
                }
                Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {}
                Err(error) => panic!("KVM_RUN: {error}"),
            }
        }
    }
}

/// What the words of a page hold: `first`, `first + step`, `first + 2 * step` and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) first: u64,
    pub(crate) step: u64,
}

fn map(vm: &VmFd, slot: u32, guest: u64, len: u64, host: *mut u8) {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: guest,
        memory_size: len,
        userspace_addr: host as u64,
    };
    // SAFETY: the guest may write all of it: it is guest RAM, or memory made for the guest that
    // nobody refers to; both outlive the guest.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
}

/// Page tables that map the first GiB and the system's GiB to themselves for user mode, and the
/// code.
fn system_memory() -> GuestMemoryMmap {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(SYSTEM), SYSTEM_SIZE)]).unwrap();
    // Present, writable, user, accessed, dirty; with bit 7 a 2 MiB page.
    let (table, page) = (0x67, 0xe7);
    let put = |at: u64, value: u64| memory.write_obj(value, GuestAddress(at)).unwrap();
    put(PML4, PDPT | table);
    put(PDPT, LOW_DIRECTORY | table);
    put(PDPT + 8, SYSTEM_DIRECTORY | table);
    for i in 0..512 {
        put(LOW_DIRECTORY + i * 8, (i << 21) | page);
        put(SYSTEM_DIRECTORY + i * 8, (SYSTEM + (i << 21)) | page);
    }
    memory.write_slice(WRITE_CODE, GuestAddress(WRITE)).unwrap();
    memory.write_slice(VERIFY_CODE, GuestAddress(VERIFY)).unwrap();
    memory.write_slice(COUNT_CODE, GuestAddress(COUNT)).unwrap();
    memory
}

/// Long mode, paging on, privilege level 3.
fn user_mode(vcpu: &VcpuFd) {
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 0x2b,
        type_: 3,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs().unwrap();
    sregs.cs = kvm_segment { selector: 0x33, type_: 11, db: 0, l: 1, ..data };
    (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.tr = kvm_segment { limit: 0x67, type_: 11, present: 1, ..Default::default() };
    sregs.cr3 = PML4;
    sregs.cr0 = 0x8001_0033;
    sregs.cr4 = 0x620;
    sregs.efer = 0xd01;
    vcpu.set_sregs(&sregs).unwrap();
}
