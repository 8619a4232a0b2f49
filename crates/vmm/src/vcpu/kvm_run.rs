//! The part of `kvm_run` that kvm-ioctls does not decode.

use kvm_bindings::kvm_run;

/// What KVM could not emulate, after a `KVM_EXIT_INTERNAL_ERROR`.
pub(super) fn internal_error(run: &kvm_run) -> String {
    // SAFETY: the exit reason says that the kernel filled in this member; it is plain integers.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let kind = match internal.suberror {
        1 => "an instruction that KVM cannot emulate",
        2 => "an exception while KVM delivered another",
        3 => "an exit that KVM did not expect",
        4 => "an exit during the delivery of an event",
        _ => "an internal error of KVM",
    };
    format!("{kind} (suberror {})", internal.suberror)
}
