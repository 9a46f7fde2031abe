//! ~/.claude/sessions, the volume at /root/.claude/sessions, and the way through /root.

use crate::fix_perms::{boot, warning, warnings};
use crate::support::sandbox::{PROGRAM_INSIDE, Sandbox};
use crate::support::tree::{ACCESS, GROUP_OBJ, MASK, NO_ID, OTHER, USER, USER_OBJ, acl};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root];
    const ACL: &[Need] = &[Need::Root, Need::Program("setfacl")];
    const STRACE: &[Need] = &[Need::Root, Need::Program("strace")];
    vec![
        test_case!(the_link_replaces_nothing_that_holds_anything, ROOT),
        test_case!(sessions_that_are_there_stay, ROOT),
        test_case!(without_a_volume_there_is_a_directory, ROOT),
        test_case!(a_volume_that_cannot_be_looked_at_is_no_absence, STRACE),
        test_case!(sessions_that_are_the_volume_itself_are_left, ROOT),
        test_case!(the_user_reads_and_writes_its_sessions_and_sees_nothing_else, ROOT),
        test_case!(an_acl_that_is_there_gives_nobody_more, ACL),
        test_case!(a_root_that_may_be_searched_is_left_alone, ROOT),
        test_case!(without_acls_there_is_a_warning, ROOT),
    ]
}

const VOLUME: &str = "mkdir -p root/.claude/sessions home/agent/.claude; ";

fn the_link_replaces_nothing_that_holds_anything() {
    for (name, before) in [
        ("absent", ""),
        ("empty", "mkdir sessions;"),
        ("stray link", "mkdir sessions; ln -s /root/.claude/sessions sessions/sessions"),
        ("link elsewhere", "ln -s /tmp sessions"),
        ("right link, root's", "ln -s /root/.claude/sessions sessions"),
    ] {
        let sandbox = Sandbox::with(&format!("{VOLUME} (cd home/agent/.claude; {before}\n:)"));
        let log = boot(&sandbox, 0);
        assert_eq!(warnings(&log), 0, "{name}: {log}");
        assert_eq!(
            sandbox.sh("readlink /home/agent/.claude/sessions; ls -A /root/.claude/sessions
                        stat -c %u:%g /home/agent/.claude/sessions /root/.claude/sessions"),
            "/root/.claude/sessions\n1000:1000\n1000:1000\n",
            "{name}"
        );
    }
}

fn sessions_that_are_there_stay() {
    for (name, before) in [
        ("a session", "mkdir sessions; echo mine > sessions/s"),
        (
            "the stray link and a session",
            "mkdir sessions; ln -s /root/.claude/sessions sessions/sessions; echo mine > sessions/s",
        ),
        (
            "another link",
            "mkdir sessions; ln -s /root/.claude/other sessions/sessions; echo mine > s",
        ),
        ("a directory sessions", "mkdir -p sessions/sessions; echo mine > sessions/sessions/s"),
    ] {
        let sandbox = Sandbox::with(&format!("{VOLUME} (cd home/agent/.claude; {before}\n:)"));
        let list = "cd /home/agent/.claude; find sessions | sort; find . -name s -exec cat {} +";
        let expected = sandbox.sh(list);
        let log = boot(&sandbox, 1);
        let line = warning(&log, "link /home/agent/.claude/sessions: the directory is not empty");
        assert!(line.contains("move them to /root/.claude/sessions"), "{name}: {line}");
        assert_eq!(sandbox.sh(list), expected, "{name}");
    }
}

fn without_a_volume_there_is_a_directory() {
    let sandbox = Sandbox::with(
        "mkdir home/agent/.claude; ln -s /root/.claude/sessions home/agent/.claude/sessions",
    );
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(sandbox.sh("stat -c '%F %u' /home/agent/.claude/sessions"), "directory 1000\n");
    assert_eq!(sandbox.sh("stat -c %a:%F /root; ls -A /root"), "700:directory\n");
}

/// Sessions in a directory in the place of the link would never come to the volume.
fn a_volume_that_cannot_be_looked_at_is_no_absence() {
    let look = "readlink /home/agent/.claude/sessions; cat /root/.claude/sessions/s";
    for (times, lost) in [("", true), (":when=1..2", false)] {
        let sandbox = Sandbox::with(&format!(
            "{VOLUME} echo mine > root/.claude/sessions/s
             ln -s /root/.claude/sessions home/agent/.claude/sessions"
        ));
        let inject = format!("inject=openat,openat2:error=EIO{times}");
        let outcome = sandbox
            .command("/usr/bin/strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-P", "/root/.claude", "-e", &inject])
            .args([PROGRAM_INSIDE, "fix-perms"])
            .run();
        let log = outcome.stdout();
        assert_eq!(outcome.status, i32::from(lost), "{log}");
        match lost {
            true => assert!(warning(&log, "/root/.claude/sessions: ").contains("Input/output")),
            false => assert_eq!(warnings(&log), 0, "{log}"),
        }
        assert_eq!(sandbox.sh(look), "/root/.claude/sessions\nmine\n", "{log}");
        assert_eq!(warnings(&boot(&sandbox, 0)), 0);
        assert_eq!(sandbox.sh(look), "/root/.claude/sessions\nmine\n");
    }
}

