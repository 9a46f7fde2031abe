//! The table: names, symlinks, `--list`, `--install`, unknown names.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Case, Need, PROGRAM, copy_program, ok, program, test_case};

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(an_unknown_name_lists_the_applets_and_exits_2, &[]),
        test_case!(a_name_that_is_nearly_one_is_guessed, &[]),
        test_case!(help_of_an_applet_is_its_own, &[]),
        test_case!(a_usage_error_repeats_an_argument_escaped, &[]),
        test_case!(install_makes_a_symlink_per_applet_and_says_so, &[]),
        test_case!(install_refuses_to_replace_what_is_no_symlink, &[]),
        test_case!(
            installed_links_hold_in_a_copy_and_stand_for_a_templates_entrypoint,
            &[Need::Root]
        ),
        test_case!(install_as_another_name_is_a_usage_error, &[]),
        test_case!(a_stub_has_what_is_looked_for_and_is_the_program, &[Need::Root]),
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

fn a_name_that_is_nearly_one_is_guessed() {
    for (typed, meant) in
        [("restor", "restore"), ("fixperms", "fix-perms"), ("token_refresh", "token-refresh")]
    {
        for words in [&[typed][..], &["help", typed]] {
            let output = program().args(words).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            let line = format!("molecule-tools: no applet named {typed}; did you mean {meant}?\n");
            assert!(output.status.code() == Some(2) && stderr.starts_with(&line), "{stderr}");
        }
    }
}

fn help_of_an_applet_is_its_own() {
    for name in ok(program().arg("--list")).lines().filter(|name| *name != "entrypoint") {
        let help = ok(program().args(["help", name]));
        assert_eq!(help, ok(program().args([name, "--help"])), "{name}");
        let wide: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert_eq!(wide, Vec::<&str>::new(), "{name}");
    }
    assert_eq!(ok(program().arg("help")), ok(program().arg("--help")));
    // It has no options, every argument is the runtime's: nothing is booted for a help text.
    let help = ok(program().args(["help", "entrypoint"]));
    assert!(help.starts_with("usage: molecule-tools entrypoint [ARG]...\n"), "{help}");
    assert!(help.lines().all(|line| line.len() <= 80), "{help}");
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
        let target = std::fs::read_link(&link).unwrap();
        assert!(target.is_relative(), "{}", target.display());
        assert_eq!(link.canonicalize().unwrap(), Path::new(PROGRAM).canonicalize().unwrap());
        let line = format!("{}: -> {}\n", link.display(), target.display());
        assert!(said.contains(&line), "{said}");
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

/// As with COPY --from of a stage that was installed in.
fn installed_links_hold_in_a_copy_and_stand_for_a_templates_entrypoint() {
    let here = tempfile::tempdir().unwrap();
    let bin = here.path().join("root/usr/local/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(here.path().join("root/app")).unwrap();
    copy_program(PROGRAM, bin.join("molecule-tools"));
    let install = |arguments: &[&str]| {
        let mut command = Command::new(bin.join("molecule-tools"));
        command
            .arg("--install")
            .arg(&bin)
            .args(arguments)
            .current_dir(here.path())
            .output()
            .unwrap()
    };
    for script in ["root/entrypoint.sh", "root/app/start.sh"] {
        let output = install(&["--as-entrypoint", script]);
        assert!(output.status.success(), "{output:?}");
    }
    std::fs::rename(here.path().join("root"), here.path().join("image")).unwrap();
    for (link, target) in [
        ("usr/local/bin/gosu", "molecule-tools"),
        ("entrypoint.sh", "usr/local/bin/molecule-tools"),
        ("app/start.sh", "../usr/local/bin/molecule-tools"),
    ] {
        let link = here.path().join("image").join(link);
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(target));
        assert!(link.canonicalize().is_ok(), "{}", link.display());
    }
    // What it does not know it hands to the runtime: it is the entrypoint.
    let link = here.path().join("image/entrypoint.sh");
    let mut boot = Command::new(link);
    boot.env("MOLECULE_RUNTIME", "/bin/echo").args(["--help", "x"]);
    let output = boot.uid(65534).gid(65534).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.starts_with("----- entrypoint boot ") && stdout.ends_with("\n--help x\n"),
        "{stdout}"
    );
}

fn install_as_another_name_is_a_usage_error() {
    let here = tempfile::tempdir().unwrap();
    for arguments in
        [&["--as-entrypoint", "/x/run.sh"][..], &["--as-entrypoint"], &["--other", "y"]]
    {
        let mut command = program();
        let output = command.arg("--install").arg(here.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            output.stderr.starts_with(b"usage: molecule-tools --install DIR [--as-e"),
            "{output:?}"
        );
    }
    assert_eq!(here.path().read_dir().unwrap().count(), 0);
}

/// Validators of templates read their entrypoint as text.
fn a_stub_has_what_is_looked_for_and_is_the_program() {
    for name in ["entrypoint.sh", "start.sh"] {
        let here = tempfile::tempdir().unwrap();
        let script = here.path().join(name);
        std::fs::write(&script, ok(program().args(["--stub", name]))).unwrap();
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(
            text.contains("ENABLE_GITHUB_MIRROR_CREDENTIALS:-false}")
                && text.contains("molecule-runtime")
        );
        let names = text.lines().filter(|line| line.starts_with("for var in ")).collect::<Vec<_>>();
        assert!(
            names.len() == 1
                && names[0].contains(" GLM_API_KEY ")
                && names[0].ends_with("; do :; done")
        );
        let mut boot = Command::new("sh");
        boot.arg(&script).env("MOLECULE_RUNTIME", "/bin/echo").args(["a b", "--help"]);
        let output = boot.uid(65534).gid(65534).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.ends_with("\na b --help\n"), "{stdout}");
    }
    assert_eq!(program().args(["--stub", "x.sh"]).output().unwrap().status.code(), Some(2));
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
