//! What may stand in a home in the place of the program's files, and disks that take nothing.

use super::{CACHE, EXPIRY, SHORT, TOKEN, agent, get, password, sandbox, text};
use crate::support::platform::{Platform, grant};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let root = &[Need::Root];
    vec![
        test_case!(what_is_planted_is_neither_followed_nor_waited_for, root),
        test_case!(a_home_that_takes_nothing_keeps_nobody_from_a_token, root),
        test_case!(a_lock_that_is_held_for_ever_keeps_nobody_for_ever, root),
    ]
}

fn what_is_planted_is_neither_followed_nor_waited_for() {
    let platform = Platform::always(grant(SHORT, 3600));
    for name in [CACHE, TOKEN, EXPIRY, &format!("{CACHE}/lock"), "/home/agent/.gh_token"] {
        for plant in ["ln -s /tmp/target", "ln -s /tmp/dir", "ln -s /nowhere", "mkfifo", "mkdir"] {
            let sandbox = sandbox();
            let place = if name == CACHE { "true" } else { "mkdir -p .molecule-token-cache" };
            sandbox.sh(&format!("cd /home/agent; {place}; echo canary > /tmp/target; mkdir /tmp/dir; chmod 666 /tmp/target
                chmod 777 /tmp/dir; {plant} {name}; chown -Rh agent: /home/agent"));
            let outcome = get(&sandbox, &platform).run();
            assert_eq!(password(&outcome).0, SHORT, "{plant} {name}");
            let once = agent(&sandbox, &platform).args(["token-refresh", "--once"]).run();
            let said = once.stdout();
            assert!(said.contains("refreshed: "), "{plant} {name}: {once:?}");
            // A directory in its place is the cache; of the lock nobody depends.
            let harmless = name.ends_with("lock") || name == CACHE && plant == "mkdir";
            let replaced = !harmless && name != CACHE && plant != "mkdir";
            assert_eq!(once.status == 0, replaced || harmless, "{plant} {name}: {once:?}");
            let seen =
                sandbox.sh("cat /tmp/target; ls -A /tmp/dir; stat -c %a /tmp/target /tmp/dir");
            assert_eq!(seen, "canary\n666\n777\n", "{plant} {name}");
            if replaced {
                assert_eq!(sandbox.sh(&format!("stat -c '%F %a' {name}")), "regular file 600\n");
            }
        }
    }
}

fn a_home_that_takes_nothing_keeps_nobody_from_a_token() {
    let platform = Platform::always(grant(SHORT, 3600));
    for make in [
        "mount -t tmpfs -o ro,uid=1000 x /home/agent",
        "mount -t tmpfs -o size=4k,uid=1000 x /home/agent; head -c 4096 /dev/zero > /home/agent/full",
        "mount -t tmpfs -o nr_inodes=2,uid=1000 x /home/agent; touch /home/agent/last",
        "chown 0 /home/agent",
        "rm -r /home/agent",
    ] {
        let sandbox = sandbox();
        sandbox.sh(make);
        let outcome = get(&sandbox, &platform).run();
        assert_eq!(password(&outcome).0, SHORT, "{make}");
        assert!(
            outcome.stderr().starts_with("git-credential-molecule: WARN "),
            "{make}: {outcome:?}"
        );
        assert!(!outcome.stderr().contains(SHORT));
        let once = agent(&sandbox, &platform).args(["token-refresh", "--once"]).run();
        assert_eq!(once.status, 1, "{make}: {once:?}");
        assert!(once.stdout().contains("MOLECULE-GITHUB: WARN "), "{make}: {once:?}");
        assert_eq!(text(&sandbox, TOKEN), "", "{make}");
    }
}

fn a_lock_that_is_held_for_ever_keeps_nobody_for_ever() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    sandbox.sh(&format!("mkdir {CACHE}; touch {CACHE}/lock; chown -R agent: {CACHE}"));
    let holder =
        sandbox.command("/usr/bin/flock").args([&format!("{CACHE}/lock"), "sleep", "600"]).start();
    while sandbox
        .command("/usr/bin/flock")
        .args(["-n", &format!("{CACHE}/lock"), "true"])
        .run()
        .status
        == 0
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(password(&get(&sandbox, &platform).run()).0, SHORT);
    drop(holder);
}
