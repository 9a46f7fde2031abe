//! Debian's gosu as the oracle.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use pretty_assertions::assert_eq;

use crate::support::sandbox::{Outcome, PROGRAM_INSIDE, Run, Sandbox};

const GOSU: &str = "/usr/sbin/gosu";

/// What the command can see of who it is and what it was given.
pub const PROBE: &str = r#"
grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Umask):' /proc/$$/status
tr '\0' '\n' < /proc/$$/environ | sort
tr '\0' '|' < /proc/$$/cmdline
pwd
"#;

/// Odd lines on which both agree.
const PASSWD: &[u8] = b"\
root:x:0:0:root:/root:/bin/sh

agent:x:1000:1000:agent:/home/agent:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
agent:x:1999:1999::/second:/bin/sh
same:x:1000:77::/same:/bin/sh
2000:x:2001:2001::/two:/bin/sh
 \t indented:x:1004:1004::/indented:/bin/sh
crlf:x:1005:1005::/crlf\r
plus:x:+1008:+1008::/plus:/bin/sh
zeros:x:01009:01009::/zeros:/bin/sh
:x:1010:1010::/nameless:/bin/sh
lat\xe9:x:1011:1011::/h\xe9:/bin/sh
nul\0:x:1012:1012::/nul:/bin/sh
nulhome:x:1013:1013::/a\0b:/bin/sh
nohome:x:1014:1014
emptyhome:x:1016:1016:::/bin/sh
relative:x:1017:1017::some where:/bin/sh
more:x:1018:1018::/more:/bin/sh:and:more
high:x:4000000000:4000000001::/high:/bin/sh
last:x:1015:1015::/last:/bin/sh";

const GROUP: &[u8] = b"\
root:x:0:
docker:x:2375:agent
twice:x:2376:agent,agent
again:x:2376:nobody,agent

 indented:x:2377:indented,crlf,last,2001,1000, agent,agent 
crlf:x:2378:crlf\r
primary:x:1000:same
2000:x:2379:2000,2001
300:x:301:
lat\xe9:x:2381:lat\xe9
high:x:4000000002:high
more:x:2383:more:more
last:x:2382:last";

fn sandbox(passwd: &[u8], group: &[u8]) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("/etc/passwd"), passwd).unwrap();
    std::fs::write(sandbox.path("/etc/group"), group).unwrap();
    sandbox
}

/// The same run by Debian's gosu and by ours.
fn both(sandbox: &Sandbox, run: impl Fn(Run) -> Run) -> [Outcome; 2] {
    let theirs = sandbox.command(GOSU);
    let ours = sandbox.command(PROGRAM_INSIDE).arg("gosu");
    [theirs, ours].map(|command| run(command).run())
}

fn probe(sandbox: &Sandbox, spec: impl AsRef<OsStr>) -> [Outcome; 2] {
    both(sandbox, |command| {
        command
            .arg(&spec)
            .args(["sh", "-c", PROBE, "zero", "one"])
            .env("HOME", "/old")
            .env("X", "y")
    })
}

/// Asserts that both did the same; the texts on standard error are each their own.
#[track_caller]
fn assert_alike(what: &str, [theirs, ours]: &[Outcome; 2]) {
    let seen = |outcome: &Outcome| (outcome.status, outcome.stdout());
    assert_eq!(seen(ours), seen(theirs), "{what}\n{ours:?}\n{theirs:?}");
    assert_eq!(ours.stderr.is_empty(), theirs.stderr.is_empty(), "{what}\n{ours:?}\n{theirs:?}");
}

pub fn every_spec_gives_what_debians_gosu_gives() {
    let sandbox = sandbox(PASSWD, GROUP);
    let texts = "root 0 00 -0 agent 1000 01000 +1000 nobody 65534 same 77 2000 2001 indented 1004 crlf \
        plus 1008 zeros 1009 01009 1010 1012 nulhome 1013 nohome 1014 emptyhome relative more high \
        4000000000 4000000001 last 1015 12345 2147483647 2147483648 3000000000 4294967294 4294967296 \
        -1 -5 99999999999999999999 9223372036854775807 9223372036854775808 0x10 1e3 1_000 1000. AGENT \
        nosuch : :: ::5 :5 :docker :nosuch agent: agent:: agent::5 agent:docker agent:2375 agent:0 \
        agent:root agent:300 agent:301 agent:2000 agent:high agent:4000000002 agent:5 agent:5:6 \
        agent:docker:x agent:nosuch agent:nosuch:x agent:-1 agent:2147483647 agent:2147483648 \
        agent:4294967296 1000:docker 1000:1000 12345:54321 12345: 12345:docker nosuch:docker \
        nobody:docker root:docker 0:0 2000:2000";
    let odd = ["", " agent", "agent ", "1000 ", " 1000", "agent: docker", "agent:docker ", "\n"];
    let latin: [&[u8]; 4] = [b"lat\xe9", b"agent:lat\xe9", b"\xff", b"agent:\xff"];
    let all =
        texts.split_whitespace().map(str::as_bytes).chain(odd.map(str::as_bytes)).chain(latin);
    let mut succeeded = 0;
    for spec in all {
        let outcomes = probe(&sandbox, OsStr::from_bytes(spec));
        assert_alike(&format!("{:?}", OsStr::from_bytes(spec)), &outcomes);
        let ours = &outcomes[1];
        assert!([0, 1].contains(&ours.status), "{ours:?}");
        assert_eq!(ours.stderr().lines().count(), ours.status as usize, "{ours:?}");
        succeeded += usize::from(ours.status == 0);
    }
    assert!(succeeded > 50, "only {succeeded} specs came as far as the probe");
}

