/// What `new` adds to `old`, where both are windows of one growing sequence (a log, a list of
/// events) of which the oldest part may have been dropped: `new` after its longest beginning that
/// is also an end of `old`.
///
/// The failure function of Knuth, Morris and Pratt finds it in one pass, so that a long log of
/// equal lines costs no more.
pub(crate) fn added<'a, T: Eq>(old: &[T], new: &'a [T]) -> &'a [T] {
    if new.is_empty() {
        return new;
    }
    // failure[i]: length of the longest proper beginning of new[..=i] that is also its end.
    let mut failure = vec![0; new.len()];
    let mut length = 0;
    for i in 1..new.len() {
        while length > 0 && new[i] != new[length] {
            length = failure[length - 1];
        }
        if new[i] == new[length] {
            length += 1;
        }
        failure[i] = length;
    }
    let mut matched = 0;
    // An overlap is no longer than `new`, so only that much of the end of `old` can be part of it.
    for item in &old[old.len().saturating_sub(new.len())..] {
        while matched > 0 && (matched == new.len() || *item != new[matched]) {
            matched = failure[matched - 1];
        }
        if *item == new[matched] {
            matched += 1;
        }
    }
    &new[matched..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_found_whatever_was_dropped() {
        for (old, new, expected) in [
            ("", "abc", "abc"),
            ("abc", "abcde", "de"),
            ("abc", "abc", ""),
            ("abc", "cde", "de"),
            ("abc", "xyz", "xyz"),
            ("abc", "", ""),
            ("aaaa", "aaaaa", "a"),
            ("abab", "ababab", "ab"),
            ("xaab", "aabaab", "aab"),
            ("longer than new", "new", ""),
        ] {
            assert_eq!(added(old.as_bytes(), new.as_bytes()), expected.as_bytes(), "{old} {new}");
        }
    }

    #[test]
    fn every_window_of_distinct_items_is_followed_exactly() {
        let all: Vec<u32> = (0..20).collect();
        for start in 0..10 {
            for end in start..20 {
                assert_eq!(added(&all[..10], &all[start..end.max(10)]), &all[10..end.max(10)]);
            }
        }
    }
}
