use plimsoll_protocol::sharing::DomainId;
use plimsoll_units::Pages;

use super::plane::Plane;

/// Memory in holes between frames, which a correct VMM never touches, before it is looked for: that
/// takes time.
const HOLES: Pages = Pages(64);

/// Domains with something to do that one [`Order::Tidy`](super::Order::Tidy) tidies: each takes a
/// millisecond or two. With more, VMMs of a host whose VMs all end at once would wait for answers.
const TIDIED: usize = 4;

impl Plane {
    /// Does a part of the work that domains have put off, a few domains at a time. Takes back
    /// memory that members have put into holes of their files. Returns whether there is more to do.
    pub(super) fn tidy(&mut self) -> bool {
        let ids: Vec<DomainId> = self.domains.all().map(|(id, _)| id).collect();
        // The search goes on behind the domain that had its turn last.
        let next = ids.iter().position(|id| Some(*id) > self.tidied).unwrap_or(0);
        let (mut busy, mut more) = (0, false);
        for &id in ids[next..].iter().chain(&ids[..next]) {
            let Some(domain) = self.domains.get(id) else { continue };
            let (has_deferred_work, excess) = (domain.has_deferred_work(), domain.excess());
            if has_deferred_work {
                if busy == TIDIED {
                    return true;
                }
                busy += 1;
                more |= self.domains.get_mut(id).is_some_and(|domain| domain.tidy().more);
            }
            self.tidied = Some(id);
            self.domains.drop_empty(id);
            if excess.is_ok_and(|excess| excess > HOLES)
                && let Some(domain) = self.domains.get_mut(id)
            {
                tracing::warn!(?id, "memory fills holes between shared frames: it is taken back");
                domain.scrub();
            }
        }
        more
    }
}
