//! `restore --force` over a tree in which a runtime has worked: what it takes away is counted, marked and
//! asked about.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::restore::decisions::started;
use crate::restore::scene::Scene;
use crate::support::{self, Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const TERMINAL: &[Need] = &[Need::Root, Need::Program("script")];
    const STRACED: &[Need] = &[Need::Root, Need::Program("script"), Need::Program("strace")];
    vec![
        test_case!(a_dry_run_marks_what_is_newer, crate::restore::NEEDS),
        test_case!(without_a_terminal_the_newer_entries_are_counted, crate::restore::NEEDS),
        test_case!(a_yes_on_the_terminal_restores_the_whole, TERMINAL),
        test_case!(anything_else_than_a_yes_changes_nothing, TERMINAL),
        test_case!(the_option_yes_is_not_asked, TERMINAL),
        test_case!(a_signal_at_the_question_is_a_no, TERMINAL),
        test_case!(what_cannot_be_looked_at_is_asked_about, STRACED),
        test_case!(newer_work_in_an_older_directory_that_gives_way_counts, crate::restore::NEEDS),
        test_case!(trees_without_a_record_are_not_asked_about, TERMINAL),
    ]
}

const COUNT: &str = "WARN {R}/workspace: 3 entries that were changed since a runtime started there";

/// A run on a terminal: its status and what it printed. `keys` are typed once it has asked; without any the
/// input ends at once.
#[track_caller]
fn on_a_terminal(scene: &Scene, options: &[&str], keys: &str) -> (Option<i32>, String) {
    let mut command = scene.command();
    command.args(options);
    answer_on_a_terminal(&command, keys, || {
        let lock = std::fs::File::open(scene.root.path("workspace/.molecule-lock")).unwrap();
        let taken = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken, Err(Errno::WOULDBLOCK), "nobody else may change what was counted");
    })
}

fn answer_on_a_terminal(
    command: &Command,
    keys: &str,
    at_question: impl Fn(),
) -> (Option<i32>, String) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = Command::new("script");
    // `exec`: a shell in between (script takes $SHELL) would end by the signal itself, after it.
    script.args(["-qefc", &format!("exec {}", words.join(" ")), "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (stdin, mut stdout) = (child.stdin.take(), child.stdout.take().unwrap());
    let mut stdin = stdin.filter(|_| !keys.is_empty());
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let length = stdout.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if text.contains("[y/N]")
            && let Some(mut stdin) = stdin.take()
        {
            at_question();
            stdin.write_all(keys.as_bytes()).unwrap();
        }
    }
    (child.wait().unwrap().code(), text)
}

/// Whether the workspace is as [`started`] left it.
fn is_untouched(scene: &Scene) -> bool {
    let read = |path: &str| std::fs::read_to_string(scene.root.path(path)).unwrap();
    ["after", "made", "directory", "file/in"].map(|name| read(&format!("workspace/{name}")))
        == ["mine"; 4]
        && read("workspace/before") == "old"
        && !scene.root.path("workspace/replaced").exists()
        && !scene.root.path("home").exists()
}

fn is_whole(scene: &Scene) -> bool {
    let read = |path: &str| std::fs::read_to_string(scene.root.path(path)).unwrap();
    read("workspace/after") == "of the snapshot"
        && read("home/agent/.claude/settings.json") == "{}"
        && !scene.root.path("workspace/made").exists()
}

fn a_dry_run_marks_what_is_newer() {
    let scene = started();
    let lines = scene.run(&["--force", "--dry-run"], 0);
    for line in [
        ">fcst...... ! {R}/workspace/after",
        "cd+++++++++ ! {R}/workspace/directory",
        ">f+++++++++ ! {R}/workspace/file",
        "*deleting   ! {R}/workspace/made",
        "*deleting   ! {R}/workspace/file/in",
        ">f+++++++++ {R}/workspace/replaced",
    ] {
        assert!(lines.contains(&scene.line(line)), "{line}\n{lines}");
    }
    assert!(!lines.contains("! {R}/workspace/before"), "{lines}");
    assert_eq!(lines.matches(" ! ").count(), 5, "{lines}");
    assert!(is_untouched(&scene));
    assert!(!scene.run(&["--dry-run"], 0).contains(" ! "));
}

fn without_a_terminal_the_newer_entries_are_counted() {
    let scene = started();
    let lines = scene.run(&["--force"], 0);
    assert!(lines.contains(scene.line(COUNT).trim_end()), "{lines}");
    assert!(lines.contains("are overwritten by this restore, and 2 deleted"), "{lines}");
    assert!(lines.contains(&scene.line("*deleting   ! {R}/workspace/made")), "{lines}");
    assert!(is_whole(&scene));
}

