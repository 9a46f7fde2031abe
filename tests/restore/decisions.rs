//! When something is restored and when not.

use std::os::unix::fs::MetadataExt;

use crate::restore::scene::Scene;
use crate::support::compare::{differences, snapshot, touched};
use crate::support::pair::said;
use crate::support::tree::Tree;
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::restore::NEEDS;
    let strace = &[Need::Root, Need::Program("strace")];
    vec![
        test_case!(the_restore_set_is_restored_and_nothing_else, needs),
        test_case!(a_marker_skips_everything, needs),
        test_case!(force_restores_although_there_is_a_marker, needs),
        test_case!(a_marker_that_is_no_regular_file_does_not_count, needs),
        test_case!(an_absent_path_is_no_failure, needs),
        test_case!(a_path_that_is_a_file_counts_as_absent, needs),
        test_case!(only_named_paths_are_restored, needs),
        test_case!(paths_and_jobs_come_from_the_environment, needs),
        test_case!(a_path_never_leaves_the_root, needs),
        test_case!(one_refused_path_leaves_the_others_restored, needs),
        test_case!(nothing_restorable_by_hand_is_status_1, needs),
        test_case!(a_device_that_was_named_and_is_absent_is_status_1, needs),
        test_case!(the_agent_hears_that_root_can_restore, needs),
        test_case!(after_a_restore_over_the_root_it_says_how_to_give_it, needs),
        test_case!(wrong_usage_is_status_2, needs),
        test_case!(a_device_in_the_environment_gives_way_to_a_source, needs),
        test_case!(a_directory_in_the_place_of_the_marker_is_put_aside, needs),
        test_case!(a_marker_that_cannot_be_written_is_status_23_and_deletes_nothing, needs),
        test_case!(an_odd_marker_deletes_nothing_and_keeps_what_is_newer, needs),
        test_case!(a_snapshots_marker_is_never_restored_whatever_it_is, needs),
        test_case!(a_part_of_the_set_drops_no_marker, needs),
        test_case!(a_path_with_dots_is_wrong_usage_before_anything_happens, needs),
        test_case!(a_record_makes_a_restore_add_and_mend_only, needs),
        test_case!(force_does_the_whole_over_a_record, needs),
        test_case!(a_snapshots_own_record_never_counts, needs),
        test_case!(a_lock_is_nobody_elses_to_take, needs),
        test_case!(a_lock_that_cannot_be_looked_at_is_no_other, strace),
        test_case!(a_new_marker_has_the_modes_the_umask_leaves, needs),
        test_case!(a_restored_old_marker_is_rewritten, needs),
        test_case!(content_that_a_power_cut_took_is_restored_without_a_marker, needs),
    ]
}

