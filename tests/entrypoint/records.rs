//! Boots over trees in which a runtime has run already: nothing that it made is lost to a restore.

use crate::entrypoint::{boots, entrypoint};
use crate::support::clock::tick;
use crate::support::destination::Filesystem;
use crate::support::runtime::sandbox;
use crate::support::sandbox::{LoopDevice, PROGRAM_INSIDE, Sandbox};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root];
    const LOOP: &[Need] = &[Need::Root, Need::Loop];
    const TRACE: &[Need] = &[Need::Root, Need::Loop, Need::Program("strace")];
    let mut cases = vec![
        test_case!(each_tree_remembers_its_first_start, ROOT),
        test_case!(a_start_that_is_not_root_s_is_remembered_too, LOOP),
        test_case!(a_variable_that_is_no_text_costs_nothing, LOOP),
        test_case!(a_tree_without_attributes_remembers_in_a_file, LOOP),
        test_case!(a_record_that_a_killed_step_left_behind_keeps_its_time, TRACE),
    ];
    let everywhere = [
        ("a_marker_that_cannot_be_looked_at_is_no_absence", in_doubt as fn(Filesystem)),
        ("a_volume_that_comes_late_takes_nothing_away", late_volume),
        ("a_new_configs_costs_the_other_trees_nothing", new_configs),
        ("another_try_costs_nothing_that_was_made_since", another_try),
        ("another_try_costs_nothing_that_was_made_before_there_were_records", upgraded),
        ("a_source_that_fails_takes_nothing_away", failing_source),
        ("starts_at_once_lose_nothing_of_the_first", at_once),
    ];
    for (name, run) in everywhere {
        cases.extend(Filesystem::cases(name, run));
    }
    cases
}

const TREES: &str = "/configs /workspace /home/agent/.claude";

/// A snapshot with a file of the agent's and one that is older everywhere else.
fn volume() -> LoopDevice {
    LoopDevice::ext4(
        16,
        "mkdir -p configs workspace home/agent/.claude
         for d in configs workspace home/agent/.claude; do
             echo snapshot > $d/work; echo snapshot > $d/old; echo snapshot > $d/missing
         done
         chown -R 1000:1000 configs workspace home/agent",
    )
}

/// What the image of a workspace brings: an old file in each tree.
const IMAGE: &str = "mkdir -p home/agent/.claude
    for d in configs workspace home/agent/.claude; do echo image > $d/old; done
    chown -R 1000:1000 configs workspace home/agent";

/// A workspace on a tmpfs.
fn workspace() -> Sandbox {
    sandbox(IMAGE)
}

/// One whose trees lie on `filesystem`.
fn workspace_on(filesystem: Filesystem) -> Sandbox {
    sandbox(&filesystem.script(IMAGE))
}

fn boot(sandbox: &Sandbox) -> String {
    boots(sandbox, entrypoint(sandbox)).0.stdout()
}

/// What the agent does in an hour.
fn agent_works(sandbox: &Sandbox) {
    sandbox.sh(&format!("for d in {TREES}; do echo agent > $d/work; echo agent > $d/made; done"));
}

#[track_caller]
fn nothing_is_lost(sandbox: &Sandbox, log: &str) {
    for name in ["work", "made"] {
        let found = sandbox.sh(&format!("for d in {TREES}; do cat $d/{name}; done"));
        assert_eq!(found, "agent\nagent\nagent\n", "{name}\n{log}");
    }
}

fn each_tree_remembers_its_first_start() {
    let sandbox = workspace();
    boot(&sandbox);
    let records = || {
        let records = TREES.split(' ').map(|tree| {
            let tree = molecule_tools::fs::Dir::open_operator_path(sandbox.path(tree)).unwrap();
            molecule_tools::record::look(&tree).unwrap().unwrap()
        });
        records.collect::<Vec<_>>()
    };
    let first = records();
    assert!(first.iter().all(|it| it.since.0 > 1_700_000_000 && !it.pending), "{first:?}");
    boot(&sandbox);
    assert_eq!(records(), first, "a later start changes nothing");
    assert_eq!(sandbox.sh("ls -A /configs /workspace | grep -c molecule-lock || :"), "0\n");
}

fn a_start_that_is_not_root_s_is_remembered_too() {
    let sandbox = workspace();
    let (outcome, _) = boots(&sandbox, entrypoint(&sandbox).identity(1000, 1000, &[]));
    assert!(!outcome.stdout().contains("WARN"), "{outcome:?}");
    agent_works(&sandbox);
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    let log = boot(&sandbox);
    nothing_is_lost(&sandbox, &log);
}

/// Without the restore there would be neither a marker nor a record, and the next start would restore over what
/// the agent has made.
fn a_variable_that_is_no_text_costs_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    for jobs in ["", "many"] {
        let sandbox = workspace();
        let run = entrypoint(&sandbox)
            .env("MOLECULE_RESTORE_NO_PRIVILEGED", std::ffi::OsStr::from_bytes(b"\xff"))
            .env("MOLECULE_RESTORE_JOBS", jobs);
        let volume = volume();
        sandbox.add_device("xvdb", &volume);
        let log = boots(&sandbox, run).0.stdout();
        assert!(log.contains("WARN environment: "), "{log}");
        assert!(log.contains("complete — marker /configs/.restore-completed dropped"), "{log}");
        agent_works(&sandbox);
        sandbox.sh("rm /configs/.restore-completed");
        let log = boot(&sandbox);
        nothing_is_lost(&sandbox, &log);
    }
}

