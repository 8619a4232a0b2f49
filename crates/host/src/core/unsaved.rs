use plimsoll_protocol::VmName;

use super::Core;

impl Core {
    /// Tells users of a change that is in effect and not on disk, or that is on disk now.
    pub(super) fn unsaved(&mut self, vm: Option<VmName>, why: Option<String>) {
        let what = if vm.is_some() { "" } else { "resource pools: " };
        let text = match why {
            Some(why) => {
                let text = format!("{what}{}", unsaved_note(&why));
                if self.unsaved.insert(vm.clone(), why).is_some() {
                    return;
                }
                text
            }
            None => {
                if self.unsaved.remove(&vm).is_none() {
                    return;
                }
                format!("{what}the last change is on disk now")
            }
        };
        self.event(vm.as_ref(), text);
    }
}

/// The note about a change that is in effect and not on disk yet.
pub(crate) fn unsaved_note(why: &str) -> String {
    format!(
        "the last change is in effect but not on disk: {why}; retrying: it is lost if plimsolld ends before that"
    )
}
