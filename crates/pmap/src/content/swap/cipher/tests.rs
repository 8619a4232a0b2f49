use super::*;

#[test]
fn equal_pages_differ_in_two_slots_and_under_two_keys() {
    let plain = [7; PAGE];
    let encrypted = |cipher: &Cipher, slot| {
        let mut page = plain;
        cipher.encrypt(SwapSlot(slot), &mut page);
        page
    };
    let (one, other) = (Cipher::new().unwrap(), Cipher::new().unwrap());
    let page = encrypted(&one, 1);
    assert!(page != plain && page != encrypted(&one, 2) && page != encrypted(&other, 1));
    let mut back = page;
    one.decrypt(SwapSlot(1), &mut back);
    assert_eq!(back, plain);
}

/// IEEE 1619-2007, annex B, vector 10: a data unit of 512 bytes, number 0xff.
#[test]
fn the_mode_is_that_of_the_standard() {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let first: [u8; KEY] =
        bytes("2718281828459045235360287471352662497757247093699959574966967627").try_into().unwrap();
    let second: [u8; KEY] =
        bytes("3141592653589793238462643383279502884197169399375105820974944592").try_into().unwrap();
    let xts = Xts128::new(Aes256::new(&Array(first)), Aes256::new(&Array(second)));
    let mut unit: Vec<u8> = (0..=255).chain(0..=255).collect();
    xts.encrypt_sector(&mut unit, get_tweak_default(0xff));
    assert_eq!(unit[..16], bytes("1c3b3a102f770386e4836c99e370cf9b"));
}

#[test]
fn the_key_does_not_go_to_the_hosts_swap() {
    let cipher = Cipher::new().unwrap();
    let key = std::ptr::from_ref(&*cipher.xts).addr();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines();
    let holds = |line: &&str| {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let bounds = range.map(|(start, end)| [start, end].map(|hex| usize::from_str_radix(hex, 16)));
        matches!(bounds, Some([Ok(start), Ok(end)]) if (start..end).contains(&key))
    };
    lines.find(holds).unwrap();
    let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.split_whitespace().any(|flag| flag == "lo"), "{flags}");
}
