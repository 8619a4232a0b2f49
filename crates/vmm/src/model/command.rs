use std::str::FromStr;

/// One line of the language of the `toucher` program. The model knows four more commands (`turn`,
/// `clear`, `thin` and `cache`). Numbers are decimal; sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Fill new memory with the seed's pattern.
    Touch(u64, u64),
    /// Write the pattern again, over the same pages.
    Rewrite(u64),
    /// Write another seed's pattern over the same pages, one after the other.
    Turn(u64, u64),
    /// Write zeros over the same pages.
    Clear(u64),
    /// Write pages that shrink over the same pages: the beginning of the pattern, and zeros.
    Thin(u64),
    /// Read every page back.
    Verify(Option<u64>),
    /// Free the memory.
    Free(Option<u64>),
    /// Fill free memory with page cache.
    Cache(u64),
    /// Allocate memory until none is left.
    AllocForever,
    /// Print what the guest knows of its memory.
    Meminfo,
    /// Print its virtio devices.
    Devices,
    /// Power off.
    PowerOff,
    /// Reboot.
    Reboot,
    /// Crash.
    Crash,
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |what: &str, word: &str| {
            word.parse::<u64>().map_err(|error| format!("{line}: {what} {word:?}: {error}"))
        };
        Ok(match words[..] {
            ["touch", bytes, seed] => Self::Touch(number("bytes", bytes)?, number("seed", seed)?),
            ["rewrite", seed] => Self::Rewrite(number("seed", seed)?),
            ["turn", seed, to] => Self::Turn(number("seed", seed)?, number("seed", to)?),
            ["clear", seed] => Self::Clear(number("seed", seed)?),
            ["thin", seed] => Self::Thin(number("seed", seed)?),
            ["verify"] => Self::Verify(None),
            ["verify", seed] => Self::Verify(Some(number("seed", seed)?)),
            ["free"] => Self::Free(None),
            ["free", seed] => Self::Free(Some(number("seed", seed)?)),
            ["cache", bytes] => Self::Cache(number("bytes", bytes)?),
            ["alloc-forever"] => Self::AllocForever,
            ["meminfo"] => Self::Meminfo,
            ["devices"] => Self::Devices,
            ["poweroff"] => Self::PowerOff,
            ["reboot"] => Self::Reboot,
            ["crash"] => Self::Crash,
            _ => return Err(format!("{line}: no such command")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_nonsense_is_refused() {
        assert_eq!("touch 4096 7".parse(), Ok(Command::Touch(4096, 7)));
        assert_eq!(" verify ".parse(), Ok(Command::Verify(None)));
        assert_eq!("turn 3 4".parse(), Ok(Command::Turn(3, 4)));
        assert_eq!("thin 3".parse(), Ok(Command::Thin(3)));
        assert_eq!("free 3".parse(), Ok(Command::Free(Some(3))));
        assert_eq!("cache 8192".parse(), Ok(Command::Cache(8192)));
        for line in ["touch", "touch 1MiB 7", "touch -1 7", "verify x", "dance"] {
            assert!(line.parse::<Command>().is_err(), "{line}");
        }
    }
}
