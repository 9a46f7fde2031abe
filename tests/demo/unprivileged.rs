//! The demo without root: a directory stands for the volume, a user namespace for the machine.

use std::path::Path;
use std::process::{Command, Output};

use crate::{RUNTIME, TREE, WORKSPACE, support};

const LEFT_OUT: &str = "\
not root, so this leaves out: the volume (a directory is the source instead: no device, no probe, no
mount), owners other than your own, the ownership steps, and the privilege drop (the boot starts as
agent, as it does where an image sets USER).";

/// Builds a root on `$0` inside a user and a mount namespace, restores from `$1` with the program `$2`
/// and boots as uid 1000.
const BOOT: &str = r#"
root=$0
mount -t tmpfs -o mode=755 demo "$root"
cd "$root"
mkdir -p usr etc proc dev tmp mnt root configs workspace home/agent local/bin
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then cp -P "/$name" "$name"
    elif [ -d "/$name" ]; then mkdir "$name"; mount --rbind "/$name" "$name"; fi
done
mount --rbind /usr usr
mount --bind local usr/local
cp "$2" usr/local/bin/molecule-tools
printf '%s' "$3" > usr/local/bin/molecule-runtime
chmod 755 usr/local/bin/*
printf 'root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n' > etc/passwd
printf 'root:x:0:\nagent:x:1000:\n' > etc/group
mount --rbind /dev dev
mount --rbind /proc proc
mkdir source
mount --rbind "$1" source
pivot_root . mnt
umount -l /mnt
cd /
molecule-tools restore --source /source --root /
echo '=== boot: log, then what the runtime saw'
unshare --user --map-user=1000 --map-group=1000 molecule-tools entrypoint --model opus
echo '=== what it left'
eval "$4"
"#;

/// Whether the workspace came back.
pub fn boot_from_a_directory() -> bool {
    println!("{LEFT_OUT}\n");
    let [source, root] = [0, 1].map(|_| tempfile::tempdir().expect("a temporary directory"));
    support::ok(Command::new("sh").args(["-euc", WORKSPACE]).current_dir(source.path()));
    let mut boot = Command::new("unshare");
    boot.args(["--user", "--map-root-user", "--mount", "--propagation", "private"]);
    boot.args(["sh", "-euc", BOOT]).args([root.path(), source.path(), support::program_path()]);
    boot.args([Path::new(RUNTIME), Path::new(TREE)]).env_clear();
    boot.env("PATH", support::sandbox::PATH).env("HOME", "/home/agent").env("WORKSPACE_ID", "demo");
    let Output { status, stdout, stderr } = boot.output().expect("unshare(1)");
    let stdout = String::from_utf8_lossy(&stdout);
    println!("=== restore\n{stdout}");
    eprint!("{}", String::from_utf8_lossy(&stderr));
    status.success()
        && stdout.contains("MOLECULE-RESTORE: ok /home/agent/.claude\n")
        && stdout.contains("\nid: uid=1000(agent) ")
        && stdout.contains("still here")
}
