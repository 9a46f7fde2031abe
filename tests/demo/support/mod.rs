//! What the sandbox needs from its surroundings; in tests it is the whole test support.

#[allow(dead_code, unused_imports, reason = "the demo uses a part")]
#[path = "../../support/sandbox/mod.rs"]
pub mod sandbox;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The real binary.
pub fn program_path() -> &'static Path {
    static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();
    PATH.get_or_init(crate::build_program)
}

/// Runs `command`, which must succeed; gives its standard output.
pub fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
