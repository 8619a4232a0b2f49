//! Faults of the emulator, told from ours by signatures that neither a processor nor a program of
//! ours leaves.
//!
//! QEMU's emulation of SVM is wrong now and then. A guest then dies
//! with flags that no processor can have, or the lab's own kernel oopses. A page of a guest that we
//! lost might look like the first: so every fault is printed with its consoles, counted, and
//! excused once a run only.

/// Where Linux prints the flags of the processor that it stopped.
const FLAGS: &str = "EFLAGS: ";

/// Bits of EFLAGS that are always 1: the second.
const ALWAYS_ONE: u64 = 1 << 1;

/// Bits of EFLAGS that are always 0: 3, 5, 15, and all from 22 on.
const ALWAYS_ZERO: u64 = 1 << 3 | 1 << 5 | 1 << 15 | !0 << 22;

/// What Linux says last.
const PANIC: &str = "Kernel panic - not syncing: ";

/// Panics for a reason that is ours: our first process, our image, memory that we used up.
const OURS: [&str; 6] = [
    "Attempted to kill init",
    "Requested init",
    "No working init",
    "VFS: ",
    "Out of memory",
    "System is deadlocked on memory",
];

/// The signature of an emulator's fault in `console`, that of the lab's kernel, and in `said`, what
/// the scenario said and what consoles of guests it showed. In words, with the line.
pub fn signature(console: &str, said: &str) -> Option<String> {
    let lines = console.lines().chain(said.lines());
    let flags = lines.filter_map(|line| Some((impossible_flags(line)?, line)));
    let flags =
        flags.map(|(flags, line)| format!("no processor can have EFLAGS {flags:#010x}: {}", line.trim()));
    let died = console.lines().filter(|line| oops(line) || panic(line));
    let died = died.map(|line| format!("the lab's own kernel died: {}", line.trim()));
    flags.chain(died).next()
}

/// The flags in `line`, where no processor can have them.
fn impossible_flags(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(FLAGS)?;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    // Linux prints eight digits or more. Fewer are a line that another one has cut.
    let flags = (digits.len() >= 8).then(|| u64::from_str_radix(digits, 16).ok())??;
    (flags & ALWAYS_ONE == 0 || flags & ALWAYS_ZERO != 0).then_some(flags)
}

/// Whether `line` begins an oops of the kernel: it numbers them, as in `[#1]`. What it says of
/// processes that die has no number.
fn oops(line: &str) -> bool {
    line.split("[#").skip(1).any(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        digits > 0 && rest[digits..].starts_with(']')
    })
}

/// Whether `line` is a panic for a reason that is not ours.
fn panic(line: &str) -> bool {
    let reason = line.split_once(PANIC).map(|(_, reason)| reason);
    reason.is_some_and(|reason| !OURS.iter().any(|ours| reason.starts_with(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest's oops in `apparmor_init`, as it was seen.
    const SEEN: &str = "[    0.512345] RIP: 0010:apparmor_init+0x1c2/0x3a0\n\
        [    0.513370] RSP: 0000:ffffffff82c03e70 EFLAGS: 4100a606\n";

    /// An oops that any kernel may have.
    const USUAL: &str = "[   12.000001] BUG: unable to handle page fault for address: ffffc90000213000\n\
        [   12.000002] Oops: 0002 [#1] PREEMPT SMP NOPTI\n\
        [   12.000003] RSP: 0018:ffffc9000021bd50 EFLAGS: 00010246\n";

    #[test]
    fn flags_that_no_processor_has_are_recognised_in_every_console() {
        assert!(signature("", SEEN).unwrap().contains("EFLAGS 0x4100a606"));
        assert!(signature(SEEN, "").is_some());
        for flags in [
            "00000244", // bit 1 is 0
            "0000024a", // bit 3 is 1
            "00000266", // bit 5 is 1
            "00008246", // bit 15 is 1
            "00400246", // bit 22 is 1
            "80000246", // bit 31 is 1
            "100000246",
        ] {
            assert!(impossible_flags(&format!("RSP: 0018:ffff EFLAGS: {flags}")).is_some(), "{flags}");
        }
    }

    #[test]
    fn flags_that_a_processor_has_are_not() {
        for flags in [
            "00000002", "00000246", "00010246", "00210a97", "003f7fd7", // every bit that may be 1
            "0000024",  // cut off
            "zzzzzzzz",
        ] {
            assert_eq!(impossible_flags(&format!("RSP: 0018:ffff EFLAGS: {flags}")), None, "{flags}");
        }
    }

    #[test]
    fn an_oops_of_the_labs_kernel_is_the_emulators_and_that_of_a_guest_is_not() {
        assert!(signature(USUAL, "").unwrap().contains("the lab's own kernel died"));
        assert_eq!(signature("", USUAL), None);
        let double =
            "[    3.1] traps: PANIC: double fault, error_code: 0x0\n[    3.2] double fault: 0000 [#1] SMP";
        assert!(signature(double, "").is_some());
        assert!(
            signature("[    9.1] Kernel panic - not syncing: Fatal exception in interrupt", "").is_some()
        );
    }

    #[test]
    fn what_may_be_ours_is_not_excused() {
        for console in [
            "",
            "[    9.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            "[    9.1] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
            "[    9.1] Out of memory: Killed process 311 (plimsoll-vmm)",
            "[    9.1] traps: plimsoll-vmm[311] general protection fault ip:5581 sp:7ffd error:0 in plimsoll-vmm",
            "[    9.1] WARNING: CPU: 0 PID: 44 at arch/x86/kvm/mmu/mmu.c:6881 kvm_mmu_destroy",
            "[    9.1] BUG: soft lockup - CPU#0 stuck for 26s! [plimsolld:300]",
            "[    9.1] INFO: task plimsolld:300 blocked for more than 120 seconds.",
        ] {
            assert_eq!(
                signature(console, "guest4 did not answer \"touch 1 1\" within 240 s"),
                None,
                "{console}"
            );
        }
    }
}
