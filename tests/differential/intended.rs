//! Where the program is meant to differ from the reference script: the one list.

use crate::differential::compare::Difference;
use crate::differential::observe::Observed;

/// One intended difference.
pub struct Row {
    /// What differs, see [`Difference::key`], each of them; a `*` at the end stands for any rest.
    pub keys: &'static [&'static str],
    /// Where it has to be seen.
    pub scenarios: &'static [&'static str],
    /// Why.
    pub reason: &'static str,
}

/// Stands in [`Row::scenarios`] for each one in which the runtime is reached.
const EVERY_RUN: &[&str] = &["*"];
/// The same for those in which a restore comes to its end.
const EVERY_RESTORE: &[&str] = &["*", "restored"];

/// All of them.
pub const TABLE: &[Row] = &[
    Row {
        keys: &["view env \"PWD\""],
        scenarios: EVERY_RUN,
        reason: "the script's shell puts PWD into the environment",
    },
    Row {
        keys: &["view env \"not-an-identifier\""],
        scenarios: &["odd_environment"],
        reason: "the script's shell drops variables it could not set itself",
    },
    Row {
        keys: &["view SigBlk", "view SigIgn"],
        scenarios: &["ignored_and_blocked_signals"],
        reason: "the shell clears the mask, gosu's Go runtime resets ignored signals",
    },
    Row {
        keys: &["log - uid=*", "log - unknown", "log + uid=*"],
        scenarios: &["started_as_a_user_without_entry"],
        reason: "id(1) prints the uid before it fails: two lines in the script's block",
    },
    Row {
        keys: &[
            "tree /home/agent/.claude/sessions mode",
            "tree /home/agent/.claude/sessions target",
            "tree /home/agent/.claude/sessions/sessions",
            "tree /root/ mode",
            "tree /root/ xattrs",
        ],
        scenarios: &["sessions_mounted"],
        reason: "the script's link lands inside the directory it should replace, and agent may not \
                 search /root: the sessions are lost",
    },
    Row {
        keys: &[
            "tree /configs/.restore-completed content",
            "tree /configs/.restore-completed xattrs",
        ],
        scenarios: EVERY_RESTORE,
        reason: "the script's marker is empty; the program's holds the report and the boot of the kernel",
    },
    Row {
        keys: &["log - MOLECULE-RESTORE: mount: *"],
        scenarios: &["swap_device"],
        reason: "the words of mount(8); the kernel's reason stands in the program's own line",
    },
    Row {
        keys: &["tree /workspace/ owner", "log - workspace_dir: *", "log + workspace_dir: *"],
        scenarios: &["workspace_is_a_file"],
        reason: "what is no directory where one should be is told and left alone",
    },
    Row {
        keys: &["status", "view *", "tree *", "log + *"],
        scenarios: &["marker_cannot_be_written"],
        reason: "the script's shell exits 2 and there is no runtime; a marker is not worth a boot",
    },
    Row {
        keys: &["log - *", "log + hostname=*"],
        scenarios: &["backslashes_in_variables"],
        reason: "the shell's echo expands backslashes: a value can forge lines",
    },
    Row {
        keys: &["tree /home/agent/.gitconfig content"],
        scenarios: &["mirror_credentials_on_with_own_settings"],
        reason: "the script overwrites the agent's own settings with root's file",
    },
    Row {
        keys: &["tree /root/.gitconfig content", "tree /home/agent/.gitconfig content"],
        scenarios: &["mirror_credentials_on_with_two_helpers"],
        reason: "git config refuses to replace several values; the program makes them one",
    },
    Row {
        keys: &["tree /root/.gitconfig", "tree /root/ mtime", "tree /home/agent/.gitconfig"],
        scenarios: &["mirror_credentials_on_without_home"],
        reason: "without HOME git knows no file; the program takes the home from passwd",
    },
    Row {
        keys: &["tree /root/secret*", "tree /root/other*", "tree /home/agent/.claude owner"],
        scenarios: &["links_planted_by_the_agent"],
        reason: "root follows links of the agent there: change of owner, mode or content of any file",
    },
    Row {
        keys: &[
            "tree /workspace*",
            "log - MOLECULE-RESTORE: ok /workspace",
            "log - MOLECULE-RESTORE: complete *",
            "log - workspace_dir: *",
            "log + workspace_dir: *",
        ],
        scenarios: &["restore_of_a_path_that_is_a_link"],
        reason: "a link out of the snapshot restores the container's own files",
    },
    Row {
        keys: &["tree /home/agent/.gh-token-refresh.log"],
        scenarios: &[
            "mirror_credentials_on",
            "mirror_credentials_on_without_scripts",
            "mirror_credentials_on_with_own_settings",
            "mirror_credentials_on_with_two_helpers",
            "mirror_credentials_on_without_home",
        ],
        reason: "without a script for it the program keeps the token fresh itself",
    },
    Row {
        keys: &["tree /root/.gitconfig", "tree /root/ mtime", "tree /home/agent/.gitconfig"],
        scenarios: &["mirror_credentials_on_without_scripts", "refresh_daemon_on"],
        reason: "without a script for it the program is the credential helper",
    },
    Row {
        keys: &["tree /home/agent/.gh-token-refresh.log mode"],
        scenarios: &["refresh_daemon_on"],
        reason: "what a token daemon logs is nobody else's business",
    },
    Row {
        keys: &["tree /workspace/a\\n owner", "tree /workspace/a\\n/b owner"],
        scenarios: &["first_entry_ends_with_a_newline"],
        reason: "the shell cuts the newline off and stats another name",
    },
    Row {
        keys: &["tree /home/agent owner"],
        scenarios: &["home_directory_is_missing"],
        reason: "a home that boot has to make belongs to its user",
    },
];

/// Fails if something differs that is not in the table for this scenario, or if something in the table
/// for this scenario does not differ.
#[track_caller]
pub fn judge(scenario: &str, reference: &Observed, differences: &[Difference]) {
    let restored = reference.log.iter().any(|line| line.starts_with("MOLECULE-RESTORE: complete "));
    let applies = |row: &&Row| match row.scenarios {
        EVERY_RUN => !reference.view.is_empty(),
        EVERY_RESTORE => restored,
        names => names.contains(&scenario),
    };
    let rows: Vec<&Row> = TABLE.iter().filter(applies).collect();
    let keys = || rows.iter().flat_map(|row| row.keys.iter().map(|key| (*key, row.reason)));
    let mut complaints = String::new();
    for difference in differences {
        if !keys().any(|(key, _)| covers(key, &difference.key)) {
            complaints += &format!("unexpected: {}: {}\n", difference.key, difference.detail);
        }
    }
    for (key, reason) in keys() {
        if !differences.iter().any(|difference| covers(key, &difference.key)) {
            complaints += &format!("not seen: {key} ({reason})\n");
        }
    }
    assert!(complaints.is_empty(), "{complaints}");
}

fn covers(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => key.starts_with(start),
        None => key == pattern,
    }
}
