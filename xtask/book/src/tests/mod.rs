//! The README and the book, held against the code.

mod blocks;
mod events;
mod links;
mod metrics;
mod reference;
