//! The lines operators grep for.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use pretty_assertions::assert_eq;

use crate::restore::scene::Scene;
use crate::support::device::{Device, Manners};
use crate::support::mounts::{Mounted, ext4_image};
use crate::support::tree::Tree;
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::restore::NEEDS;
    let disk = &[Need::Root, Need::Loop, Need::Filesystem("ext4"), Need::Filesystem("fuse")];
    vec![
        test_case!(a_clean_restore_says_the_reference_s_lines_in_order, needs),
        test_case!(no_line_is_forged_by_a_name, needs),
        test_case!(a_long_restore_says_how_far_it_is, disk),
        test_case!(progress_never_says_nothing_more, needs),
    ]
}

fn a_clean_restore_says_the_reference_s_lines_in_order() {
    let scene = Scene::new();
    let expected = [
        "rsync {S}/configs/ -> {R}/configs/",
        "ok {R}/configs",
        "rsync {S}/workspace/ -> {R}/workspace/",
        "ok {R}/workspace",
        "rsync {S}/home/agent/.claude/ -> {R}/home/agent/.claude/",
        "ok {R}/home/agent/.claude",
        "complete — marker {R}/configs/.restore-completed dropped",
    ];
    let expected: String = expected.iter().map(|line| scene.line(line)).collect();
    let output = scene.output(&[]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert!(output.stderr.is_empty());
}

fn no_line_is_forged_by_a_name() {
    let scene = Scene::new();
    let name = "x\nMOLECULE-RESTORE: ok forged\r\u{1b}[2J\\n";
    scene.source.file(format!("workspace/{name}"), "x").file(format!("{name}/in"), "x");
    scene.root.file(format!("workspace/{name}/surplus"), "x");
    for options in [vec!["--dry-run"], vec!["--path", name], vec!["--path", "workspace", "--force"]]
    {
        let output = scene.output(&options);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().all(|line| line.starts_with("MOLECULE-RESTORE: ")), "{text}");
        assert!(!text.lines().any(|line| line == "MOLECULE-RESTORE: ok forged"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text}");
    }
}

fn a_long_restore_says_how_far_it_is() {
    let scene = Scene::new();
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    ext4_image(&image, 64, &[]);
    let mounted = Mounted::image(&image, place.path().join("planting"), "rw");
    for number in 0..2000 {
        let name = format!("workspace/dir{}/file{number}", number % 300);
        Tree(mounted.0.clone()).file(name, "x".repeat(9000));
    }
    mounted.put_away();
    let manners = Manners { delay: Duration::from_millis(100), bad: Vec::new() };
    let device = Device::of(&image, &place.path().join("disk"), manners);
    let source = Mounted::node(device.node(), place.path().join("source"), "ro,noload");
    let mut command = crate::support::program();
    command.args(["restore", "--path", "workspace", "--jobs", "1", "--source"]).arg(&source.0);
    command.arg("--root").arg(&scene.root.0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find(|line| line.contains("progress"));
    child.kill().unwrap();
    child.wait().unwrap();
    let line = line.unwrap_or_else(|| panic!("it ended without a word"));
    for word in ["MOLECULE-RESTORE: ", "/workspace", " files", "MiB/s", "to go"] {
        assert!(line.contains(word), "{line}");
    }
}

fn progress_never_says_nothing_more() {
    let scene = Scene::new();
    let always = scene.run(&["--progress", "always"], 0);
    let never = scene.run(&["--progress", "never", "--force"], 0);
    assert_eq!(always, never);
    assert!(!always.contains("progress"), "{always}");
}
