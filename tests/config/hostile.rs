//! Who may write the configuration, and what an agent can put in the way of what it declares.

use std::os::unix::fs::symlink;

use crate::fix_perms::race::{besiege, exchange};
use crate::support::compare::{snapshot, touched};
use crate::support::runtime::{self, take_view};
use crate::support::sandbox::Sandbox;
use crate::support::{Case, Need, test_case};

const ROOT: &[Need] = &[Need::Root];

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(a_file_that_others_could_have_written_is_not_believed, ROOT),
        test_case!(what_stands_where_a_link_belongs_is_never_lost, ROOT),
        test_case!(a_second_name_of_roots_file_stays_roots, ROOT),
        test_case!(files_that_are_exchanged_meanwhile_stay_roots, ROOT),
        test_case!(links_on_the_way_are_not_followed, ROOT),
        test_case!(hooks_are_the_agents_and_have_their_time, ROOT),
        test_case!(a_hook_that_fails_or_is_absent_does_not_end_the_boot, ROOT),
    ]
}

/// A sandbox with the configuration `text`.
fn configured(text: &str, script: &str) -> Sandbox {
    runtime::sandbox(&format!("cat > etc/molecule-tools.json <<'END'\n{text}\nEND\n{script}"))
}

fn a_file_that_others_could_have_written_is_not_believed() {
    let config = r#"{"runtime": {"command": "/tmp/evil"}}"#;
    let changeable = "others than root can change /etc/molecule-tools.json";
    for (script, reason) in [
        ("chown 1000 etc/molecule-tools.json", changeable),
        ("chmod 664 etc/molecule-tools.json; chgrp 1000 etc/molecule-tools.json", changeable),
        ("chmod 646 etc/molecule-tools.json", changeable),
        (
            "mv etc/molecule-tools.json configs/c; ln -s /configs/c etc/molecule-tools.json
             chown 1000 configs",
            "others than root can change /configs",
        ),
        ("rm etc/molecule-tools.json; mkdir etc/molecule-tools.json", "is a directory"),
        ("rm etc/molecule-tools.json; mkfifo etc/molecule-tools.json", "is a fifo"),
        ("chmod 777 etc", "others than root can change /etc"),
    ] {
        let sandbox = configured(config, script);
        let outcome = sandbox.program().arg("entrypoint").run();
        let log = outcome.stdout() + &outcome.stderr();
        assert_eq!(
            take_view(&sandbox).unwrap()["argv"],
            r#""molecule-runtime""#,
            "{script}\n{log}"
        );
        let warnings: Vec<&str> =
            log.lines().filter(|line| line.contains("read configuration")).collect();
        let [warning] = warnings[..] else { panic!("{script}\n{log}") };
        assert!(warning.contains(reason), "{script}: {warning}");
        let hint = "give it to root, mode 0644; the built-in configuration is in force";
        assert!(warning.ends_with(hint), "{script}: {warning}");
    }
}

fn what_stands_where_a_link_belongs_is_never_lost() {
    const SCENES: [(&str, &str, &str, bool); 11] = [
        // Policy, what stands there, what is found afterwards, whether it is a failure.
        ("replace", ":", "/configs/l", false),
        ("replace", "ln -s /old l", "/configs/l", false),
        ("replace", "mkdir l", "/configs/l", false),
        ("replace", "mkdir l; echo mine > l/f", "mine", true),
        ("replace", "echo mine > l", "mine", true),
        ("keep", "ln -s /old l", "/old", false),
        ("keep", "mkdir l; echo mine > l/f", "mine", false),
        ("keep", ":", "/configs/l", false),
        ("aside", "mkdir l; echo mine > l/f", "/configs/l mine", false),
        ("aside", "echo mine > l; echo > l.before-x", "/configs/l mine", false),
        ("aside", ":", "/configs/l", false),
    ];
    for (policy, scene, expected, fails) in SCENES {
        let link = format!(
            r#"{{"links": [{{"path": "~/l", "target": "/configs/l", "occupied": "{policy}"}}]}}"#
        );
        let sandbox = configured(&link, &format!("cd home/agent; {scene}; cd ../.."));
        let look =
            "cd /home/agent; readlink l || :; cat l l/f l.before-2*/f l.before-2* 2>/dev/null || :";
        let dry = sandbox.program().args(["fix-perms", "--dry-run", "--json"]).run();
        let run = sandbox.program().args(["fix-perms", "--json"]).run();
        let found = sandbox.sh(look).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(found, expected, "{policy}: {scene}\n{}", run.stderr());
        assert_eq!(run.status, i32::from(fails), "{policy}: {scene}\n{}", run.stderr());
        let [dry, run] = [dry, run]
            .map(|outcome| serde_json::from_str::<serde_json::Value>(&outcome.stdout()).unwrap());
        for count in ["made", "failed"] {
            assert_eq!(dry[count], run[count], "{policy}: {scene}");
        }
        // Once is enough.
        let again = sandbox.program().arg("fix-perms").run();
        assert_eq!(sandbox.sh(look).split_whitespace().collect::<Vec<_>>().join(" "), found);
        assert!(fails || again.stdout().is_empty(), "{policy}: {scene}\n{}", again.stdout());
    }
}

const NPMRC: &str = r#"{"files": [{"path": "~/.npmrc", "content": "x\n", "mode": "0600"}]}"#;

