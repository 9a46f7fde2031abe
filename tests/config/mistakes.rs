//! What is wrong in a configuration is told with its place, and the rest is in force.

use crate::support::runtime::{self, take_view};
use crate::support::sandbox::Sandbox;
use crate::support::{Case, Need, ok, program, test_case};

const ROOT: &[Need] = &[Need::Root];

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(each_mistake_has_its_place_and_what_was_meant, &[]),
        test_case!(a_right_file_and_an_absent_one_are_told_apart, &[]),
        test_case!(what_is_printed_as_in_force_is_a_configuration_again, ROOT),
        test_case!(each_value_has_its_source_and_no_secret_is_shown, ROOT),
        test_case!(a_mistake_costs_its_own_key_and_nothing_else, ROOT),
    ]
}

/// `--check-config` of a file with `text`: status, lines of its standard error without the path.
fn check(text: &[u8]) -> (Option<i32>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.json");
    std::fs::write(&file, text).unwrap();
    let output = program().current_dir(&directory).args(["--check-config", "c.json"]).output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said.lines().map(|line| line.replace("c.json:", "")).collect())
}

fn each_mistake_has_its_place_and_what_was_meant() {
    let known = "known are user, runtime, restore, audit, directories, claude_sessions, files, \
                 links, hooks, git_credentials";
    let deep = format!("{{\"user\": {}{}}}", "[".repeat(100), "]".repeat(100));
    let table: &[(&str, &[&str])] = &[
        ("{\"usr\": \"a\"}", &["1:2: unknown key \"usr\"; did you mean \"user\"?"]),
        (
            "{\n  \"é\": 1, \"zz\": 2\n}",
            &[
                &format!("2:3: unknown key \"é\"; {known}"),
                &format!("2:11: unknown key \"zz\"; {known}"),
            ],
        ),
        ("{\"user\": \"a\",\n \"user\": \"b\"}", &["2:2: \"user\" is there twice"]),
        ("{\"user\": 7}", &["1:10: user is a number; a text is needed"]),
        ("{\"user\": \"\"}", &["1:10: user is empty"]),
        ("[]", &["1:1: the configuration is a list; an object is needed"]),
        ("", &["1:1: EOF while parsing a value"]),
        ("{\n\"user\": \"a\",\n}", &["3:1: key must be a string"]),
        ("{\"hooks\": [\n {\"command\": \"\\ud800\"}]}", &["2:21: unexpected end of hex escape"]),
        (&deep, &["1:73: nested more than 64 deep"]),
        (
            "{\"directories\": [{\"path\": \"/a\", \"own\": \"alwys\"}]}",
            &["1:40: unknown own \"alwys\"; did you mean \"always\"?"],
        ),
        ("{\"directories\": [{\"path\": \"/a\"}]}", &["1:18: \"own\" is missing here"]),
        (
            "{\"directories\": [{\"path\": \"/a/../b\", \"own\": \"never\", \"mode\": 700}]}",
            &[
                "1:27: path has a \"..\" component",
                "1:62: mode has to be octal digits as a text, like \"0700\"",
            ],
        ),
        (
            "{\"files\": [{\"path\": \"a\"}, {\"path\": \"~/\"}, {\"path\": \"/a\\u0000\"}]}",
            &[
                "1:21: path has to begin with / or ~/",
                "1:36: path is the root itself",
                "1:52: path has a NUL byte",
            ],
        ),
        (
            "{\"hooks\": [{\"command\": \"netrc.sh\", \"seconds\": 0}]}",
            &[
                "1:24: command has to begin with /",
                "1:47: seconds has to be a whole number from 1 to 86400",
            ],
        ),
        (
            "{\"runtime\": {\"environment\": {\"A B\": \"x\"}, \"arguments\": \"x\"}}",
            &[
                "1:56: runtime.arguments is a text; a list is needed",
                "1:30: this is no name of a variable: letters, digits and underscores, no digit first",
            ],
        ),
        ("{\"restore\": [\"/\", \"configs\"]}", &["1:14: restore is the root itself"]),
    ];
    for (text, expected) in table {
        assert_eq!(
            check(text.as_bytes()),
            (Some(1), expected.iter().map(|line| line.to_string()).collect()),
            "{text}"
        );
    }
    assert_eq!(check(b"{\"user\": \"\xff\"}").0, Some(1));
    // However many there are, few are shown.
    let many = format!("{{{}\"z\": 1}}", "\"z\": 1,\n".repeat(5000));
    assert_eq!(check(many.as_bytes()).1.len(), 20);
}

