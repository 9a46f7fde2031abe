//! Small limits and the signals that come of them: the boot reaches the runtime, which gets both as
//! they were inherited.

use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use crate::entrypoint::{boots, entrypoint};
use crate::support::runtime::sandbox;
use crate::support::sandbox::{LoopDevice, Outcome, Sandbox};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const LOOP: &[Need] = &[Need::Root, Need::Loop, Need::Program("mkfs.ext4")];
    const ROOT: &[Need] = &[Need::Root];
    vec![
        test_case!(a_file_beyond_the_size_limit_costs_that_file, LOOP),
        test_case!(no_file_may_have_content, LOOP),
        test_case!(a_processor_time_limit_does_not_end_a_boot, LOOP),
        test_case!(few_descriptors_do_not_end_a_boot, LOOP),
        test_case!(little_address_space_does_not_end_a_boot, LOOP),
        test_case!(little_data_does_not_end_a_boot, LOOP),
        test_case!(a_small_stack_does_not_end_a_boot, LOOP),
        test_case!(a_limit_of_processes_lets_a_boot_restore_and_is_named, LOOP),
        test_case!(boots_side_by_side_reach_the_runtime, LOOP),
        test_case!(other_small_limits_do_not_end_a_boot, ROOT),
    ]
}

/// Files of 1 byte, of 3 MiB and of 12 MiB, in `configs` and `workspace`.
const FILL: &str = "mkdir -p configs workspace/deep/er; cd workspace
    echo 1 > a; echo 2 > deep/z; echo 3 > deep/er/z
    head -c 3145728 /dev/urandom > medium; head -c 12582912 /dev/urandom > large
    i=0; while [ $i -lt 300 ]; do echo $i > deep/er/$i; i=$((i+1)); done";

fn with_snapshot() -> (Sandbox, LoopDevice) {
    let sandbox = sandbox("mkdir -p configs workspace");
    let device = LoopDevice::ext4(32, FILL);
    sandbox.add_device("xvdb", &device);
    (sandbox, device)
}

/// Whether somebody may raise the limit again.
#[derive(Clone, Copy, PartialEq)]
enum Bound {
    Soft,
    Hard,
}
use Bound::{Hard, Soft};

/// Boots with `resource` limited; the runtime must find the limit as it was given.
#[track_caller]
fn limited(sandbox: &Sandbox, resource: Resource, name: &str, bound: Bound, value: u64) -> Outcome {
    sandbox.sh("rm -rf /configs /workspace; mkdir /configs /workspace");
    let run = entrypoint(sandbox);
    let run = match bound {
        Soft => run.soft_limit(resource, value),
        Hard => run.limit(resource, value),
    };
    let (outcome, view) = boots(sandbox, run);
    let hard = nix::sys::resource::getrlimit(resource).unwrap().1;
    let hard = if bound == Hard { value } else { hard };
    let shown = |value| match value {
        nix::sys::resource::RLIM_INFINITY => "unlimited".to_owned(),
        value => value.to_string(),
    };
    let words: Vec<&str> = view[name].split_whitespace().take(2).collect();
    assert_eq!(words, [shown(value), shown(hard)], "{name}: {outcome:?}");
    outcome
}

/// Everything of the snapshot is there.
#[track_caller]
fn restored(sandbox: &Sandbox, outcome: &Outcome) {
    let text = outcome.stdout();
    assert!(text.contains("MOLECULE-RESTORE: ok /workspace"), "{outcome:?}");
    let sizes = sandbox.sh("cd /workspace; stat -c %s a deep/er/299 medium large | tr '\\n' ' '");
    assert_eq!(sizes, "2 4 3145728 12582912 ", "{outcome:?}");
}

fn a_file_beyond_the_size_limit_costs_that_file() {
    let (sandbox, _device) = with_snapshot();
    let outcome = limited(&sandbox, Resource::RLIMIT_FSIZE, "limit Max file size", Hard, 1 << 20);
    let text = outcome.stdout();
    for name in ["medium", "large"] {
        assert!(text.contains(&format!("/workspace/{name}: File too large")), "{outcome:?}");
        assert!(!sandbox.path(format!("/workspace/{name}")).exists(), "{outcome:?}");
    }
    assert!(text.contains("WARN rsync to /workspace exited 11"), "{outcome:?}");
    assert!(text.contains("MOLECULE-RESTORE: ok /configs"), "{outcome:?}");
    let there =
        sandbox.sh("cd /workspace; cat a deep/z deep/er/z deep/er/299; find . -type f | wc -l");
    assert_eq!(there, "1\n2\n3\n299\n303\n", "{outcome:?}");
    let (_, view) = boots(&sandbox, entrypoint(&sandbox).ignore(Signal::SIGXFSZ));
    let ignored = u64::from_str_radix(&view["SigIgn"], 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 1 << (Signal::SIGXFSZ as u32 - 1));
}

