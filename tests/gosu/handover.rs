//! What the command is handed: everything of the caller but identity and HOME.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use crate::support::sandbox::{Run, Sandbox};
use crate::support::{PROGRAM, ok, program};

/// What the kernel tells of a process that exec could have changed. The shell's own lines are read by
/// the shell itself: while it waits for a child to exec it blocks all signals.
const STATE: &str = r#"
while read -r line; do
    case $line in
    Umask:*|Uid:*|Gid:*|Groups:*|Cap???:*|NoNewPrivs:*|Seccomp:*|Sig???:*|*allowed_list:*) echo "$line" ;;
    esac
done < /proc/$$/status
cat /proc/$$/limits /proc/$$/oom_score_adj
cut -d ' ' -f 5-6,18-19 /proc/$$/stat
ls /proc/$$/fd
for fd in 0 1 2 7 200; do [ ! -L /proc/$$/fd/$fd ] || cat /proc/$$/fdinfo/$fd; done | grep -E '^(flags|mnt_id)'
readlink /proc/$$/cwd /proc/$$/root /proc/$$/fd/7
tr '\0' '\n' < /proc/$$/environ
cat /proc/$$/cmdline
"#;

/// The same run with and without gosu before it.
#[track_caller]
fn pair(sandbox: &Sandbox, arguments: &[&str], given: impl Fn(Run) -> Run) -> [String; 2] {
    let direct = sandbox.command("/bin/sh").arg0("sh").identity(1000, 1000, &[2375, 2376]);
    let through = sandbox.program().args(["gosu", "agent", "sh"]);
    [direct, through].map(|run| {
        let outcome = given(run.env("HOME", "/home/agent").args(arguments)).run();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        outcome.stdout()
    })
}

pub fn process_state_passes_through_untouched() {
    let sandbox = Sandbox::new();
    sandbox.sh("echo some content > /tmp/file; mkdir /tmp/deep; chmod 755 /tmp/deep");
    let file: OwnedFd = std::fs::File::open(sandbox.path("/tmp/file")).unwrap().into();
    let descriptor = || file.try_clone().unwrap();
    let givens: [(&str, &dyn Fn(Run) -> Run); 8] = [
        ("nothing special", &|run| run),
        ("a umask and a directory", &|run| run.umask(0o137).directory("/tmp/deep")),
        ("descriptors", &|run| run.descriptor(7, descriptor()).descriptor(200, descriptor())),
        ("blocked signals", &|run| run.block(Signal::SIGTERM).block(Signal::SIGPIPE)),
        ("ignored signals", &|run| {
            run.ignore(Signal::SIGUSR1).ignore(Signal::SIGPIPE).ignore(Signal::SIGCHLD)
        }),
        ("an ignored signal but SIGPIPE", &|run| run.ignore(Signal::SIGURG)),
        ("limits", &|run| {
            run.limit(Resource::RLIMIT_NOFILE, 555).limit(Resource::RLIMIT_CORE, 4096)
        }),
        ("a narrowed bounding set", &|run| run.drop_capability(13).drop_capability(21)),
    ];
    for (what, given) in givens {
        let [direct, through] = pair(&sandbox, &["-c", STATE, "zero", ""], given);
        let lines =
            || direct.lines().zip(through.lines()).filter(|(direct, through)| direct != through);
        assert_eq!(lines().next(), None, "{what}");
        assert_eq!(through, direct, "{what}");
    }
    for wrapper in ["/usr/bin/nice -n 7", "/usr/bin/setpriv --no-new-privs", "/usr/bin/setsid -w"] {
        let outputs = ["sh", "setpriv --reuid 1000 --regid 1000 --groups 2375,2376 sh", "gosu"]
            .map(|kind| {
                let words = match kind {
                    "gosu" => format!("{wrapper} /usr/local/bin/molecule-tools gosu agent sh"),
                    kind => format!("{wrapper} {kind}"),
                };
                let script = "grep NoNewPrivs /proc/$$/status; cut -d ' ' -f 18-19 /proc/$$/stat
                    [ $(cut -d ' ' -f 6 /proc/$$/stat) = $$ ] && echo leader; umask; id -u";
                let mut words = words.split(' ');
                let run = sandbox.command(words.next().unwrap()).args(words);
                run.args(["-c", script]).run().stdout()
            });
        assert_eq!(outputs[1], outputs[2], "{wrapper}");
        assert_ne!(outputs[0], outputs[1], "root stayed root: {wrapper}");
    }
    let started = sandbox.program().args(["gosu", "agent", "sh", "-c", "echo $$"]).run();
    assert_eq!(started.stdout(), format!("{}\n", started.pid), "another process");
}