fn the_restore_set_is_restored_and_nothing_else() {
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

/// Without a name there is often no volume, and that is in order; with one somebody has mistyped it.
fn a_device_that_was_named_and_is_absent_is_status_1() {
    let scene = Scene::new();
    let absent = |options: &[&str], status: i32| {
        let mut command = crate::support::program();
        command.args(["restore", "--root"]).arg(&scene.root.0).args(options);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for device in ["vol-00000000000000000", "UUID=no-such", "LABEL=no-such", "/dev/nvme99n9"] {
        let log = absent(&["--device", device], 1);
        let lines: Vec<&str> = log.lines().collect();
        assert!(
            lines[0].starts_with(&format!("MOLECULE-RESTORE: no {device} — first-time ")),
            "{log}"
        );
        let warning = format!(
            "MOLECULE-RESTORE: WARN {device} was asked for and is not there; name one that is"
        );
        assert!(lines[1].starts_with(&warning), "{log}");
        // The disks of the machine, whichever they are.
        let listed = |line: &&str| line.starts_with("MOLECULE-RESTORE: there is /dev/");
        assert!(
            lines[2..].iter().all(listed) || lines[2..] == ["MOLECULE-RESTORE: no disk is there"],
            "{log}"
        );
        assert!(lines.len() > 2, "{log}");
    }
    let report = absent(&["--json", "--device", "vol-00000000000000000"], 1);
    assert!(report.contains("\"reason\": \"vol-00000000000000000 is not there\""), "{report}");
    assert!(!scene.marker().exists());
}

fn the_agent_hears_that_root_can_restore() {
    let sandbox = crate::support::sandbox::Sandbox::new();
    sandbox.sh("mknod -m 600 /dev/xvdb b 7 99");
    let run = sandbox.program().args(["restore"]).identity(1000, 1000, &[]);
    let outcome = run.run();
    let said = "MOLECULE-RESTORE: WARN open /dev/xvdb: Permission denied; run it as root\n";
    assert_eq!((outcome.status, outcome.stdout()), (1, said.into()), "{outcome:?}");
}

fn after_a_restore_over_the_root_it_says_how_to_give_it() {
    let line = "MOLECULE-RESTORE: owners are the snapshot's; to give the trees to the agent: molecule-tools fix-perms\n";
    let sandbox = crate::support::sandbox::Sandbox::new();
    sandbox.sh("mkdir -p /snapshot/configs; echo x > /snapshot/configs/c");
    let restore = |options: &[&str]| {
        sandbox
            .program()
            .args(["restore", "--force", "--source", "/snapshot"])
            .args(options)
            .run()
            .stdout()
    };
    assert!(!restore(&["--dry-run"]).contains(line));
    let log = restore(&[]);
    assert!(log.ends_with(line), "{log}");
    sandbox.program().arg("fix-perms").run();
    assert_eq!(sandbox.sh("stat -c %U /configs/c"), "agent\n");
    assert!(!Scene::new().run(&["--force"], 0).contains(line), "another root");
}

fn a_marker_skips_everything() {
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

fn force_restores_although_there_is_a_marker() {
    let scene = Scene::new();
    scene.run(&[], 0);
    scene.source.file("workspace/later", "x");
    scene.run(&[], 0);
    assert!(!scene.root.path("workspace/later").exists());
    scene.run(&["--force"], 0);
    assert!(scene.root.path("workspace/later").exists());
}

fn a_marker_that_is_no_regular_file_does_not_count() {
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

fn an_absent_path_is_no_failure() {
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

fn a_path_that_is_a_file_counts_as_absent() {
    let scene = Scene::new();
    std::fs::remove_dir_all(scene.source.path("workspace")).unwrap();
    scene.source.file("workspace", "a file");
    scene.root.file("workspace/mine", "stays");
    let lines = scene.run(&[], 0);
    assert!(lines.contains("/workspace absent — skipping"), "{lines}");
    assert!(scene.root.path("workspace/mine").exists());
}

fn only_named_paths_are_restored() {
    let scene = Scene::new();
    let lines = scene.run(&["--path", "workspace", "--path", "etc"], 0);
    assert!(scene.root.path("workspace/src/main.rs").exists());
    assert!(scene.root.path("etc/passwd").exists());
    assert!(!scene.root.path("configs/config.yaml").exists());
    assert!(!lines.contains("/configs/ ->"), "{lines}");
}

fn paths_and_jobs_come_from_the_environment() {
    let scene = Scene::new();
    let mut command = scene.command();
    command.env("MOLECULE_RESTORE_PATHS", "etc:home/agent").env("MOLECULE_RESTORE_JOBS", "3");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(scene.root.path("etc/passwd").exists());
    assert!(scene.root.path("home/agent/.bashrc").exists());
    assert!(!scene.root.path("workspace").exists());
}

fn a_path_never_leaves_the_root() {
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

fn one_refused_path_leaves_the_others_restored() {
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

fn nothing_restorable_by_hand_is_status_1() {
    let scene = Scene::new();
    std::fs::remove_dir_all(&scene.source.0).unwrap();
    let lines = scene.run(&[], 1);
    assert!(lines.starts_with("MOLECULE-RESTORE: WARN "), "{lines}");
    assert!(!scene.marker().exists());
}

fn wrong_usage_is_status_2() {
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

fn a_device_in_the_environment_gives_way_to_a_source() {
    let scene = Scene::new();
    let output = scene.command().env("MOLECULE_RESTORE_DEVICE", "/dev/none").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(scene.root.path("workspace/src/main.rs").exists());
}

fn a_directory_in_the_place_of_the_marker_is_put_aside() {
    let scene = Scene::new();
    scene.root.file("configs/.restore-completed/mine", "the only copy");
    let lines = scene.run(&[], 0);
    let start = scene.line("WARN {R}/configs/.restore-completed is in the way of the marker");
    assert!(lines.contains(start.trim_end()), "{lines}");
    assert!(scene.marker().is_file());
    let configs = std::fs::read_dir(scene.root.path("configs")).unwrap();
    let aside = configs.filter_map(|entry| std::fs::read(entry.unwrap().path().join("mine")).ok());
    assert_eq!(aside.collect::<Vec<_>>(), [b"the only copy"]);
}

fn a_marker_that_cannot_be_written_is_status_23_and_deletes_nothing() {
    let scene = Scene::new();
    scene.root.file("workspace/surplus", "stays");
    let configs = scene.root.path("configs");
    let flags = nix::mount::MsFlags::MS_BIND;
    let none: Option<&str> = None;
    nix::mount::mount(Some(&configs), &configs, none, flags, none).unwrap();
    let read_only = flags | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(none, &configs, none, read_only, none).unwrap();
    let output = scene.output(&["--json"]);
    nix::mount::umount(&configs).unwrap();
    assert_eq!(output.status.code(), Some(23), "{}", said(&output));
    assert!(said(&output).contains("could not be written"), "{}", said(&output));
    assert!(!said(&output).contains("complete —"), "{}", said(&output));
    assert!(scene.root.path("workspace/src/main.rs").exists());
    assert!(scene.root.path("workspace/surplus").exists());
}

fn an_odd_marker_deletes_nothing_and_keeps_what_is_newer() {
    let scene = Scene::new();
    scene.source.mtime("workspace/src/main.rs", 1_700_000_000, 0);
    scene.source.file("workspace/old", "new").mtime("workspace/old", 1_700_000_000, 0);
    scene.root.file("workspace/src/main.rs", "newer").file("workspace/surplus", "stays");
    scene.root.file("workspace/old", "o").mtime("workspace/old", 1_600_000_000, 0);
    scene.root.fifo("configs/.restore-completed");
    let lines = scene.run(&[], 0);
    assert!(lines.contains("a fifo stands in the place of the marker"), "{lines}");
    let read = |path: &str| std::fs::read_to_string(scene.root.path(path)).unwrap();
    assert_eq!(read("workspace/src/main.rs"), "newer");
    assert_eq!(read("workspace/surplus"), "stays");
    assert_eq!(read("workspace/old"), "new");
    assert!(scene.marker().is_file());
}

fn a_snapshots_marker_is_never_restored_whatever_it_is() {
    let make: [fn(&Tree); 3] = [
        |source| _ = source.file("configs/.restore-completed/deep", "x"),
        |source| _ = source.symlink("configs/.restore-completed", "/etc/passwd"),
        |source| _ = source.fifo("configs/.restore-completed"),
    ];
    for make in make {
        let scene = Scene::new();
        make(&scene.source);
        scene.run(&[], 0);
        assert!(scene.marker().symlink_metadata().unwrap().is_file());
        let lines = scene.run(&[], 0);
        assert!(lines.contains("present — skipping"), "{lines}");
    }
}

fn a_part_of_the_set_drops_no_marker() {
    let scene = Scene::new();
    let lines = scene.run(&["--path", "workspace"], 0);
    assert!(lines.contains("no marker is dropped, the next start restores the rest"), "{lines}");
    assert!(!lines.contains("complete"), "{lines}");
    assert!(!scene.marker().exists());
    let lines = scene.run(&["--path", "nope"], 1);
    assert!(!lines.contains("complete"), "{lines}");
    scene.source.file("workspace/file", "x");
    let lines = scene.run(&["--path", "workspace/file"], 1);
    assert!(!lines.contains("complete"), "{lines}");
    assert!(!scene.marker().exists());
    scene.run(&[], 0);
    assert!(scene.marker().exists());
    scene.run(&["--path", "workspace", "--force"], 0);
    assert!(scene.marker().exists());
}

fn a_path_with_dots_is_wrong_usage_before_anything_happens() {
    for path in ["..", "workspace/../../x", "/..", ".", "/"] {
        let scene = Scene::new();
        let output = scene.output(&["--path", "configs", "--path", path]);
        assert_eq!(output.status.code(), Some(2), "{path}: {}", said(&output));
        assert!(!scene.root.path("configs/config.yaml").exists());
    }
}

/// A scene whose workspace a runtime has started over, with files from before and after that.
#[track_caller]
pub fn started() -> Scene {
    let scene = Scene::new();
    for name in ["before", "after", "replaced"] {
        scene.source.file(format!("workspace/{name}"), "of the snapshot");
    }
    scene.source.file("workspace/directory/in", "x").file("workspace/file", "x");
    scene.root.file("workspace/before", "old").file("workspace/after", "old");
    let tree = molecule_tools::fs::Dir::open_operator_path(scene.root.path("workspace")).unwrap();
    crate::support::clock::tick();
    molecule_tools::record::start(&tree).unwrap();
    scene.root.file("workspace/after", "mine").file("workspace/made", "mine");
    scene.root.file("workspace/directory", "mine").file("workspace/file/in", "mine");
    let old = scene.root.path("workspace/after");
    assert!(
        std::process::Command::new("touch")
            .args(["-d", "2001-01-01"])
            .arg(old)
            .status()
            .unwrap()
            .success()
    );
    scene
}

fn a_record_makes_a_restore_add_and_mend_only() {
    let scene = started();
    let output = scene.output(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let read = |path: &str| std::fs::read_to_string(scene.root.path(path)).unwrap();
    assert_eq!(read("workspace/before"), "of the snapshot");
    assert_eq!(read("workspace/replaced"), "of the snapshot");
    for path in ["after", "made", "directory", "file/in"] {
        assert_eq!(read(&format!("workspace/{path}")), "mine", "{path}");
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let workspace = &report["paths"][1];
    assert_eq!((&workspace["kept"], &workspace["deleted"]), (&3.into(), &0.into()), "{workspace}");
    assert!(workspace["kept_paths"].as_array().unwrap().contains(&"after".into()), "{workspace}");
    let lines = String::from_utf8(output.stderr).unwrap();
    assert!(lines.contains("a runtime has run there since 2"), "{lines}");
    assert!(lines.contains("molecule-tools restore --force does the whole"), "{lines}");
    // A second try keeps the same.
    std::fs::remove_file(scene.marker()).unwrap();
    scene.run(&[], 0);
    assert_eq!(read("workspace/after"), "mine");
}

fn force_does_the_whole_over_a_record() {
    let scene = started();
    scene.run(&["--force"], 0);
    let lines = differences(&scene.source.path("workspace"), &scene.root.path("workspace"));
    let ours = |line: &&String| !line.contains("user.molecule.started");
    assert_eq!(lines.iter().filter(ours).collect::<Vec<_>>(), Vec::<&String>::new());
    // A runtime may be at work there; what it makes from now on stays.
    scene.root.file("workspace/later", "mine");
    std::fs::remove_file(scene.marker()).unwrap();
    scene.run(&[], 0);
    assert!(scene.root.path("workspace/later").exists());
}

fn a_snapshots_own_record_never_counts() {
    let scene = Scene::new();
    let open =
        |tree: &Tree| molecule_tools::fs::Dir::open_operator_path(tree.path("workspace")).unwrap();
    molecule_tools::record::start(&open(&scene.source)).unwrap();
    scene.source.file("workspace/.molecule-started", "1.000000000");
    scene.root.file("workspace/surplus", "goes");
    scene.run(&[], 0);
    assert!(!scene.root.path("workspace/surplus").exists());
    assert_eq!(molecule_tools::record::look(&open(&scene.root)).unwrap(), None);
}

fn a_lock_is_nobody_elses_to_take() {
    let scene = Scene::new();
    scene.root.file("workspace/.molecule-lock", "mine").mode("workspace/.molecule-lock", 0o666);
    scene.root.owner("workspace/.molecule-lock", 1000, 1000).dir("configs/.molecule-lock");
    scene.root.file("configs/.molecule-lock/in", "mine");
    let hold = |path: &str| {
        let file = std::fs::File::open(scene.root.path(path)).unwrap();
        let exclusive = nix::fcntl::FlockArg::LockExclusiveNonblock;
        nix::fcntl::Flock::lock(file, exclusive).map_err(|(_, errno)| errno).unwrap()
    };
    let _held = ["workspace", "configs", "workspace/.molecule-lock"].map(hold);
    let start = std::time::Instant::now();
    let lines = scene.run(&[], 0);
    // A lock is waited for 10 s.
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{lines}");
    assert!(lines.contains("in the way of a lock"), "{lines}");
    assert!(scene.root.path("workspace/src/main.rs").exists());
    assert!(!scene.root.path("workspace/.molecule-lock").exists());
}

/// A look that fails does not go on for ever, and does not cost the lock where it fails once.
fn a_lock_that_cannot_be_looked_at_is_no_other() {
    for (call, error, said) in [
        ("statx", "EIO", "the lock is taken all the same"),
        ("openat", "EMFILE:when=1..2", ""),
        ("openat", "ENOMEM", "going on without"),
    ] {
        let scene = Scene::new();
        let inject = format!("inject={call}:error={error}");
        let mut command = std::process::Command::new("timeout");
        command.args([
            "-s",
            "KILL",
            "30",
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-P",
            ".molecule-lock",
        ]);
        command.args(["-e", &inject, crate::support::PROGRAM]).args(scene.command().get_args());
        let output = command.output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{call} {error} {lines}");
        assert!(
            lines.contains(said) && (!said.is_empty() || !lines.contains("going on")),
            "{lines}"
        );
        assert!(scene.root.path("workspace/src/main.rs").exists(), "{lines}");
    }
}

fn a_new_marker_has_the_modes_the_umask_leaves() {
    let scene = Scene::new();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 027; exec \"$@\"", "sh", crate::support::PROGRAM]);
    crate::support::ok(shell.args(scene.command().get_args()));
    assert_eq!(scene.marker().metadata().unwrap().mode() & 0o7777, 0o640);
}

fn a_restored_old_marker_is_rewritten() {
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

/// ext4 (delayed allocation, unwritten extents) leaves such a file when the machine goes down while it is written.
fn content_that_a_power_cut_took_is_restored_without_a_marker() {
    let scene = Scene::new();
    let path = "workspace/src/main.rs";
    let source = scene.source.path(path).metadata().unwrap();
    scene.root.file(path, vec![0; source.len() as usize]);
    let modified = source.modified().unwrap();
    let file = std::fs::File::options().write(true).open(scene.root.path(path)).unwrap();
    file.set_modified(modified).unwrap();
    scene.run(&[], 0);
    assert_eq!(std::fs::read_to_string(scene.root.path(path)).unwrap(), "fn main() {}\n");
    assert_eq!(scene.root.path(path).metadata().unwrap().modified().unwrap(), modified);
}