fn a_yes_on_the_terminal_restores_the_whole() {
    let scene = started();
    let (status, text) = on_a_terminal(&scene, &["--force"], "y\n");
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("Take 5 newer entries away? [y/N]"), "{text}");
    assert!(is_whole(&scene));
}

fn anything_else_than_a_yes_changes_nothing() {
    for keys in ["n\n", "\n", "maybe y\n", ""] {
        let scene = started();
        let (status, text) = on_a_terminal(&scene, &["--force"], keys);
        assert_eq!(status, Some(1), "{keys:?} {text}");
        assert!(text.contains("nothing was changed"), "{keys:?} {text}");
        assert!(is_untouched(&scene), "{keys:?} {text}");
        assert!(!scene.marker().exists());
    }
}

fn the_option_yes_is_not_asked() {
    let scene = started();
    let (status, text) = on_a_terminal(&scene, &["--force", "--yes"], "");
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("and 2 deleted") && !text.contains("[y/N]"), "{text}");
    assert!(is_whole(&scene));
}

fn a_signal_at_the_question_is_a_no() {
    let scene = started();
    // The terminal turns ^C into SIGINT.
    let (status, text) = on_a_terminal(&scene, &["--force"], "\u{3}");
    assert_eq!(status, Some(20), "{text}");
    assert!(text.contains("interrupted by a signal; nothing was changed"), "{text}");
    assert!(is_untouched(&scene), "{text}");
}

/// Without a count nobody could say yes to it: it is asked although nothing newer was found.
fn what_cannot_be_looked_at_is_asked_about() {
    let scene = Scene::new();
    scene.source.file("workspace/directory/in", "of the snapshot");
    scene.root.file("workspace/directory/in", "old");
    let tree = molecule_tools::fs::Dir::open_operator_path(scene.root.path("workspace")).unwrap();
    support::clock::tick();
    molecule_tools::record::start(&tree).unwrap();
    let restore = scene.command();
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-P"])
        .arg(scene.root.path("workspace/directory"));
    command.args(["-e", "inject=getdents64:error=EIO"]);
    command.arg(restore.get_program()).args(restore.get_args()).arg("--force");
    let (status, text) = answer_on_a_terminal(&command, "n\n", || ());
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("workspace: not everything could be looked at"), "{text}");
    assert!(text.contains("Take at least 0 newer entries away? [y/N]"), "{text}");
    let now = std::fs::read_to_string(scene.root.path("workspace/directory/in")).unwrap();
    assert_eq!(now, "old", "{text}");
}

/// To write into a file changes nothing of the directories above it.
fn newer_work_in_an_older_directory_that_gives_way_counts() {
    let scene = Scene::new();
    scene.source.file("workspace/place", "of the snapshot");
    scene.root.file("workspace/place/below/notes", "old").file("workspace/place/old", "old");
    let tree = molecule_tools::fs::Dir::open_operator_path(scene.root.path("workspace")).unwrap();
    support::clock::tick();
    molecule_tools::record::start(&tree).unwrap();
    std::fs::write(scene.root.path("workspace/place/below/notes"), "mine").unwrap();
    let lines = scene.run(&["--force", "--dry-run"], 0);
    for line in [
        "*deleting   ! {R}/workspace/place/below/notes",
        "*deleting   {R}/workspace/place/below",
        "*deleting   {R}/workspace/place/old",
        ">f+++++++++ {R}/workspace/place",
    ] {
        assert!(lines.contains(&scene.line(line)), "{line}\n{lines}");
    }
    assert!(!lines.contains("workspace/place\nMOLECULE-RESTORE: *deleting"), "{lines}");
    let lines = scene.run(&["--force"], 0);
    assert!(lines.contains("workspace: 0 entries that were changed"), "{lines}");
    assert!(lines.contains("and 1 deleted"), "{lines}");
    assert!(scene.root.path("workspace/place").is_file());
}

fn trees_without_a_record_are_not_asked_about() {
    let scene = Scene::new();
    scene.root.file("workspace/surplus", "goes");
    let (status, text) = on_a_terminal(&scene, &["--force"], "");
    assert_eq!(status, Some(0), "{text}");
    assert!(!text.contains("[y/N]") && !text.contains("changed since"), "{text}");
    assert!(!scene.root.path("workspace/surplus").exists());
    support::ok(Command::new("test").arg("-f").arg(scene.marker()));
}
