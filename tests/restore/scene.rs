//! A snapshot in a directory and the root of a workspace.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::pair::said;
use crate::support::program;
use crate::support::tree::Tree;

/// What `--source` and `--root` name.
pub struct Scene {
    _directory: tempfile::TempDir,
    pub source: Tree,
    pub root: Tree,
}

impl Scene {
    /// A snapshot with the whole restore set and more, and a root with `configs` alone.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Tree::at(directory.path().join("source"));
        let root = Tree::at(directory.path().join("root"));
        source.file("configs/config.yaml", "model: x\n").file("configs/.auth_token", "secret");
        source.file("workspace/src/main.rs", "fn main() {}\n");
        source.file("home/agent/.claude/settings.json", "{}").file("etc/passwd", "not restored");
        source.file("home/agent/.bashrc", "not restored");
        root.dir("configs");
        Self { _directory: directory, source, root }
    }

    pub fn command(&self) -> Command {
        let mut command = program();
        command.arg("restore").arg("--source").arg(&self.source.0).arg("--root").arg(&self.root.0);
        command
    }

    /// Runs it; its exit status must be `status`. Gives standard output.
    #[track_caller]
    pub fn run(&self, options: &[&str], status: i32) -> String {
        let output = self.output(options);
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn output(&self, options: &[&str]) -> Output {
        self.command().args(options).output().unwrap()
    }

    pub fn marker(&self) -> PathBuf {
        self.root.path("configs/.restore-completed")
    }

    /// `line` with `S` and `R` for source and root, after the prefix, as it must be printed.
    pub fn line(&self, line: &str) -> String {
        let (source, root) = (self.source.0.to_str().unwrap(), self.root.0.to_str().unwrap());
        format!("MOLECULE-RESTORE: {}\n", line.replace("{S}", source).replace("{R}", root))
    }
}