/// What ours does instead.
enum Ours {
    Refuses(&'static str),
    /// Succeeds, and the probe's output has this line.
    Shows(&'static str),
}

pub fn every_listed_difference_from_debians_gosu_occurs() {
    use Ours::{Refuses, Shows};
    let long = format!("long:x:1020:1020:{}:/long:/bin/sh\n", "x".repeat(70_000));
    let uid = "its uid field is malformed";
    let gid = "its gid field is malformed";
    let rows: &[(&str, &str, &str, Ours, &str)] = &[
        ("a:x:abc:5::/:", "", "a", Refuses(uid), "a malformed uid makes the user root"),
        ("a:x::5::/:", "", "a", Refuses(uid), "an empty uid makes the user root"),
        ("a:x: 7:5::/:", "", "a", Refuses(uid), "a uid with a blank makes the user root"),
        ("a", "", "a", Refuses(uid), "a line without fields makes the user root"),
        ("a:x:7:abc::/:", "", "a", Refuses(gid), "a malformed gid is group root"),
        ("a:x:7", "", "7", Refuses(gid), "a missing gid is group root"),
        ("a:x:4294967296:5::/:", "", "a", Refuses(uid), "2^32 wraps to root"),
        ("a:x:7:4294967296::/:", "", "a", Refuses(gid), "2^32 wraps to group root"),
        ("a:x:-4294967296:5::/:", "", "a", Refuses(uid), "-2^32 wraps to root"),
        ("#a:x:1:1::/:", "", "#a", Refuses("no such user"), "a comment is a user"),
        (
            "# system users\nroot:x:0:0::/root:",
            "",
            "0",
            Shows("HOME=/root"),
            "a comment before root's line takes its place",
        ),
        (
            "a:x:7:7::/:",
            "b:x:abc:a\ng:x:8:a",
            "a",
            Shows("Groups:\t8 "),
            "a malformed group line adds group root",
        ),
        (
            "a:x:7:7::/:",
            "b:x:4294967296:a\ng:x:8:a",
            "a",
            Shows("Groups:\t8 "),
            "2^32 in the group file adds group root",
        ),
        (
            "a:x:7:7::/:",
            "b:x:-5:a\ng:x:8:a",
            "a",
            Shows("Groups:\t8 "),
            "a negative gid wraps, or fails for every member",
        ),
        ("a:x:7:7::/:", "b:x:abc:", "a:b", Refuses("no such group"), "its gid would be 0"),
        (
            &long,
            "",
            "long",
            Shows("Uid:\t1020\t1020\t1020\t1020"),
            "it fails on a line over 64 KiB",
        ),
        (
            &format!("{long}a:x:7:7::/:"),
            "",
            "a",
            Shows("Uid:\t7\t7\t7\t7"),
            "it fails behind a line over 64 KiB",
        ),
    ];
    for (passwd, group, spec, expected, why) in rows {
        let sandbox = sandbox(passwd.as_bytes(), group.as_bytes());
        let [theirs, ours] = probe(&sandbox, spec);
        match expected {
            Refuses(reason) => {
                assert_eq!(ours.status, 1, "{why}: {ours:?}");
                assert!(ours.stderr().contains(reason), "{why}: {ours:?}");
                assert!(ours.stdout.is_empty(), "{why}: {ours:?}");
            }
            Shows(line) => {
                assert_eq!(ours.status, 0, "{why}: {ours:?}");
                assert!(ours.stdout().lines().any(|found| found == *line), "{why}: {ours:?}");
            }
        }
        let alike = (theirs.status, theirs.stdout()) == (ours.status, ours.stdout());
        assert!(!alike, "the difference \"{why}\" does not occur any more\n{theirs:?}");
    }
    let sandbox = sandbox(PASSWD, GROUP);
    let [theirs, ours] = both(&sandbox, |run| {
        run.identity(1000, 1000, &[2375, 2376, 2376, 2377]).args(["agent", "id", "-u"])
    });
    assert_eq!((ours.status, ours.stdout().trim()), (0, "1000"), "{ours:?}");
    assert_eq!(theirs.status, 1, "the difference \"an identity one has\" does not occur any more");
}

pub fn missing_and_odd_files_are_read_as_debians_gosu_reads_them() {
    for change in [
        "rm /etc/passwd",
        "rm /etc/group",
        "rm /etc/passwd /etc/group",
        ": > /etc/passwd",
        ": > /etc/group",
        "rm /etc/passwd; mkdir /etc/passwd",
        "rm /etc/group; mkdir /etc/group",
        "rm /etc/passwd; ln -s nowhere /etc/passwd",
        "mv /etc/passwd /etc/real; ln -s /etc/real /etc/passwd",
        "mv /etc/group /etc/real; ln -s ../etc/real /etc/group",
        "rm -r /etc",
    ] {
        let sandbox = sandbox(PASSWD, GROUP);
        sandbox.sh(change);
        for spec in ["agent", "1000", "12345:0", "1000:2375", "1000:docker", "", ":5"] {
            assert_alike(&format!("{change}: {spec}"), &probe(&sandbox, spec));
        }
    }
}

pub fn with_65537_groups_are_refused_and_65536_are_not() {
    for (count, status) in [(65_536, 0), (65_537, 1)] {
        let mut group = String::new();
        for gid in 0..count {
            writeln!(group, "g{gid}:x:{}:agent", gid + 10).unwrap();
        }
        let sandbox = sandbox(PASSWD, group.as_bytes());
        let outcomes = both(&sandbox, |run| run.args(["agent", "id", "-u"]));
        assert_alike(&format!("{count} groups"), &outcomes);
        assert_eq!(outcomes[1].status, status, "{:?}", outcomes[1]);
    }
    let members = "someone,".repeat(20_000);
    let sandbox = sandbox(PASSWD, format!("long:x:4444:{members}agent\n").as_bytes());
    let outcomes = probe(&sandbox, "agent");
    assert_alike("a group line over 64 KiB", &outcomes);
    assert!(outcomes[1].stdout().contains("Groups:\t4444 "), "{:?}", outcomes[1]);
}

pub fn the_command_line_is_read_as_debians_gosu_reads_it() {
    let sandbox = sandbox(PASSWD, GROUP);
    let lines: &[&[&str]] = &[
        &[],
        &["agent"],
        &["--"],
        &["--no-such-option"],
        &["--", "agent", "true"],
        &["agent", "--", "true"],
        &["agent", "--help"],
        &["agent", "true", "--help"],
        &["agent", "printf", "%s|", "--version", "-h", "--", ""],
        &["-x", "true"],
        &["", ""],
        &["agent", ""],
        &["agent", "false"],
        &["agent", "sh", "-c", "exit 77"],
        &["agent", "sh", "-c", "kill -9 $$"],
        &["nosuch", "nosuch"],
    ];
    for line in lines {
        assert_alike(&format!("{line:?}"), &both(&sandbox, |run| run.args(*line)));
    }
    for first in ["--help", "-h", "-?", "--version", "-v"] {
        for rest in [&[][..], &["agent", "true"]] {
            for outcome in both(&sandbox, |run| run.arg(first).args(rest)) {
                assert_eq!(outcome.status, 0, "{first}: {outcome:?}");
                assert!(!outcome.stdout.is_empty(), "{first}");
                assert!(outcome.stderr.is_empty(), "{first}: {outcome:?}");
            }
        }
    }
}

pub fn the_command_is_found_as_debians_gosu_finds_it() {
    let sandbox = sandbox(PASSWD, GROUP);
    sandbox.sh(r#"
        mkdir -p /p1/prog /p2 /p3 /p4 /p5 /p6
        printf '#!/bin/sh\necho "$0" "$@"\n' > /p3/prog
        cp /p3/prog /p2/prog
        cp /p3/prog /p5/prog
        cp /p3/prog /p6/prog
        chmod 755 /p3/prog /p5/prog /p6/prog
        printf 'echo no first line\n' > /p4/noshebang
        printf '#!/no/such/interpreter\n' > /p4/nointerpreter
        chmod 755 /p4/*
        ln -s ../p3/prog /p4/prog
        ln -s loop /p4/loop
        mkfifo /p4/fifo
        chown agent: /p5; chmod 700 /p5 /p6
        "#);
    let paths = [
        Some("/p1:/p2:/p3"),
        Some("/p3/"),
        Some("/nonexistent:/p2:/p4"),
        Some("/p1:/p2"),
        Some("/p5"),
        Some("/p6"),
        Some("/p6:/p3"),
        Some(""),
        Some(":"),
        Some("."),
        Some(":/p3"),
        Some("/p3:"),
        Some("p3"),
        Some("./p3:/p3"),
        Some("p1:p2:/p3"),
        Some("/p4"),
        None,
    ];
    let names = "prog /p3/prog p3/prog ./p3/prog ../p3/prog /p1/prog /p2/prog /p3/prog/ noshebang \
        /p4/noshebang nointerpreter loop fifo nosuch /p3/nosuch /nonexistent/prog . .. /";
    let mut found = 0;
    for path in paths {
        for directory in ["/", "/p3"] {
            for name in names.split_whitespace() {
                let outcomes = both(&sandbox, |run| {
                    let run = run.directory(directory).args(["agent", name, "argument"]);
                    match path {
                        Some(path) => run.env("PATH", path),
                        None => run.env_remove("PATH"),
                    }
                });
                assert_alike(&format!("{name} in {path:?} at {directory}"), &outcomes);
                assert!([0, 1].contains(&outcomes[1].status), "{:?}", outcomes[1]);
                found += usize::from(outcomes[1].status == 0);
            }
        }
    }
    assert!(found > 60, "only {found} were found");
}
