//! Any course of swapping, for a fuzzer, on a file that anything may happen to.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use arbitrary::{Result, Unstructured};
use plimsoll_units::{PAGE_SIZE, Pages};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::MemfdFlags;

use super::{Completion, Swap, SwapSlot, SwapSpace};
use crate::address::PAGE;

/// Slots of the swap: a few words of the map of slots.
const SLOTS: u16 = 150;

/// What a page of the model is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Leaving,
    Swapped,
    Arriving,
}

/// What should be in each slot in use: the content of this number, which is its owner too.
struct Model {
    swap: Swap,
    file: File,
    pages: HashMap<SwapSlot, (u64, Doing)>,
    last: u64,
    in_flight: usize,
    /// The file was changed from outside: what it gives back may be anything.
    touched: bool,
}

/// Swaps pages out and in, frees slots and changes the file, as `input` says. What is read or
/// pending is what was written, slots have one owner at a time, and none is lost.
///
/// # Panics
/// One of these does not hold.
pub fn swap(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let encrypt = input.arbitrary().unwrap_or_default();
    let mut model = Model::new(encrypt);
    while !input.is_empty() && model.step(&mut input).is_ok() {}
    while model.in_flight > 0 {
        let ready = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&model.swap, PollFlags::IN)], None));
        ready.expect("the swap can be waited for");
        model.collect();
    }
    let used = Pages(model.pages.len() as u64);
    assert_eq!(model.swap.free_slots() + used, Pages(SLOTS.into()), "no slot is lost");
}

impl Model {
    fn new(encrypt: bool) -> Self {
        let file =
            rustix::fs::memfd_create("swap", MemfdFlags::CLOEXEC).expect("a file in memory can be made");
        let file = File::from(file);
        file.set_len(u64::from(SLOTS) * PAGE_SIZE).expect("the file can be extended");
        let kept = file.try_clone().expect("descriptors are left");
        let space = SwapSpace { file: file.into(), slots: Pages(SLOTS.into()), encrypt };
        let swap = Swap::new(space).expect("the swap can be made");
        Self { swap, file: kept, pages: HashMap::new(), last: 0, in_flight: 0, touched: false }
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=11u8)? {
            0..=2 => self.write(input.int_in_range(1..=40)?),
            3 | 4 => self.read(input.arbitrary()?, input.int_in_range(1..=40)?),
            5 | 6 => self.free(input.arbitrary()?, input.int_in_range(1..=20)?),
            7 => self.look_at_pending(),
            8 => {
                self.touched = true;
                let at = input.int_in_range(0..=u64::from(SLOTS) * PAGE_SIZE)?;
                let length = input.int_in_range(0..=64)?;
                let bytes = input.bytes(length)?;
                let room = usize::try_from(u64::from(SLOTS) * PAGE_SIZE - at).unwrap_or(0).min(bytes.len());
                self.file.write_all_at(&bytes[..room], at).expect("the file can be written");
            }
            9 => {
                self.touched = true;
                let len = input.int_in_range(0..=u64::from(SLOTS) * PAGE_SIZE)?;
                self.file.set_len(len).expect("the file can be cut");
            }
            _ => self.collect(),
        }
        Ok(())
    }

    /// `count` of the slots in use, in order, from one of them on.
    fn known(&self, from: u8, count: u16) -> Vec<SwapSlot> {
        let mut slots: Vec<SwapSlot> = self.pages.keys().copied().collect();
        slots.sort();
        let skip = usize::from(from) % slots.len().max(1);
        slots.into_iter().skip(skip).take(count.into()).collect()
    }

    fn write(&mut self, count: u16) {
        let mut batch = Vec::new();
        for slot in self.swap.reserve(count) {
            let Some(mut buffer) = self.swap.buffer() else {
                self.swap.free(slot);
                continue;
            };
            self.last += 1;
            *buffer = content(self.last);
            let before = self.pages.insert(slot, (self.last, Doing::Leaving));
            assert!(before.is_none(), "{slot:?} is in use");
            batch.push((slot, self.last, buffer));
        }
        self.in_flight += batch.len();
        self.swap.write(batch);
    }

    fn read(&mut self, from: u8, count: u16) {
        let mut run: Vec<(SwapSlot, u64)> = Vec::new();
        for slot in self.known(from, count) {
            let (owner, doing) = self.pages[&slot];
            if doing != Doing::Swapped || run.last().is_some_and(|(last, _)| last.plus(1) != slot) {
                break;
            }
            run.push((slot, owner));
            self.pages.insert(slot, (owner, Doing::Arriving));
        }
        if let Some((first, _)) = run.first() {
            self.in_flight += run.len();
            self.swap.read(*first, &run.iter().map(|(_, owner)| *owner).collect::<Vec<_>>());
        }
    }

    fn free(&mut self, from: u8, count: u16) {
        for slot in self.known(from, count) {
            self.pages.remove(&slot);
            self.swap.free(slot);
        }
    }

    fn look_at_pending(&self) {
        for (slot, (owner, doing)) in &self.pages {
            let mut back = [0; PAGE];
            assert_eq!(self.swap.pending(*slot, &mut back), *doing == Doing::Leaving);
            assert!(*doing != Doing::Leaving || back == content(*owner), "{slot:?}");
        }
    }

    fn collect(&mut self) {
        for completion in self.swap.completions() {
            self.in_flight -= 1;
            match completion {
                Completion::Written(written) => {
                    // A slot that was freed meanwhile cannot have been reserved again.
                    let Some((owner, doing)) = self.pages.get_mut(&written.slot) else { continue };
                    assert_eq!((*owner, *doing), (written.owner, Doing::Leaving));
                    written.result.as_ref().expect("a file in memory can be written");
                    *doing = Doing::Swapped;
                }
                Completion::Read(read) => {
                    let Some((owner, doing)) = self.pages.get_mut(&read.slot) else { continue };
                    assert_eq!((*owner, *doing), (read.owner, Doing::Arriving));
                    *doing = Doing::Swapped;
                    let is_right = read.result.as_ref().is_ok_and(|page| **page == content(*owner));
                    assert!(is_right || self.touched, "{:?} does not hold what was written", read.slot);
                }
            }
        }
    }
}

fn content(owner: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    for (at, word) in page.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(owner.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64).to_le_bytes());
    }
    page
}