fn sessions_that_are_the_volume_itself_are_left() {
    let sandbox = Sandbox::with("mkdir -p root/.claude/sessions");
    let outcome = sandbox.program().args(["fix-perms", "--user", "root"]).run();
    assert_eq!(outcome.status, 0, "{}", crate::fix_perms::said(&outcome));
    assert_eq!(sandbox.sh("stat -c '%F %a' /root/.claude/sessions"), "directory 755\n");
    let sandbox = Sandbox::with(
        "mkdir -p root/.claude/sessions home/agent/.claude/sessions
         mount --bind root/.claude/sessions home/agent/.claude/sessions",
    );
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(sandbox.sh("stat -c '%F %u' /home/agent/.claude/sessions"), "directory 1000\n");
}

fn the_user_reads_and_writes_its_sessions_and_sees_nothing_else() {
    let sandbox = Sandbox::with(
        "mkdir -p root/.claude/sessions; echo hello > root/.claude/sessions/s
         echo secret > root/secret; chmod 644 root/secret; mkdir root/open; chown 1000 root/open",
    );
    boot(&sandbox, 0);
    let run = |uid: u32, gid: u32, script: &str| {
        let command = sandbox.command("/bin/sh").args(["-c", script]);
        command.identity(uid, gid, &[]).run().status
    };
    let session = "cat /root/.claude/sessions/s";
    let agents = "test \"$(cat ~/.claude/sessions/s)\" = hello && echo more > ~/.claude/sessions/t";
    assert_eq!(run(1000, 1000, &format!("HOME=/home/agent; {agents}")), 0);
    assert_eq!(sandbox.sh("cat /root/.claude/sessions/t"), "more\n");
    assert_ne!(run(1000, 1000, "ls /root"), 0, "the names in /root");
    assert_ne!(run(1000, 1000, "echo x > /root/new"), 0, "a new file in /root");
    for (uid, gid, who) in [(65534, 65534, "another user"), (65534, 0, "root's group")] {
        assert_ne!(run(uid, gid, session), 0, "{who} reads a session");
        assert_ne!(run(uid, gid, "cat /root/secret"), 0, "{who} reads root's file");
        assert_ne!(run(uid, gid, "ls /root"), 0, "{who} lists /root");
    }
    assert_eq!(
        sandbox.sh("getfacl -cnp /root"),
        "user::rwx\nuser:1000:--x\ngroup::---\nmask::--x\nother::---\n\n"
    );
}

fn an_acl_that_is_there_gives_nobody_more() {
    let sandbox = Sandbox::with(
        "mkdir -p root/.claude/sessions; setfacl -m u:7:rwx,u:2000:rx,g:9:x,g::rx,m::r root",
    );
    boot(&sandbox, 0);
    // What the mask held back is gone, so that the wider mask gives nobody more.
    assert_eq!(
        sandbox.sh("getfacl -cnp /root"),
        "user::rwx\nuser:7:r--\nuser:1000:--x\nuser:2000:r--\ngroup::r--\ngroup:9:---\nmask::r-x\n\
         other::---\n\n"
    );
    // What chmod 700 does to the mask is undone at the next boot.
    sandbox.sh("chmod 700 /root");
    boot(&sandbox, 0);
    assert!(sandbox.sh("getfacl -cnp /root").contains("user:1000:--x\n"));
    let expected = acl(&[
        (USER_OBJ, 7, NO_ID),
        (USER, 0, 7),
        (USER, 1, 1000),
        (USER, 0, 2000),
        (GROUP_OBJ, 0, NO_ID),
        (0x08, 0, 9),
        (MASK, 1, NO_ID),
        (OTHER, 0, NO_ID),
    ]);
    let mut value = [0_u8; 256];
    let length = rustix::fs::getxattr(sandbox.path("/root"), ACCESS, &mut value[..]).unwrap();
    assert_eq!(value[..length], expected);
}

fn a_root_that_may_be_searched_is_left_alone() {
    for change in [
        "chmod 711 root",
        "chmod 710 root; chgrp 1000 root",
        "chmod 750 root; chgrp 2375 root",
        "chown 1000 root",
    ] {
        let sandbox = Sandbox::with(&format!("mkdir -p root/.claude/sessions; {change}"));
        let before = sandbox.sh("getfacl -cnp /root; stat -c %z /root");
        assert_eq!(warnings(&boot(&sandbox, 0)), 0, "{change}");
        assert_eq!(sandbox.sh("getfacl -cnp /root; stat -c %z /root"), before, "{change}");
    }
}

fn without_acls_there_is_a_warning() {
    let sandbox = Sandbox::with(
        "mount -t ramfs -o mode=700 none root; chmod 700 root; mkdir -p root/.claude/sessions",
    );
    let log = boot(&sandbox, 1);
    let line = warning(&log, "let the user search /root: ");
    assert!(line.contains("this file system has no ACLs"), "{line}");
    assert_eq!(sandbox.sh("stat -c %a /root"), "700\n");
}
