//! As whom the runtime runs: never as root unless somebody wrote that down.

use crate::entrypoint::{boots, entrypoint};
use crate::support::runtime::{View, sandbox, take_view};
use crate::support::sandbox::{Outcome, PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, test_case};

const ROOT: &[Need] = &[Need::Root];
const STRACE: &[Need] = &[Need::Root, Need::Program("strace")];
const GIT: &[Need] = &[Need::Root, Need::Program("git")];
const SETPRIV: &[Need] = &[Need::Root, Need::Program("setpriv")];

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(an_agent_that_is_root_by_accident_never_runs, ROOT),
        test_case!(root_in_words_runs_as_root, ROOT),
        test_case!(a_group_file_that_lists_the_agent_in_roots_group_is_told, ROOT),
        test_case!(a_start_as_another_user_gives_up_its_capabilities, SETPRIV),
        test_case!(a_drop_that_is_left_out_is_noticed, STRACE),
        test_case!(a_user_database_that_fails_once_is_read_again, STRACE),
        test_case!(a_user_database_that_stays_unreadable_guesses_nobody, STRACE),
        test_case!(a_user_database_of_128_mib_is_not_read_whole, GIT),
    ]
}

/// A boot that ends with status 1 and one line on standard error, after the root work.
#[track_caller]
fn refused(sandbox: &Sandbox, run: Run, reason: &str) -> Outcome {
    let outcome = run.run();
    let ran = take_view(sandbox);
    assert!(ran.is_none(), "the runtime ran as {:?}\n{outcome:?}", ran.map(|view| ids(&view)));
    assert_eq!((outcome.status, outcome.stderr().lines().count()), (1, 1), "{outcome:?}");
    assert!(outcome.stderr().contains(reason), "{reason}: {outcome:?}");
    outcome
}

fn ids(view: &View) -> [String; 3] {
    ["Uid", "Gid", "Groups"].map(|name| view[name].clone())
}

fn an_agent_that_is_root_by_accident_never_runs() {
    const PASSWD: &str = "
        echo 'toor:x:0:0::/root:/bin/sh
staff:x:1001:0::/home/staff:/bin/sh' >> etc/passwd";
    for (agent, reason) in [
        (":", "its user part is empty"),
        (":agent", "its user part is empty"),
        (":1000", "its user part is empty"),
        (" ", "no such user"),
        ("\t:agent", "no such user"),
        ("toor", "its uid is 0"),
        ("toor:agent", "its uid is 0"),
        ("00", "its uid is 0"),
        ("staff", "its gid is 0"),
        ("4321", "its gid is 0"),
    ] {
        let sandbox = sandbox(&format!("{PASSWD}\n: > configs/f; chmod 600 configs/f"));
        let outcome = refused(&sandbox, entrypoint(&sandbox).env("MOLECULE_AGENT", agent), reason);
        // The root work was attempted, and nothing was given to root's namesake.
        let log = outcome.stdout();
        let warning = log.lines().find(|line| line.starts_with("MOLECULE-PERMS: WARN "));
        assert!(warning.is_some_and(|line| line.contains("nothing is given")), "{agent:?}: {log}");
        assert!(sandbox.path("/workspace/.molecule/chat-uploads").is_dir(), "{agent:?}");
        let owners = sandbox.sh("stat -c '%u %g' /configs /configs/f /workspace");
        assert_eq!(owners, "0 0\n0 0\n0 0\n", "{agent:?}");
        // By hand it is the same question with the same answer.
        for applet in ["fix-perms", "git-cred-setup"] {
            let outcome = sandbox.program().args([applet, "--user", agent]).run();
            assert_eq!(outcome.status, 1, "{applet}: {outcome:?}");
            let log = outcome.stdout();
            assert!(log.contains(reason), "{applet} {agent:?}: {log}");
        }
    }
    // An image whose agent is root.
    for line in ["agent:x:0:0::/home/agent:/bin/sh", "agent:x:1000:0::/home/agent:/bin/sh"] {
        let sandbox =
            sandbox(&format!("sed -i /^agent:/d etc/passwd; echo '{line}' >> etc/passwd"));
        refused(&sandbox, entrypoint(&sandbox), "id is 0; ");
    }
}

