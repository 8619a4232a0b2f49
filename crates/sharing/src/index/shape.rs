use crate::key::Prefix;

/// The least lines of a group. The most are one fewer than twice as many, because a group of twice
/// as many becomes two.
///
/// With more lines, groups differ less in how full they are, and fewer entries overflow. But making
/// room takes as long as laying a group out anew: at most 2 us for 16 to 31 lines.
const LEAST: usize = 16;

/// How lines make up groups, and which entries belong to which.
///
/// Keys are in order: a group has a range of them, all ranges being equal but for what was halved
/// already, and its lines have equal parts of that. *Growing* adds one line to one group, in order
/// of the groups, and goes round again when all have one more. A group that gets its 32nd line is
/// two groups of 16 from then on. So nothing but one group is ever touched, and all are as full as
/// each other, but for one line. (Linear hashing, Litwin 1980, with partial expansions, Larson
/// 1980: without these, half of the groups would be half as full as the others.)
///
/// Lines are numbered in the order in which they were added, which [`Group::address`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// There are 2^level ranges.
    level: u32,
    /// Lines of the groups from `grown` on; those before have one more.
    lines: usize,
    grown: usize,
}

/// A group of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    level: u32,
    number: usize,
    pub(super) lines: usize,
}

impl Shape {
    pub(super) const fn new() -> Self {
        Self { level: 0, lines: LEAST, grown: 0 }
    }

    /// All lines there are.
    pub(super) fn len(&self) -> usize {
        (self.lines << self.level) + self.grown
    }

    /// Groups, as they are counted for growing.
    fn groups(&self) -> usize {
        1 << self.level
    }

    /// The group that grows next.
    pub(super) fn next(&self) -> Group {
        self.numbered(self.grown)
    }

    /// That group has one line more from now on, which is the last of all.
    pub(super) fn grow(&mut self) {
        self.grown += 1;
        if self.grown == self.groups() {
            self.grown = 0;
            self.lines += 1;
            if self.lines == 2 * LEAST {
                self.lines = LEAST;
                self.level += 1;
            }
        }
    }

    /// Undoes the last [`Shape::grow`]. Returns whether there was one.
    pub(super) fn shrink(&mut self) -> bool {
        if self.grown == 0 {
            if self.lines > LEAST {
                self.lines -= 1;
            } else if self.level > 0 {
                self.level -= 1;
                self.lines = 2 * LEAST - 1;
            } else {
                return false;
            }
            self.grown = self.groups();
        }
        self.grown -= 1;
        true
    }

    /// The group of a prefix.
    #[inline]
    pub(super) fn group(&self, prefix: Prefix) -> Group {
        let number = number(prefix, self.level);
        if number >= self.grown {
            return Group { level: self.level, number, lines: self.lines };
        }
        if self.lines + 1 < 2 * LEAST {
            return Group { level: self.level, number, lines: self.lines + 1 };
        }
        let level = self.level + 1;
        Group { level, number: self::number(prefix, level), lines: LEAST }
    }

    /// The groups that have the prefixes of `group`, which is one of this shape or of the one
    /// before it: itself, or the two that it has become.
    pub(super) fn parts(self, group: Group) -> impl Iterator<Item = Group> {
        let prefixes = group.prefixes();
        let middle = u64::midpoint(prefixes.start, prefixes.end);
        let [one, other] = [prefixes.start, middle]
            .map(|prefix| self.group(Prefix(u32::try_from(prefix).expect("a prefix"))));
        std::iter::once(one).chain((other != one).then_some(other))
    }

    /// The group with this number, as they are counted for growing, as if it had not grown.
    pub(super) fn numbered(&self, number: usize) -> Group {
        Group { level: self.level, number: number % self.groups(), lines: self.lines }
    }
}

fn number(prefix: Prefix, level: u32) -> usize {
    (prefix.0 >> (Prefix::BITS - level)) as usize
}

impl Group {
    /// The line of the group where entries of `prefix` are at home.
    #[inline]
    pub(super) fn home(&self, prefix: Prefix) -> usize {
        // What the group's number leaves of the prefix, as a fraction of 2^32.
        let rest = prefix.0 << (32 - Prefix::BITS) << self.level;
        ((u64::from(rest) * self.lines as u64) >> 32) as usize
    }

    /// The place of one of its lines among all.
    ///
    /// Lines that all groups of a level got in one round stand together, in order of the groups. A
    /// group that came from the upper half of another has the lines that the other got from its
    /// 17th on; one that came from the lower half has that one's first 16, and so on back to the
    /// only group of the beginning.
    #[inline]
    pub(super) fn address(&self, line: usize) -> usize {
        if line >= LEAST {
            return (line << self.level) + self.number;
        }
        if self.number == 0 {
            return line;
        }
        let upper = self.number >> self.number.trailing_zeros();
        let level = self.level - self.number.trailing_zeros() - 1;
        ((LEAST + line) << level) + (upper >> 1)
    }

    /// The prefixes that belong to it: the first, and the first that does not.
    pub(super) fn prefixes(&self) -> std::ops::Range<u64> {
        let each = 1_u64 << (Prefix::BITS - self.level);
        let first = self.number as u64 * each;
        first..first + each
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn prefixes() -> impl Iterator<Item = Prefix> {
        (0..1 << 30).step_by(0x1_f123).map(Prefix)
    }

    #[test]
    fn lines_are_added_at_the_end_and_nobody_shares_one() {
        let mut shape = Shape::new();
        for _ in 0..1000 {
            let groups: BTreeSet<_> = (0..shape.groups())
                .flat_map(|n| shape.parts(shape.numbered(n)).collect::<Vec<_>>())
                .map(|g| (g.level, g.number, g.lines))
                .collect();
            let addresses: BTreeSet<usize> = groups
                .iter()
                .flat_map(|(level, number, lines)| {
                    let group = Group { level: *level, number: *number, lines: *lines };
                    (0..*lines).map(move |line| group.address(line))
                })
                .collect();
            assert_eq!(addresses, (0..shape.len()).collect(), "{shape:?}");
            shape.grow();
        }
    }

    #[test]
    fn growing_moves_entries_of_one_group_only_and_shrinking_undoes_it() {
        let mut shape = Shape::new();
        let mut lines = shape.len();
        for _ in 0..500 {
            let before = shape;
            shape.grow();
            lines += 1;
            assert_eq!(shape.len(), lines);
            for prefix in prefixes() {
                let (old, new) = (before.group(prefix), shape.group(prefix));
                let moved = old.address(old.home(prefix)) != new.address(new.home(prefix));
                assert!(!moved || old == before.next(), "{before:?} {prefix:?}");
                assert!(new.prefixes().contains(&prefix.0.into()) && new.home(prefix) < new.lines);
            }
            let mut back = shape;
            assert!(back.shrink());
            assert_eq!(back, before);
        }
        assert!(!Shape::new().shrink());
    }
}
