//! Context identifiers of VMs with vsock: each running VM has one that no other has.

use std::collections::BTreeMap;

use anyhow::bail;
use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::{MAX_CID, Vsock};

/// The lowest that is chosen: those below are left to operators.
const FIRST_CHOSEN: u32 = 1 << 16;

/// The identifiers that are in use.
#[derive(Debug, Default)]
pub(crate) struct Cids {
    taken: BTreeMap<u32, VmName>,
}

impl Cids {
    /// One for `vm`: that of its definition, or else one that follows from its name. So it is the
    /// same at each start, unless another VM has it then.
    ///
    /// # Errors
    /// Another VM has the one that the definition names.
    pub(crate) fn take(&mut self, vm: &VmName, vsock: &Vsock) -> anyhow::Result<u32> {
        let cid = match vsock.cid {
            Some(cid) => match self.taken.get(&cid) {
                Some(other) => bail!(
                    "vsock.cid {cid} is that of VM {other}, which runs: choose another, or leave the key out"
                ),
                None => cid,
            },
            None => self.chosen(vm),
        };
        self.adopt(cid, vm);
        Ok(cid)
    }

    /// Notes that `vm` runs with `cid` already.
    pub(crate) fn adopt(&mut self, cid: u32, vm: &VmName) {
        self.taken.insert(cid, vm.clone());
    }

    /// The VM that had `cid` is gone.
    pub(crate) fn release(&mut self, cid: u32) {
        self.taken.remove(&cid);
    }

    fn chosen(&self, vm: &VmName) -> u32 {
        // FNV-1a: any spread of names does; it has to stay the same across versions.
        let hash =
            vm.as_str().bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let first = FIRST_CHOSEN + hash % (MAX_CID - FIRST_CHOSEN);
        let free = |cid: &u32| !self.taken.contains_key(cid);
        // No host runs as many VMs as there are identifiers.
        (first..MAX_CID).chain(FIRST_CHOSEN..first).find(free).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VmName {
        text.parse().unwrap()
    }

    #[test]
    fn no_two_vms_share_one_and_a_name_has_the_same_at_each_start() {
        let mut cids = Cids::default();
        let (a, b) = (name("a"), name("b"));
        let first = cids.take(&a, &Vsock::default()).unwrap();
        assert!((FIRST_CHOSEN..MAX_CID).contains(&first));
        let named = Vsock { cid: Some(first), ..Vsock::default() };
        let error = cids.take(&b, &named).unwrap_err().to_string();
        assert!(error.contains(&format!("vsock.cid {first} is that of VM a")), "{error}");
        assert_ne!(cids.take(&b, &Vsock::default()).unwrap(), first);
        cids.release(first);
        assert_eq!(cids.take(&a, &Vsock::default()).unwrap(), first);
        // One that an operator has given to another VM is passed over.
        cids.release(first);
        cids.take(&b, &named).unwrap();
        assert_eq!(cids.take(&a, &Vsock::default()).unwrap(), first + 1);
    }
}
