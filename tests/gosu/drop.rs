//! Who may change identity, and that the change is real.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::sandbox::{Outcome, PROGRAM_INSIDE, Sandbox};
use crate::support::{PROGRAM, ok};

#[track_caller]
fn assert_refused(outcome: &Outcome, reason: &str) {
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.stdout.is_empty(), "the command ran: {outcome:?}");
    assert_eq!(outcome.stderr().lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr().contains(reason), "{outcome:?}");
}

pub fn files_only_the_user_may_execute_are_found_and_others_skipped() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir /first /second
        for d in first second; do printf '#!/bin/sh\necho %s\n' $d > /$d/prog; done
        chmod 700 /first/prog
        chown agent: /second/prog; chmod 500 /second/prog");
    let run = |user| sandbox.program().args(["gosu", user, "prog"]).env("PATH", "/first:/second");
    let path = |user| run(user).env("PATH", "/first:/second:/bin").run();
    // A script needs its interpreter to read it, not PATH.
    assert_eq!(path("agent").stdout(), "second\n");
    assert_eq!(path("root").stdout(), "first\n");
    assert_refused(&path("nobody"), "no executable file of that name in PATH");
}

pub fn a_user_error_is_told_before_a_command_error() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.program().args(["gosu", "no\nbody", "/no/such/command"]).run();
    assert_refused(&outcome, "find user no\\nbody: no such user");
    let outcome = sandbox.program().args(["gosu", "agent", "/no/such\ncommand"]).run();
    assert_refused(&outcome, "run /no/such\\ncommand: No such file or directory");
}

pub fn a_caller_who_is_no_root_is_refused() {
    let sandbox = Sandbox::new();
    for spec in
        ["root", "0", "nobody", "agent:docker", "agent:root", "1000:1001", ":0", "nobody:1000"]
    {
        let outcome = sandbox.program().args(["gosu", spec, "id"]).identity(1000, 1000, &[]).run();
        assert_refused(&outcome, "run it as root");
    }
}