fn a_right_file_and_an_absent_one_are_told_apart() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/examples");
    let codex = format!("{examples}/codex.json");
    let said = ok(program().args(["--check-config", &codex]));
    assert_eq!(said, format!("{codex}: no mistakes; 7 of 14 keys set\n"));
    let absent = format!("{examples}/absent.json");
    let output = program().args(["--check-config", &absent]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("{absent}: no such file; the built-in configuration is in force\n"));
    let usage = program().args(["--check-config", "a", "b"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// What `--print-config` says in `sandbox`, key to value and source.
fn printed(sandbox: &Sandbox, variables: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let outcome = sandbox.program().arg("--print-config").envs(variables.iter().copied()).run();
    assert_eq!((outcome.status, &*outcome.stderr()), (0, ""), "{outcome:?}");
    let line = |line: &str| {
        let (key, rest) = line.split_once(" = ").unwrap();
        let (value, source) = rest.rsplit_once("  # ").unwrap();
        (key.to_owned(), value.to_owned(), source.to_owned())
    };
    outcome.stdout().lines().map(line).collect()
}

fn what_is_printed_as_in_force_is_a_configuration_again() {
    let sandbox = Sandbox::new();
    let first = printed(&sandbox, &[]);
    assert_eq!(first.len(), 14);
    let mut whole = serde_json::json!({});
    for (key, value, source) in &first {
        assert_eq!(source, "built in", "{key}");
        let mut place = &mut whole;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = serde_json::from_str(value).unwrap();
    }
    std::fs::write(sandbox.path("/etc/molecule-tools.json"), whole.to_string()).unwrap();
    let second = printed(&sandbox, &[]);
    for (first, second) in first.iter().zip(&second) {
        let length = |value: &str| value.len();
        match &*first.0 {
            // Its contents are not shown.
            "files" => assert!(length(&second.1) > 0),
            _ => assert_eq!((&first.0, &first.1), (&second.0, &second.1)),
        }
        assert_eq!(second.2, "/etc/molecule-tools.json:1", "{}", second.0);
    }
}

fn each_value_has_its_source_and_no_secret_is_shown() {
    let sandbox = Sandbox::with(
        r#"cat > etc/molecule-tools.json <<'END'
{
  "user": "daemon",
  "runtime": {
    "environment": {"API_KEY": "s3cret"}
  },
  "files": [{"path": "~/.npmrc", "content": "s3cret"}],
  "restore": ["configs"]
}
END"#,
    );
    let variables = [("MOLECULE_AGENT", "agent"), ("MOLECULE_AUDIT_ENV", "TOKEN s3cret=1")];
    let said = printed(&sandbox, &variables);
    let find = |key: &str| {
        let (_, value, source) = said.iter().find(|line| line.0 == key).unwrap();
        (value.as_str(), source.as_str())
    };
    let file = |line: u32| format!("/etc/molecule-tools.json:{line}");
    assert_eq!(find("user"), ("\"agent\"", "environment MOLECULE_AGENT"));
    assert_eq!(find("runtime.environment"), ("{\"API_KEY\":\"...\"}", &*file(4)));
    let files = "[{\"path\":\"~/.npmrc\",\"content\":\"... (6 bytes)\"}]";
    assert_eq!(find("files"), (files, &*file(6)));
    assert_eq!(find("restore"), ("[\"configs\"]", &*file(7)));
    assert_eq!(find("links"), ("[]", "built in"));
    let names = "built in, and the names in environment MOLECULE_AUDIT_ENV";
    assert_eq!(find("audit.variables").1, names);
    assert!(said.iter().all(|line| !format!("{line:?}").contains("s3cret")), "{said:?}");
}

fn a_mistake_costs_its_own_key_and_nothing_else() {
    let sandbox = runtime::sandbox(
        r#"cat > etc/molecule-tools.json <<'END'
{
  "user": 5,
  "runtime": {"arguments": ["--fixed"], "comand": "x"},
  "directories": [{"path": "/configs/a", "make": true, "own": "always"}, {"path": "b", "own": "always"}]
}
END"#,
    );
    let outcome = sandbox.program().args(["entrypoint", "--more"]).run();
    let view = take_view(&sandbox).unwrap();
    assert_eq!(view["argv"], r#""molecule-runtime" "--fixed" "--more""#);
    assert_eq!(view["Uid"], "1000 1000 1000 1000");
    let log = outcome.stdout() + &outcome.stderr();
    for (line, count) in [
        ("WARN /etc/molecule-tools.json:2:11: user is a number; a text is needed", 1),
        (
            "WARN /etc/molecule-tools.json:3:41: unknown key \"comand\"; did you mean \"command\"?",
            1,
        ),
        ("WARN /etc/molecule-tools.json:4:83: path has to begin with / or ~/", 1),
    ] {
        assert_eq!(log.matches(line).count(), count, "{line}\n{log}");
    }
    assert_eq!(sandbox.sh("stat -c %U /configs/a"), "agent\n");
}
