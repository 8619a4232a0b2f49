//! Real second-level page faults on guest memory: a guest of a few instructions that starts in user mode, so that it
//! runs wherever `/dev/kvm` opens, also where the CPU has no hardware virtualization and no guest kernel would boot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, helpers included")]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use plimsoll_pmap::{Config, GrantSource, Pmap, PpnRange, Release, Sampler, uffd};
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Where page tables and code are: in a slot of their own, which is not guest RAM.
const SYSTEM: u64 = 1 << 30;
const PML4: u64 = SYSTEM;
const PDPT: u64 = SYSTEM + 0x1000;
const LOW_DIRECTORY: u64 = SYSTEM + 0x2000;
const SYSTEM_DIRECTORY: u64 = SYSTEM + 0x3000;
const WRITE: u64 = SYSTEM + 0x4000;
const VERIFY: u64 = SYSTEM + 0x4100;
const SYSTEM_SIZE: usize = 0x5000;

/// Writes rdi + rdx to both ends of the page at rdi, for rsi pages; then `out 0x10`.
const WRITE_CODE: &[u8] = &[
    0x48, 0x89, 0xf8, // next: mov rax, rdi
    0x48, 0x01, 0xd0, // add rax, rdx
    0x48, 0x89, 0x07, // mov [rdi], rax
    0x48, 0x89, 0x87, 0xf8, 0x0f, 0x00, 0x00, // mov [rdi + 0xff8], rax
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add rdi, 0x1000
    0x48, 0xff, 0xce, // dec rsi
    0x75, 0xe4, // jnz next
    0xe6, 0x10, // out 0x10, al
];

/// Counts in r8 the pages, of rsi from rdi on, that do not hold what the code above writes; then `out 0x10`.
const VERIFY_CODE: &[u8] = &[
    0x48, 0x89, 0xf8, // again: mov rax, rdi
    0x48, 0x01, 0xd0, // add rax, rdx
    0x48, 0x39, 0x07, // cmp [rdi], rax
    0x75, 0x19, // jne bad
    0x48, 0x39, 0x87, 0xf8, 0x0f, 0x00, 0x00, // cmp [rdi + 0xff8], rax
    0x75, 0x10, // jne bad
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // next: add rdi, 0x1000
    0x48, 0xff, 0xce, // dec rsi
    0x75, 0xe0, // jnz again
    0xe6, 0x10, // out 0x10, al
    0xeb, 0xfe, // jmp here
    0x49, 0xff, 0xc0, // bad: inc r8
    0xeb, 0xeb, // jmp next
];

const DEADLINE: Duration = Duration::from_secs(30);
const CHUNKS: u64 = 16;

#[derive(Default)]
struct Source(AtomicU64);

impl GrantSource for Source {
    fn want(&self, total: Pages) {
        self.0.store(total.0, Ordering::SeqCst);
    }
}

struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    _system: GuestMemoryMmap,
}

impl Guest {
    /// A guest with the pmap's memory, or `None`, loudly, where there is no usable `/dev/kvm`.
    fn new(pmap: &Pmap) -> Option<Self> {
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

    fn write(&mut self, first: u64, pages: u64, salt: u64) {
        self.run(WRITE, first, pages, salt);
    }

    /// How many of the pages do not hold what was written with `salt`.
    fn differing(&mut self, first: u64, pages: u64, salt: u64) -> u64 {
        self.run(VERIFY, first, pages, salt)
    }

    fn run(&mut self, rip: u64, first: u64, pages: u64, salt: u64) -> u64 {
        let (rdi, rsi, rdx) = (first * PAGE_SIZE, pages, salt);
        // Interrupts enabled, I/O allowed in user mode.
        let regs = kvm_regs { rip, rdi, rsi, rdx, rflags: 0x3202, ..Default::default() };
        self.vcpu.set_regs(&regs).unwrap();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(0x10, _)) => return self.vcpu.get_regs().unwrap().r8,
                Ok(other) => panic!("the guest stopped: {other:?}"),
                Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {}
                Err(error) => panic!("KVM_RUN: {error}"),
            }
        }
    }
}

fn map(vm: &VmFd, slot: u32, guest: u64, len: u64, host: *mut u8) {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: guest,
        memory_size: len,
        userspace_addr: host as u64,
    };
    // SAFETY: the guest may write all of it: it is guest RAM, or memory made for the guest that nobody refers to;
    // both outlive the guest.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
}

