//! The tests, one module for each subject; see README.md.
#![no_main]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests lay out trees by path and fail loudly"
)]

mod boot_audit;
mod config;
mod differential;
mod dispatch;
mod docker;
mod entrypoint;
mod fix_perms;
mod git_cred_setup;
mod github;
mod gosu;
mod layers;
mod mirror;
mod mirror_faults;
mod probe;
mod program_search;
mod restore;
mod sandbox;
mod sequences;
mod static_binary;
mod support;
mod token_refresh;
mod volume;

use std::ffi::c_char;

use support::{Group, runtime};

fn groups() -> Vec<Group> {
    vec![
        ("boot_audit", boot_audit::cases()),
        ("config", config::cases()),
        ("differential", differential::cases()),
        ("dispatch", dispatch::cases()),
        ("docker", docker::cases()),
        ("entrypoint", entrypoint::cases()),
        ("fix_perms", fix_perms::cases()),
        ("git_cred_setup", git_cred_setup::cases()),
        ("github", github::cases()),
        ("gosu", gosu::cases()),
        ("layers", layers::cases()),
        ("mirror", mirror::cases()),
        ("mirror_faults", mirror_faults::cases()),
        ("probe", probe::cases()),
        ("program_search", program_search::cases()),
        ("restore", restore::cases()),
        ("sandbox", sandbox::cases()),
        ("sequences", sequences::cases()),
        ("static_binary", static_binary::cases()),
        ("token_refresh", token_refresh::cases()),
        ("volume", volume::cases()),
    ]
}

#[allow(unsafe_code, reason = "the stand-in for the runtime needs a main without start-up code")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: i32, argv: *const *const c_char) -> i32 {
    program_search::run_as_helper().unwrap_or_else(|| runtime::start(argc, argv, groups))
}