#[track_caller]
fn late_volume(filesystem: Filesystem) {
    for unusable in [false, true] {
        let sandbox = workspace_on(filesystem);
        let raw = crate::support::sandbox::Image::new(1 << 20).attach();
        if unusable {
            sandbox.add_device("xvdb", &raw);
        }
        boot(&sandbox);
        agent_works(&sandbox);
        let volume = volume();
        sandbox.sh("rm -f /dev/xvdb");
        sandbox.add_device("xvdb", &volume);
        let log = boot(&sandbox);
        nothing_is_lost(&sandbox, &log);
        let brought = sandbox.sh(&format!("for d in {TREES}; do cat $d/old $d/missing; done"));
        assert_eq!(brought, "snapshot\n".repeat(6), "{log}");
        assert!(log.contains("a runtime has run there since "), "{log}");
        assert!(log.contains("/workspace/work stays: it is newer"), "{log}");
        assert!(log.contains("complete — marker /configs/.restore-completed dropped"), "{log}");
        assert!(boot(&sandbox).contains("present — skipping"));
    }
}

#[track_caller]
fn new_configs(filesystem: Filesystem) {
    let sandbox = workspace_on(filesystem);
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    boot(&sandbox);
    agent_works(&sandbox);
    sandbox.sh("mount -t tmpfs -o mode=755 new /configs; echo image > /configs/old");
    let log = boot(&sandbox);
    assert_eq!(sandbox.sh("cat /configs/old /configs/work"), "snapshot\nsnapshot\n", "{log}");
    assert_eq!(
        sandbox.sh("cat /workspace/work /home/agent/.claude/made"),
        "agent\nagent\n",
        "{log}"
    );
}

#[track_caller]
fn another_try(filesystem: Filesystem) {
    let sandbox = workspace_on(filesystem);
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    boot(&sandbox);
    for _ in 0..2 {
        agent_works(&sandbox);
        sandbox.sh("rm /configs/.restore-completed /workspace/missing");
        let log = boot(&sandbox);
        nothing_is_lost(&sandbox, &log);
        assert_eq!(sandbox.sh("cat /workspace/missing"), "snapshot\n", "{log}");
    }
}

/// The old script, or a version without records, has restored and started the runtime.
#[track_caller]
fn upgraded(filesystem: Filesystem) {
    let sandbox = workspace_on(filesystem);
    sandbox.sh(": > /configs/.restore-completed");
    agent_works(&sandbox);
    tick();
    assert!(boot(&sandbox).contains("present — skipping"));
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    sandbox.sh("rm /configs/.restore-completed");
    let log = boot(&sandbox);
    nothing_is_lost(&sandbox, &log);
    let missing = sandbox.sh(&format!("for d in {TREES}; do cat $d/missing; done"));
    assert_eq!(missing, "snapshot\n".repeat(3), "{log}");
}

/// The runtime has started although its record did not become final.
fn a_record_that_a_killed_step_left_behind_keeps_its_time() {
    for killed_at in 2..5 {
        let sandbox = workspace();
        let trace = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
        let kill = format!("inject=fsetxattr:signal=KILL:when={killed_at}");
        let trace = trace.args(["-e", "trace=fsetxattr", "-e", &kill]);
        let (outcome, _) = boots(&sandbox, trace.args([PROGRAM_INSIDE, "entrypoint"]));
        assert!(outcome.stderr().contains("was ended by SIGKILL"), "{outcome:?}");
        agent_works(&sandbox);
        tick();
        boot(&sandbox);
        let volume = volume();
        sandbox.add_device("xvdb", &volume);
        let log = boot(&sandbox);
        nothing_is_lost(&sandbox, &log);
    }
}

fn in_doubt(filesystem: Filesystem) {
    for (call, word, errnos) in [
        ("openat", "\"configs\", O_RDONLY", ["EIO", "EMFILE", "ESTALE"]),
        ("statx", "\".restore-completed\"", ["EIO", "ENOMEM", "EINTR"]),
    ] {
        for errno in errnos {
            look_fails(filesystem, call, word, errno);
        }
    }
}

