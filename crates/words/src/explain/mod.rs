//! The daemon's explanations in words.

mod grant;
mod host;
mod remedy;
mod vm;

#[cfg(test)]
mod tests;

use plimsoll_protocol::explain::Cause;
use plimsoll_units::Bytes;

pub use self::host::text as host;
pub use self::vm::text as vm;

/// What set an entitlement, in a few words that follow "by".
fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Reservation => "its reservation, above what its shares are worth".to_owned(),
        Cause::Limit => "its limit".to_owned(),
        Cause::Size => "its size".to_owned(),
        Cause::PoolReservation(pool) => format!("the reservation of pool {pool}"),
        Cause::PoolLimit(pool) => format!("the limit of pool {pool}"),
        Cause::Level => "its shares".to_owned(),
        Cause::Shortfall(place) => format!("too much is reserved in {place}: reservations are scaled down"),
    }
}

/// A level: what one share pays. Shares are per MiB, so that it is a small amount.
fn level(bytes: f64) -> String {
    if bytes < 10_240.0 {
        format!("{bytes:.1}B a share")
    } else {
        format!("{:.1}KiB a share", bytes / 1024.0)
    }
}

/// The text for an amount above zero, or nothing.
fn more_than_nothing(bytes: Bytes, text: impl FnOnce(Bytes) -> String) -> String {
    if bytes == Bytes::ZERO { String::new() } else { text(bytes) }
}
