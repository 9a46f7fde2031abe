//! One boot of a scenario, and everything about it that is compared.

use std::collections::BTreeMap;

use crate::differential::scenarios::Scenario;
use crate::support::clock;
use crate::support::manifest::{self, Attributes};
use crate::support::runtime::{self, View};
use crate::support::sandbox::{LoopDevice, Outcome, PATH, Sandbox};

/// The script's path inside, as an image has it.
pub const REFERENCE: &str = "/entrypoint.sh";
/// The program's, by the name of its applet.
pub const PROGRAM: &str = "/usr/local/bin/entrypoint";

/// What is compared, below the root.
const TREES: [&str; 7] = ["configs", "workspace", "home", "root", "mnt", "tmp", "app"];

/// Times of everything that the set-up made, so that only what a boot touches is new.
pub const AGE: &str = "find . -xdev -newermt '1 hour ago' -exec touch -h -d @1700000000.25 {} +";

/// What one boot left.
pub struct Observed {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub log: Vec<String>,
    /// What the runtime was given, if it ran.
    pub view: View,
    /// Path to attributes.
    pub tree: BTreeMap<String, Attributes>,
}

/// Boots `scenario` with the entrypoint at `path`.
pub fn boot(scenario: &Scenario, volume: Option<&LoopDevice>, path: &str) -> Observed {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/entrypoint.sh");
    let sandbox = runtime::sandbox(&format!(
        "cp {script} entrypoint.sh; chmod 755 entrypoint.sh
         ln -s molecule-tools usr/local/bin/entrypoint"
    ));
    if let Some(volume) = volume {
        sandbox.add_device("xvdb", volume);
    }
    sandbox.sh(scenario.setup);
    let now = age(&sandbox);
    let run = sandbox.command(path).env("PATH", PATH).args(["--model", "opus"]);
    let outcome = (scenario.run)(run).run();
    if scenario.name == "refresh_daemon_on" {
        // The script's shell opens the log whenever it gets to it.
        sandbox.sh("for i in $(seq 600); do [ ! -e /var/tmp/refreshing ] || exit 0; sleep 0.1; done; exit 1");
    }
    left(&sandbox, &outcome, now)
}

/// Makes everything in the sandbox old; gives the time (seconds) from which on something is new.
pub fn age(sandbox: &Sandbox) -> i64 {
    let trees = TREES.map(|tree| format!("/{tree}")).join(" ");
    sandbox.sh(&format!(
        "for d in {trees}; do
             if [ -d $d ]; then (cd $d; {AGE}); elif [ -e $d ]; then touch -d @1700000000.25 $d; fi
         done"
    ));
    clock::now().tv_sec
}

/// What a boot has left in `sandbox`, which was [`age`]d before it.
pub fn left(sandbox: &Sandbox, outcome: &Outcome, now: i64) -> Observed {
    let mut view = runtime::take_view(sandbox).unwrap_or_default();
    if let Some(pid) = view.get_mut("pid") {
        *pid = match *pid == outcome.pid.to_string() {
            true => "kept".into(),
            false => "another".into(),
        };
    }
    // Each entry is compared by its name.
    view.remove("env entries");
    for (name, value) in &mut view {
        if name.starts_with("fd ") {
            value.retain(|c| !c.is_ascii_digit());
        }
    }
    let mut tree = BTreeMap::new();
    for top in TREES {
        let path = sandbox.path(format!("/{top}"));
        if path.symlink_metadata().is_ok() {
            for (name, mut attributes) in manifest::of(&path, now) {
                forget_record(&mut attributes);
                tree.insert(format!("/{top}/{name}"), attributes);
            }
        }
    }
    let log = outcome.stdout().lines().map(normalised).collect();
    Observed { status: outcome.status, log, view, tree }
}

/// The record of a start differs with each boot and is the program's alone; `tests/entrypoint/records.rs`
/// looks at it.
fn forget_record(attributes: &mut Attributes) {
    if let Some(xattrs) = attributes.get_mut("xattrs") {
        let others = xattrs.split(' ').filter(|word| !word.starts_with("user.molecule.started="));
        *xattrs = others.collect::<Vec<_>>().join(" ");
    }
}

/// Without what depends on the moment: the time of the boot, and times of day in `ls -ld` lines.
fn normalised(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["-----", name, "boot", time, "-----"] if time.len() == 20 => {
            format!("----- {name} boot TIME -----")
        }
        ["configs_dir:" | "workspace_dir:" | "auth_token:", ..] => {
            let clock = words.iter().position(|w| w.len() == 5 && w.as_bytes()[2] == b':');
            match clock {
                // Month and day stand before it; a day below ten has two spaces before it.
                Some(at) => {
                    let month = at - if words[at - 2].is_empty() { 3 } else { 2 };
                    [&words[..month], &["TIME"], &words[at + 1..]].concat().join(" ")
                }
                None => line.into(),
            }
        }
        _ => line.into(),
    }
}
