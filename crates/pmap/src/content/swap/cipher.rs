#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use aes::Aes256;
use aes::cipher::{Array, KeyInit};
use plimsoll_sys::mlock::keep_in_memory;
use rustix::rand::{GetRandomFlags, getrandom};
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroizing;

use super::slots::SwapSlot;
use crate::address::PAGE;

/// AES-256 in XTS mode (IEEE 1619, NIST SP 800-38E), a page a data unit, the slot's number the
/// tweak.
///
/// The key is random, is nowhere but in this process' memory, and is wiped when the cipher is
/// dropped. It is locked in machine memory where the process may lock any. The cipher keeps what is
/// on the disk secret. It does not notice changes: a program that can write the file can make a
/// page's blocks random, or put back an earlier content of the slot.
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
        let xts = Box::new(Xts128::new(aes(&first), aes(&second)));
        if let Err(error) = keep_in_memory(&*xts) {
            tracing::warn!(%error, "the key of the swap may reach the host's own swap");
        }
        Ok(Self { xts })
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
