use std::fmt;

use plimsoll_protocol::status::PoolStatus;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::metric::{Table, bytes, bytes_if_any, number};

/// Metrics of resource pools.
pub(super) const POOL: Table<PoolStatus> = Table {
    kind: "pool",
    label: Some(("pool", |pool| pool.name.as_str())),
    metrics: &[
        number("shares", "The pool's weight among its siblings", |pool| pool.share_count),
        bytes("reservation", "Machine memory that the pool's VMs together always have", |pool| {
            pool.reservation
        }),
        bytes_if_any("limit", "Machine memory that the pool's VMs together never exceed", |pool| pool.limit),
        bytes("reserved", "Reserved within the pool, by VMs that run and by pools", |pool| pool.reserved),
        bytes("entitlement", "Machine memory that policy gives the pool's VMs together", |pool| {
            pool.entitled
        }),
        bytes(
            "charged",
            "Grants and parts of shared frames of the pool's VMs, those in pools below included",
            |pool| pool.granted,
        ),
    ],
};

/// Writes where each pool is.
pub(super) fn info(pools: &[PoolStatus], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family =
        encoder.encode_descriptor("pool", "The pool that the pool is part of", None, MetricType::Info)?;
    for pool in pools {
        let parent = pool.parent.to_string();
        family.encode_info(&[("pool", pool.name.as_str()), ("parent", &parent)])?;
    }
    Ok(())
}
