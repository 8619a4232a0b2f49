use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::VmDefinition;

use super::{Answer, Core, Effect, Failure, FailureKind, RequestId, Vm};
use crate::images;
use crate::inventory::Record;
use crate::version::Version;

/// Definitions of VMs, apart from their running.
impl Core {
    pub(super) fn definition(&self, name: &VmName) -> Result<Answer, Failure> {
        self.must_be_readable(name)?;
        Ok(Answer::Definition(Box::new(self.must_know(name)?.record.definition.clone())))
    }

    /// A definition that may be taken up.
    pub(super) fn must_be_sound(&self, definition: &VmDefinition) -> Result<(), Failure> {
        let invalid = |e: &dyn ToString| Failure::new(FailureKind::Invalid, e.to_string());
        definition.check().map_err(|e| invalid(&e))?;
        definition.check_paths().map_err(|e| invalid(&e))?;
        self.must_be_place(&definition.pool)
    }

    /// Defines a VM and does not start it.
    pub(super) fn define(&mut self, id: RequestId, definition: VmDefinition) -> Result<(), Failure> {
        self.must_be_sound(&definition)?;
        let name = definition.name.clone();
        self.must_be_free(&name)?;
        self.vms.insert(name.clone(), Vm::off(Record::new(definition)));
        self.event(Some(&name), "is defined");
        let answer = self.status_answer(&name)?;
        self.save(&name, vec![(id, Ok(answer))]);
        Ok(())
    }

    /// Puts a definition in the place of a VM's own. Of a VM that is on only what
    /// [`plimsoll_protocol::change::VmChange`] has may differ. With `versions` the VM's own is of
    /// one of these.
    pub(super) fn redefine(
        &mut self,
        id: RequestId,
        name: &VmName,
        definition: VmDefinition,
        versions: Option<&[Version]>,
    ) -> Result<(), Failure> {
        self.must_be_readable(name)?;
        let known = self.must_know(name)?;
        if versions.is_some_and(|versions| !versions.contains(&Version::of(&known.record.definition))) {
            let text = format!("the definition of VM {name} was changed meanwhile: read it again");
            return Err(Failure::new(FailureKind::Outdated, text));
        }
        if definition.name != *name {
            let text = format!(
                "the definition of VM {name} names VM {new}: rename it with plimsoll rename {name} {new}",
                new = definition.name
            );
            return Err(Failure::new(FailureKind::Invalid, text));
        }
        if known.run.is_some() {
            let Some(change) = known.record.definition.change_to(&definition) else {
                let text = format!(
                    "VM {name} is on: only what plimsoll set changes can be changed until it is off; stop it first"
                );
                return Err(Failure::new(FailureKind::Conflict, text));
            };
            return self.change(id, name, &change);
        }
        self.must_be_sound(&definition)?;
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.record.images = images::of(&definition, &vm.record.images);
        vm.record.definition = definition;
        vm.record.lost_pool.take_if(|_| !vm.record.definition.pool.is_root());
        self.event(Some(name), "is defined anew");
        let answer = self.status_answer(name)?;
        self.save(name, vec![(id, Ok(answer))]);
        Ok(())
    }

    /// Gives a VM that is off another name. Its devices keep the addresses that they have.
    pub(super) fn rename(&mut self, id: RequestId, name: &VmName, new: &VmName) -> Result<(), Failure> {
        self.must_be_readable(name)?;
        if self.must_know(name)?.run.is_some() {
            let text = format!("VM {name} is on: stop it first");
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        self.must_be_free(new)?;
        let Some(mut vm) = self.vms.remove(name) else { return Ok(()) };
        vm.record.definition = vm.record.definition.renamed(new);
        let record = Box::new(vm.record.clone());
        self.vms.insert(new.clone(), vm);
        if let Some(why) = self.unsaved.remove(&Some(name.clone())) {
            self.unsaved.insert(Some(new.clone()), why);
        }
        self.event(Some(name), format!("is renamed to {new}"));
        self.event(Some(new), format!("was {name} until now"));
        let answer = self.status_answer(new)?;
        self.effect(Effect::Rename(name.clone(), record, vec![(id, Ok(answer))]));
        Ok(())
    }

    fn must_be_free(&self, name: &VmName) -> Result<(), Failure> {
        if self.vm(name).is_none() {
            return Ok(());
        }
        let text = format!("there is a VM {name} already: choose another name, or see plimsoll edit --help");
        Err(Failure::new(FailureKind::Conflict, text))
    }
}
