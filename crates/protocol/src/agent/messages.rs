use serde::{Deserialize, Serialize};

/// The guest's port at which its agent listens: a port of root's, so that no other user of the
/// guest can listen there.
pub const AGENT_PORT: u32 = 1011;
/// Version of these messages. A side that hears another says so and ends.
pub const AGENT_VERSION: u32 = 1;
/// Most bytes of input or output in a message.
pub const MAX_DATA: usize = 16 << 10;

/// From `plimsoll` to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The first message: the client's [`AGENT_VERSION`].
    Hello(u32),
    /// Run this command. The second message, and the only one of its kind.
    Execute(Execute),
    /// Bytes for the command's standard input, at most [`MAX_DATA`].
    Input(Vec<u8>),
    /// Its input ends.
    InputEnd,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execute {
    /// The program, which is looked for as a shell would, and its arguments.
    pub command: Vec<String>,
    /// Where it runs; `None`: at the root directory.
    pub directory: Option<String>,
}

/// From the agent to `plimsoll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message: the agent's [`AGENT_VERSION`].
    Hello(u32),
    /// Bytes that the command has written, at most [`MAX_DATA`].
    Output(OutputStream, Vec<u8>),
    /// The command has ended, and all that it wrote before was sent. The last message.
    Ended(CommandEnd),
    /// The command could not be run, and why. The last message.
    Failed(String),
}

/// One of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputStream {
    /// Its standard output.
    Out,
    /// Its standard error.
    Error,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandEnd {
    /// By itself, with this status.
    Exited(u8),
    /// By a signal of this number.
    Killed(u8),
}
