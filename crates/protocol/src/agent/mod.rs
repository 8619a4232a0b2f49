//! What `plimsoll exec` and the agent in a guest say to each other, over a connection of the VM's
//! vsock.
//!
//! Each connection is one command. Both sides begin with their version, then the client says what
//! to run; from then on each sends what it has until the agent tells how the command ended. A
//! client that leaves earlier ends the command.
//!
//! A message is four bytes of length, little-endian, and as many of postcard's encoding, at most
//! [`MAX_MESSAGE`]. The sides do not trust each other: a message that is longer, or does not
//! decode, ends the connection, and so does data beyond [`MAX_DATA`].

mod frames;
mod messages;

pub use frames::{FrameError, Frames, MAX_MESSAGE, encode};
pub use messages::{
    AGENT_PORT, AGENT_VERSION, CommandEnd, Execute, FromAgent, MAX_DATA, OutputStream, ToAgent,
};
