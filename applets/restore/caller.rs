//! Who asked for a restore, and how they watch it.
#![forbid(unsafe_code)]

use std::time::Duration;

use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::process::Interruption;

/// Who asked for a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreCaller {
    Hand,
    Boot,
}

/// How a restore learns that it has to end, and shows that it is alive.
#[derive(Clone, Copy)]
pub struct LifeSigns<'a> {
    pub interruption: &'a Interruption,
    pub heart: &'a Heartbeat,
    /// For how long a restore that is waited for may show no sign of life.
    pub silence: Duration,
}
