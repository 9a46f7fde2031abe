//! A Docker engine of the tests' own, and the example image of the Dockerfile.
//!
//! No image is pulled: the two that the Dockerfile begins with are made here, one by debootstrap(8), the other of
//! it, a linker and the machine's own toolchain and crates. All of it stays below `target/tmp/docker` for the next
//! time. The engine ends with the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// The name of the example image.
pub const WORKSPACE: &str = "workspace";
const LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");

/// The engine with the image in it; the first use takes minutes.
pub fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let engine = Engine::start();
        engine.make_images();
        engine
    });
    &ENGINE
}

/// A running dockerd(8).
pub struct Engine {
    directory: PathBuf,
}

impl Engine {
    fn start() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker");
        std::fs::create_dir_all(&directory).expect("a directory");
        let engine = Self { directory };
        let directory = engine.directory.clone();
        let at = move |name: &str| directory.join(name);
        let log = std::fs::File::create(at("log")).expect("a log");
        // A thread of its own, which lives as long as the tests: at its end the engine gets its signal.
        std::thread::spawn(move || {
            let mut command = Command::new("dockerd");
            command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
            command.arg("--pidfile").arg(at("pid")).args(["--bridge", "none", "--iptables=false"]);
            command.arg("-H").arg(format!("unix://{}", at("socket").display()));
            command.stdout(log.try_clone().expect("a descriptor")).stderr(log).stdin(Stdio::null());
            let end_with_us = || Ok(set_pdeathsig(Signal::SIGTERM)?);
            // SAFETY: prctl(2) is one system call.
            #[allow(unsafe_code)]
            let command =
                unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, end_with_us) };
            command.spawn().and_then(|mut engine| engine.wait()).expect("dockerd");
        });
        let until = Instant::now() + Duration::from_secs(60);
        while !engine.docker(&["version"]).status.success() {
            assert!(
                Instant::now() < until,
                "no engine: see {}",
                engine.directory.join("log").display()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        engine
    }

    /// Runs docker(1).
    pub fn docker(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("docker");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
        command.output().expect("docker(1)")
    }

    /// A program that uses this engine.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.directory.join("socket").display()));
        command.env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Runs docker(1), which must succeed; gives its standard output without white space at the end.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn has(&self, image: &str) -> bool {
        self.docker(&["image", "inspect", image]).status.success()
    }

    fn make_images(&self) {
        let shell = |script: &str| {
            let mut command = self.command("sh");
            super::ok(command.args(["-euc", script]).current_dir(&self.directory));
        };
        if !self.has("debian:bookworm-slim") {
            shell(
                "rm -rf base; debootstrap --variant=minbase bookworm base
                 tar -C base -c . | docker import - debian:bookworm-slim; rm -rf base",
            );
        }
        // It holds the crates of one lock file, and knows no network to fetch others by.
        let lock = std::fs::read(LOCK).expect("the lock file");
        let made_for = self.directory.join("Cargo.lock");
        if !self.has("rust:1.95-slim-bookworm") || std::fs::read(&made_for).ok() != Some(lock) {
            shell(
                "rm -rf rust; mkdir -p rust/tool; cp -a \"$(rustc --print sysroot)/bin\" \"$(rustc --print sysroot)/lib\" rust/tool
                 cp -a \"${CARGO_HOME:-$HOME/.cargo}/registry\" rust/registry
                 printf '%s\\n' 'FROM debian:bookworm-slim' \
                     'RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev' \
                     'COPY tool /usr/local' 'COPY registry /usr/local/cargo/registry' \
                     'ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true' > rust/Dockerfile
                 docker build --network host -q -t rust:1.95-slim-bookworm rust; rm -rf rust",
            );
            std::fs::copy(LOCK, made_for).expect("a copy");
        }
        self.ok(&["build", "--network", "host", "--target", "tools", "-t", "molecule-tools", "."]);
        self.ok(&["build", "--network", "host", "--target", WORKSPACE, "-t", WORKSPACE, "."]);
    }
}
