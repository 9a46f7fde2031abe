//! The command line, and users.

use crate::fix_perms::{boot, said, trees, warning, warnings};
use crate::support::compare::touched;
use crate::support::sandbox::Sandbox;
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root];
    vec![
        test_case!(a_dry_run_says_what_a_run_does_and_changes_nothing, ROOT),
        test_case!(a_dry_run_counts_what_a_run_does, ROOT),
        test_case!(what_could_not_be_made_is_not_counted, ROOT),
        test_case!(the_agent_is_told_to_run_it_as_root, ROOT),
        test_case!(json_gives_the_totals_and_nothing_else, ROOT),
        test_case!(named_trees_are_given_and_nothing_else, ROOT),
        test_case!(a_named_path_with_a_link_in_it_is_refused, ROOT),
        test_case!(a_user_may_be_named_with_a_group, ROOT),
        test_case!(without_a_user_nothing_is_given_to_anybody, ROOT),
        test_case!(an_absent_home_is_made_for_the_user, ROOT),
        test_case!(another_root_is_all_that_is_changed, ROOT),
        test_case!(without_the_capability_every_step_is_tried, ROOT),
    ]
}

const MIXED: &str = "mkdir configs/d root/x; echo > configs/d/f; echo > workspace/f
    mkdir -p root/.claude/sessions home/agent/.claude/sessions home/agent/.molecule-token-cache";

fn a_dry_run_says_what_a_run_does_and_changes_nothing() {
    let sandbox = Sandbox::with(MIXED);
    let before = trees(&sandbox);
    let dry = sandbox.program().args(["fix-perms", "--dry-run"]).run();
    assert_eq!(dry.status, 0, "{}", said(&dry));
    for (before, after) in before.iter().zip(trees(&sandbox)) {
        assert_eq!(touched(before, &after), Vec::<String>::new());
    }
    let log = dry.stdout();
    for line in [
        "would give /configs/d/f to 1000:1000",
        "would make /home/agent/.claude/settings.json",
        "would make /home/agent/.claude/sessions",
        "would let uid 1000 search /root",
        "would make /home/agent/.molecule-token-cache mode 0700",
        "would make /home/agent/Downloads",
    ] {
        let line = format!("MOLECULE-PERMS: {line}");
        assert_eq!(log.lines().filter(|said| *said == line).count(), 1, "{line}\n{log}");
    }
    assert!(log.lines().last().unwrap().contains("would change "), "{log}");
}

/// The totals of a run with `--json`, and its log.
fn totals(sandbox: &Sandbox, arguments: &[&str]) -> (serde_json::Value, String) {
    let outcome = sandbox.program().args(["fix-perms", "--json"]).args(arguments).run();
    (serde_json::from_str(&outcome.stdout()).unwrap(), outcome.stderr())
}

fn a_dry_run_counts_what_a_run_does() {
    const SCENES: [&str; 9] = [
        "",
        MIXED,
        "rmdir home/agent home",
        "rmdir home/agent; mkdir -p root/.claude/sessions",
        "mkdir home/agent/.claude; mkdir -p root/.claude/sessions",
        "mkdir -p home/agent/.claude; ln -s /root/.claude/sessions home/agent/.claude/sessions
         chown -hR 1000:1000 home/agent",
        "mkdir -p workspace/.molecule/chat-uploads workspace/a; echo > workspace/.molecule/f",
        "mkdir -p workspace/.molecule/x; chown 1000:1000 workspace/.molecule; chmod 4755 workspace
         echo > configs/s; chown 1000:1000 configs/s; chmod 4755 configs/s",
        "echo > configs/one; ln configs/one configs/two; ln configs/one configs/three
         mkdir canary; echo > canary/f; ln canary/f configs/planted",
    ];
    for scene in SCENES {
        let sandbox = Sandbox::with(scene);
        let (dry, dry_log) = totals(&sandbox, &["--dry-run"]);
        let (run, log) = totals(&sandbox, &[]);
        for key in ["changed", "made", "failed"] {
            assert_eq!(dry[key], run[key], "{key}: {scene}\n{dry_log}\n{log}");
        }
        assert!(run["changed"].as_u64() > Some(0), "{scene}\n{log}");
        let would = |kind: &str| dry_log.lines().filter(|line| line.contains(kind)).count() as u64;
        let said = would("would give ") + would("would let ") + would(" mode 0700");
        assert_eq!(dry["changed"].as_u64(), Some(said), "{scene}\n{dry_log}");
        let said = would("would make ") - would(" mode 0700");
        assert_eq!(dry["made"].as_u64(), Some(said), "{scene}\n{dry_log}");
    }
}

