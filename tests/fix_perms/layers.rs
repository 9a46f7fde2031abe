//! Overlays, mounts, and file systems that cannot be written.

use std::path::Path;

use crate::fix_perms::{boot, warning, warnings};
use crate::support::compare::snapshot;
use crate::support::sandbox::Sandbox;
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const OVERLAY: &[Need] = &[Need::Root, Need::Filesystem("overlay")];
    const ROOT: &[Need] = &[Need::Root];
    vec![
        test_case!(right_entries_of_a_lower_layer_are_not_copied_up, OVERLAY),
        test_case!(only_what_differs_is_copied_up, OVERLAY),
        test_case!(hard_links_of_a_lower_layer_are_given_by_every_name, OVERLAY),
        test_case!(a_deep_tree_of_a_lower_layer_is_given, OVERLAY),
        test_case!(a_mount_below_a_tree_is_entered, ROOT),
        test_case!(a_read_only_tree_is_told_and_the_rest_is_done, ROOT),
    ]
}

/// `lower` (sh, in the lower layer) under an overlay at /configs; /upper is its upper layer.
fn overlay(lower: &str) -> Sandbox {
    Sandbox::with(&format!(
        "mkdir lower upper work
         (cd lower; {lower})
         mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,index=off configs"
    ))
}

fn upper(sandbox: &Sandbox) -> Vec<String> {
    let names = snapshot(&sandbox.path("/upper"));
    names.into_keys().filter(|p| p != Path::new("")).map(|p| p.display().to_string()).collect()
}

/// Deeper than what is held open, with another layer in the middle: the way up crosses a mount.
fn a_deep_tree_of_a_lower_layer_is_given() {
    const DEEP: &str = "for n in $(seq 30); do mkdir a b d; echo > a/f; echo > f; cd d; done";
    let sandbox = overlay(DEEP);
    sandbox.sh(&format!(
        "mkdir /second /mounted; cd /second; {DEEP}
         cd /configs/d/d/d/d/d/d/d/d/d/d; mkdir m; mount --bind /second m"
    ));
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    let found = "find /configs | wc -l; find /configs ! -user 1000 | wc -l";
    assert_eq!(sandbox.sh(found), format!("{}\n0\n", 2 * (30 * 5 + 1)));
}

const RIGHT: &str = "mkdir -p a/b; for n in $(seq 100); do mkdir d$n; echo x > d$n/f; done
    echo > a/b/tool; chmod 755 a/b/tool; ln -s x a/link; ln a/b/tool a/second; chown -Rh 1000:1000 .";

fn right_entries_of_a_lower_layer_are_not_copied_up() {
    let sandbox = overlay(RIGHT);
    assert_eq!(boot(&sandbox, 0).matches("/configs").count(), 0);
    assert_eq!(upper(&sandbox), Vec::<String>::new());
    let given = sandbox.program().args(["fix-perms", "--user", "1000:1000", "/configs"]).run();
    assert_eq!((given.status, given.stdout().as_str()), (0, ""));
    assert_eq!(upper(&sandbox), Vec::<String>::new());
}

fn only_what_differs_is_copied_up() {
    let sandbox = overlay(&format!(
        "{RIGHT}; chown 0:0 d1/f; chmod 4755 d2/f; chown 1000:7 d3
         setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 d4/f"
    ));
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(upper(&sandbox), ["d1", "d1/f", "d2", "d2/f", "d3", "d4", "d4/f"]);
    for path in ["d1/f", "d2/f", "d3", "d4/f"] {
        let entry = &snapshot(&sandbox.path(format!("/configs/{path}")))[Path::new("")];
        assert_eq!((entry.owner, entry.mode & 0o6000), ((1000, 1000), 0), "{path}");
        assert!(entry.xattrs.is_empty(), "{path}: {:?}", entry.xattrs);
    }
}

fn hard_links_of_a_lower_layer_are_given_by_every_name() {
    let sandbox = overlay("mkdir a b; echo x > a/one; ln a/one b/two; ln a/one three");
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    let owners = "cd /configs; stat -c %u a/one b/two three";
    assert_eq!(sandbox.sh(owners), "1000\n1000\n1000\n");
}

fn a_mount_below_a_tree_is_entered() {
    let sandbox = Sandbox::with(
        "mkdir -p workspace/volume; mount -t tmpfs -o mode=755 v workspace/volume
         mkdir workspace/volume/d; echo > workspace/volume/d/f",
    );
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(sandbox.sh("cd /workspace/volume; stat -c %u . d d/f"), "1000\n1000\n1000\n");
}

fn a_read_only_tree_is_told_and_the_rest_is_done() {
    let sandbox = Sandbox::with(
        "for n in $(seq 150); do echo > configs/$n; done
         mount --bind configs configs; mount -o remount,bind,ro configs; echo > workspace/f",
    );
    let log = boot(&sandbox, 1);
    warning(&log, "change owner of /configs: Read-only file system");
    warning(&log, "51 more warnings about /configs");
    assert!(log.contains(", 151 failed\n"), "{log}");
    assert_eq!(sandbox.sh("stat -c %u /workspace/f /home/agent/Downloads"), "1000\n1000\n");
}