/// A run as uid and gid 1000 with these capabilities, as words of setpriv(1).
fn with_capabilities(sandbox: &Sandbox, capabilities: &str, arguments: &[&str]) -> Outcome {
    sandbox
        .command("/usr/bin/setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
        .args(["--inh-caps", capabilities, "--ambient-caps", capabilities, PROGRAM_INSIDE])
        .args(arguments)
        .run()
}

const SHOW: &str = "id -u; id -g; id -G; grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status";
const NO_CAPABILITIES: &str = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
    CapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n";

pub fn a_caller_with_the_capabilities_is_as_good_as_root_and_loses_them() {
    let sandbox = Sandbox::new();
    let both = "+setuid,+setgid";
    let run = |capabilities: &str, spec: &str| {
        with_capabilities(&sandbox, capabilities, &["gosu", spec, "sh", "-c", SHOW])
    };
    for (spec, ids) in [
        ("agent", "1000\n1000\n1000 2375 2376\n"),
        ("nobody", "65534\n65534\n65534 2376\n"),
        ("1234:5", "1234\n5\n5\n"),
        // Who it is already, with more than that user has.
        ("1000:1000", "1000\n1000\n1000\n"),
        ("", "1000\n1000\n1000 2375 2376\n"),
    ] {
        for more in ["", ",+net_admin,+dac_override"] {
            let outcome = run(&format!("{both}{more}"), spec);
            assert_eq!((outcome.status, &*outcome.stderr()), (0, ""), "{spec}: {outcome:?}");
            assert_eq!(outcome.stdout(), format!("{ids}{NO_CAPABILITIES}"), "{spec}{more}");
        }
    }
    let root = run(both, "root");
    assert!(root.stdout().starts_with("0\n0\n"), "{root:?}");
    // What it takes is the kernel's to say, and half of it is not enough.
    for (capabilities, reason) in [("+setuid", "supplementary groups"), ("+setgid", "set uid")] {
        let outcome = run(capabilities, "nobody");
        assert_refused(&outcome, "run it as root, or with CAP_SETUID and CAP_SETGID");
        assert!(outcome.stderr().contains(reason), "{outcome:?}");
    }
    // Rights that have nothing to do with it are given up as well.
    let outcome = run("+net_admin", "1000:1000");
    assert_eq!(outcome.stdout(), format!("1000\n1000\n1000\n{NO_CAPABILITIES}"), "{outcome:?}");
    // Those that a root only passes on, which its own change of uid leaves.
    let outcome = sandbox
        .command("/usr/bin/setpriv")
        .args(["--inh-caps", "+net_admin", PROGRAM_INSIDE, "gosu", "agent", "sh", "-c", SHOW])
        .run();
    assert!(outcome.stdout().ends_with(NO_CAPABILITIES), "{outcome:?}");
}

/// As in a Kubernetes pod under the restricted policy: the right ids, no capability, and groups that
/// somebody else has chosen.
pub fn groups_that_cannot_be_set_are_told_and_kept() {
    let sandbox = Sandbox::new();
    let run = |spec: &str, groups: &[u32]| {
        let run = sandbox.program().args(["gosu", spec, "sh", "-c", "echo ran; id -G"]);
        run.identity(1000, 1000, groups).run()
    };
    const WARNING: &str =
        "gosu: WARN set supplementary groups: Operation not permitted; it goes on";
    for (spec, groups, warning) in [
        ("agent", &[][..], " without 2375 2376"),
        ("agent", &[2375], " without 2376"),
        ("agent", &[2375, 2376, 3000], " and keeps 3000"),
        ("agent", &[3000, 1000, 4000], " without 2375 2376 and keeps 3000 4000"),
        ("1000:1000", &[2375], " and keeps 2375"),
        ("", &[2375], " without 2376"),
    ] {
        let outcome = run(spec, groups);
        assert_eq!(outcome.stderr(), format!("{WARNING}{warning}\n"), "{spec} {groups:?}");
        assert!(outcome.status == 0 && outcome.stdout().starts_with("ran\n1000"), "{outcome:?}");
    }
    // No difference in rights: the primary group once more, a group twice.
    for groups in [&[1000, 2375, 2376][..], &[2375, 2376, 2376]] {
        let outcome = run("agent", groups);
        assert_eq!((outcome.status, &*outcome.stderr()), (0, ""), "{groups:?}");
    }
    // Root's group is nobody's to have unasked.
    assert_refused(&run("agent", &[2375, 2376, 0]), "leave root's group: Operation not permitted");
    let many: Vec<u32> = (5000..5100).collect();
    let outcome = run("1000:1000", &many);
    assert!(outcome.stderr().ends_with(" 5030 5031 and 68 more\n"), "{outcome:?}");
}

pub fn a_root_without_the_capabilities_is_refused() {
    let sandbox = Sandbox::new();
    // linux/capability.h: 6 is CAP_SETGID, 7 CAP_SETUID.
    for (capability, hint) in [(6, "CAP_SETGID is needed"), (7, "CAP_SETUID is needed")] {
        let run = sandbox.program().args(["gosu", "agent", "id", "-u"]);
        assert_refused(&run.drop_capability(capability).run(), hint);
    }
}

pub fn a_caller_who_is_that_identity_already_just_execs() {
    let sandbox = Sandbox::new();
    let run = |spec, uid, gid, groups: &[u32]| {
        let command = ["sh", "-c", "id -u; id -g; echo $HOME"];
        sandbox.program().args(["gosu", spec]).args(command).identity(uid, gid, groups).run()
    };
    for spec in ["agent", "1000", "", ":"] {
        let outcome = run(spec, 1000, 1000, &[2376, 2375]);
        assert_eq!(
            (outcome.status, &*outcome.stdout()),
            (0, "1000\n1000\n/home/agent\n"),
            "{spec}"
        );
    }
    assert_eq!(run("1234:5", 1234, 5, &[]).stdout(), "1234\n5\n/\n");
    assert_refused(&run("agent", 1000, 0, &[2375, 2376]), "run it as root");
    // In a user namespace that has no root to become.
    let mapped = sandbox.command("/usr/bin/unshare").args(["--map-user=1000", "--map-group=1000"]);
    let outcome = mapped.args([PROGRAM_INSIDE, "gosu", "1000:1000", "id", "-u"]).run();
    assert_eq!((outcome.status, &*outcome.stdout()), (0, "1000\n"), "{outcome:?}");
}

pub fn a_set_id_copy_refuses_every_applet() {
    let sandbox = Sandbox::new();
    let applets = ok(Command::new(PROGRAM).arg("--list"));
    for mode in [0o4755, 0o2755, 0o6755] {
        // By another process: one that this process forks meanwhile would hold the copy open.
        sandbox.sh(&format!(
            "cp {PROGRAM_INSIDE} /usr/local/bin/copy; chmod {mode:o} /usr/local/bin/copy"
        ));
        for (uid, groups) in [(0, &[][..]), (1000, &[2375, 2376])] {
            let run = |arguments: &[&str]| {
                let run = sandbox.command("/usr/local/bin/copy").args(arguments);
                run.identity(uid, uid, groups).run()
            };
            for arguments in [
                &["gosu", "root", "id"][..],
                &["gosu", "agent", "id"],
                &["gosu", "--help"],
                &["--list"],
            ] {
                assert_refused(&run(arguments), "installed set-user-ID or set-group-ID");
            }
            for applet in applets.lines() {
                assert_refused(&run(&[applet]), "installed set-user-ID or set-group-ID");
            }
        }
    }
    let set_uid = sandbox.command("/usr/local/bin/copy").arg0("gosu").args(["root", "id"]);
    assert_refused(&set_uid.identity(1000, 1000, &[]).run(), "remove the bit: chmod ug-s");
}

/// `gosu SPEC id -u` with system calls that strace answers in the kernel's place.
fn with_injection(sandbox: &Sandbox, calls: &str, spec: &str) -> Outcome {
    sandbox
        .command("/usr/bin/strace")
        .args(["-f", "-o", "/dev/null", "-e", &format!("inject={calls}"), "--"])
        .args([PROGRAM_INSIDE, "gosu", spec, "id", "-u"])
        .run()
}

pub fn the_files_are_read_where_openat2_is_not_to_be_had() {
    let sandbox = Sandbox::new();
    for errno in ["ENOSYS", "EPERM"] {
        let run = |spec| with_injection(&sandbox, &format!("openat2:error={errno}"), spec);
        assert_eq!(run("agent").stdout(), "1000\n");
        assert_refused(&run("nosuch"), "no such user");
        sandbox.sh("mv /etc/group /etc/real; ln -s real /etc/group");
        assert_refused(&run("agent"), "open /etc/group: it is a symbolic link, not followed");
        sandbox.sh("rm /etc/group");
        assert_eq!(run("agent").stdout(), "1000\n");
        sandbox.sh("mv /etc/real /etc/group");
    }
}

pub fn a_drop_that_did_not_happen_is_noticed() {
    let sandbox = Sandbox::new();
    let run = |calls: &str, spec: &str| with_injection(&sandbox, calls, spec);
    for call in ["setgroups", "setresgid", "setresuid"] {
        // The call is not made, and success is reported.
        assert_refused(&run(&format!("{call}:retval=0"), "agent"), "it is not what was asked for");
        assert_refused(&run(&format!("{call}:error=EPERM"), "agent"), "Operation not permitted");
    }
    for read in ["getresuid", "getresgid", "getgroups"] {
        assert_refused(
            &run(&format!("{read}:error=EPERM:when=2+"), "agent"),
            "Operation not permitted",
        );
    }
    assert_refused(&run("capget:error=EPERM", "agent"), "Operation not permitted");
    // The second one asks for root back and must fail.
    assert_refused(&run("setresuid:retval=0:when=2", "agent"), "root can be regained");
    assert_refused(&run("setresuid:error=EAGAIN:when=2", "agent"), "verify that root cannot be");
    // The injections do not simply break everything.
    assert_eq!(run("setresuid:retval=0:when=3", "agent").stdout(), "1000\n");
}

pub fn capabilities_left_after_the_drop_are_noticed() {
    let sandbox = Sandbox::new();
    let run = |spec| {
        sandbox
            .command("/usr/bin/setpriv")
            .args(["--securebits", "+no_setuid_fixup", PROGRAM_INSIDE, "gosu", spec, "id", "-u"])
            .run()
    };
    assert_refused(&run("agent"), "capabilities are left");
    assert_eq!(run("root").stdout(), "0\n");
}

pub fn a_root_with_nothing_but_itself_and_passwd_is_enough() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/passwd"), "agent:x:1000:1000::/:/x\n").unwrap();
    ok(Command::new("cp").arg(PROGRAM).arg(root.path().join("tools")));
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |spec| {
        let mut command = Command::new("chroot");
        command.arg(root.path()).args(["/tools", "gosu", spec, "/tools", "gosu", "1000:1000"]);
        command.args(["/tools", "--version"]).output().unwrap()
    };
    // The inner gosu accepts only the identity that it has, so it tells what the outer one did.
    let output = run("agent");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"molecule-tools "), "{output:?}");
    assert_eq!(run("agent:7").status.code(), Some(1));
}
