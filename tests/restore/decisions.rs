//! When something is restored and when not.

use std::os::unix::fs::MetadataExt;

use crate::scene::Scene;
use crate::support::compare::{differences, snapshot, touched};
use crate::support::pair::said;
use crate::support::tree::Tree;
use crate::support::{Case, case};

pub fn cases() -> Vec<Case> {
    let needs = crate::NEEDS;
    vec![
        case("the_restore_set_is_restored_and_nothing_else", needs, restore_set),
        case("a_marker_skips_everything", needs, marker_skips),
        case("force_restores_although_there_is_a_marker", needs, force),
        case("a_marker_that_is_no_regular_file_does_not_count", needs, odd_marker),
        case("an_absent_path_is_no_failure", needs, absent),
        case("a_path_that_is_a_file_counts_as_absent", needs, file_path),
        case("only_named_paths_are_restored", needs, named),
        case("paths_and_jobs_come_from_the_environment", needs, environment),
        case("a_path_never_leaves_the_root", needs, escaping),
        case("one_refused_path_leaves_the_others_restored", needs, refused),
        case("nothing_restorable_by_hand_is_status_1", needs, nothing),
        case("wrong_usage_is_status_2", needs, usage),
        case("a_device_in_the_environment_gives_way_to_a_source", needs, device_variable),
        case("a_marker_that_cannot_be_written_is_a_warning", needs, marker_directory),
        case("a_new_marker_has_the_modes_the_umask_leaves", needs, marker_mode),
        case("a_restored_old_marker_is_rewritten", needs, old_marker),
    ]
}

fn restore_set() {
    let scene = Scene::new();
    scene.root.file("workspace/surplus", "goes").file("home/agent/own", "stays");
    scene.run(&[], 0);
    for path in ["workspace", "home/agent/.claude"] {
        let lines = differences(&scene.source.path(path), &scene.root.path(path));
        assert_eq!(lines, Vec::<String>::new());
    }
    assert_eq!(std::fs::read(scene.root.path("configs/.auth_token")).unwrap(), b"secret");
    assert!(!scene.root.path("etc").exists() && !scene.root.path("home/agent/.bashrc").exists());
    assert_eq!(std::fs::read(scene.root.path("home/agent/own")).unwrap(), b"stays");
}

fn marker_skips() {
    let scene = Scene::new();
    scene.root.file("configs/.restore-completed", "").file("workspace/mine", "stays");
    let before = snapshot(&scene.root.0);
    let lines = scene.run(&[], 0);
    let skipping = "marker {R}/configs/.restore-completed present — skipping \
                    (already restored on this EC2)";
    assert!(lines.starts_with(&scene.line(skipping)), "{lines}");
    assert!(!lines.contains("rsync "), "{lines}");
    assert_eq!(touched(&before, &snapshot(&scene.root.0)), Vec::<String>::new());
}

fn force() {
    let scene = Scene::new();
    scene.run(&[], 0);
    scene.source.file("workspace/later", "x");
    scene.run(&[], 0);
    assert!(!scene.root.path("workspace/later").exists());
    scene.run(&["--force"], 0);
    assert!(scene.root.path("workspace/later").exists());
}

fn odd_marker() {
    let markers: [fn(&Tree); 3] = [
        |root| _ = root.symlink("configs/.restore-completed", "/etc/passwd"),
        |root| _ = root.symlink("configs/.restore-completed", "nowhere"),
        |root| _ = root.fifo("configs/.restore-completed"),
    ];
    for make in markers {
        let scene = Scene::new();
        make(&scene.root);
        let target = std::fs::read("/etc/passwd").unwrap();
        scene.run(&[], 0);
        assert!(scene.root.path("workspace/src/main.rs").exists());
        assert!(scene.marker().symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read("/etc/passwd").unwrap(), target);
    }
}

fn absent() {
    let scene = Scene::new();
    std::fs::remove_dir_all(scene.source.path("home")).unwrap();
    scene.root.file("home/agent/.claude/mine", "stays");
    let lines = scene.run(&[], 0);
    let line = "source {S}/home/agent/.claude absent — skipping \
                (likely the prior workspace never wrote it)";
    assert!(lines.contains(&scene.line(line)), "{lines}");
    assert!(lines.contains(&scene.line("ok {R}/workspace")), "{lines}");
    assert!(scene.root.path("home/agent/.claude/mine").exists());
    assert!(scene.marker().is_file());
}

