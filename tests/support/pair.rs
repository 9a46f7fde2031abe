//! A source tree, a destination root, and the program run between them.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::compare::{Snapshot, differences, snapshot};
use super::tree::Tree;
use super::{program, rsync_differences};

/// `source/tree` is restored to `root/tree`; the marker is `root/configs/.restore-completed`.
pub struct Pair {
    directory: tempfile::TempDir,
    /// What `--source` names.
    pub source: PathBuf,
    /// What `--root` names.
    pub root: PathBuf,
}

impl Pair {
    /// An empty source tree and a root with nothing but `configs`.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (source, root) = (directory.path().join("source"), directory.path().join("root"));
        Tree::at(source.join("tree"));
        Tree::at(root.join("configs"));
        Self { directory, source, root }
    }

    /// A place beside source and root.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The source tree.
    pub fn from(&self) -> Tree {
        Tree(self.source.join("tree"))
    }

    /// The destination tree, made when absent.
    pub fn to(&self) -> Tree {
        Tree::at(self.root.join("tree"))
    }

    /// The marker.
    pub fn marker(&self) -> PathBuf {
        self.root.join("configs/.restore-completed")
    }

    /// The command that restores `tree` whether a marker is there or not.
    pub fn command(&self) -> Command {
        let mut command = program();
        command.args(["restore", "--path", "tree", "--force", "--progress", "never", "--source"]);
        command.arg(&self.source).arg("--root").arg(&self.root);
        command
    }

    /// Runs it with more options.
    pub fn run(&self, options: &[&str]) -> Output {
        self.command().args(options).output().unwrap()
    }

    /// Runs it; it must say that everything was restored.
    pub fn mirror(&self) -> Output {
        self.expect(&[], 0)
    }

    /// Runs it; its exit status must be `status`.
    #[track_caller]
    pub fn expect(&self, options: &[&str], status: i32) -> Output {
        let output = self.run(options);
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        output
    }

    /// The copy must be perfect, by rsync's judgement and by the comparator's.
    #[track_caller]
    pub fn assert_equal(&self) {
        self.assert_equal_to_the_comparator();
        let differences = rsync_differences(&self.from().0, &self.to().0);
        assert!(differences.is_empty(), "rsync would still do:\n{differences}");
    }

    /// The copy must be perfect, where rsync cannot judge.
    #[track_caller]
    pub fn assert_equal_to_the_comparator(&self) {
        let differences = differences(&self.from().0, &self.to().0);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// The destination tree as it is now.
    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.to().0)
    }
}

/// All that a run said, for a failure's message.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}