pub fn a_closed_standard_descriptor_stays_closed() {
    let sandbox = Sandbox::new();
    for closed in [&[0][..], &[1], &[2], &[0, 1], &[0, 1, 2]] {
        // Opens nothing before it has looked.
        let script = "seen=; for fd in 0 1 2; do [ -L /proc/$$/fd/$fd ] && seen=\"$seen $fd\"; done
            echo $seen > /tmp/seen.$1; chmod 666 /tmp/seen.$1";
        for name in ["direct", "through"] {
            let run = match name {
                "direct" => sandbox.command("/bin/sh").identity(1000, 1000, &[2375, 2376]),
                _ => sandbox.program().args(["gosu", "agent", "sh"]),
            };
            let run = run.args(["-c", script, "sh", name]);
            closed.iter().fold(run, |run, number| run.close(*number)).run();
        }
        let [direct, through] = ["direct", "through"].map(|name| {
            std::fs::read_to_string(sandbox.path(format!("/tmp/seen.{name}"))).unwrap()
        });
        assert_eq!(through, direct, "{closed:?} closed");
        let open = through.split_whitespace().count();
        assert_eq!(open, 3 - closed.len(), "{closed:?} closed: {through}");
        sandbox.sh("rm /tmp/seen.*");
    }
}

pub fn argv_and_environment_pass_through_byte_for_byte() {
    let sandbox = Sandbox::new();
    let script = "tr '\\0' '\\n' < /proc/$$/environ; cat /proc/$$/cmdline";
    let odd: Vec<OsString> =
        [&b"\xff\xfe"[..], b"a\nb", b"", b"--help", b"--", b"caf\xc3\xa9", b" "]
            .map(|bytes| OsString::from_vec(bytes.to_vec()))
            .into();
    let variables: Vec<(String, OsString)> = (0..2000)
        .map(|number| {
            let value: Vec<u8> = (0..=number % 97).map(|i| (i * 7 + number) as u8 | 0x80).collect();
            (format!("VARIABLE_{number}"), OsString::from_vec(value))
        })
        .collect();
    let [direct, through] = ["direct", "through"].map(|kind| {
        let run = match kind {
            "direct" => sandbox.command("/bin/sh").arg0("sh").identity(1000, 1000, &[2375, 2376]),
            _ => sandbox.program().args(["gosu", "agent", "sh"]),
        };
        let run = run.env("HOME", "/home/agent").envs(variables.clone());
        run.args(["-c", script, "zero"]).args(&odd).run().stdout
    });
    assert_eq!(OsStr::from_bytes(&through), OsStr::from_bytes(&direct));
    assert!(through.len() > 100_000, "{} bytes", through.len());
}

pub fn odd_environment_entries_pass_and_home_comes_once() {
    // An environment that no ordinary program makes: only execve(2) itself can pass it.
    let environment: Vec<CString> = [
        c"A=1",
        c"HOME=/one",
        c"noequals",
        c"=empty",
        c"A=2",
        c"HOME=/two",
        c"HOMER=x",
        c"B=\xff\xfe",
        c"PATH=/usr/bin:/bin",
        c"HOME",
        c"HOME=",
    ]
    .map(CString::from)
    .into();
    let words = [PROGRAM, "gosu", "12345:54321", "cat", "/proc/self/environ"];
    let words: Vec<CString> = words.map(|word| CString::new(word).unwrap()).into();
    let mut command = Command::new("/bin/false");
    let exec = move || -> std::io::Result<()> {
        match nix::unistd::execve(&words[0], &words, &environment) {
            Err(errno) => Err(errno.into()),
        }
    };
    // SAFETY: the closure only execs; its small allocations are safe with this C library.
    #[allow(unsafe_code)]
    let output = unsafe { command.pre_exec(exec) }.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let seen: Vec<&OsStr> = output.stdout.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
    let wanted: [&[u8]; 10] = [
        b"A=1",
        b"HOME=/",
        b"noequals",
        b"=empty",
        b"A=2",
        b"HOMER=x",
        b"B=\xff\xfe",
        b"PATH=/usr/bin:/bin",
        b"HOME",
        b"",
    ];
    assert_eq!(seen, wanted.map(OsStr::from_bytes));
}

pub fn a_reader_of_stderr_that_went_away_does_not_change_the_status() {
    let directory = tempfile::tempdir().unwrap();
    let no_program = directory.path().join("no-program");
    // Written by another process, so that none forked meanwhile by this one holds it open.
    let script = "echo text > $0; chmod 755 $0";
    ok(Command::new("sh").args(["-ec", script]).arg(&no_program));
    // The second one fails in exec itself, for which the inherited disposition is given back.
    for (spec, command) in [("no such user", "true".as_ref()), ("", no_program.as_path())] {
        let (reader, writer) = std::io::pipe().unwrap();
        std::mem::drop(reader);
        let mut run = program();
        let status = run.args(["gosu", spec]).arg(command).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(1), "{spec}");
    }
}
