//! The same trees under the reference's steps, with real chown, and under the program.

use pretty_assertions::assert_eq;

use crate::support::compare::{snapshot, touched};
use crate::support::sandbox::Sandbox;
use crate::support::{Case, Need, manifest, test_case};

const REFERENCE: &str = include_str!("../reference/entrypoint.sh");

/// A small tree of everything at `$1`, all of it root's.
const EVERYTHING: &str = r#"
everything() (
    mkdir -p "$1/deep/er" "$1/setgid dir"; cd "$1"
    echo a > file; echo b > deep/er/file; echo c > .hidden
    ln -s /etc/passwd to-file; ln -s /etc to-directory; ln -s nowhere dangling
    mkfifo fifo; mknod null c 1 3
    echo d > deep/one; ln deep/one deep/er/two; ln to-file deep/same-link
    chmod 2775 'setgid dir'; chmod 1777 deep/er
    for bits in 4755 4644 2755 2644 6777 0711; do echo > bits-$bits; chmod $bits bits-$bits; done
    echo > capable; chmod 755 capable; setcap cap_net_raw+ep capable
    setfacl -m u:4321:rw file; setfattr -n user.colour -v blue file
    touch -d @1000000000.123456789 file
    chown 1000:1000 bits-4755; chmod 4755 bits-4755
    chown 1000:7 bits-2755; chmod 2755 bits-2755
    chown 1234:4321 bits-6777; chmod 6777 bits-6777
    echo > own-capable; chown 1000:1000 own-capable; setcap cap_net_raw+ep own-capable
    echo > own-setuid; chown 1000:1000 own-setuid; chmod 4755 own-setuid
    echo > own-setgid; chown 1000:1000 own-setgid; chmod 2775 own-setgid
    echo > own-lock; chown 1000:1000 own-lock; chmod 2644 own-lock
    mkdir own-dir; chown 1000:1000 own-dir; chmod 7755 own-dir
)
"#;

/// Name, and what is done to a fresh sandbox.
const SCENARIOS: &[(&str, &str)] = &[
    ("nothing there yet", ""),
    ("full of root's", "everything configs; everything workspace/project; everything home/agent/.claude"),
    ("an agent's workspace", "everything workspace/project; chown 1000:1000 workspace/project"),
    ("a workspace that begins with a link", "ln -s /etc workspace/only; chown -h 1000 workspace/only"),
    ("a workspace that begins with root's link", "ln -s /etc workspace/only"),
    ("no volumes", "rmdir workspace configs"),
    ("configs is a file", "rmdir configs; echo > configs"),
    ("configs is a link", "rmdir configs; everything srv; ln -s /srv configs"),
    (
        "used before",
        "mkdir -p home/agent/.claude/sessions/old home/agent/.molecule-token-cache home/agent/Downloads
         echo '{}' > home/agent/.claude/settings.json; chmod 600 home/agent/.claude/settings.json
         chmod 755 home/agent/.molecule-token-cache; chmod 700 home/agent/Downloads
         mkdir -p workspace/.molecule/chat-uploads/a; everything workspace/.molecule/b",
    ),
    ("no group of the user's name", "sed -i s/^agent:/agents:/ etc/group; everything configs"),
    ("no such user", "sed -i /^agent:/d etc/passwd; everything configs"),
    (
        "a primary group of another name",
        "sed -i 's/^agent:x:1000:1000/agent:x:1000:100/' etc/passwd; everything configs",
    ),
    ("other ids", "sed -i s/1000:1000/4000:5000/ etc/passwd
                   sed -i s/:1000:/:5000:/ etc/group; everything configs"),
];

pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Root, Need::Program("setcap"), Need::Program("setfacl")];
    vec![
        test_case!(the_reference_leaves_the_same_trees, NEEDS),
        test_case!(a_second_run_changes_no_inode, NEEDS),
    ]
}

/// From the first to the last chown of the root half; the credentials part is off by default.
fn steps() -> &'static str {
    let start = REFERENCE.find("chown -R agent:agent /configs").unwrap();
    let last = "chown agent:agent /home/agent/Downloads\n";
    let end = REFERENCE.find(last).unwrap() + last.len();
    &REFERENCE[start..end]
}

fn the_reference_leaves_the_same_trees() {
    let long_ago = 1_100_000_000;
    for (name, script) in SCENARIOS {
        let script = format!("{EVERYTHING}\n{script}");
        let (theirs, ours) = (Sandbox::with(&script), Sandbox::with(&script));
        theirs.command("/bin/sh").args(["-c", steps()]).run();
        let outcome = ours.program().arg("fix-perms").run();
        assert_eq!(outcome.stderr(), "", "{name}");
        for tree in ["/configs", "/workspace", "/home", "/root", "/etc", "/srv"] {
            if theirs.path(tree).symlink_metadata().is_err() {
                assert!(ours.path(tree).symlink_metadata().is_err(), "{name}: {tree}");
                continue;
            }
            let expected = manifest::of(&theirs.path(tree), long_ago);
            let found = manifest::of(&ours.path(tree), long_ago);
            for (path, attributes) in &expected {
                assert_eq!(found.get(path), Some(attributes), "{name}: {tree}/{path}");
            }
            assert_eq!(found.len(), expected.len(), "{name}: {tree}: {:?}", found.keys());
        }
    }
}

fn a_second_run_changes_no_inode() {
    let script = format!(
        "{EVERYTHING}
        everything configs; everything workspace/project; everything home/agent/.claude
        everything root/.claude/sessions"
    );
    let sandbox = Sandbox::with(&script);
    let first = crate::fix_perms::boot(&sandbox, 0);
    assert!(first.contains("MOLECULE-PERMS: changed "), "{first}");
    let before = crate::fix_perms::trees(&sandbox);
    let second = crate::fix_perms::boot(&sandbox, 0);
    assert_eq!(second, "");
    for (before, after) in before.iter().zip(crate::fix_perms::trees(&sandbox)) {
        assert_eq!(touched(before, &after), Vec::<String>::new());
    }
    let file = sandbox.path("/configs/own-setuid");
    let seen = &snapshot(&file)[std::path::Path::new("")];
    assert_eq!((seen.mode & 0o7777, seen.owner), (0o755, (1000, 1000)));
}
