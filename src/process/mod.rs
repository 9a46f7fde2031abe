//! The state that this process inherited, and handing it on through exec(3) as it was.

mod bounded_log;
mod command;
mod daemon;
mod environment;
mod inherited;
mod interrupt;
mod limits;
mod search;
pub mod step;
mod supervise;
mod sys;
mod trust;

pub use bounded_log::BoundedLog;
pub use command::{Command, Printed};
pub use daemon::{become_daemon, fork_child, start_in_background};
pub use environment::{lookup, set, setting};
pub use inherited::Inherited;
pub use interrupt::Interruption;
pub use search::{DEFAULT_PATH, NotStarted, find_program};
pub use supervise::{End, Prepared, Supervisor};
pub use sys::environment;
pub use trust::only_root_can_change;
