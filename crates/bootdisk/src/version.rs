use std::cmp::Ordering;

/// Compares two versions as the UAPI Group's Version Format Specification does.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip(a, |byte| !counts(byte));
        b = skip(b, |byte| !counts(byte));
        let (first, second) = (a.first().copied(), b.first().copied());
        // A tilde sorts before the end, and the end before all else.
        if first == Some(b'~') || second == Some(b'~') {
            match (first == Some(b'~'), second == Some(b'~')) {
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                _ => (a, b) = (&a[1..], &b[1..]),
            }
            continue;
        }
        let (Some(first), Some(second)) = (first, second) else { return first.cmp(&second) };
        if let Some(sign) = b"-^.".iter().find(|sign| [first, second].contains(sign)) {
            match (first == *sign, second == *sign) {
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                _ => (a, b) = (&a[1..], &b[1..]),
            }
            continue;
        }
        let digits = first.is_ascii_digit() || second.is_ascii_digit();
        let belongs = |byte: u8| if digits { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
        let (one, rest_a) = a.split_at(a.len() - skip(a, belongs).len());
        let (two, rest_b) = b.split_at(b.len() - skip(b, belongs).len());
        let order = if digits { numbers(one, two) } else { one.cmp(two) };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn counts(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"~-^.".contains(&byte)
}

fn skip(text: &[u8], which: impl Fn(u8) -> bool) -> &[u8] {
    &text[text.iter().position(|byte| !which(*byte)).unwrap_or(text.len())..]
}

/// Compares numbers of any length. A number sorts after letters, which are an empty one.
fn numbers(a: &[u8], b: &[u8]) -> Ordering {
    let short = |digits| skip(digits, |byte| byte == b'0');
    let (one, two) = (short(a), short(b));
    a.is_empty().cmp(&b.is_empty()).reverse().then(one.len().cmp(&two.len())).then(one.cmp(two))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specifications_examples_are_in_order() {
        // Each is older than the next.
        let examples = [
            "~",
            "",
            "ab",
            "abb",
            "0001",
            "002",
            "12",
            "122",
            "122.9",
            "123~rc1",
            "123",
            "123-a",
            "123-a.1",
            "123-3",
            "123-3.1.1",
            "123^patch1",
            "123^1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124-1",
        ];
        for (index, old) in examples.iter().enumerate() {
            assert_eq!(compare(old, old), Ordering::Equal, "{old}");
            for new in &examples[index + 1..] {
                assert_eq!(compare(old, new), Ordering::Less, "{old} {new}");
                assert_eq!(compare(new, old), Ordering::Greater, "{new} {old}");
            }
        }
        assert_eq!(compare("1_2", "12"), Ordering::Less);
        assert_eq!(compare("6.1.0-9-amd64", "6.1.0-18-amd64"), Ordering::Less);
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-9a-b~^._-]{0,8}", b in "[0-9a-b~^._-]{0,8}", c in "[0-9a-b~^._-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
