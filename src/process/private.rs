//! The memory of a process that holds a secret.
#![forbid(unsafe_code)]

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps other processes of the same user, and core dumps, from this one's memory (PR_SET_DUMPABLE of prctl(2)),
/// for the rest of its life. Best effort: what it is kept from can ask for the secret itself.
pub fn hide_memory() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // A handler that is a pipe gets the memory of processes that are not dumpable, too, but not without a limit.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