fn what_could_not_be_made_is_not_counted() {
    // Of seven one cannot be made in a home that is full.
    let sandbox = Sandbox::with(
        "mount -t tmpfs -o nr_inodes=4,mode=755 home home/agent; mkdir home/agent/.claude",
    );
    let (report, log) = totals(&sandbox, &[]);
    let found = sandbox.sh("find /home/agent /workspace -mindepth 1 | wc -l");
    let made = report["made"].as_u64().unwrap();
    assert_eq!(format!("{}\n", made + 1), found, "{report}\n{log}");
    assert!(report["failed"].as_u64() > Some(0), "{report}");
}

fn the_agent_is_told_to_run_it_as_root() {
    let sandbox = Sandbox::with("echo > configs/f");
    let before = trees(&sandbox);
    let outcome = sandbox.program().args(["fix-perms"]).identity(1000, 1000, &[]).run();
    assert_eq!(outcome.status, 1, "{}", said(&outcome));
    let log = outcome.stdout();
    let line = warning(&log, "change owners: this user may not; run it as root");
    assert_eq!(log, format!("{line}\n"));
    for (before, after) in before.iter().zip(trees(&sandbox)) {
        assert_eq!(touched(before, &after), Vec::<String>::new());
    }
    let dry = sandbox.program().args(["fix-perms", "--dry-run"]).identity(1000, 1000, &[]).run();
    assert!(dry.stdout().contains("would give /configs/f "), "{}", said(&dry));
}

fn json_gives_the_totals_and_nothing_else() {
    let sandbox = Sandbox::with(MIXED);
    let run = || {
        let outcome = sandbox.program().args(["fix-perms", "--json"]).run();
        let report: serde_json::Value = serde_json::from_str(&outcome.stdout()).unwrap();
        assert_eq!(outcome.status, 0, "{}", said(&outcome));
        (report, outcome.stderr())
    };
    let (first, log) = run();
    assert!(log.contains("MOLECULE-PERMS: changed "), "{log}");
    for (key, value) in [("uid", 1000), ("gid", 1000), ("failed", 0)] {
        assert_eq!(first[key], value, "{first}");
    }
    assert!(first["changed"].as_u64() > Some(8) && first["made"].as_u64() > Some(2), "{first}");
    let (second, log) = run();
    assert_eq!((second["changed"].as_u64(), second["made"].as_u64()), (Some(0), Some(0)));
    assert!(second["examined"].as_u64() > Some(8), "{second}");
    assert_eq!(log, "");
}

fn named_trees_are_given_and_nothing_else() {
    let sandbox =
        Sandbox::with("mkdir -p srv/a/b srv/c; echo > srv/a/b/f; echo > file; echo > configs/f");
    let command = || sandbox.program().arg("fix-perms").directory("/srv");
    let outcome = command().args(["a", "/file", "./c"]).run();
    assert_eq!(outcome.status, 0, "{}", said(&outcome));
    assert_eq!(
        sandbox.sh("stat -c %u /srv/a /srv/a/b/f /srv/c /file /srv /configs/f; ls -A /home/agent"),
        "1000\n1000\n1000\n1000\n0\n0\n"
    );
    // A right entry is left as it is by hand, set-id bits and all.
    sandbox.sh("chmod 4755 /srv/a/b/f");
    assert_eq!(command().arg("/srv").run().status, 0);
    assert_eq!(sandbox.sh("stat -c %a:%u /srv/a/b/f"), "4755:1000\n");
    for (path, words) in [("/none", "give /none: it does not exist"), ("/", "no last component")] {
        let outcome = command().arg(path).run();
        assert_eq!(outcome.status, 1, "{path}");
        warning(&outcome.stdout(), words);
    }
    assert_eq!(sandbox.sh("stat -c %u / /etc"), "0\n0\n");
}

