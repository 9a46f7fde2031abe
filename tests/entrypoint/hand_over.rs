//! What the runtime is given.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use crate::entrypoint::{boots, entrypoint};
use crate::support::runtime::{STATUS, sandbox, take_view};
use crate::support::{Case, Need, test_case};

const ROOT: &[Need] = &[Need::Root];

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(every_argument_goes_to_the_runtime_untouched, ROOT),
        test_case!(the_environment_is_untouched_but_for_home, ROOT),
        test_case!(two_thousand_variables_pass_through, ROOT),
        test_case!(home_is_left_alone_without_a_drop, ROOT),
        test_case!(ids_and_groups_are_those_of_the_files, ROOT),
        test_case!(the_process_is_the_one_that_was_started, ROOT),
        test_case!(dispositions_are_those_that_were_inherited, ROOT),
        test_case!(closed_descriptors_are_closed_for_the_runtime, ROOT),
        test_case!(user_and_runtime_can_be_named, ROOT),
        test_case!(as_a_symlink_it_does_the_same, ROOT),
        test_case!(a_runtime_killed_by_a_signal_is_seen_as_such, ROOT),
    ]
}

fn every_argument_goes_to_the_runtime_untouched() {
    let sandbox = sandbox("");
    let odd = ["--help", "--version", "", "two words", "new\nline", "-", "--", "gosu", "$HOME"];
    let run = entrypoint(&sandbox).args(odd).arg(OsStr::from_bytes(b"bad\xff"));
    let (_, view) = boots(&sandbox, run);
    let expected = concat!(
        r#""molecule-runtime" "--help" "--version" "" "two words" "new\nline" "-" "--" "gosu" "#,
        r#""$HOME" "bad\xff""#
    );
    assert_eq!(view["argv"], expected);
}