fn no_file_may_have_content() {
    let (sandbox, _device) = with_snapshot();
    // The stand-in for the runtime has to write its view.
    sandbox.sh("mkfifo -m 666 /tmp/runtime-view");
    let path = sandbox.path("/tmp/runtime-view");
    let reader = std::thread::spawn(move || std::fs::read_to_string(path).unwrap());
    let outcome = entrypoint(&sandbox).limit(Resource::RLIMIT_FSIZE, 0).run();
    assert_eq!(outcome.status, crate::support::runtime::STATUS, "{outcome:?}");
    assert!(reader.join().unwrap().contains("limit Max file size\t0 "));
}

fn a_processor_time_limit_does_not_end_a_boot() {
    let (sandbox, _device) = with_snapshot();
    // The loop uses up the second that is allowed; what follows it runs beyond the limit.
    let burn = "trap '' XCPU; ulimit -S -t 1; while [ $(ps -o cputimes= -p $$) -lt 1 ]; do
        i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done; ";
    let program = crate::support::sandbox::PROGRAM_INSIDE;
    let script = format!("{burn} exec \"$@\"");
    let outcome =
        sandbox.command("/bin/sh").args(["-c", &script, "sh", program, "entrypoint"]).run();
    assert_eq!(outcome.status, crate::support::runtime::STATUS, "{outcome:?}");
}

fn few_descriptors_do_not_end_a_boot() {
    let (sandbox, _device) = with_snapshot();
    let boot = |bound, value| {
        limited(&sandbox, Resource::RLIMIT_NOFILE, "limit Max open files", bound, value)
    };
    for (bound, value) in [(Hard, 64), (Hard, 32), (Hard, 24), (Soft, 16), (Soft, 5), (Soft, 4)] {
        restored(&sandbox, &boot(bound, value));
    }
    // Not all that is listed can be opened, but the boot goes on.
    for value in [16, 12, 10, 8] {
        boot(Hard, value);
    }
}

fn little_address_space_does_not_end_a_boot() {
    let (sandbox, _device) = with_snapshot();
    let name = "limit Max address space";
    for mebibytes in [1024, 512, 256, 128, 96, 64, 48, 32, 24, 20, 16, 12] {
        let outcome = limited(&sandbox, Resource::RLIMIT_AS, name, Hard, mebibytes << 20);
        restored(&sandbox, &outcome);
    }
}

fn little_data_does_not_end_a_boot() {
    let (sandbox, _device) = with_snapshot();
    for mebibytes in [256, 64, 32, 16, 8, 6, 4, 3, 2] {
        let name = "limit Max data size";
        let outcome = limited(&sandbox, Resource::RLIMIT_DATA, name, Hard, mebibytes << 20);
        restored(&sandbox, &outcome);
    }
}

fn a_small_stack_does_not_end_a_boot() {
    let (sandbox, _device) = with_snapshot();
    let name = "limit Max stack size";
    for (bound, kibibytes) in [(Hard, 1024), (Hard, 256), (Soft, 128), (Soft, 64), (Soft, 16)] {
        let outcome = limited(&sandbox, Resource::RLIMIT_STACK, name, bound, kibibytes << 10);
        restored(&sandbox, &outcome);
    }
}

fn a_limit_of_processes_lets_a_boot_restore_and_is_named() {
    let (sandbox, _device) = with_snapshot();
    let outcome = limited(&sandbox, Resource::RLIMIT_NPROC, "limit Max processes", Hard, 1000);
    restored(&sandbox, &outcome);
    // The kernel lets no user exec beyond it; who is at fault must be seen.
    let sleep = sandbox.command("/bin/sleep").arg("60").identity(1000, 1000, &[]);
    let mut other = sleep.start();
    let outcome = entrypoint(&sandbox).limit(Resource::RLIMIT_NPROC, 0).run();
    other.child.kill().unwrap();
    other.wait();
    assert_eq!(outcome.status, 126, "{outcome:?}");
    let text = outcome.stderr();
    assert!(text.contains("its user has too many processes; raise the limit"), "{outcome:?}");
}

/// A thread of the restore's that has done its work and not ended yet still has its capabilities when
/// the process gives up its own; the C library ends a process whose threads differ in that.
fn boots_side_by_side_reach_the_runtime() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (sandbox, _device) = with_snapshot();
                let name = "limit Max data size";
                for mebibytes in [4, 3, 2, 4, 3, 2, 4, 3, 2, 4, 3, 2] {
                    limited(&sandbox, Resource::RLIMIT_DATA, name, Hard, mebibytes << 20);
                }
            });
        }
    });
}

fn other_small_limits_do_not_end_a_boot() {
    let sandbox = sandbox("mkdir -p configs workspace; echo x > workspace/x");
    for (resource, name) in [
        (Resource::RLIMIT_MEMLOCK, "limit Max locked memory"),
        (Resource::RLIMIT_LOCKS, "limit Max file locks"),
        (Resource::RLIMIT_SIGPENDING, "limit Max pending signals"),
        (Resource::RLIMIT_MSGQUEUE, "limit Max msgqueue size"),
        (Resource::RLIMIT_RTPRIO, "limit Max realtime priority"),
        (Resource::RLIMIT_CORE, "limit Max core file size"),
    ] {
        limited(&sandbox, resource, name, Hard, 0);
    }
}
