use plimsoll_units::{Bytes, PAGE_SIZE};

/// What was meant by an amount of memory that is less than a page: nobody reserves 64 bytes.
pub fn forgotten_unit(size: Bytes) -> Option<String> {
    (1..PAGE_SIZE).contains(&size.0).then(|| format!("that is less than a page: did you mean {}MiB?", size.0))
}