fn a_second_name_of_roots_file_stays_roots() {
    for planted in [
        "ln canary/f home/agent/.npmrc",
        "ln -s /canary/f home/agent/.npmrc",
        "mkfifo home/agent/.npmrc",
    ] {
        let sandbox = configured(NPMRC, &format!("mkdir canary; echo x > canary/f; {planted}"));
        let before = snapshot(&sandbox.path("/canary"));
        let outcome = sandbox.program().arg("fix-perms").run();
        assert_eq!(outcome.status, 1, "{planted}");
        let said = outcome.stdout();
        let warnings: Vec<&str> = said.lines().filter(|line| line.contains(" WARN ")).collect();
        assert_eq!(warnings.len(), 1, "{planted}: {said}");
        assert!(warnings[0].contains("/home/agent/.npmrc"), "{planted}: {said}");
        assert_eq!(touched(&before, &snapshot(&sandbox.path("/canary"))), Vec::<String>::new());
    }
}

fn files_that_are_exchanged_meanwhile_stay_roots() {
    let sandbox = configured(
        NPMRC,
        "mkdir canary; echo x > canary/f; echo x > canary/g; ln canary/g home/agent/hard
         ln -s /canary/f home/agent/link; echo x > home/agent/.npmrc; chown -h 1000:1000 home/agent/*",
    );
    sandbox.sh("chown 0:0 /canary/g");
    let home = sandbox.path("/home/agent");
    let before = snapshot(&sandbox.path("/canary/f"));
    let file = home.join(".npmrc");
    besiege(&sandbox, |swap| {
        exchange(&file, &home.join(if swap % 2 == 0 { "link" } else { "hard" }));
        // There has to be something to change.
        let data = file.symlink_metadata().unwrap();
        if data.is_file() && std::os::unix::fs::MetadataExt::nlink(&data) == 1 {
            std::os::unix::fs::lchown(&file, Some(0), Some(0)).unwrap();
        }
    });
    let after = snapshot(&sandbox.path("/canary/f"));
    assert_eq!(touched(&before, &after), Vec::<String>::new());
    // The exchange itself moves its change time.
    assert_eq!(sandbox.sh("stat -c '%u %g %a' /canary/g"), "0 0 644\n");
}

fn links_on_the_way_are_not_followed() {
    let config = r#"{
        "directories": [{"path": "~/a/b", "make": true, "mode": "0700", "own": "always"}],
        "files": [{"path": "~/a/f", "content": "x", "mode": "0600"}],
        "links": [{"path": "~/a/l", "target": "/configs"}]
    }"#;
    let sandbox = configured(config, "mkdir -p canary/b; echo x > canary/f");
    symlink("/canary", sandbox.path("/home/agent/a")).unwrap();
    let before = snapshot(&sandbox.path("/canary"));
    let outcome = sandbox.program().arg("fix-perms").run();
    assert_eq!(outcome.status, 1);
    assert_eq!(touched(&before, &snapshot(&sandbox.path("/canary"))), Vec::<String>::new());
    assert!(outcome.stdout().contains("/home/agent/a: "), "{}", outcome.stdout());
}

fn hooks_are_the_agents_and_have_their_time() {
    let config = r#"{
        "runtime": {"environment": {"HOME": "/tmp", "GREETING": "hello world"}},
        "hooks": [
            {"command": "/app/slow", "seconds": 1},
            {"command": "/app/hook", "arguments": ["one two", "$HOME"]}
        ]
    }"#;
    let sandbox = configured(config, "");
    sandbox.install("/app/slow", "#!/bin/sh\n(sleep 100; echo > /tmp/late) & wait\n");
    sandbox.install(
        "/app/hook",
        "#!/bin/sh\nid -u; id -G; echo \"$HOME $GREETING\"; printf '[%s]' \"$@\"; echo
         grep CapEff /proc/self/status; [ ! -e /tmp/runtime-view ] && echo before the runtime\n",
    );
    let outcome = sandbox.program().arg("entrypoint").run();
    let log = outcome.stdout();
    let view = take_view(&sandbox).expect(&log);
    assert_eq!(view["env \"HOME\""], "\"=/tmp\"");
    let said = "1000\n1000 2375 2376\n/tmp hello world\n[one two][$HOME]\nCapEff:\t0000000000000000\n\
                before the runtime\n";
    assert!(log.contains(said), "{log}");
    let killed = "WARN hook /app/slow: it was killed, its 1 s may have been over; the boot goes on";
    assert!(log.contains(killed), "{log}");
    assert_eq!(sandbox.processes(), Vec::<u32>::new(), "{log}");
}

fn a_hook_that_fails_or_is_absent_does_not_end_the_boot() {
    let config = r#"{"hooks": [
        {"command": "/app/absent"}, {"command": "/app/plain"}, {"command": "/app/fails"},
        {"command": "/app/crashes"}, {"command": "/app/last"}
    ]}"#;
    let sandbox = configured(config, "echo > app/plain");
    sandbox.install("/app/fails", "#!/bin/sh\necho why >&2; exit 3\n");
    sandbox.install("/app/crashes", "#!/bin/sh\nkill -SEGV $$\n");
    sandbox.install("/app/last", "#!/bin/sh\necho last\n");
    let outcome = sandbox.program().arg("entrypoint").run();
    let log = outcome.stdout();
    assert!(take_view(&sandbox).is_some(), "{log}");
    for line in [
        "MOLECULE-HOOK: /app/absent is not there, or may not be executed",
        "MOLECULE-HOOK: /app/plain is not there, or may not be executed",
        "MOLECULE-HOOK: WARN hook /app/fails: it ended with status 3; the boot goes on",
        "MOLECULE-HOOK: WARN hook /app/crashes: it ended with status 139; the boot goes on",
        "last",
    ] {
        assert!(log.lines().any(|found| found == line), "{line}\n{log}");
    }
    assert!(outcome.stderr().contains("why"), "{}", outcome.stderr());
}
