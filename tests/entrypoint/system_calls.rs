//! What the kernel is asked to do, as strace(1) sees it.

use crate::entrypoint::{boots, entrypoint};
use crate::support::runtime::{sandbox, take_view};
use crate::support::sandbox::{LoopDevice, PROGRAM_INSIDE, Sandbox};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const STRACE: &[Need] = &[Need::Root, Need::Program("strace")];
    const LOOP: &[Need] = &[Need::Root, Need::Program("strace"), Need::Loop];
    vec![
        test_case!(a_second_boot_without_a_device_changes_nothing, STRACE),
        test_case!(privileges_are_dropped_by_the_only_thread, LOOP),
    ]
}

/// The boot's calls of the named kind, up to the exec of the runtime; one line each.
#[track_caller]
fn trace(sandbox: &Sandbox, calls: &str) -> Vec<String> {
    let outcome = sandbox
        .command("/usr/bin/strace")
        .args([
            "-f",
            "-y",
            "-qq",
            "-e",
            "signal=none",
            "-o",
            "/tmp/trace",
            "-e",
            &format!("trace={calls},execve"),
        ])
        .args([PROGRAM_INSIDE, "entrypoint"])
        .run();
    assert!(take_view(sandbox).is_some(), "{outcome:?}");
    let trace = std::fs::read_to_string(sandbox.path("/tmp/trace")).unwrap();
    std::fs::remove_file(sandbox.path("/tmp/trace")).unwrap();
    let runtime = "execve(\"/usr/local/sbin/molecule-runtime\"";
    let end = trace.find(runtime).unwrap_or_else(|| panic!("no exec of the runtime\n{trace}"));
    // Whole lines: the exec's own begins with the process id.
    let end = trace[..end].rfind('\n').map_or(0, |newline| newline + 1);
    trace[..end].lines().map(str::to_owned).collect()
}

fn a_second_boot_without_a_device_changes_nothing() {
    const CHANGES: &str = "chown,fchown,lchown,fchownat,chmod,fchmod,fchmodat,?fchmodat2,write,\
        pwrite64,writev,mkdir,mkdirat,symlink,symlinkat,link,linkat,rename,renameat,renameat2,\
        unlink,unlinkat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,\
        utimensat,truncate,ftruncate,mount,move_mount,copy_file_range,sendfile";
    let sandbox = sandbox(
        "mkdir -p configs/d workspace/d; echo x > configs/d/f; echo y > workspace/d/f
         mkdir -p root/.claude/sessions; echo z > root/.claude/sessions/z",
    );
    let changes = |trace: Vec<String>| -> Vec<String> {
        let log = |line: &String| line.contains(" write(1<") || line.contains(" write(2<");
        trace.into_iter().filter(|line| !log(line) && !line.contains(" execve(")).collect()
    };
    let first = changes(trace(&sandbox, CHANGES));
    assert!(
        first.iter().any(|line| line.contains("chown")),
        "the first boot changes owners: {first:#?}"
    );
    let second = changes(trace(&sandbox, CHANGES));
    assert!(second.is_empty(), "{second:#?}");
}

fn privileges_are_dropped_by_the_only_thread() {
    let sandbox = sandbox("");
    let fill = "mkdir -p workspace; cd workspace; for i in 1 2 3 4 5 6 7 8 9; do mkdir $i; echo $i > $i/f; done";
    let device = LoopDevice::ext4(16, fill);
    sandbox.add_device("xvdb", &device);
    let trace = trace(&sandbox, "setresuid,setuid,setresgid,setgid,setgroups,clone,clone3");
    let callers = |call: &str| -> Vec<&str> {
        let calls = trace.iter().filter(|line| line.contains(call));
        calls.filter_map(|line| line.split(' ').next()).collect()
    };
    assert!(!callers("CLONE_THREAD").is_empty(), "the restore has threads: {trace:#?}");
    let drops = [callers(" set"), callers("setgroups")].concat();
    assert!(!drops.is_empty());
    assert!(drops.iter().all(|pid| *pid == drops[0]), "{trace:#?}");
    let again = boots(&sandbox, entrypoint(&sandbox)).0.stdout();
    assert!(again.contains("marker /configs/.restore-completed present"), "{again}");
}