fn file_path() {
    let scene = Scene::new();
    std::fs::remove_dir_all(scene.source.path("workspace")).unwrap();
    scene.source.file("workspace", "a file");
    scene.root.file("workspace/mine", "stays");
    let lines = scene.run(&[], 0);
    assert!(lines.contains("/workspace absent — skipping"), "{lines}");
    assert!(scene.root.path("workspace/mine").exists());
}

fn named() {
    let scene = Scene::new();
    let lines = scene.run(&["--path", "workspace", "--path", "etc"], 0);
    assert!(scene.root.path("workspace/src/main.rs").exists());
    assert!(scene.root.path("etc/passwd").exists());
    assert!(!scene.root.path("configs/config.yaml").exists());
    assert!(!lines.contains("/configs/ ->"), "{lines}");
}

fn environment() {
    let scene = Scene::new();
    let mut command = scene.command();
    command.env("MOLECULE_RESTORE_PATHS", "etc:home/agent").env("MOLECULE_RESTORE_JOBS", "3");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(scene.root.path("etc/passwd").exists());
    assert!(scene.root.path("home/agent/.bashrc").exists());
    assert!(!scene.root.path("workspace").exists());
}

fn escaping() {
    for path in ["../outside", "workspace/../../outside", "/../outside"] {
        let scene = Scene::new();
        let outside = Tree(scene.root.0.parent().unwrap().to_owned());
        outside.file("outside/precious", "x");
        let before = snapshot(&outside.path("outside"));
        let output = scene.output(&["--path", path]);
        assert_ne!(output.status.code(), Some(0), "{path}: {}", said(&output));
        assert!(!said(&output).contains("ok "), "{}", said(&output));
        let now = snapshot(&outside.path("outside"));
        assert_eq!(touched(&before, &now), Vec::<String>::new());
    }
}

fn refused() {
    let scene = Scene::new();
    std::fs::remove_dir_all(scene.source.path("configs")).unwrap();
    scene.source.symlink("configs", "/etc");
    let lines = scene.run(&[], 23);
    let warning = "WARN rsync to {R}/configs exited 23 — workspace may be partially restored";
    assert!(lines.contains(&scene.line(warning)), "{lines}");
    assert!(!scene.root.path("configs/passwd").exists());
    assert!(lines.contains(&scene.line("ok {R}/workspace")), "{lines}");
    assert!(scene.root.path("workspace/src/main.rs").exists());
    let end = "complete with WARNINGS — marker {R}/configs/.restore-completed dropped; \
               rm marker + restart for retry";
    assert!(lines.ends_with(&scene.line(end)), "{lines}");
}

fn nothing() {
    let scene = Scene::new();
    std::fs::remove_dir_all(&scene.source.0).unwrap();
    let lines = scene.run(&[], 1);
    assert!(lines.starts_with("MOLECULE-RESTORE: WARN "), "{lines}");
    assert!(!scene.marker().exists());
}

fn usage() {
    let scene = Scene::new();
    let wrong: [&[&str]; 5] = [
        &["--no-such-option"],
        &["operand"],
        &["--jobs", "many"],
        &["--progress", "often"],
        &["--device", "/dev/xvdb"],
    ];
    for options in wrong {
        let output = scene.output(options);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{}", said(&output));
        assert!(!scene.root.path("workspace").exists());
    }
}

fn device_variable() {
    let scene = Scene::new();
    let output = scene.command().env("MOLECULE_RESTORE_DEVICE", "/dev/none").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(scene.root.path("workspace/src/main.rs").exists());
}

fn marker_directory() {
    let scene = Scene::new();
    scene.root.dir("configs/.restore-completed");
    let lines = scene.run(&["--path", "workspace"], 0);
    let start = scene.line("WARN marker {R}/configs/.restore-completed could not be written: ");
    assert!(lines.contains(start.trim_end()), "{lines}");
    assert!(scene.root.path("workspace/src/main.rs").exists());
}

fn marker_mode() {
    let scene = Scene::new();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 027; exec \"$@\"", "sh", crate::support::PROGRAM]);
    crate::support::ok(shell.args(scene.command().get_args()));
    assert_eq!(scene.marker().metadata().unwrap().mode() & 0o7777, 0o640);
}

fn old_marker() {
    let scene = Scene::new();
    scene.source.file("configs/.restore-completed", "of another life");
    scene.run(&[], 0);
    let text = std::fs::read_to_string(scene.marker()).unwrap();
    assert!(text.starts_with('{'), "{text}");
    let before = "of another life";
    assert_eq!(
        std::fs::read_to_string(scene.source.path("configs/.restore-completed")).unwrap(),
        before
    );
}