fn a_named_path_with_a_link_in_it_is_refused() {
    let sandbox =
        Sandbox::with("mkdir -p canary/d; ln -s /canary workspace/l; ln -s /canary/d last");
    for path in ["/workspace/l/d", "/workspace/l/", "/workspace/../canary/d", "/last"] {
        let outcome = sandbox.program().args(["fix-perms", path]).run();
        assert_eq!(outcome.status, 1, "{path}: {}", said(&outcome));
        assert_eq!(warnings(&outcome.stdout()), 1, "{path}: {}", said(&outcome));
    }
    assert_eq!(sandbox.sh("stat -c %u /canary /canary/d"), "0\n0\n");
}

fn a_user_may_be_named_with_a_group() {
    for (spec, owner) in [
        ("agent:docker", "1000:2375"),
        ("1000", "1000:1000"),
        ("4000:5000", "4000:5000"),
        ("nobody:nogroup", "65534:65534"),
        ("", "1000:1000"),
    ] {
        for by_environment in [true, false] {
            let sandbox = Sandbox::with("echo > file");
            let command = sandbox.program().arg("fix-perms");
            let outcome = match by_environment {
                true => command.env("MOLECULE_AGENT", spec).arg("/file").run(),
                false => command.args(["--user", spec, "/file"]).run(),
            };
            assert_eq!(outcome.status, 0, "{spec}: {}", said(&outcome));
            assert_eq!(sandbox.sh("stat -c %u:%g /file"), format!("{owner}\n"), "{spec}");
        }
    }
}

fn without_a_user_nothing_is_given_to_anybody() {
    for (spec, words) in [
        ("nobody-of-that-name", "no such user in /etc/passwd; nothing is given"),
        ("nobody", "no group has the user's name; nothing is given"),
        ("4000", "its gid is 0; nothing is given"),
    ] {
        let sandbox = Sandbox::with("echo > configs/f; echo > file");
        let outcome = sandbox.program().args(["fix-perms", "--user", spec]).run();
        assert_eq!(outcome.status, 1, "{spec}");
        warning(&outcome.stdout(), words);
        assert_eq!(sandbox.sh("find /configs /workspace ! -user 0"), "", "{spec}");
        let named = sandbox.program().args(["fix-perms", "--user", spec, "/file"]).run();
        assert_eq!(named.status, 1, "{spec}");
        assert_eq!(sandbox.sh("stat -c %u /file"), "0\n", "{spec}");
    }
}

fn an_absent_home_is_made_for_the_user() {
    let sandbox = Sandbox::with("rmdir home/agent home");
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(
        sandbox.sh("cd /home; stat -c '%n %u:%g %a' . agent agent/.claude agent/Downloads"),
        ". 0:0 755\nagent 1000:1000 755\nagent/.claude 1000:1000 755\nagent/Downloads 1000:1000 755\n"
    );
}

fn another_root_is_all_that_is_changed() {
    let sandbox = Sandbox::with(
        "mkdir -p image/etc image/home/bob image/configs image/workspace image/root/.claude/sessions
         chmod 700 image/root
         echo bob:x:2000:2001::/home/bob: > image/etc/passwd; echo bob:x:2001: > image/etc/group
         echo > image/configs/f; echo > configs/f",
    );
    let outside = trees(&sandbox);
    let outcome = sandbox.program().args(["fix-perms", "--root", "/image", "--user", "bob"]).run();
    assert_eq!(outcome.status, 0, "{}", said(&outcome));
    for (before, after) in outside.iter().zip(trees(&sandbox)) {
        assert_eq!(touched(before, &after), Vec::<String>::new());
    }
    assert_eq!(
        sandbox.sh("cd /image; stat -c %u:%g configs/f home/bob/.claude; readlink home/bob/.claude/sessions"),
        "2000:2001\n2000:2001\n/root/.claude/sessions\n"
    );
}

fn without_the_capability_every_step_is_tried() {
    const CAP_CHOWN: u32 = 0;
    let sandbox = Sandbox::with("echo > configs/f");
    let outcome = sandbox.program().arg("fix-perms").drop_capability(CAP_CHOWN).run();
    assert_eq!(outcome.status, 1, "{}", said(&outcome));
    let log = outcome.stdout();
    assert!(
        warning(&log, "change owner of /configs/f: ").contains("CAP_CHOWN is missing"),
        "{log}"
    );
    sandbox.sh("test -d /home/agent/Downloads -a -f /home/agent/.claude/settings.json");
}
