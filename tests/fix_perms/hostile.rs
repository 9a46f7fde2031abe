//! What somebody who can write below the trees may have left there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags};

use crate::fix_perms::{boot, said, warning, warnings};
use crate::support::compare::{snapshot, touched};
use crate::support::sandbox::{LoopDevice, PROGRAM_INSIDE, Sandbox};
use crate::support::tree::{CAPABILITY, Tree};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root];
    const TRACED: &[Need] = &[Need::Root, Need::Program("strace")];
    const EXT4: &[Need] = &[Need::Root, Need::Loop, Need::Program("chattr")];
    vec![
        test_case!(a_link_in_every_place_leads_nowhere, ROOT),
        test_case!(links_below_the_trees_are_given_themselves, ROOT),
        test_case!(names_of_any_bytes_are_given_and_shown_on_one_line, EXT4),
        test_case!(a_tree_deeper_than_the_descriptor_limit_is_given, ROOT),
        test_case!(an_immutable_file_is_one_warning_and_the_rest_is_given, EXT4),
        test_case!(a_large_tree_loses_every_set_id_bit_and_capability, ROOT),
        test_case!(without_proc_capabilities_are_found_too, ROOT),
        test_case!(a_capability_that_cannot_be_seen_goes_too_which_is_told_once, TRACED),
        test_case!(what_stands_where_a_directory_should_be_is_left, ROOT),
    ]
}

fn a_link_in_every_place_leads_nowhere() {
    const PLACES: &[&str] = &[
        "home/agent/.claude",
        "home/agent/.claude/sessions",
        "home/agent/.claude/session-env",
        "home/agent/.claude/settings.json",
        "home/agent/.molecule-token-cache",
        "home/agent/Downloads",
        "home/agent",
        "workspace/.molecule",
        "workspace/.molecule/chat-uploads",
        "workspace",
        "configs",
        "root/.claude",
        "root/.claude/sessions",
    ];
    for place in PLACES {
        for target in ["directory", "file"] {
            let sandbox = Sandbox::with(&format!(
                "mkdir -p canary/directory/inner; echo x > canary/file; echo y > canary/directory/f
                 mkdir -p $(dirname {place}); rmdir {place} 2>/dev/null || :
                 ln -s /canary/{target} {place}; chown -h 1000:1000 {place}"
            ));
            let before = snapshot(&sandbox.path("/canary"));
            let outcome = sandbox.program().arg("fix-perms").run();
            let log = outcome.stdout();
            let after = snapshot(&sandbox.path("/canary"));
            assert_eq!(touched(&before, &after), Vec::<String>::new(), "{place} {target}\n{log}");
            let link = std::fs::read_link(sandbox.path(format!("/{place}"))).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("/canary/{target}"), "{place}");
            assert_eq!(outcome.status, 1, "{place} {target}\n{log}");
            let named = format!("/{place}: ");
            assert!(warnings(&log) > 0 && log.contains(&named), "{place} {target}\n{log}");
        }
    }
}

fn links_below_the_trees_are_given_themselves() {
    let sandbox = Sandbox::with(
        "mkdir -p canary/d; echo > canary/d/f
         ln -s /canary configs/absolute; ln -s ../canary configs/relative; ln -s /tmp configs/tmp
         mkdir configs/real; ln -s / configs/real/root",
    );
    let before = snapshot(&sandbox.path("/canary"));
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(touched(&before, &snapshot(&sandbox.path("/canary"))), Vec::<String>::new());
    assert_eq!(
        sandbox.sh("stat -c %u /configs/absolute /configs/tmp /configs/real/root / /tmp"),
        "1000\n1000\n1000\n0\n0\n"
    );
}

fn names_of_any_bytes_are_given_and_shown_on_one_line() {
    let device = LoopDevice::ext4(16, "mkdir c; chown 1000:1000 c");
    let sandbox = Sandbox::with(&format!("mount {} configs", device.path().display()));
    let tree = Tree(sandbox.path("/configs/c"));
    let long = "n".repeat(255);
    let names: &[&[u8]] = &[
        b"line\nbreak",
        b"invalid \xff\xfe",
        b"-R",
        b" ",
        b"\\n",
        b"$(reboot)",
        b"MOLECULE-PERMS: changed 1",
        b"\x1b[2Jcleared",
        long.as_bytes(),
    ];
    for name in names {
        tree.dir(OsStr::from_bytes(name));
        tree.file(OsStr::from_bytes(&[name, &b"/"[..], name].concat()), "x");
    }
    let ill = OsStr::from_bytes(b"ill\nMOLECULE-PERMS: WARN forged \xff");
    tree.file(ill, "x");
    sandbox.sh("cd /configs/c; chattr +i ill*");
    let log = boot(&sandbox, 1);
    let line = warning(&log, "/configs/c/ill\\nMOLECULE-PERMS: WARN forged \\xff: ");
    assert!(line.contains("Operation not permitted"), "{line}");
    assert_eq!(warnings(&log), 1, "{log}");
    assert_eq!(sandbox.sh("cd /configs/c; chattr -i ill*; find . -user 0 -printf x"), "x");
}

