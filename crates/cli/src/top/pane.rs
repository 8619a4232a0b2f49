use serde::{Deserialize, Serialize};

use crate::vm_field::VmField;

/// One way to look at the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Pane {
    /// How much memory each VM has, and which VMs wait for some.
    #[default]
    Memory,
    /// What is compressed and swapped.
    Paging,
    /// What VMs share.
    Sharing,
    /// What operators have set.
    Settings,
    /// Resource pools.
    Pools,
}

impl Pane {
    /// In the order of their keys, 1 and up.
    pub(super) const ALL: [Self; 5] =
        [Self::Memory, Self::Paging, Self::Sharing, Self::Settings, Self::Pools];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Paging => "paging",
            Self::Sharing => "sharing",
            Self::Settings => "settings",
            Self::Pools => "pools",
        }
    }

    /// Its columns where nobody has chosen others, the ones that matter most first: a narrow screen
    /// shows as many as it can. Pools have columns of their own.
    pub(super) fn usual(self) -> Vec<VmField> {
        let keys = match self {
            Self::Memory => {
                "name stall size held entitled active balloon grant target saved compr swapped wanted pool power note"
            }
            Self::Paging => "name stall held target compr swapped out in balloon wanted pool power note",
            Self::Sharing => "name held shared zero saved domain grant size pool power note",
            Self::Settings => {
                "name power size reserv limit shares tax vcpus autostart order up reboots pool domain labels"
            }
            Self::Pools => "",
        };
        keys.split_whitespace().filter_map(|key| VmField::named(key).ok()).collect()
    }

    /// What its rows are ordered by where nobody has chosen otherwise.
    pub(super) fn usual_order(self) -> &'static str {
        match self {
            Self::Memory | Self::Paging => "stall",
            Self::Sharing => "saved",
            Self::Settings | Self::Pools => "name",
        }
    }

    /// The pane `by` places further on, round and round.
    pub(super) fn moved(self, by: isize) -> Self {
        let count = Self::ALL.len();
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0);
        Self::ALL[at.saturating_add_signed(by + count.cast_signed()) % count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_that_a_pane_names_exists() {
        for pane in Pane::ALL {
            let keys: Vec<&str> = pane.usual().into_iter().map(VmField::key).collect();
            assert!(pane == Pane::Pools || keys.len() > 10, "{pane:?}: {keys:?}");
            assert!(pane == Pane::Pools || keys.contains(&pane.usual_order()), "{pane:?}: {keys:?}");
        }
        assert_eq!(Pane::Memory.usual().len(), 16);
    }

    #[test]
    fn panes_go_round() {
        assert_eq!((Pane::Memory.moved(-1), Pane::Pools.moved(1)), (Pane::Pools, Pane::Memory));
        assert_eq!(Pane::Memory.moved(2), Pane::Sharing);
    }
}
