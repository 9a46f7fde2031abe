//! MOLECULE_LOG=json: every line of the boot's own is one JSON object.

use serde_json::Value;

use crate::entrypoint::entrypoint;
use crate::support::sandbox::{Outcome, Sandbox};
use crate::support::{Case, Need, runtime, test_case};

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root, Need::Program("git")];
    vec![
        test_case!(in_json_every_line_of_a_boot_is_one_object, ROOT),
        test_case!(in_json_every_complaint_is_one_object, &[Need::Root]),
    ]
}

/// The lines of both streams, each of which has to be an object with the four fields of a log line.
#[track_caller]
fn objects(outcome: &Outcome) -> Vec<Value> {
    let text = outcome.stdout() + &outcome.stderr();
    let object = |line: &str| -> Value {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for name in ["time", "level", "section", "message"] {
            assert!(object[name].is_string(), "{name}: {line}");
        }
        object
    };
    text.lines().map(object).collect()
}

fn in_json_every_line_of_a_boot_is_one_object() {
    let sandbox = runtime::sandbox("echo x > workspace/x");
    sandbox.sh("ln -s /nowhere /home/agent/Downloads; ln -s /nowhere /home/agent/.gitconfig; printf '' > '/configs/a\nb'");
    let run = || entrypoint(&sandbox).env("MOLECULE_LOG", "json");
    let odd = run()
        .env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true")
        .env("MOLECULE_GIT_HELPER", "!helper")
        .env("MOLECULE_STEP_TIMEOUT", "soon\u{202e}")
        .env("MOLECULE_AUDIT_ENV", "A=secret")
        .env("GLM_API_KEY", "x");
    let outcome = odd.run();
    assert_eq!(outcome.status, runtime::STATUS, "{outcome:?}");
    let lines = objects(&outcome);
    let of = |section: &str| lines.iter().filter(|line| line["section"] == section).count();
    for section in ["MOLECULE-RESTORE", "MOLECULE-PERMS", "MOLECULE-GIT", "entrypoint"] {
        assert!(of(section) > 0, "{section}: {outcome:?}");
    }
    let blocks: Vec<&Value> = lines.iter().filter(|line| line["env"].is_object()).collect();
    let ids: Vec<_> = blocks.iter().map(|block| (&block["uid"], &block["user"])).collect();
    assert_eq!(ids, [(&0.into(), &"root".into()), (&1000.into(), &"agent".into())]);
    for block in blocks {
        assert_eq!((&block["section"], &block["level"]), (&"boot-audit".into(), &"info".into()));
        assert_eq!(block["configs_contents"], serde_json::json!(["a\nb"]));
        assert_eq!(block["env"]["GLM_API_KEY"], true);
    }
    let warned = |line: &&Value| line["section"] == "entrypoint" && line["level"] == "warn";
    let warning = lines.iter().find(warned).unwrap()["message"].as_str().unwrap();
    assert!(warning.starts_with(r"MOLECULE_STEP_TIMEOUT soon\u{202e} is no number"), "{warning}");
    let text = entrypoint(&sandbox).run().stdout();
    assert!(text.starts_with("----- entrypoint boot "), "{text}");
}

fn in_json_every_complaint_is_one_object() {
    // No runtime in it.
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str], status| {
        let outcome = sandbox.program().args(arguments).env("MOLECULE_LOG", "json").run();
        assert_eq!(outcome.status, status, "{outcome:?}");
        objects(&outcome).pop().unwrap_or_default()
    };
    for (arguments, status, section, message) in [
        (&["entrypoint"][..], 127, "entrypoint", "molecule-runtime"),
        (&["gosu", "nobody-such", "id"], 1, "gosu", "cannot become nobody-such"),
        (&["boot-audit", "--root", "/absent"], 1, "boot-audit", "open /absent: No such file"),
        (&["boot-audit", "--env", "A=b"], 2, "boot-audit", "--env takes a name"),
        (&["restore", "--probe", "--device", "/absent"], 1, "restore", "/absent"),
        (&["token-refresh", "--once", "--command", "/absent"], 127, "token-refresh", "/absent"),
        (&["--install", "/absent"], 1, "molecule-tools --install", "/absent"),
    ] {
        let line = run(arguments, status);
        let said = line["message"].as_str().unwrap();
        assert_eq!((&line["section"], &line["level"]), (&section.into(), &"error".into()));
        assert!(said.contains(message) && !said.contains("WARN"), "{arguments:?}: {said}");
    }
    sandbox.sh("sed -i /agent/d /etc/passwd");
    let line = run(&["entrypoint"], 1);
    assert_eq!((&line["section"], &line["level"]), (&"entrypoint".into(), &"error".into()));
    assert_eq!(run(&["boot-audit"], 0)["user"], "root");
}