/// Page tables that map the first GiB and the system's GiB to themselves for user mode, and the code.
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

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Runs `test` with a guest whose memory starts with a grant of `grant` pages.
fn with_guest(grant: u64, huge_pages: bool, test: impl FnOnce(&Arc<Pmap>, &Source, Guest)) {
    let source = Arc::new(Source::default());
    let regions = vec![PpnRange::new(Ppn(0), Pages(CHUNKS * 512))];
    let uffd = uffd::Uffd::open().expect("this test needs /dev/userfaultfd or the right to call userfaultfd");
    let pmap = Pmap::new(
        Config { regions, uffd, huge_pages, grant: Pages(grant), store: Pages::ZERO, swap: None },
        source.clone(),
    )
    .unwrap();
    let stop = EventFd::new(EFD_NONBLOCK).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| pmap.serve_faults(&stop).unwrap());
        if let Some(guest) = Guest::new(&pmap) {
            test(&pmap, &source, guest);
            assert_eq!(pmap.audit(), Ok(()));
        }
        stop.write(1).unwrap();
    });
}

#[test]
fn a_guest_waits_for_a_grant_and_goes_on_with_it() {
    with_guest(1024, true, |pmap, source, mut guest| {
        std::thread::scope(|scope| {
            scope.spawn(|| guest.write(0, 4 * 512, 1));
            eventually("the guest needs a third chunk", || source.0.load(Ordering::SeqCst) == 512);
            assert_eq!(pmap.stats().held, Pages(1024));
            pmap.add_grant(Pages(512));
            eventually("the guest needs a fourth chunk", || pmap.stats().waits == 2);
            assert_eq!(pmap.stats().held, Pages(1536));
            // No more than one page is left: the last chunk is filled page by page.
            pmap.add_grant(Pages(1));
            eventually("the guest makes do with pages", || pmap.stats().chunks_small == 1);
            pmap.add_grant(Pages(511));
        });
        assert_eq!(guest.differing(0, 4 * 512, 1), 0);
        assert_eq!(pmap.stats().held, Pages(2048));
    });
}

#[test]
fn what_a_guest_gives_back_is_zero_and_nothing_else_is() {
    for huge_pages in [true, false] {
        with_guest(CHUNKS * 512, huge_pages, |pmap, _, mut guest| {
            guest.write(0, 4 * 512, 7);
            pmap.release(&[PpnRange::new(Ppn(500), Pages(1024))], Release::Ballooned);
            assert_eq!(pmap.audit(), Ok(()));
            assert_eq!(guest.differing(0, 4 * 512, 7), 1024);
            pmap.reset().unwrap();
            assert_eq!(pmap.stats().held, Pages::ZERO);
            assert_eq!(guest.differing(0, 4 * 512, 7), 4 * 512);
        });
    }
}

#[test]
fn a_running_guest_loses_nothing_to_releases_beside_its_pages() {
    with_guest(CHUNKS * 512, true, |pmap, _, mut guest| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The guest keeps the lower half of each chunk; the upper half it writes and gives back at once.
            scope.spawn(|| {
                for i in 0.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let range = PpnRange::new(Ppn(256 + (i % CHUNKS) * 512), Pages(256));
                    let how = if i % 3 == 0 { Release::Ballooned } else { Release::Reported };
                    pmap.release(&[range], how);
                }
            });
            for round in 1..=6 {
                for chunk in 0..CHUNKS {
                    guest.write(chunk * 512, 512, round);
                }
                for chunk in 0..CHUNKS {
                    assert_eq!(guest.differing(chunk * 512, 256, round), 0, "round {round}, chunk {chunk}");
                }
            }
            done.store(true, Ordering::SeqCst);
        });
    });
}

#[test]
fn a_running_guest_loses_nothing_to_sampling_and_is_seen_to_run() {
    with_guest(CHUNKS * 512, true, |pmap, _, mut guest| {
        guest.write(0, CHUNKS * 512, 0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sampling = scope.spawn(|| {
                let mut sampler = Sampler::new(Arc::clone(pmap), 16);
                let mut touched = 0;
                while !done.load(Ordering::SeqCst) {
                    sampler.begin();
                    std::thread::yield_now();
                    touched += sampler.seen().chunks.touched;
                }
                touched
            });
            for round in 1..=40 {
                guest.write(0, CHUNKS * 512, round);
                assert_eq!(guest.differing(0, CHUNKS * 512, round), 0, "round {round}");
            }
            done.store(true, Ordering::SeqCst);
            assert!(sampling.join().unwrap() > 0);
        });
        assert_eq!(pmap.stats().chunks_large, CHUNKS);
    });
}
