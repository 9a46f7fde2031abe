//! The table: names, symlinks, `--list`, `--install`, unknown names.

use std::process::Command;

use crate::support::{Case, PROGRAM, ok, program, test_case};

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(an_unknown_name_lists_the_applets_and_exits_2, &[]),
        test_case!(a_usage_error_repeats_an_argument_escaped, &[]),
        test_case!(install_makes_a_symlink_per_applet_and_says_so, &[]),
        test_case!(install_refuses_to_replace_what_is_no_symlink, &[]),
    ]
}

fn an_unknown_name_lists_the_applets_and_exits_2() {
    let output = program().arg("no\nsuch").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with("molecule-tools: no applet named no\\nsuch\n"), "{stderr}");
    for name in ok(program().arg("--list")).lines() {
        assert!(stderr.contains(&format!("\n  {name} ")), "{name} is not listed: {stderr}");
    }
}

fn a_usage_error_repeats_an_argument_escaped() {
    for applet in ["boot-audit", "restore", "fix-perms", "git-cred-setup", "token-refresh"] {
        let output = program().args([applet, "--\u{9b}\u{202e}"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{applet}: {stderr}");
        assert!(stderr.contains(r"--\xc2\x9b\u{202e}"), "{applet}: {stderr}");
        assert!(!stderr.contains(|c: char| c != '\n' && c.is_control()), "{applet}: {stderr:?}");
    }
    let user = "\u{202e}\u{7f}";
    let directory = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["fix-perms", "--json", "--user", user, "--root"]).arg(directory.path());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(said[0].contains(r#""user":"\u202e\u007f""#), "{said:?}");
    assert!(!said.concat().contains(['\u{202e}', '\u{7f}']), "{said:?}");
}

fn install_makes_a_symlink_per_applet_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let said = ok(program().arg("--install").arg(directory.path()));
    let names = ok(program().arg("--list"));
    assert!(names.lines().count() > 0);
    assert_eq!(said.lines().count(), names.lines().count());
    for name in names.lines() {
        let link = directory.path().join(name);
        assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some(PROGRAM));
        assert!(said.contains(&format!("{}: -> {PROGRAM}\n", link.display())), "{said}");
        let through_link = Command::new(&link).arg("--no-such-option").output().unwrap();
        let by_name = program().args([name, "--no-such-option"]).output().unwrap();
        if name != "entrypoint" {
            assert_eq!(through_link, by_name, "{name}");
            assert!(!by_name.status.success(), "{name}");
        }
    }
    let again = ok(program().arg("--install").arg(directory.path()));
    assert!(again.lines().all(|line| line.contains(": already -> ")), "{again}");
}

fn install_refuses_to_replace_what_is_no_symlink() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("restore"), "mine").unwrap();
    let output = program().arg("--install").arg(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("it is a regular file; remove it first"), "{stderr}");
    assert_eq!(std::fs::read(directory.path().join("restore")).unwrap(), b"mine");
}
