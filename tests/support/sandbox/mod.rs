//! Root file systems in private mount namespaces, to boot things in as a container's init would.
//!
//! A sandbox's root is a tmpfs with the machine's /usr read-only below it, files of its own in /etc
//! and /usr/local, device nodes of its own, and empty /configs, /workspace, /home/agent, /root,
//! /mnt, /app and /tmp. It goes away with the process that holds its namespace, mounts and all, even
//! if the test is killed. From outside, [`Sandbox::path`] leads into it.

mod disk;
mod run;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub use disk::{Image, LoopDevice};
use nix::sys::signal::Signal;
pub use run::{Outcome, Run, Started};

use super::program_path;

/// Where the program under test is found inside.
pub const PROGRAM_INSIDE: &str = "/usr/local/bin/molecule-tools";
/// PATH inside, unless a test says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the root in the new mount namespace, moves into it, says so and waits for the end of input.
/// `$0` is a directory to build it on, `$1` the program under test, `$2` what the test wants done to
/// the tree before it becomes the root.
const SETUP: &str = r#"
root=$0
mount -t tmpfs -o mode=755 sandbox "$root"
cd "$root"
mkdir -p usr etc proc sys dev tmp mnt root app/scripts configs workspace home/agent run var/tmp local
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then
        cp -P "/$name" "$name"
    elif [ -d "/$name" ]; then
        mkdir "$name"
        mount --bind -o ro "/$name" "$name"
    fi
done
mount --bind -o ro /usr usr
mkdir -p local/bin local/sbin local/lib
mount --bind local usr/local
: > usr/local/bin/molecule-tools
mount --bind -o ro "$1" usr/local/bin/molecule-tools
chmod 1777 tmp var/tmp
chmod 700 root
chown 1000:1000 home/agent
cat > etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
agent:x:1000:1000:agent:/home/agent:/bin/sh
END
cat > etc/group <<'END'
root:x:0:
daemon:x:1:
agent:x:1000:
nogroup:x:65534:
docker:x:2375:agent
extra:x:2376:nobody,agent
END
echo 'passwd: files
group: files' > etc/nsswitch.conf
for name in ld.so.cache ld.so.conf alternatives; do
    [ ! -e "/etc/$name" ] || cp -a "/etc/$name" etc/
done
mount -t tmpfs -o mode=755 dev dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount --rbind /proc proc
mount --rbind -o ro /sys sys
ROOT=$root
eval "$2"
pivot_root . mnt
umount -l /mnt
cd /
echo ready
read -r _ || :
"#;

/// A root file system of its own.
pub struct Sandbox {
    holder: Child,
    namespace: File,
}

impl Sandbox {
    /// As described above, with users root, daemon, nobody and agent (1000, in docker 2375 and
    /// extra 2376).
    pub fn new() -> Self {
        Self::with("")
    }

    /// The same, after `script` (sh) has been at it as root, in the tree (also `$ROOT`) and still with
    /// the machine's own root around: for bind mounts and for what the machine has outside.
    #[track_caller]
    pub fn with(script: &str) -> Self {
        let base = tempfile::tempdir().expect("a temporary directory");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-euc", SETUP])
            .args([base.path(), program_path(), Path::new(script)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1)");
        let mut said = [0; 6];
        let stdout = holder.stdout.as_mut().expect("a pipe");
        stdout.read_exact(&mut said).expect("the sandbox's set-up failed; see above");
        assert_eq!(&said, b"ready\n");
        let namespace = File::open(format!("/proc/{}/ns/mnt", holder.id())).expect("its namespace");
        Self { holder, namespace }
    }

    /// The path from outside of `inside`, which is absolute. A symbolic link with an absolute target
    /// on the way leads out of the sandbox.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref().strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }

    /// Makes `/dev/NAME` a node of `device` in the sandbox.
    pub fn add_device(&self, name: &str, device: &LoopDevice) {
        let (major, minor) = device.number();
        self.sh(&format!("mknod /dev/{name} b {major} {minor}"));
    }

    /// Makes an executable file; another process writes it, for the reason of [`crate::support::copy_program`].
    #[track_caller]
    pub fn install(&self, inside: &str, text: &str) {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).expect("its text");
        let write = ["-euc", "cat > \"$0\"; chmod 755 \"$0\"", inside];
        let outcome = self.command("/bin/sh").args(write).stdin(file).run();
        assert_eq!(outcome.status, 0, "{inside}: {outcome:?}");
    }

    /// Runs `script` inside as root; it must succeed. Gives its standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let outcome = self.command("/bin/sh").args(["-euc", script]).run();
        assert_eq!(outcome.status, 0, "{script}\n{}\n{}", outcome.stdout(), outcome.stderr());
        outcome.stdout()
    }

    /// A run of the program under test, inside.
    pub fn program(&self) -> Run {
        self.command(PROGRAM_INSIDE)
    }

    /// A run of `program` (an absolute path) inside: as root, in /, with only PATH, HOME=/root and
    /// HOSTNAME in the environment, stdin empty, umask 022, no signal blocked.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Run {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH).env("HOME", "/root").env("HOSTNAME", "sandbox");
        command.stdin(Stdio::null());
        Run::new(command, self.namespace.try_clone().expect("a descriptor"))
    }

    /// The processes that live in the sandbox, its holder not counted.
    pub fn processes(&self) -> Vec<u32> {
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = link(&self.holder.id().to_string());
        std::fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| own.is_some() && link(name) == own)
            .filter_map(|name| name.parse().ok())
            .filter(|pid| *pid != self.holder.id())
            .collect()
    }
}

/// The text of the file `inside`; empty if there is none.
pub fn text(sandbox: &Sandbox, inside: &str) -> String {
    std::fs::read_to_string(sandbox.path(inside)).unwrap_or_default()
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // All of them live in this namespace, so this sandbox started them. Twice: one may be forking.
        for _ in 0..2 {
            for pid in self.processes() {
                let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            }
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
