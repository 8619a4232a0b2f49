//! A core among hostile VMMs, as a fuzzer has it: their messages come as they are on the wire.

use arbitrary::Unstructured;

use super::happening::{Happening, Speech, course};
use super::*;

/// Things that happen to one core: more only repeat what fewer show.
const MOST: usize = 120;

/// Has what `input` says happen to a core.
pub(crate) fn core(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let slow = input.arbitrary().unwrap_or_default();
    let next = || if input.is_empty() { None } else { happening(&mut input).ok() };
    course(std::iter::from_fn(next).take(MOST), slow);
}

fn happening(input: &mut Unstructured<'_>) -> arbitrary::Result<Happening> {
    Ok(match input.int_in_range(0..=31u8)? {
        0..=3 => Happening::Create(below(input, 5)?, below(input, 4)?),
        4..=6 => Happening::Launched(input.ratio(4u8, 5)?),
        7..=9 => Happening::Message(below(input, 8)?, Box::new(FromVmm::Want(pages(input)?))),
        10..=12 => Happening::Message(below(input, 8)?, Box::new(FromVmm::Return(pages(input)?))),
        13..=17 => {
            let run = below(input, 8)?;
            let length = usize::from(input.arbitrary::<u8>()?);
            let bytes = input.bytes(length.min(input.len()))?;
            // What is no message ends the connection.
            match postcard::from_bytes(bytes) {
                Ok(message) => Happening::Message(run, Box::new(message)),
                Err(_) => Happening::Closed(run),
            }
        }
        18 => Happening::Message(below(input, 8)?, Box::new(FromVmm::Running { missing_jail: Vec::new() })),
        19 => Happening::Exited(below(input, 8)?),
        20 => Happening::Kill(below(input, 5)?),
        21 => Happening::Change(below(input, 5)?, input.int_in_range(0..=299u16)?.into()),
        22 => Happening::Pool(below(input, 4)?, below(input, 4)?, input.int_in_range(0..=299u16)?.into()),
        23 => Happening::Move(below(input, 5)?, below(input, 4)?),
        24 | 25 => Happening::Pass(input.int_in_range(0..=2999u16)?.into()),
        26 => Happening::Sustain(input.int_in_range(0..=899u16)?.into()),
        27 => Happening::Sharing(below(input, 5)?, below(input, 5)?),
        28 => Happening::Work(below(input, 6)?, below(input, 6)?),
        _ => {
            let speech = *input.choose(&[Speech::LookUp, Speech::Offer, Speech::GiveBack])?;
            let (run, other) = (below(input, 8)?, below(input, 8)?);
            let count = below(input, 70)?;
            Happening::Speak(
                run,
                other,
                speech,
                (0..count).map(|_| page(input)).collect::<arbitrary::Result<_>>()?,
            )
        }
    })
}

/// A page, and the number of its content.
fn page(input: &mut Unstructured<'_>) -> arbitrary::Result<(u32, u8)> {
    Ok((below(input, 40)?.into(), below(input, 12)?))
}

fn below(input: &mut Unstructured<'_>, most: u8) -> arbitrary::Result<u8> {
    input.int_in_range(0..=most - 1)
}

/// A number of pages as a VM has them, or any.
fn pages(input: &mut Unstructured<'_>) -> arbitrary::Result<Pages> {
    Ok(Pages(if input.ratio(1u8, 8)? {
        input.arbitrary()?
    } else {
        input.int_in_range(0..=70_000u32)?.into()
    }))
}

/// A core that users ask, and whose VMs start at once.
pub(crate) struct Host(World);

impl Host {
    pub(crate) fn new() -> Self {
        Self(World::new(640))
    }

    /// The answer to `request`; `None`: it waits for something.
    pub(crate) fn answered(&mut self, request: Request) -> Option<Result<Answer, Failure>> {
        let Self(world) = self;
        let id = world.ask(request);
        while let Some((run, _)) = world.launches.pop() {
            world.input(Input::Launched(run, Ok(Started::example())));
            world.say(run, FromVmm::Running { missing_jail: Vec::new() });
        }
        world.answers.remove(&id)
    }
}
