use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const PREFIX: Prefix = Prefix(7);
const MAKER: MemberId = MemberId(1);

#[test]
fn neighbours_get_neighbouring_frames_and_scattered_pages_fill_gaps() {
    let mut frames = Frames::new(4000);
    let run = |frames: &mut Frames, len: usize| {
        let mut made: Vec<u32> = Vec::new();
        for n in 0..len {
            let after = made.last().map(|last| FrameNo(*last));
            made.push(frames.create(after, len - n, PREFIX, MAKER).unwrap().0);
        }
        made
    };
    let first = run(&mut frames, 64);
    assert_eq!(first, (0..64).collect::<Vec<_>>());
    let second = run(&mut frames, 64);
    assert_eq!(second, (64..128).collect::<Vec<_>>());
    // A gap of three and one of one: what fits best is used, and a long run goes where it stays
    // whole.
    for frame in [3, 10, 11, 12] {
        assert_eq!(frames.release(FrameNo(frame)), Some(PREFIX));
    }
    assert_eq!(frames.create(None, 1, PREFIX, MAKER), Some(FrameNo(128)), "what lingers is not used");
    while let Some((first, len)) = frames.lingering_run() {
        frames.punched(first, len);
    }
    assert_eq!(run(&mut frames, 3), [10, 11, 12]);
    assert_eq!(run(&mut frames, 1), [3]);
    assert_eq!(run(&mut frames, 500)[..], (512..1012).collect::<Vec<_>>());
}

#[test]
fn the_limit_is_kept_whatever_its_remainder() {
    for limit in [0, 1, 511, 512, 513, 1100] {
        let mut frames = Frames::new(limit);
        let made: BTreeSet<u32> =
            std::iter::from_fn(|| frames.create(None, 64, PREFIX, MAKER)).map(|frame| frame.0).collect();
        assert_eq!(made, (0..limit).collect());
    }
}

#[test]
fn more_references_than_a_byte_tells_are_counted() {
    let mut frames = Frames::new(10);
    let frame = frames.create(None, 1, PREFIX, MAKER).unwrap();
    for _ in 1..1000 {
        frames.acquire(frame);
    }
    assert_eq!(frames.references(), 1000);
    for _ in 1..1000 {
        assert_eq!(frames.release(frame), None);
    }
    assert_eq!((frames.release(frame), frames.in_use(), frames.lingering()), (Some(PREFIX), 0, 1));
    assert!(frames.more.is_empty());
}

#[test]
fn bookkeeping_goes_with_the_frames() {
    let mut frames = Frames::new(1 << 20);
    let empty = frames.bytes();
    let made: Vec<FrameNo> = (0..10_000).map(|_| frames.create(None, 1, PREFIX, MAKER).unwrap()).collect();
    assert!(frames.bytes() < 10_000 * 6, "{}", frames.bytes());
    assert!(made.iter().all(|frame| frames.release(*frame).is_some()));
    while let Some((first, len)) = frames.lingering_run() {
        frames.punched(first, len);
    }
    assert!(frames.bytes() < empty + 1024 && frames.blocks.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Create { after: Option<u32>, room: usize },
    Acquire(usize),
    Release(usize),
    Linger(u32),
    Punch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (prop::option::of(0u32..1200), 1usize..600).prop_map(|(after, room)| Step::Create { after, room }),
        2 => any::<usize>().prop_map(Step::Acquire),
        5 => any::<usize>().prop_map(Step::Release),
        1 => (0u32..1100).prop_map(Step::Linger),
        1 => Just(Step::Punch),
    ];
    prop::collection::vec(step, 1..800)
}

proptest! {
    #[test]
    fn frames_are_what_a_map_says(steps in steps()) {
        let mut frames = Frames::new(1100);
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        let mut lingering: BTreeSet<u32> = BTreeSet::new();
        for step in steps {
            let any = |n: usize| counts.keys().nth(n % counts.len().max(1)).copied();
            match step {
                Step::Create { after, room } => match frames.create(after.map(FrameNo), room, PREFIX, MAKER) {
                    Some(frame) => {
                        prop_assert!(frame.0 < 1100 && !lingering.contains(&frame.0));
                        prop_assert!(counts.insert(frame.0, 1).is_none());
                    }
                    None => prop_assert_eq!(counts.len() + lingering.len(), 1100),
                },
                Step::Acquire(n) => if let Some(frame) = any(n) {
                    frames.acquire(FrameNo(frame));
                    *counts.get_mut(&frame).unwrap() += 1;
                }
                Step::Release(n) => if let Some(frame) = any(n) {
                    let gone = frames.release(FrameNo(frame)).is_some();
                    let count = counts.get_mut(&frame).unwrap();
                    *count -= 1;
                    prop_assert_eq!(gone, *count == 0);
                    if gone {
                        counts.remove(&frame);
                        lingering.insert(frame);
                    }
                }
                Step::Linger(frame) => {
                    frames.linger(FrameNo(frame));
                    if !counts.contains_key(&frame) {
                        lingering.insert(frame);
                    }
                }
                Step::Punch => if let Some((first, len)) = frames.lingering_run() {
                    let run = first.0..first.0 + u32::try_from(len.0).unwrap();
                    prop_assert!(!run.clone().any(|frame| counts.contains_key(&frame)), "a frame in use is punched");
                    let before = lingering.len();
                    lingering.retain(|frame| !run.contains(frame));
                    prop_assert_eq!(frames.punched(first, len), Pages((before - lingering.len()) as u64));
                }
            }
            prop_assert_eq!(frames.in_use(), counts.len() as u64);
            prop_assert_eq!(frames.references(), counts.values().sum::<u64>());
            prop_assert_eq!(frames.lingering(), lingering.len() as u64);
            prop_assert_eq!(frames.lingering_run().is_none(), lingering.is_empty());
        }
        for frame in 0..1100 {
            prop_assert_eq!(frames.is_used(FrameNo(frame)), counts.contains_key(&frame));
        }
    }
}