fn a_tree_deeper_than_the_descriptor_limit_is_given() {
    const LEVELS: usize = 1500;
    let sandbox = Sandbox::new();
    // Two directories on each level, so that one always waits.
    let mut level =
        rustix::fs::open(sandbox.path("/configs"), OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..LEVELS {
        for name in ["a", "b"] {
            rustix::fs::mkdirat(&level, name, Mode::from(0o755)).unwrap();
        }
        rustix::fs::mknodat(&level, "f", FileType::RegularFile, Mode::from(0o644), 0).unwrap();
        level = rustix::fs::openat(&level, "b", OFlags::PATH, Mode::empty()).unwrap();
    }
    let outcome = sandbox
        .program()
        .arg("fix-perms")
        .limit(nix::sys::resource::Resource::RLIMIT_NOFILE, 64)
        .run();
    assert_eq!(outcome.status, 0, "{}", crate::fix_perms::said(&outcome));
    let expected = 3 * LEVELS + 1;
    assert_eq!(sandbox.sh("find /configs -user 1000 | wc -l"), format!("{expected}\n"));
}

fn an_immutable_file_is_one_warning_and_the_rest_is_given() {
    let device = LoopDevice::ext4(
        16,
        "mkdir -p configs/d; echo > configs/a; echo > configs/d/locked; echo > configs/z
         mkdir configs/fixed; echo > configs/fixed/inside; mkdir root",
    );
    let sandbox = Sandbox::with(&format!(
        "mkdir vol; mount {} vol; mount --bind vol/configs configs
         chattr +i vol/configs/d/locked; chattr +i vol/configs/fixed",
        device.path().display()
    ));
    let log = boot(&sandbox, 1);
    for place in ["d/locked", "fixed"] {
        let line = warning(&log, &format!("change owner of /configs/{place}: "));
        assert!(line.contains("Operation not permitted; it is immutable"), "{line}");
    }
    assert_eq!(warnings(&log), 2, "{log}");
    assert!(log.contains(", 2 failed\n"), "{log}");
    assert_eq!(
        sandbox.sh("cd /configs; stat -c %u a d d/locked fixed fixed/inside z"),
        "1000\n1000\n0\n0\n1000\n1000\n"
    );
    sandbox.sh("chattr -i /configs/d/locked /configs/fixed");
}

fn a_large_tree_loses_every_set_id_bit_and_capability() {
    let sandbox = Sandbox::with("mkdir home/agent/.claude");
    let tree = Tree(sandbox.path("/home/agent/.claude"));
    for directory in 0..400 {
        let at = |name: &str| format!("{directory}/sub/{name}");
        for (name, mode) in [("plain", 0o644), ("suid", 0o4755), ("cap", 0o600), ("root", 0o6755)] {
            let uid = if name == "root" { 0 } else { 1000 };
            tree.file(at(name), "x").owner(at(name), uid, uid).mode(at(name), mode);
        }
        tree.xattr(at("cap"), "security.capability", CAPABILITY);
        tree.owner(format!("{directory}"), 1000, 1000);
    }
    let log = boot(&sandbox, 0);
    assert_eq!(warnings(&log), 0, "{log}");
    let found = snapshot(&sandbox.path("/home/agent/.claude"));
    assert!(found.len() > 400 * 6, "{}", found.len());
    for (path, entry) in found {
        assert_eq!((entry.owner, entry.mode & 0o6000), ((1000, 1000), 0), "{path:?}");
        assert!(entry.xattrs.is_empty(), "{path:?}");
    }
}

fn without_proc_capabilities_are_found_too() {
    let sandbox = Sandbox::new();
    let tree = Tree(sandbox.path("/configs"));
    tree.file("cap", "x").owner("cap", 1000, 1000).mode("cap", 0o600);
    tree.xattr("cap", "security.capability", CAPABILITY);
    sandbox.sh("mount -t tmpfs none /proc");
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    let entry = &snapshot(&sandbox.path("/configs/cap"))[std::path::Path::new("")];
    assert!(entry.xattrs.is_empty(), "{:?}", entry.xattrs);
}

fn a_capability_that_cannot_be_seen_goes_too_which_is_told_once() {
    for (errno, told) in [("EIO", true), ("EACCES", true), ("EOPNOTSUPP", false)] {
        let sandbox = Sandbox::new();
        let tree = Tree(sandbox.path("/configs"));
        for name in ["a", "b", "c"] {
            tree.file(name, "x").owner(name, 1000, 1000).mode(name, 0o600);
            tree.xattr(name, "security.capability", CAPABILITY);
        }
        let run = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null", "-e"]);
        let run = run.arg(format!("inject=lgetxattr:error={errno}"));
        let outcome = run.args([PROGRAM_INSIDE, "fix-perms"]).run();
        assert_eq!(outcome.status, 0, "{}", said(&outcome));
        let log = outcome.stdout();
        assert_eq!(warnings(&log) > 0, told, "{errno} {log}");
        if told {
            let line = warning(&log, "look for capabilities of /configs/");
            assert!(line.contains("below /configs lose any that they have"), "{line}");
        }
        for name in ["a", "b", "c"] {
            let entry = &snapshot(&tree.path(name))[std::path::Path::new("")];
            assert_eq!(entry.xattrs.is_empty(), told, "{errno} {name}: {:?}", entry.xattrs);
        }
    }
}

fn what_stands_where_a_directory_should_be_is_left() {
    let sandbox = Sandbox::with(
        "cd home/agent; mkdir -p .claude/settings.json; echo mine > .claude/sessions
         mkfifo .claude/session-env; echo mine > Downloads; mkfifo .molecule-token-cache
         cd ../..; echo mine > workspace/.molecule; chown 1000:1000 workspace/.molecule",
    );
    let log = boot(&sandbox, 1);
    for place in [".claude/settings.json", ".claude/sessions", ".claude/session-env", "Downloads"] {
        warning(&log, &format!("/home/agent/{place}: "));
    }
    warning(&log, "/home/agent/.molecule-token-cache: ");
    warning(&log, "/workspace/.molecule: ");
    assert_eq!(
        sandbox.sh("cat /home/agent/.claude/sessions /home/agent/Downloads /workspace/.molecule"),
        "mine\n".repeat(3)
    );
}
