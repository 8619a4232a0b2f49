//! The state in which vCPUs begin: 64-bit mode as the boot protocol asks for
//! (Documentation/arch/x86/boot.rst, "64-bit boot protocol"), on page tables that map the first 4
//! GiB to themselves.

use kvm_bindings::{kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use plimsoll_units::PAGE_SIZE;

use super::layout;

/// Descriptors of flat segments: null, unused, code of 64 bits (selector 0x10), data (0x18), task
/// state.
const DESCRIPTORS: [u64; 5] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff];
/// Offset of their last byte.
const GDT_LIMIT: u16 = 5 * 8 - 1;
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// The global descriptor table, and after it the empty interrupt descriptor table.
pub(crate) fn descriptor_tables() -> Vec<u8> {
    DESCRIPTORS.iter().flat_map(|d| d.to_le_bytes()).collect()
}

/// The page tables from [`layout::PML4`] on: six pages.
pub(crate) fn page_tables() -> Vec<u8> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const HUGE: u64 = 1 << 7;
    let page = |entries: Vec<u64>| {
        let mut bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
        bytes.resize(layout::PAGE, 0);
        bytes
    };
    let mut tables = page(vec![layout::PDPT | PRESENT_WRITABLE]);
    let directories = (0..4).map(|n| layout::PAGE_DIRECTORIES + n * PAGE_SIZE);
    tables.extend(page(directories.map(|address| address | PRESENT_WRITABLE).collect()));
    let huge_pages = (0..4 * 512).map(|n: u64| (n << 21) | PRESENT_WRITABLE | HUGE);
    tables.extend(huge_pages.flat_map(u64::to_le_bytes));
    tables
}

/// General registers of the vCPU that enters the kernel.
pub(crate) fn general(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsi: layout::ZERO_PAGE, rsp: layout::BOOT_STACK, rflags: 2, ..Default::default() }
}

/// Turns a vCPU's reset state into 64-bit mode.
pub(crate) fn enter_long_mode(sregs: &mut kvm_sregs) {
    const CR0_PE: u64 = 1 << 0;
    const CR0_PG: u64 = 1 << 31;
    const CR4_PAE: u64 = 1 << 5;
    const EFER_LME: u64 = 1 << 8;
    const EFER_LMA: u64 = 1 << 10;
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = GDT_LIMIT;
    sregs.idt.base = layout::IDT;
    sregs.idt.limit = 0;
    sregs.cs = segment(CODE);
    let data = segment(DATA);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(TASK);
    sregs.cr3 = layout::PML4;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 |= CR0_PE | CR0_PG;
    sregs.efer |= EFER_LME | EFER_LMA;
}

/// The segment of a descriptor, as the processor would load it.
fn segment(selector: u16) -> kvm_segment {
    let d = DESCRIPTORS[usize::from(selector / 8)];
    #[expect(clippy::cast_possible_truncation, reason = "four bits at most")]
    let bits = |at: u32, count: u32| ((d >> at) & ((1 << count) - 1)) as u8;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: bits(40, 4),
        s: bits(44, 1),
        dpl: bits(45, 2),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: bits(55, 1),
        unusable: 0,
        padding: 0,
    }
}

/// The floating-point unit as after FNINIT, with all exceptions masked.
pub(crate) fn fpu() -> kvm_fpu {
    kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() }
}

/// Model-specific registers worth setting. The guest boots also if KVM refuses one.
pub(crate) fn msrs() -> Vec<kvm_msr_entry> {
    const MISC_ENABLE: u32 = 0x1a0;
    const FAST_STRINGS: u64 = 1;
    const MTRR_DEF_TYPE: u32 = 0x2ff;
    const MTRRS_ON_WRITE_BACK: u64 = 1 << 11 | 6;
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    vec![entry(MISC_ENABLE, FAST_STRINGS), entry(MTRR_DEF_TYPE, MTRRS_ON_WRITE_BACK)]
}

/// Sets the local APIC's pins as firmware leaves them: LINT0 takes the PIC's interrupts, LINT1
/// non-maskable ones.
pub(crate) fn set_lint_pins(registers: &mut [std::os::raw::c_char; 1024]) {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    // Delivery modes in bits 8 to 10: 7 external interrupt, 4 non-maskable.
    for (at, mode) in [(LVT_LINT0, 7), (LVT_LINT1, 4)] {
        registers[at + 1] = (registers[at + 1] & !7) | mode;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_fit_where_the_layout_has_them() {
        assert_eq!(page_tables().len() as u64, 6 * PAGE_SIZE);
        assert!(layout::GDT + descriptor_tables().len() as u64 <= layout::IDT + 8);
        assert!(layout::GDT + descriptor_tables().len() as u64 <= layout::BOOT_STACK);
    }

    #[test]
    fn segments_are_flat_and_the_code_is_64_bit() {
        let (code, data) = (segment(CODE), segment(DATA));
        assert_eq!((code.l, code.db, code.present, code.s, code.type_), (1, 0, 1, 1, 0xb));
        assert_eq!((data.l, data.db, data.present, data.s, data.type_), (0, 1, 1, 1, 0x3));
        assert_eq!((segment(TASK).s, segment(TASK).type_), (0, 0xb));
    }

    #[test]
    fn the_last_huge_page_ends_at_4_gib() {
        let tables = page_tables();
        let last = u64::from_le_bytes(tables[tables.len() - 8..].try_into().unwrap());
        assert_eq!((last & !0xfff) + (2 << 20), 1 << 32);
    }
}
