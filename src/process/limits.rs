//! Resource limits (getrlimit(2)) too small to boot with, raised for this process only.
#![forbid(unsafe_code)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits with which a boot can do its work. Of addresses and data that is few threads, but enough of them.
const ENOUGH: [(Resource, u64); 4] = [
    (Resource::Nofile, 64),
    (Resource::Stack, 8 << 20),
    (Resource::As, 64 << 20),
    (Resource::Data, 32 << 20),
];

/// The limits that were raised, as they were inherited.
#[derive(Debug)]
pub(super) struct RaisedLimits(Vec<(Resource, Rlimit)>);

impl RaisedLimits {
    /// Raises soft limits that are too small, and hard ones where this process has the right to
    /// (CAP_SYS_RESOURCE). The limit of a file's size is none of them: what it costs is a file.
    pub fn raise() -> Self {
        let mut raised = Vec::new();
        for (resource, enough) in ENOUGH {
            let old = getrlimit(resource);
            if old.current.is_none_or(|current| current >= enough) {
                continue;
            }
            let hard = old.maximum.map(|maximum| maximum.max(enough));
            let wanted = Rlimit { current: Some(enough), maximum: hard };
            let most = Rlimit { current: old.maximum, maximum: old.maximum };
            if setrlimit(resource, wanted).is_ok() || setrlimit(resource, most).is_ok() {
                raised.push((resource, old));
            }
        }
        Self(raised)
    }

    /// Sets them as they were inherited.
    pub fn give_back(&self) {
        for (resource, old) in &self.0 {
            // Lowering a limit needs no right.
            let _ = setrlimit(*resource, *old);
        }
    }

    /// Raises the same again, for who stays after all.
    pub fn raise_again(&self) {
        if !self.0.is_empty() {
            Self::raise();
        }
    }
}