fn the_environment_is_untouched_but_for_home() {
    let sandbox = sandbox("");
    let run =
        entrypoint(&sandbox).env("not-an-identifier", "1").env("B", OsStr::from_bytes(b"\xff"));
    let run = run.env("new", "a\nb").env("EMPTY", "").env("USER", "root").env("LOGNAME", "x");
    let (_, view) = boots(&sandbox, run);
    let entries: Vec<_> = view
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("env ")?, value.as_str())))
        .filter(|(name, _)| *name != "entries")
        .collect();
    let expected = [
        (r#""B""#, r#""=\xff""#),
        (r#""EMPTY""#, r#""=""#),
        (r#""HOME""#, r#""=/home/agent""#),
        (r#""HOSTNAME""#, r#""=sandbox""#),
        (r#""LOGNAME""#, r#""=x""#),
        (r#""PATH""#, r#""=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin""#),
        (r#""USER""#, r#""=root""#),
        (r#""new""#, r#""=a\nb""#),
        (r#""not-an-identifier""#, r#""=1""#),
    ];
    assert_eq!(entries, expected);
}

fn two_thousand_variables_pass_through() {
    let sandbox = sandbox("");
    let value = "v".repeat(500);
    let many = (0..2000).map(|number| (format!("VARIABLE_{number}"), &value));
    let (_, view) = boots(&sandbox, entrypoint(&sandbox).envs(many));
    assert_eq!(view["env entries"], "2003");
    assert_eq!(view["env \"VARIABLE_1999\""], format!("\"={value}\""));
}

fn home_is_left_alone_without_a_drop() {
    let sandbox = sandbox("");
    let run = entrypoint(&sandbox).identity(1000, 1000, &[]).env("HOME", "/somewhere");
    assert_eq!(boots(&sandbox, run).1["env \"HOME\""], "\"=/somewhere\"");
    let run = entrypoint(&sandbox).identity(1000, 1000, &[]).env_remove("HOME");
    assert!(!boots(&sandbox, run).1.contains_key("env \"HOME\""));
    let (_, view) = boots(&sandbox, entrypoint(&sandbox).env_clear());
    assert_eq!((&*view["env \"HOME\""], &*view["env entries"]), ("\"=/home/agent\"", "1"));
}

fn ids_and_groups_are_those_of_the_files() {
    let sandbox = sandbox("");
    let (_, view) = boots(&sandbox, entrypoint(&sandbox));
    let seen = ["Uid", "Gid", "Groups"].map(|name| view[name].as_str());
    assert_eq!(seen, ["1000 1000 1000 1000", "1000 1000 1000 1000", "2375 2376"]);
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(view[set], "0000000000000000", "{set}");
    }
}

fn the_process_is_the_one_that_was_started() {
    let sandbox = sandbox("");
    let null = || std::fs::File::open("/dev/null").unwrap();
    let run = entrypoint(&sandbox)
        .umask(0o027)
        .directory("/app")
        .block(Signal::SIGUSR2)
        .limit(Resource::RLIMIT_NOFILE, 77)
        .descriptor(5, null())
        .descriptor(9, null())
        .stdin(std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE")).unwrap());
    let (outcome, view) = boots(&sandbox, run);
    assert_eq!(view["pid"], outcome.pid.to_string());
    assert_eq!(view["PPid"], std::process::id().to_string());
    assert_eq!(view["Umask"], "0027");
    assert_eq!(view["cwd"], "/app");
    assert_eq!(view["SigBlk"], "0000000000000800");
    assert_eq!(view["Threads"], "1");
    assert_eq!(view["NoNewPrivs"], "0");
    assert!(view["limit Max open files"].starts_with("77 "), "{}", view["limit Max open files"]);
    assert!(view["stdin"].starts_with("\"MIT License"), "{}", view["stdin"]);
    let open: Vec<_> = view.keys().filter(|name| name.starts_with("fd ")).collect();
    assert_eq!(open, ["fd 0", "fd 1", "fd 2", "fd 5", "fd 9"]);
}

fn dispositions_are_those_that_were_inherited() {
    let ignored = |view: &str| u64::from_str_radix(view, 16).unwrap() & 0x7fff_ffff;
    let sandbox = sandbox("");
    let (_, view) = boots(&sandbox, entrypoint(&sandbox));
    assert_eq!(ignored(&view["SigIgn"]), 0, "SIGPIPE most of all");
    assert_eq!(view["SigCgt"], "0000000000000000");
    let run = entrypoint(&sandbox).ignore(Signal::SIGPIPE).ignore(Signal::SIGUSR1);
    assert_eq!(ignored(&boots(&sandbox, run).1["SigIgn"]), 1 << 12 | 1 << 9);
}

fn closed_descriptors_are_closed_for_the_runtime() {
    let sandbox = sandbox("");
    let (outcome, view) = boots(&sandbox, entrypoint(&sandbox).close(0).close(1).close(2));
    assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty());
    let open: Vec<_> = view.keys().filter(|name| name.starts_with("fd ")).collect();
    assert!(open.is_empty(), "{open:?}");
    let (_, view) = boots(&sandbox, entrypoint(&sandbox).close(1));
    assert!(!view.contains_key("fd 1") && view.contains_key("fd 2"));
}

fn user_and_runtime_can_be_named() {
    let sandbox = sandbox(
        "echo worker:x:1234:4321:w:/srv/worker:/bin/sh >> etc/passwd
         echo team:x:99:worker >> etc/group; mkdir -p srv/worker opt/agent/bin
         ln -s /usr/local/bin/molecule-runtime opt/agent/bin/other-molecule-runtime",
    );
    let run = entrypoint(&sandbox)
        .env("MOLECULE_AGENT", "worker")
        .env("MOLECULE_RUNTIME", "/opt/agent/bin/other-molecule-runtime");
    let (_, view) = boots(&sandbox, run.arg("x"));
    assert_eq!((&*view["Gid"], &*view["Groups"]), ("4321 4321 4321 4321", "99"));
    assert_eq!(view["Uid"], "1234 1234 1234 1234");
    assert_eq!(view["env \"HOME\""], "\"=/srv/worker\"");
    assert_eq!(view["argv"], "\"/opt/agent/bin/other-molecule-runtime\" \"x\"");
    let run = entrypoint(&sandbox).env("MOLECULE_RUNTIME", "").env("MOLECULE_AGENT", "");
    assert_eq!(boots(&sandbox, run).1["Uid"], "1000 1000 1000 1000");
}

fn as_a_symlink_it_does_the_same() {
    let sandbox = sandbox("ln -s /usr/local/bin/molecule-tools usr/local/bin/entrypoint");
    let run = sandbox.command("/usr/local/bin/entrypoint").args(["--help", "x"]);
    assert_eq!(boots(&sandbox, run).1["argv"], "\"molecule-runtime\" \"--help\" \"x\"");
}

fn a_runtime_killed_by_a_signal_is_seen_as_such() {
    let sandbox = sandbox("");
    sandbox.install("/usr/local/sbin/molecule-runtime", "#!/bin/sh\nkill -KILL $$\n");
    assert_eq!(entrypoint(&sandbox).run().status, 128 + 9);
    sandbox.install("/usr/local/sbin/molecule-runtime", "#!/bin/sh\nexit 42\n");
    assert_eq!(entrypoint(&sandbox).run().status, 42);
    std::fs::remove_file(sandbox.path("/usr/local/sbin/molecule-runtime")).unwrap();
    assert_eq!(entrypoint(&sandbox).run().status, STATUS);
    assert!(take_view(&sandbox).is_some());
}
