//! What makes somebody more than they are: told, and left out on request.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use rustix::fs::FileType;
use serde_json::Value;

use crate::support::pair::{Pair, said};
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(set_id_programs_and_devices_are_told, needs),
        test_case!(privileges_are_left_out_on_request, needs),
        test_case!(a_variable_leaves_privileges_out, needs),
        test_case!(set_id_bits_that_give_nothing_are_no_privilege, needs),
    ]
}

/// cap_net_raw=ep.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Two devices, one of them of two names, and three programs.
fn dangerous() -> Pair {
    let pair = Pair::new();
    let from = pair.from();
    from.file("plain", "x").file("suid", "x").mode("suid", 0o4755);
    from.file("d/sgid", "x").owner("d/sgid", 0, 42).mode("d/sgid", 0o2755);
    from.file("capable", "x").xattr("capable", "security.capability", CAPABILITY);
    from.node("block", FileType::BlockDevice, 7, 77).node("null", FileType::CharacterDevice, 1, 3);
    std::fs::hard_link(from.path("null"), from.path("zero")).unwrap();
    pair
}

fn report(output: &std::process::Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["paths"][0].clone()
}

const LINE: &str = "got 3 programs with set-id bits or capabilities and 2 device nodes";

fn set_id_programs_and_devices_are_told() {
    let pair = dangerous();
    let output = pair.expect(&["--json"], 0);
    let text = said(&output);
    assert!(text.contains(&format!("WARN {} {LINE}", pair.to().0.display())), "{text}");
    assert_eq!(text.matches(LINE).count(), 1, "{text}");
    let report = report(&output);
    assert_eq!((&report["privileged_files"], &report["devices"]), (&3.into(), &2.into()));
    assert_eq!(report["privileges_left_out"], 0);
    pair.assert_equal();
    let again = said(&pair.mirror());
    assert!(!again.contains("device nodes"), "nothing is new: {again}");
}

/// Nothing at the destination gives anybody anything; everything else is as at the source.
#[track_caller]
fn harmless(pair: &Pair) {
    let to = pair.to();
    for (name, mode) in [("plain", 0o644), ("suid", 0o755), ("d/sgid", 0o755), ("capable", 0o644)] {
        assert_eq!(to.path(name).metadata().unwrap().mode() & 0o7777, mode, "{name}");
        assert_eq!(std::fs::read(to.path(name)).unwrap(), b"x");
    }
    assert_eq!(to.path("d/sgid").metadata().unwrap().gid(), 42);
    let mut value = [0; 64];
    let read = rustix::fs::lgetxattr(to.path("capable"), "security.capability", &mut value);
    assert_eq!(read, Err(rustix::io::Errno::NODATA));
}

fn privileges_are_left_out_on_request() {
    let pair = dangerous();
    let output = pair.expect(&["--no-privileged", "--json", "--verify"], 0);
    let text = said(&output);
    harmless(&pair);
    for name in ["block", "null", "zero"] {
        assert!(pair.to().path(name).symlink_metadata().is_err(), "{name}");
    }
    assert!(text.contains("left out of"), "{text}");
    assert!(!text.contains("WARN"), "{text}");
    assert_eq!(report(&output)["privileges_left_out"], 6, "{text}");
    assert_eq!(report(&output)["mismatches"], 0, "{text}");
    // What was given before is taken; a device that stands there is not the snapshot's.
    pair.mirror();
    let output = pair.expect(&["--no-privileged", "--json"], 0);
    harmless(&pair);
    assert!(pair.to().path("null").symlink_metadata().unwrap().file_type().is_char_device());
    assert_eq!(report(&output)["touched"], 3);
}

fn a_variable_leaves_privileges_out() {
    for (value, wanted) in
        [("true", true), ("1", true), ("false", false), ("", false), ("0", false)]
    {
        let pair = dangerous();
        let output = pair.command().env("MOLECULE_RESTORE_NO_PRIVILEGED", value).output().unwrap();
        let text = said(&output);
        assert_eq!(text.contains("left out of"), wanted, "{value:?}: {text}");
        assert_eq!(text.contains(LINE), !wanted, "{value:?}: {text}");
        assert_eq!(output.status.code(), Some(0), "{text}");
    }
}

fn set_id_bits_that_give_nothing_are_no_privilege() {
    let pair = Pair::new();
    let from = pair.from();
    from.file("locked", "x").mode("locked", 0o2644);
    from.dir("shared").mode("shared", 0o2775);
    let text = said(&pair.expect(&["--no-privileged"], 0));
    assert!(!text.contains("left out of"), "{text}");
    pair.assert_equal();
}
