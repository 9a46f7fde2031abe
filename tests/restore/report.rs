//! The report: `--json` and the marker's content.

use serde_json::Value;

use pretty_assertions::assert_eq;

use crate::restore::scene::Scene;
use crate::support::pair::said;
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::restore::NEEDS;
    vec![
        test_case!(json_alone_is_on_standard_output, needs),
        test_case!(the_marker_holds_the_report, needs),
        test_case!(counts_and_bytes_are_what_was_done, needs),
        test_case!(failures_are_in_the_report_with_reasons, needs),
        test_case!(a_skipped_restore_reports_so, needs),
        test_case!(a_dry_run_reports_and_leaves_no_marker, needs),
        test_case!(verify_reports_mismatches, needs),
    ]
}

/// The report of a run with `--json` that must end with `status`.
#[track_caller]
fn report(scene: &Scene, options: &[&str], status: i32) -> Value {
    let output = scene.command().arg("--json").args(options).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["status"], status, "{report}");
    report
}

fn json_alone_is_on_standard_output() {
    let scene = Scene::new();
    let output = scene.output(&["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["result"], "restored");
    let lines = String::from_utf8(output.stderr).unwrap();
    assert!(lines.contains(&scene.line("ok {R}/workspace")), "{lines}");
    assert!(lines.lines().all(|line| line.starts_with("MOLECULE-RESTORE: ")), "{lines}");
}

fn the_marker_holds_the_report() {
    let scene = Scene::new();
    let mut printed = report(&scene, &[], 0);
    let mut kept: Value = serde_json::from_slice(&std::fs::read(scene.marker()).unwrap()).unwrap();
    // Both are the same report, made a moment apart.
    for report in [&mut printed, &mut kept] {
        assert!(report["finished"].as_str().unwrap().ends_with('Z'), "{report}");
        report["finished"] = Value::Null;
    }
    assert_eq!(printed, kept);
    let text = std::fs::read_to_string(scene.marker()).unwrap();
    assert!(!text.contains("secret"), "{text}");
}

fn counts_and_bytes_are_what_was_done() {
    let scene = Scene::new();
    scene.source.file("workspace/big", vec![1; 12_345]).link("workspace/twin", "workspace/big");
    scene.source.symlink("workspace/sym", "big").fifo("workspace/fifo");
    scene.root.file("workspace/surplus/deep", "x").file("workspace/src/main.rs", "fn");
    let report = report(&scene, &["--path", "workspace"], 0);
    let path = &report["paths"][0];
    assert_eq!(path["path"], "workspace");
    assert_eq!(path["destination"], scene.root.path("workspace").to_str().unwrap());
    for (key, number) in [
        ("files", 3),
        ("directories", 2),
        ("symlinks", 1),
        ("specials", 1),
        ("hard_links", 1),
        ("deleted", 2),
        ("bytes", 12_345 + 13),
        ("errors", 0),
    ] {
        assert_eq!(path[key], number, "{key}: {path}");
    }
    assert!(path["seconds"].as_f64().unwrap() >= 0.0);
}

fn failures_are_in_the_report_with_reasons() {
    let scene = Scene::new();
    scene.root.file("workspace", "in the way of a directory");
    let report = report(&scene, &[], 23);
    assert_eq!(report["result"], "partial");
    let of = |name: &str| {
        let paths = report["paths"].as_array().unwrap();
        paths.iter().find(|path| path["path"] == name).unwrap().clone()
    };
    assert_eq!(of("workspace")["status"], 23, "{report}");
    assert!(of("workspace")["reason"].as_str().unwrap().contains("workspace"), "{report}");
    assert_eq!(of("home/agent/.claude")["status"], 0, "{report}");
}

fn a_skipped_restore_reports_so() {
    let scene = Scene::new();
    scene.run(&[], 0);
    let report = report(&scene, &[], 0);
    assert_eq!(report["result"], "marker present");
}

fn a_dry_run_reports_and_leaves_no_marker() {
    let scene = Scene::new();
    let report = report(&scene, &["--dry-run"], 0);
    assert_eq!(report["dry_run"], true);
    assert!(!scene.marker().exists());
    assert!(!scene.root.path("workspace").exists());
}

fn verify_reports_mismatches() {
    let scene = Scene::new();
    assert_eq!(report(&scene, &["--verify"], 0)["paths"][1]["mismatches"], 0);
    scene.source.file("workspace/file", "one").mtime("workspace/file", 5, 5);
    scene.root.file("workspace/file", "two").mtime("workspace/file", 5, 5);
    let report = report(&scene, &["--verify", "--force"], 23);
    assert_eq!(report["paths"][1]["mismatches"], 1, "{report}");
}
