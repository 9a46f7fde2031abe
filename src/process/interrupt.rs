//! Noticing SIGTERM and SIGINT during work that must be ended in good order.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    SEEN.store(signal, Ordering::Relaxed);
}

/// While it lives, SIGTERM and SIGINT are noted instead of ending the process. A signal that was
/// ignored stays ignored. The former dispositions return when it is dropped.
#[derive(Debug)]
pub struct Interruption(Vec<(Signal, SigAction)>);

impl Interruption {
    /// Starts noting.
    pub fn watch() -> Self {
        SEEN.store(0, Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
        let mut former = Vec::new();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: the handler only stores to an atomic (signal-safety(7)).
            #[allow(unsafe_code)]
            let Ok(old) = (unsafe { sigaction(signal, &action) }) else { continue };
            if matches!(old.handler(), SigHandler::SigIgn) {
                // SAFETY: puts back what was there.
                #[allow(unsafe_code)]
                let _ = unsafe { sigaction(signal, &old) };
            } else {
                former.push((signal, old));
            }
        }
        Self(former)
    }

    /// The last signal noted.
    pub fn seen(&self) -> Option<i32> {
        Some(SEEN.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            // SAFETY: puts back what was there.
            #[allow(unsafe_code)]
            let _ = unsafe { sigaction(*signal, old) };
        }
    }
}