fn root_in_words_runs_as_root() {
    let sandbox = sandbox("");
    for (agent, uid, gid) in [
        ("root", "0", "0"),
        ("0", "0", "0"),
        ("0:1000", "0", "1000"),
        ("root:root", "0", "0"),
        ("agent:root", "1000", "0"),
        ("agent:0", "1000", "0"),
        ("4321:0", "4321", "0"),
        ("4321:4321", "4321", "4321"),
        ("", "1000", "1000"),
    ] {
        let (_, view) = boots(&sandbox, entrypoint(&sandbox).env("MOLECULE_AGENT", agent));
        let four = |id: &str| [id; 4].join(" ");
        assert_eq!((&view["Uid"], &view["Gid"]), (&four(uid), &four(gid)), "{agent:?}");
        let capabilities = u64::from_str_radix(&view["CapPrm"], 16).unwrap();
        assert_eq!(capabilities != 0, uid == "0", "{agent:?}");
    }
}

fn a_group_file_that_lists_the_agent_in_roots_group_is_told() {
    let sandbox = sandbox("sed -i 's/^root:.*/root:x:0:agent/' etc/group");
    let (outcome, view) = boots(&sandbox, entrypoint(&sandbox));
    assert_eq!((&*view["Groups"], &*view["Gid"]), ("0 2375 2376", "1000 1000 1000 1000"));
    assert_eq!(
        outcome.stderr(),
        "entrypoint: WARN /etc/group lists the agent in root's group (0)\n"
    );
}

fn a_start_as_another_user_gives_up_its_capabilities() {
    let sandbox = sandbox("");
    let run = |inheritable: &str, ambient: &str| {
        sandbox
            .command("/usr/bin/setpriv")
            .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
            .args(["--inh-caps", inheritable, "--ambient-caps", ambient])
            .args([PROGRAM_INSIDE, "entrypoint"])
    };
    const CAPABILITIES: &str = "+net_bind_service,+setuid,+setgid,+sys_admin";
    for ambient in ["+net_bind_service", "+setuid,+setgid,+sys_admin", "-all"] {
        let (outcome, view) = boots(&sandbox, run(CAPABILITIES, ambient));
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(view[set], "0000000000000000", "{ambient}: {set}");
        }
        assert_eq!(
            outcome.stderr(),
            "entrypoint: WARN started with capabilities, which are given up\n"
        );
    }
    let (outcome, _) = boots(&sandbox, entrypoint(&sandbox).identity(1000, 1000, &[2375]));
    assert_eq!(outcome.stderr(), "");
    // Root's group is not this process's to leave.
    let (outcome, view) = boots(&sandbox, entrypoint(&sandbox).identity(1000, 0, &[]));
    assert_eq!(view["Gid"], "0 0 0 0");
    assert_eq!(outcome.stderr(), "entrypoint: WARN started with root's group (0) as its own\n");
}

/// The boot with system calls on `path` (all if empty) that strace answers in the kernel's place. They
/// know it relative to "/" as well, which is not where strace looks relative paths up.
fn with_injection(sandbox: &Sandbox, path: &str, calls: &str) -> Run {
    let run = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
    let run = if path.is_empty() {
        run
    } else {
        run.args(["-P", &path[1..], "-P", path]).directory("/tmp")
    };
    run.args(["-e", &format!("inject={calls}"), PROGRAM_INSIDE, "entrypoint"])
}

fn a_drop_that_is_left_out_is_noticed() {
    let sandbox = sandbox("");
    // It is told that it is another user, and is root all the same.
    refused(&sandbox, with_injection(&sandbox, "", "geteuid:retval=1000"), "that user is root");
    let none = with_injection(&sandbox, "", "setresuid:retval=0:when=1");
    refused(&sandbox, none, "it is not what was asked for");
}

fn a_user_database_that_fails_once_is_read_again() {
    let sandbox = sandbox("");
    for file in ["/etc/passwd", "/etc/group"] {
        for calls in ["openat2:error=EIO:when=1+2", "read:error=EIO:when=1+3"] {
            let (outcome, view) = boots(&sandbox, with_injection(&sandbox, file, calls));
            assert_eq!((&*view["Groups"], &*outcome.stderr()), ("2375 2376", ""), "{file} {calls}");
        }
    }
}

