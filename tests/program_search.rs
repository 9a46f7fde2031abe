//! `Inherited::exec_as_shell` beside the shell's own `exec`: what is found, what it is given, and the
//! exit status when nothing can be run.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Case, test_case};
use molecule_tools::process::{self, Inherited};

/// First argument that makes this test program exec the rest of its arguments.
const EXEC: &str = "--exec-as-shell";

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(what_a_shell_finds_is_found_and_started_alike, &[]),
        test_case!(without_path_the_shells_default_is_searched_and_path_stays_unset, &[]),
        test_case!(the_message_says_what_is_wrong_with_which_file, &[]),
    ]
}

/// What a child does that one of these tests has started: it execs, or returns the status of the failure.
pub fn run_as_helper() -> Option<i32> {
    if std::env::args_os().nth(1).is_none_or(|word| word != EXEC) {
        return None;
    }
    let words: Vec<CString> =
        std::env::args_os().skip(2).map(|word| CString::new(word.as_bytes()).unwrap()).collect();
    let inherited = Inherited::take(words.clone());
    let name = OsStr::from_bytes(words[0].to_bytes());
    let failure = inherited.exec_as_shell(name, &words, &process::environment());
    eprintln!("{}", failure.error);
    Some(failure.status.into())
}

/// Directories with programs of every kind; all of it goes away with the result.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    // Written by another process, so that none forked meanwhile by this one holds a program open.
    let script = r#"
        cd "$0"
        mkdir -p directory/prog plain good bare lost odd
        printf '#!/bin/sh\nprintf "%%s|" "$0" "$@"\n' > good/prog
        cp good/prog plain/prog
        printf 'printf "%%s|" bare "$0" "$@"\nexit 3\n' > bare/prog
        : > bare/empty
        echo '#!/no/such/interpreter' > lost/prog
        echo '#!/etc' > odd/prog
        : > file
        chmod 644 plain/prog file
        chmod 755 good/prog bare/* lost/prog odd/prog
        ln -s loop loop
        ln -s nowhere dangling
    "#;
    crate::support::ok(Command::new("sh").args(["-ec", script]).arg(root.path()));
    root
}

fn run(by: &mut Command, root: &Path, path: Option<&str>, words: &[&str]) -> Output {
    let here = root.to_str().unwrap();
    by.args(words.iter().map(|word| word.replace('@', here))).current_dir(root);
    match path {
        Some(path) => by.env("PATH", path.replace('@', here)),
        None => by.env_remove("PATH"),
    };
    by.output().unwrap()
}

fn ours(root: &Path, path: Option<&str>, words: &[&str]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    run(command.arg(EXEC), root, path, words)
}

fn shells(root: &Path, path: Option<&str>, words: &[&str]) -> Output {
    run(Command::new("/bin/sh").args(["-c", "exec \"$@\"", "sh"]), root, path, words)
}

fn what_a_shell_finds_is_found_and_started_alike() {
    let root = tree();
    let paths = [
        "@/good",
        "@/directory:@/plain:@/nowhere:@/good",
        "@/directory:@/plain",
        "@/plain:@/directory:@/file",
        "@/file:@/loop:@/dangling:@/good",
        "@/file:@/nowhere",
        "@/bare:@/good",
        "@/lost:@/good",
        "@/lost",
        "@/plain:@/lost",
        "@/lost:@/plain",
        "@/odd",
        "@/odd:@/good",
        "good",
        "nowhere:good:",
        ".",
        "",
        ":",
    ];
    let names = [
        "prog",
        "empty",
        "nosuch",
        "",
        "good/prog",
        "./good/prog",
        "@/good/prog",
        "@/bare/prog",
        "@/lost/prog",
        "@/plain/prog",
        "@/directory/prog",
        "@/good/prog/",
        "@/nosuch",
        "file",
        "loop",
        "dangling",
        "@/loop",
        "@/file/prog",
        "..",
        "/",
    ];
    let mut started = 0;
    for path in paths {
        for name in names {
            let words = [name, "--help", "", "a b"];
            let ours = ours(root.path(), Some(path), &words);
            let shells = shells(root.path(), Some(path), &words);
            let seen = |output: &Output| (output.status.code(), output.stdout.clone());
            assert_eq!(seen(&ours), seen(&shells), "{name} in {path}\n{ours:?}\n{shells:?}");
            started += usize::from(!ours.stdout.is_empty());
        }
    }
    assert!(started > 60, "only {started} were started");
}

fn without_path_the_shells_default_is_searched_and_path_stays_unset() {
    let root = tree();
    let words = ["sh", "-c", "tr '\\0' '\\n' < /proc/$$/environ | grep ^PATH=; echo $0", "zero"];
    let output = ours(root.path(), None, &words);
    assert_eq!(output.stdout, b"zero\n", "{output:?}");
    assert_eq!(shells(root.path(), None, &words).stdout, output.stdout);
    assert_eq!(ours(root.path(), None, &["prog"]).status.code(), Some(127));
}

fn the_message_says_what_is_wrong_with_which_file() {
    let root = tree();
    let here = root.path().to_str().unwrap();
    for (path, name, status, message) in [
        ("@/file", "nosuch\n", 127, "run nosuch\\n: not found; install it, or correct PATH"),
        ("@/lost", "prog", 127, "run @/lost/prog: its interpreter does not exist; correct its"),
        ("@/nowhere:@/plain", "prog", 126, "run @/plain/prog: Permission denied"),
        ("", "@/loop", 127, "run @/loop: Too many levels of symbolic links"),
    ] {
        let output = ours(root.path(), Some(path), &[name]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.starts_with(&message.replace('@', here)), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
