use std::fmt;
use std::io;

use aes::Aes256;
use aes::cipher::{Array, KeyInit};
use rustix::rand::{GetRandomFlags, getrandom};
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroizing;

use super::slots::SwapSlot;
use crate::address::PAGE;

/// AES-256 in XTS mode (IEEE 1619, NIST SP 800-38E), a page a data unit, the slot's number the tweak.
///
/// The key is random, is nowhere but in this process' memory, and is wiped when the cipher is dropped. The cipher keeps
/// what is on the disk secret. It does not notice changes: who can write the file can make a page's blocks random, or
/// put back an earlier content of the same slot.
pub(super) struct Cipher {
    /// In a box, so that moving the cipher leaves no copy of the key behind.
    xts: Box<Xts128<Aes256>>,
}

/// Bytes of an AES-256 key. XTS takes two.
const KEY: usize = 32;

impl Cipher {
    /// A cipher with a new random key.
    pub(super) fn new() -> io::Result<Self> {
        let (first, second) = (random_key()?, random_key()?);
        let aes = |key: &[u8; KEY]| Aes256::new(&Array(*key));
        Ok(Self { xts: Box::new(Xts128::new(aes(&first), aes(&second))) })
    }

    pub(super) fn encrypt(&self, slot: SwapSlot, page: &mut [u8; PAGE]) {
        self.xts.encrypt_sector(page, get_tweak_default(slot.0.into()));
    }

    pub(super) fn decrypt(&self, slot: SwapSlot, page: &mut [u8; PAGE]) {
        self.xts.decrypt_sector(page, get_tweak_default(slot.0.into()));
    }
}

/// The key does not show.
impl fmt::Debug for Cipher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cipher").finish_non_exhaustive()
    }
}

fn random_key() -> io::Result<Zeroizing<[u8; KEY]>> {
    let mut key = Zeroizing::new([0; KEY]);
    // The kernel fills up to 256 bytes in one go.
    let filled = getrandom(key.as_mut_slice(), GetRandomFlags::empty())?;
    if filled == KEY { Ok(key) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
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
}
