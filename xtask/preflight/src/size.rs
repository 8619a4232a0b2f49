//! A number of bytes, as people read and write it.

use std::fmt;

/// A number of bytes of memory or disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// Reads a number with a binary unit, such as `3GiB`; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit.trim() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        // A tenth more or less decides nothing here: one digit is enough.
        let tenths = fraction.chars().next().map_or(Some(0), |c| c.to_digit(10))?;
        Some(Self(whole + (u64::from(tenths) << shift) / 10))
    }
}

impl std::ops::Add for Size {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = if self.0 >> 30 == 0 { ("MiB", 20) } else { ("GiB", 30) };
        let tenths = (u128::from(self.0) * 10) >> shift;
        match tenths % 10 {
            0 => write!(f, "{}{unit}", tenths / 10),
            digit => write!(f, "{}.{digit}{unit}", tenths / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_users_write_them() {
        assert_eq!(Size::parse("3GiB"), Some(Size::gib(3)));
        assert_eq!(Size::parse("1.5g"), Some(Size::mib(1536)));
        assert_eq!(Size::parse("4096"), Some(Size(4096)));
        for text in ["", "little", "3GB", "1.x"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        assert_eq!(Size::gib(3).to_string(), "3GiB");
        assert_eq!(Size::mib(1536).to_string(), "1.5GiB");
        assert_eq!(Size(0).to_string(), "0MiB");
    }
}
