//! `cargo run --release --example boot`: a workspace comes back from a snapshot, start to end.
//!
//! As root: an ext4 image with a workspace in it on a loop device, a root file system with user
//! agent, and the real binary booting it as a container's init would. Without root: see
//! `unprivileged.rs`. Ends with status 1 if the workspace was not restored.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "it lays out trees by path and fails loudly"
)]

mod support;
mod unprivileged;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use support::sandbox::{LoopDevice, Sandbox};

/// What the snapshot of the lost machine holds (sh, in the top directory).
const WORKSPACE: &str = r#"
umask 022
mkdir -p configs/skills workspace/src home/agent/.claude/sessions
echo 'model: opus' > configs/config.yaml
echo 'a-token-nobody-sees' > configs/.auth_token
chmod 600 configs/.auth_token
echo 'Say what you did.' > configs/skills/report.md
echo 'fn main() { println!("still here"); }' > workspace/src/main.rs
ln workspace/src/main.rs workspace/src/same-file.rs
ln -s src/main.rs workspace/latest
echo '{"turn": 41}' > home/agent/.claude/sessions/1.json
touch -d '2025-06-07 08:09:10.123456789 UTC' workspace/src/main.rs
"#;

/// Stands for the agent's runtime: says what it was given.
const RUNTIME: &str = r#"#!/bin/sh
echo "argv: $*"
echo "pid: $$"
echo "id: $(id)"
echo "HOME: $HOME, umask $(umask), in $(pwd)"
echo "can write: $(for d in /configs /workspace /home/agent/.claude /root; do
    [ -w $d ] && printf '%s ' $d; done)"
cat /workspace/latest
"#;

/// Shows everything the boot may have restored or made.
const TREE: &str = "find /configs /workspace /home/agent -printf '%M %4U:%-4G %n %TF %.12TT  %p %l\\n' | sort -k 6";

fn main() -> ExitCode {
    println!("program: {}", support::program_path().display());
    let restored = match rustix::process::geteuid().is_root() {
        true => boot_from_a_volume(),
        false => unprivileged::boot_from_a_directory(),
    };
    match restored {
        true => ExitCode::SUCCESS,
        false => {
            eprintln!("the workspace was NOT restored");
            ExitCode::FAILURE
        }
    }
}

fn boot_from_a_volume() -> bool {
    let volume = LoopDevice::ext4(32, &format!("{WORKSPACE}\nchown -R 1000:1000 *"));
    let sandbox = Sandbox::new();
    sandbox.add_device("xvdb", &volume);
    sandbox.install("/usr/local/bin/molecule-runtime", RUNTIME);
    println!("volume: {} as /dev/xvdb of the sandbox, ext4\n", volume.path().display());

    let command = sandbox.program().arg("entrypoint").args(["--model", "opus"]);
    let boot = command.env("WORKSPACE_ID", "demo").env("ANTHROPIC_API_KEY", "never-printed").run();
    println!("=== first boot: log, then what the runtime saw\n{}", boot.stdout());
    eprint!("{}", boot.stderr());
    println!("=== what it left\n{}", sandbox.sh(TREE));
    let again = sandbox.program().arg("entrypoint").args(["--model", "opus"]).run();
    println!("=== second boot: what it had to do\n{}", lines(&again.stdout(), "MOLECULE-"));

    let content = std::fs::read_to_string(sandbox.path("/workspace/src/same-file.rs"));
    boot.status == 0
        && again.status == 0
        && content.is_ok_and(|text| text.contains("still here"))
        && sandbox.path("/configs/.restore-completed").is_file()
        && boot.stdout().contains("MOLECULE-RESTORE: ok /home/agent/.claude\n")
        && boot.stdout().contains("\nid: uid=1000(agent) ")
        && !boot.stdout().contains("never-printed")
}

fn lines(text: &str, start: &str) -> String {
    text.lines().filter(|line| line.starts_with(start)).map(|line| format!("{line}\n")).collect()
}

/// Builds the binary in this example's own profile (nothing happens if it is up to date) and gives its
/// path: cargo puts binaries one directory above examples.
fn build_program() -> PathBuf {
    let example = std::env::current_exe().expect("/proc/self/exe");
    let directory = example.parent().and_then(|examples| examples.parent()).expect("target/");
    let program = directory.join("molecule-tools");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--bin", "molecule-tools"]);
    if directory.ends_with("release") {
        build.arg("--release");
    }
    match build.status() {
        Ok(status) => assert!(status.success(), "{build:?}: {status}"),
        Err(error) => assert!(program.is_file(), "{build:?}: {error}"),
    }
    program
}
