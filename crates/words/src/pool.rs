//! Resource pools as text.

use std::fmt::Display;

use plimsoll_protocol::Place;
use plimsoll_units::Bytes;

/// The settings of a pool, in one line.
pub fn settings(
    parent: &Place,
    shares: impl Display,
    reservation: Bytes,
    limit: Option<Bytes>,
    expandable: bool,
) -> String {
    let limit = self::limit(limit);
    let expandable = if expandable { "expandable" } else { "not expandable" };
    format!("in {parent}, shares {shares}, reservation {reservation}, limit {limit}, {expandable}")
}

/// A limit, or that there is none.
pub fn limit(limit: Option<Bytes>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}
