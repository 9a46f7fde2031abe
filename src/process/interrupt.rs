//! Noticing SIGTERM and SIGINT during work that must be ended in good order.
#![forbid(unsafe_code)]

use nix::sys::signal::Signal;

use super::sys::{self, Disposition, set_disposition};

/// While it lives, SIGTERM and SIGINT are noted instead of ending the process. A signal that was
/// ignored stays ignored. The former dispositions return when it is dropped.
#[derive(Debug)]
pub struct Interruption(Vec<(Signal, Disposition)>);

impl Interruption {
    /// Starts noting.
    pub fn watch() -> Self {
        sys::forget_noted();
        let mut former = Vec::new();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let Ok(old) = set_disposition(signal, &Disposition::noted()) else { continue };
            if old.is_ignored() {
                let _ = set_disposition(signal, &old);
            } else {
                former.push((signal, old));
            }
        }
        Self(former)
    }

    /// The last signal noted.
    pub fn seen(&self) -> Option<i32> {
        sys::noted()
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            let _ = set_disposition(*signal, old);
        }
    }
}
