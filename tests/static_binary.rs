//! The program needs nothing but itself: no interpreter, no library, no shell, no /dev, no /proc.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Case, Need, PROGRAM, copy_program, ok, test_case};

pub fn cases() -> Vec<Case> {
    const ALONE: &[Need] = &[Need::Root];
    vec![
        test_case!(it_asks_for_no_interpreter_and_no_library, &[]),
        test_case!(it_lists_itself_in_a_root_without_anything, ALONE),
        test_case!(it_boots_in_a_root_with_nothing_but_a_passwd_file, ALONE),
        test_case!(installing_without_proc_says_what_is_missing, ALONE),
    ]
}

/// ELF64 program header types (elf(5)).
fn it_asks_for_no_interpreter_and_no_library() {
    const PT_DYNAMIC: u32 = 2;
    const PT_INTERP: u32 = 3;
    const DT_NEEDED: u64 = 1;
    let elf = std::fs::read(PROGRAM).unwrap();
    let number = |at: usize, length: usize| -> usize {
        let bytes = elf[at..at + length].iter().rev();
        bytes.fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "64 bits, little-endian");
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    assert!(count > 0);
    for header in (0..count).map(|index| offset + index * size) {
        let kind = u32::try_from(number(header, 4)).unwrap();
        assert_ne!(kind, PT_INTERP, "it asks for a dynamic linker");
        if kind == PT_DYNAMIC {
            // A static position-independent program has one, to relocate itself.
            let (start, length) = (number(header + 8, 8), number(header + 32, 8));
            let needed =
                (start..start + length).step_by(16).any(|at| number(at, 8) as u64 == DT_NEEDED);
            assert!(!needed, "it asks for a shared library");
        }
    }
}

/// Runs the program with `arguments` in a root that holds it and what `prepare` adds.
fn alone(prepare: impl FnOnce(&Path), arguments: &[&str]) -> (tempfile::TempDir, Output) {
    let root = tempfile::tempdir().unwrap();
    copy_program(PROGRAM, root.path().join("molecule-tools"));
    prepare(root.path());
    let mut command = Command::new("chroot");
    command.arg(root.path()).arg("/molecule-tools").args(arguments);
    // chroot(8) itself is found in the rest of PATH.
    command.env_clear().env("PATH", "/:/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.env("MOLECULE_RUNTIME", "molecule-tools").output().unwrap();
    (root, output)
}

fn passwd(root: &Path) {
    std::fs::create_dir(root.join("etc")).unwrap();
    let users = "root:x:0:0::/:/none\nagent:x:1000:1001::/home/agent:/none\n";
    std::fs::write(root.join("etc/passwd"), users).unwrap();
}

fn it_lists_itself_in_a_root_without_anything() {
    let (_root, output) = alone(|_| {}, &["--list"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        ok(crate::support::program().arg("--list"))
    );
}

fn it_boots_in_a_root_with_nothing_but_a_passwd_file() {
    // The only program there is serves as the command and as the runtime too: it prints the list.
    let (root, output) = alone(passwd, &["gosu", "agent", "molecule-tools", "--list"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"boot-audit\n"), "{output:?}");
    drop(root);
    let (root, output) = alone(passwd, &["entrypoint", "--list"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}{:?}", String::from_utf8(output.stderr));
    assert!(stdout.contains("\nuid=0 gid=0 user=root\n"), "{stdout}");
    assert!(stdout.contains("\nuid=1000 gid=1001 user=agent\n"), "{stdout}");
    assert!(stdout.ends_with(&ok(crate::support::program().arg("--list"))), "{stdout}");
    assert!(root.path().join("home/agent/.claude/settings.json").is_file());
}

fn installing_without_proc_says_what_is_missing() {
    let (root, output) =
        alone(|root| std::fs::create_dir(root.join("bin")).unwrap(), &["--install", "/bin"]);
    // It cannot find out its own path without /proc, and says what to do.
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("mount /proc"), "{stderr}");
    assert_eq!(std::fs::read_dir(root.path().join("bin")).unwrap().count(), 0);
}