fn a_user_database_that_stays_unreadable_guesses_nobody() {
    let sandbox = sandbox("");
    for calls in ["openat2:error=EIO", "read:error=EIO", "openat2:error=ENOMEM"] {
        let reason = if calls.ends_with("EIO") { "Input/output error" } else { "Cannot allocate" };
        let outcome = refused(&sandbox, with_injection(&sandbox, "/etc/passwd", calls), reason);
        assert!(outcome.stderr().contains("/etc/passwd"), "{outcome:?}");
        let (outcome, view) = boots(&sandbox, with_injection(&sandbox, "/etc/group", calls));
        assert_eq!(ids(&view), ["1000 1000 1000 1000", "1000 1000 1000 1000", ""], "{calls}");
        let said = outcome.stderr();
        assert!(said.contains(reason) && said.contains("/etc/group"), "{said}");
        assert!(said.ends_with("the agent gets no supplementary groups\n"), "{said}");
        // A group that was asked for and cannot be looked up is not guessed.
        let named = with_injection(&sandbox, "/etc/group", calls);
        refused(&sandbox, named.env("MOLECULE_AGENT", "agent:docker"), reason);
    }
    // The look-up before the ownership steps holds, whatever the disk does afterwards.
    let later = with_injection(&sandbox, "/etc/passwd", "openat2:error=EIO:when=3+");
    let (outcome, view) = boots(&sandbox, later);
    assert_eq!((&*view["Groups"], &*outcome.stderr()), ("2375 2376", ""));
}

fn a_user_database_of_128_mib_is_not_read_whole() {
    const MEMORY: u64 = 64 << 10;
    let sandbox = sandbox("");
    let grow = |file: &str, line: &str, place: &str| {
        let script = format!(
            "cp /etc/{file} /tmp/{file}; yes '{line}' | head -c 134217728 > /tmp/more
             cat {place} > /etc/{file}; rm /tmp/more"
        );
        sandbox.sh(&script.replace("FILE", &format!("/tmp/{file}")));
    };
    let user = "user:x:5000:5000:somebody with a name of some length:/home/user:/bin/sh";
    let measured = |applet: &str| {
        let mut command = crate::support::program();
        command.args([applet, "--root"]).arg(sandbox.path("/"));
        crate::support::peak_memory(&mut command)
    };
    // Who is found in what is read is certain.
    grow("passwd", user, "FILE /tmp/more");
    let (outcome, view) = boots(&sandbox, entrypoint(&sandbox));
    assert_eq!((&*view["Groups"], &*outcome.stderr()), ("2375 2376", ""));
    for applet in ["fix-perms", "git-cred-setup", "boot-audit"] {
        let (output, memory) = measured(applet);
        assert!(memory < MEMORY, "{applet}: {memory} KiB");
        assert_eq!(output.status.code(), Some(0), "{applet}: {output:?}");
    }
    // Who is not found there is not known to be absent.
    sandbox.sh("cp /tmp/passwd /etc/passwd");
    grow("passwd", user, "/tmp/more FILE");
    let reason = "read all of /etc/passwd: it is larger than 16 MiB; make it smaller";
    refused(&sandbox, entrypoint(&sandbox), reason);
    refused(&sandbox, entrypoint(&sandbox).env("MOLECULE_AGENT", "1000:1000"), reason);
    let audit = sandbox.program().arg("boot-audit").run();
    assert!(audit.stdout().contains(" user=?("), "{audit:?}");
    sandbox.sh("cp /tmp/passwd /etc/passwd");
    // Any line of the group file may list the agent.
    grow("group", "agents:x:5000:user,other,another", "FILE /tmp/more");
    let (outcome, view) = boots(&sandbox, entrypoint(&sandbox));
    assert_eq!(ids(&view)[2], "");
    let said = outcome.stderr();
    assert!(said.contains("read all of /etc/group: it is larger than 16 MiB"), "{said}");
    assert!(said.ends_with("the agent gets no supplementary groups\n"), "{said}");
    let (_, memory) = measured("fix-perms");
    assert!(memory < MEMORY, "{memory} KiB");
}