/// A boot whose look at the marker, which is `call` with `word` in it, fails with `errno`.
#[track_caller]
fn look_fails(filesystem: Filesystem, call: &str, word: &str, errno: &str) {
    let sandbox = workspace_on(filesystem);
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    boot(&sandbox);
    agent_works(&sandbox);
    // Without the records the marker alone decides.
    let forget = || {
        for tree in TREES.split(' ').map(|tree| sandbox.path(tree)) {
            let removed = rustix::fs::removexattr(tree, "user.molecule.started");
            assert!(matches!(removed, Ok(()) | Err(rustix::io::Errno::NODATA)), "{removed:?}");
        }
    };
    let traced = |options: &[String]| {
        forget();
        let trace = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/tmp/trace"]);
        let trace = trace.args(options).args([PROGRAM_INSIDE, "entrypoint"]);
        // Names relative to "/" are not to be taken for names here.
        let log = boots(&sandbox, trace.directory("/tmp")).0.stdout();
        (log, sandbox.sh("cat /tmp/trace"))
    };
    let (_, trace) = traced(&["-e".into(), format!("trace={call},write")]);
    let said = trace.find("MOLECULE-RESTORE").unwrap();
    let before: Vec<&str> = trace[..said].lines().collect();
    let step = before.last().unwrap().split(' ').next().unwrap();
    let name = word.split('"').nth(1).unwrap();
    let by_name = |line: &&str| {
        line.starts_with(step) && line.contains(call) && line.contains(&format!("\"{name}\""))
    };
    let all: Vec<&str> = before.into_iter().filter(by_name).collect();
    let first = 1 + all.iter().rposition(|line| line.contains(word)).unwrap();
    // Each process has a count of its own; other steps may be hit as well.
    let inject = |times: usize| {
        let inject = format!("inject={call}:error={errno}:when={first}..{}", first + times - 1);
        let (log, trace) = traced(&["-P".into(), name.into(), "-e".into(), inject]);
        let hits = |process: &str| {
            let own = trace.lines().filter(|line| line.split(' ').next() == Some(process));
            own.filter(|line| line.contains("(INJECTED)")).count()
        };
        let most = trace.lines().filter_map(|line| line.split(' ').next()).map(hits).max();
        assert_eq!(most, Some(times), "{trace}");
        nothing_is_lost(&sandbox, &log);
        log
    };
    // What passes is waited for, and a signal is no reason at all.
    let often = if errno == "EINTR" { 9 } else { 2 };
    assert!(inject(often).contains("present — skipping"), "{errno}");
    if errno != "EINTR" {
        let log = inject(5);
        assert!(log.contains("cannot tell whether there is a marker"), "{errno} {log}");
    }
}

/// The first error at the source comes late, in one directory of many.
#[track_caller]
fn failing_source(filesystem: Filesystem) {
    let sandbox = workspace_on(filesystem);
    let surplus = "/workspace/surplus /workspace/d1/surplus /workspace/d9/surplus";
    sandbox.sh(&format!("mkdir /workspace/d1 /workspace/d9; touch {surplus}"));
    let volume = LoopDevice::ext4(
        16,
        "mkdir -p configs workspace home/agent/.claude
         for n in $(seq 9); do mkdir workspace/d$n; echo snapshot > workspace/d$n/work; done
         echo snapshot > workspace/d5/poison",
    );
    sandbox.add_device("xvdb", &volume);
    let trace = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
    let trace = trace.args(["-P", "poison", "-e", "trace=openat", "-e", "inject=openat:error=EIO"]);
    let run = trace.args([PROGRAM_INSIDE, "entrypoint"]).directory("/tmp");
    let log = boots(&sandbox, run).0.stdout();
    assert!(log.contains("d5/poison: Input/output error"), "{log}");
    assert!(log.contains("WARN rsync to /workspace exited 23"), "{log}");
    sandbox.sh(&format!("ls {surplus}; cat /workspace/d9/work"));
    // With the source in order again the surplus goes: it was the error that kept it.
    sandbox.sh("rm /configs/.restore-completed; setfattr -x user.molecule.started /workspace");
    let log = boot(&sandbox);
    assert_eq!(sandbox.sh(&format!("ls {surplus} 2>/dev/null || :")), "", "{log}");
}

#[track_caller]
fn at_once(filesystem: Filesystem) {
    for _ in 0..5 {
        let sandbox = workspace_on(filesystem);
        let volume = volume();
        sandbox.add_device("xvdb", &volume);
        // The runtime of whoever comes first works at once.
        sandbox.install(
            "/app/runtime",
            "#!/bin/sh\nfor d in /configs /workspace /home/agent/.claude; do echo agent > $d/work; echo agent > $d/made; done\n",
        );
        let started: Vec<_> = (0..3)
            .map(|_| entrypoint(&sandbox).env("MOLECULE_RUNTIME", "/app/runtime").start())
            .collect();
        let logs: Vec<String> = started.into_iter().map(|run| run.wait().stdout()).collect();
        nothing_is_lost(&sandbox, &logs.join("\n---\n"));
        let restored = logs.iter().filter(|log| log.contains("ok /workspace")).count();
        assert_eq!(restored, 1, "{}", logs.join("\n---\n"));
    }
}

fn a_tree_without_attributes_remembers_in_a_file() {
    let sandbox = workspace();
    // ramfs keeps no attributes of users.
    sandbox.sh("mount -t ramfs -o mode=755 plain /workspace; echo image > /workspace/old; chown -R 1000:1000 /workspace");
    boot(&sandbox);
    assert_eq!(sandbox.sh("stat -c '%u %a' /workspace/.molecule-started"), "1000 644\n");
    agent_works(&sandbox);
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    let log = boot(&sandbox);
    nothing_is_lost(&sandbox, &log);
}
