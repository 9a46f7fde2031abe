//! No token and no bearer where others can see it.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use super::{BEARER, SHORT, agent, get, long_token, sandbox};
use crate::support::platform::{Platform, grant};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let root = &[Need::Root];
    vec![
        test_case!(a_process_that_holds_a_secret_shows_it_to_nobody, root),
        test_case!(no_file_but_the_private_ones_has_the_token, root),
    ]
}

fn a_process_that_holds_a_secret_shows_it_to_nobody() {
    for words in [&["git-credential-molecule", "get"][..], &["token-refresh", "--once"]] {
        let sandbox = sandbox();
        let platform = Platform::new(|_, _, stream| {
            std::thread::sleep(Duration::from_millis(1500));
            let _ = stream.write_all(&grant(SHORT, 3600));
        });
        let started = agent(&sandbox, &platform).args(words.iter().copied()).start();
        while platform.asked().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let of = |name: &str| format!("/proc/{}/{name}", started.child.id());
        let read =
            |name: &str| String::from_utf8_lossy(&std::fs::read(of(name)).unwrap()).into_owned();
        assert!(!read("cmdline").contains("CANARY") && !read("environ").contains("CANARY"));
        let core = read("limits");
        let core = core.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // What is not dumpable belongs to root in /proc (proc_pid(5)): its user cannot read its memory.
        assert_eq!(std::fs::metadata(of("mem")).unwrap().uid(), 0);
        let look = sandbox.command("/bin/cat").arg(of("mem")).identity(1000, 1000, &[]).run();
        assert!(look.stderr().contains("Permission denied"), "{look:?}");
        let held = std::fs::read_dir(of("fd")).unwrap().filter_map(|fd| {
            let fd = fd.unwrap().path();
            Some((std::fs::read_link(&fd).ok()?, fd))
        });
        for (target, fd) in held.filter(|(target, _)| target.starts_with("/tmp")) {
            let text = std::fs::read(&fd).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains("CANARY"), "{target:?}");
        }
        assert_eq!(started.wait().status, 0);
    }
}

fn no_file_but_the_private_ones_has_the_token() {
    for token in [SHORT.to_owned(), long_token()] {
        let sandbox = sandbox();
        let platform = Platform::always(grant(&token, 3600));
        assert_eq!(get(&sandbox, &platform).umask(0).run().status, 0);
        let once = agent(&sandbox, &platform).umask(0).args(["token-refresh", "--once"]).run();
        assert!(once.status == 0 && !format!("{once:?}").contains(&token), "{once:?}");
        let found = sandbox.sh(&format!(
            "grep -rlF -e '{token}' /home /tmp /run /var/tmp /root /configs /workspace | sort | xargs stat -c '%a %n'"
        ));
        let private = [
            "600 /home/agent/.gh_token",
            "600 /home/agent/.molecule-token-cache/gh_installation_token",
        ];
        assert_eq!(found.lines().collect::<Vec<_>>(), private);
        let found =
            sandbox.sh(&format!("grep -rlF -e '{BEARER}' /home /tmp /run /var/tmp /root /configs"));
        assert_eq!(found, "/configs/.auth_token\n");
    }
}
