use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest encoded message: a command line of 60 KiB, or data with room to spare.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a message's length.
const LENGTH: usize = 4;

/// What is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is too long.
    #[error("a message of {0} bytes: at most {MAX_MESSAGE} are allowed")]
    TooLong(usize),
    /// Its bytes mean nothing.
    #[error("{0} bytes that are no message of this protocol")]
    Garbled(usize),
}

/// The bytes of `message`, with their length before them.
///
/// # Errors
/// The message is too long.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    // Its only errors are those of types that cannot be encoded, of which there are none here.
    let body = postcard::to_stdvec(message).map_err(|_| FrameError::Garbled(0))?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_MESSAGE);
    let length = length.ok_or(FrameError::TooLong(body.len()))?;
    Ok([&length.to_le_bytes()[..], &body].concat())
}

/// Takes messages out of the bytes of a connection.
///
/// It keeps at most one message that has not come whole, and what the caller has added beyond.
#[derive(Debug)]
pub struct Frames<T> {
    bytes: Vec<u8>,
    message: PhantomData<T>,
}

impl<T> Default for Frames<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), message: PhantomData }
    }
}

impl<T: DeserializeOwned> Frames<T> {
    /// Adds bytes of the connection. Take all messages before more are added.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if it has come whole.
    ///
    /// # Errors
    /// The bytes are no message: the connection is of no use any more.
    pub fn take(&mut self) -> Result<Option<T>, FrameError> {
        let Some((length, body)) = self.bytes.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = body.get(..length) else { return Ok(None) };
        match postcard::take_from_bytes(body) {
            Ok((message, [])) => {
                self.bytes.drain(..LENGTH + length);
                Ok(Some(message))
            }
            _ => Err(FrameError::Garbled(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::{CommandEnd, Execute, FromAgent, MAX_DATA, OutputStream, ToAgent};

    fn any_message() -> impl Strategy<Value = FromAgent> {
        let data = prop::collection::vec(any::<u8>(), 0..2000);
        prop_oneof![
            any::<u32>().prop_map(FromAgent::Hello),
            data.prop_map(|data| FromAgent::Output(OutputStream::Error, data)),
            any::<u8>().prop_map(|status| FromAgent::Ended(CommandEnd::Exited(status))),
            any::<String>().prop_map(FromAgent::Failed),
        ]
    }

    proptest! {
        #[test]
        fn messages_arrive_whatever_pieces_they_come_in(
            messages in prop::collection::vec(any_message(), 0..20),
            pieces in prop::collection::vec(1usize..500, 1..20),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
            let (mut frames, mut got, mut rest) = (Frames::default(), Vec::<FromAgent>::new(), &bytes[..]);
            for piece in pieces.iter().cycle() {
                let (first, later) = rest.split_at((*piece).min(rest.len()));
                frames.add(first);
                while let Some(message) = frames.take().unwrap() {
                    got.push(message);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(frames.bytes.is_empty());
        }

        #[test]
        fn garbage_is_an_error_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::<ToAgent>::default();
            frames.add(&bytes);
            while let Ok(Some(_)) = frames.take() {}
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_kept() {
        let mut frames = Frames::<ToAgent>::default();
        frames.add(&u32::MAX.to_le_bytes());
        assert_eq!(frames.take(), Err(FrameError::TooLong(u32::MAX as usize)));
        let long = Execute { command: vec!["x".repeat(MAX_MESSAGE)], directory: None };
        assert!(matches!(encode(&ToAgent::Execute(long)), Err(FrameError::TooLong(_))));
        assert!(encode(&ToAgent::Input(vec![0; MAX_DATA])).unwrap().len() < MAX_MESSAGE);
        frames = Frames::default();
        frames.add(&[2, 0, 0, 0, 3, 3]);
        assert_eq!(frames.take(), Err(FrameError::Garbled(2)), "a message and a byte more");
    }
}
