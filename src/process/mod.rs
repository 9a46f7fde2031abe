//! The state that this process inherited, and handing it on through exec(3) as it was.
//!
//! - `supervise`: one command that is kept running
//! - [`step`]: a part of the boot in a process of its own
//! - `command`: a program that is run, and its output
//! - `daemon`: a process that goes on in the background
//! - `interrupt`: SIGTERM and SIGINT as a question
//! - `trust`: a file that only root can have put there, such as a program that root may run
//! - `search`: a program in PATH, as a shell finds it
//! - `inherited`: dispositions and limits, changed and restored at exec
//! - `environment`: variables
//! - `limits`: limits that are raised for the work
//! - `bounded_log`: a log file that does not outgrow its bound
//! - `private`: memory that nobody else may look at
//! - `sys`: calls that have no safe form; the only unsafe code here

mod bounded_log;
mod command;
mod daemon;
mod environment;
mod inherited;
mod interrupt;
mod limits;
mod private;
mod search;
pub mod step;
mod supervise;
mod sys;
mod trust;

pub use bounded_log::BoundedLog;
pub use command::{Command, CommandOutput};
pub use daemon::{become_daemon, fork_child, start_in_background};
pub use environment::{lookup, set, setting};
pub use inherited::Inherited;
pub use interrupt::Interruption;
pub use private::hide_memory;
pub use search::{DEFAULT_PATH, NotStarted, find_program};
pub use supervise::{ChildEnd, PreparedSupervisor, SupervisedJob, Supervisor};
pub use sys::{environment, look_names_up_by_files_and_dns};
pub use trust::{find_own_file, find_own_program};
