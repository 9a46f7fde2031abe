//! The benchmarks: `cargo bench -- NAME`, where NAME is `boot`, `gosu`, `fix_perms`, `mirror` or `size`; without
//! a name all of them, one after the other. As root on an otherwise idle machine. See `README.md` here.
#![no_main]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "benchmarks lay out trees by path and fail loudly"
)]

mod boot;
mod fix_perms;
mod gosu;
mod mirror;
mod size;
#[path = "../support/mod.rs"]
mod support;

use std::ffi::{CStr, c_char};

#[allow(unsafe_code, reason = "the runtime's time has to be taken before any start-up code")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: i32, argv: *const *const c_char) -> i32 {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the C library hands over argc valid C strings.
    let arguments: Vec<&CStr> =
        (0..count).map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }).collect();
    match arguments.first().map(|name| name.to_bytes()) {
        Some(name) if name.ends_with(b"molecule-runtime") => boot::finish(),
        Some(name) if name.ends_with(b"starter") => boot::start(&arguments),
        _ => bench(&arguments[1..]),
    }
}

fn bench(arguments: &[&CStr]) -> i32 {
    let words: Vec<&str> = arguments
        .iter()
        .map(|word| word.to_str().unwrap())
        .filter(|word| *word != "--bench")
        .collect();
    if mirror::part(&words) {
        return 0;
    }
    support::mounts::leave_the_machine_alone();
    let mut status = 0;
    match words[..] {
        [] => {
            status = boot::bench();
            gosu::bench();
            fix_perms::bench();
            size::bench();
            mirror::bench(&[]);
        }
        ["boot"] => status = boot::bench(),
        ["gosu"] => gosu::bench(),
        ["size"] => size::bench(),
        ["fix_perms"] => fix_perms::bench(),
        ["mirror", ref scenarios @ ..] => mirror::bench(scenarios),
        _ => {
            eprintln!(
                "no such benchmark: there are boot, fix_perms, gosu, size and mirror [SCENARIO]..."
            );
            status = 2;
        }
    }
    status
}
