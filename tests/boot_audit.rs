//! The audit block: the same as the reference's in the same sandbox, and one line per fact whatever
//! names and values are in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use pretty_assertions::assert_eq;

use crate::support::sandbox::{PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, test_case};

const REFERENCE: &str = include_str!("reference/entrypoint.sh");
/// As whom a block is taken.
type Who = fn(Run) -> Run;

pub fn cases() -> Vec<Case> {
    let acl = &[Need::Root, Need::Program("setfacl"), Need::Program("setfattr")];
    let traced = &[Need::Root, Need::Program("strace")];
    vec![
        test_case!(the_block_is_the_references_line_by_line, &[Need::Root]),
        test_case!(the_block_is_the_references_whatever_the_volumes_are, acl),
        test_case!(the_block_is_the_references_at_every_age, &[Need::Root]),
        test_case!(an_unknown_user_is_unknown, &[Need::Root]),
        test_case!(one_fact_stays_one_line, &[Need::Root]),
        test_case!(a_terminal_is_told_nothing_by_a_name, &[]),
        test_case!(no_value_of_an_audited_variable_is_printed, &[Need::Root]),
        test_case!(more_names_come_from_the_environment_and_options, &[Need::Root]),
        test_case!(a_word_that_is_no_name_is_refused_unrepeated, &[]),
        test_case!(json_has_the_facts_of_the_block, &[Need::Root]),
        test_case!(another_root_has_its_own_names_and_volumes, &[Need::Root]),
        test_case!(what_cannot_be_found_out_is_no_fact, traced),
        test_case!(an_interrupted_call_is_repeated, traced),
        test_case!(a_directory_of_many_names_costs_a_screenful, &[]),
        test_case!(a_closed_stdout_is_no_failure, &[Need::Root]),
    ]
}

/// The reference's function alone, and one call of it.
fn reference() -> String {
    let start = REFERENCE.find("log_boot_context() {").unwrap();
    let end = start + REFERENCE[start..].find("\n}\n").unwrap();
    format!("{}\n}}\nlog_boot_context\n", &REFERENCE[start..end])
}

fn root(run: Run) -> Run {
    run
}

fn agent(run: Run) -> Run {
    run.identity(1000, 1000, &[2375, 2376])
}

/// The program's block in `sandbox`, which must be the reference's but for the time of day.
#[track_caller]
fn same(sandbox: &Sandbox, who: Who, variables: &[(&str, &str)]) -> String {
    let variables = || variables.iter().copied().map(|(name, value)| (name, value.to_owned()));
    let run = |run: Run| {
        let outcome = who(run.envs(variables())).run();
        assert_eq!((outcome.status, outcome.stderr()), (0, String::new()));
        outcome.stdout()
    };
    let expected = run(sandbox.command("/bin/sh").args(["-c", &reference()]));
    let block = run(sandbox.program().arg("boot-audit"));
    assert_eq!(untimed(&block), untimed(&expected));
    block
}

/// With the digits of the first line's time stamp replaced by zeros.
fn untimed(block: &str) -> String {
    let (first, rest) = block.split_once('\n').unwrap();
    let first: String = first.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    format!("{first}\n{rest}")
}

fn the_block_is_the_references_line_by_line() {
    let sandbox = Sandbox::new();
    sandbox.sh(
        "cd /configs; touch config.yaml .hidden B a 'two words' Z_ 1; mkdir skills; ln -s x link
         chown -R agent:docker /workspace; chmod 2775 /workspace",
    );
    for who in [root, agent] {
        let block = same(&sandbox, who, &[]);
        assert!(block.contains("configs_contents: 1 B Z_ a config.yaml link skills two words \n"));
        assert!(block.contains("workspace_id=<unset>\nplatform_url=<unset>\n"), "{block}");
        let set = [
            ("WORKSPACE_ID", "ws-1"),
            ("PLATFORM_URL", "http://platform:8080/a?b"),
            ("ANTHROPIC_API_KEY", "secret"),
            ("KIMI_API_KEY", ""),
            ("GLM_API_KEY", " "),
        ];
        let block = same(&sandbox, who, &set);
        assert!(block.contains("env ANTHROPIC_API_KEY=set\n"), "{block}");
        assert!(block.contains("env KIMI_API_KEY=unset\n"), "{block}");
        assert!(block.contains("env GLM_API_KEY=set\n"), "{block}");
        assert!(block.contains("workspace_id=ws-1\n"), "{block}");
    }
}

fn the_block_is_the_references_whatever_the_volumes_are() {
    for (layout, expected) in [
        ("rm -r /configs /workspace", "configs_dir: MISSING\nconfigs_contents: \n"),
        ("chmod 0 /configs; touch /configs/a", "configs_dir: d--------- "),
        ("chmod 7777 /configs; chmod 7000 /workspace", "configs_dir: drwsrwsrwt "),
        ("chmod 5444 /workspace", "workspace_dir: dr-Sr--r-T "),
        ("setfacl -m u:agent:rwx /configs; setfacl -d -m u:5:r /workspace", "-x+ "),
        (
            "setfacl -m u:agent:- /configs; chmod 700 /configs; touch /configs/a",
            "configs_dir: drwx------+ ",
        ),
        ("setfattr -n security.selinux -v label /configs", "configs_dir: drwxr-xr-x. "),
        ("chown 4242:4343 /configs; chown agent:4343 /workspace", " 4242 4343 "),
        ("mkdir /configs/a /configs/b", "configs_dir: drwxr-xr-x 4 "),
        (
            "rmdir /configs; mkdir /data; touch /data/x; ln -s data /configs",
            " /configs -> data\nconfigs_contents: x \n",
        ),
        (
            "rmdir /configs; mkdir /data; touch /data/x; ln -s /data /configs",
            " /configs -> /data\nconfigs_contents: x \n",
        ),
        ("rmdir /configs; ln -s nowhere /configs", "\nconfigs_contents: /configs \n"),
        ("rmdir /configs; ln -s etc/passwd /configs", "\nconfigs_contents: /configs \n"),
        (
            "rmdir /configs; mkdir /locked; chmod 0 /locked; ln -s locked /configs",
            " /configs -> locked\nconfigs_contents: ",
        ),
        (
            "rmdir /configs /workspace; touch /configs; mkfifo /workspace",
            "configs_contents: /configs \n",
        ),
        (
            "rmdir /workspace; mknod /workspace c 4 259",
            "workspace_dir: crw-r--r-- 1 root root 4, 259 ",
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.sh(layout);
        for who in [root, agent] {
            let block = same(&sandbox, who, &[]);
            assert!(block.contains(expected), "{layout}\n{block}");
        }
    }
}

/// `ls -ld` changes its form at half a year and at now. Half a year is 365.2425 days / 2.
fn the_block_is_the_references_at_every_age() {
    let sandbox = Sandbox::new();
    for (age, clock) in [
        ("now", true),
        ("10 seconds ago", true),
        ("182 days ago", true),
        ("15778400 seconds ago", true),
        ("15778500 seconds ago", false),
        ("183 days ago", false),
        ("1 hour", false),
        ("@0", false),
        ("@-86401", false),
        ("@4294967296", false),
    ] {
        sandbox.sh(&format!("touch -d '{age}' /configs"));
        let block = same(&sandbox, root, &[]);
        let line = block.lines().find(|line| line.starts_with("configs_dir")).unwrap();
        assert_eq!(line.split(' ').rev().nth(1).unwrap().contains(':'), clock, "{age}: {line}");
    }
}

fn an_unknown_user_is_unknown() {
    let sandbox = Sandbox::new();
    let run = |run: Run| {
        let outcome = run.arg("boot-audit").identity(4242, 4343, &[]).run();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        outcome.stdout()
    };
    assert!(run(sandbox.program()).contains("\nuid=4242 gid=4343 user=unknown\nhostname="));
    std::fs::remove_file(sandbox.path("/etc/passwd")).unwrap();
    std::fs::remove_file(sandbox.path("/etc/group")).unwrap();
    let block = run(sandbox.program());
    assert!(block.contains("\nuid=4242 gid=4343 user=unknown\n"), "{block}");
    assert!(block.contains("\nconfigs_dir: drwxr-xr-x 2 0 0 "), "{block}");
}

fn one_fact_stays_one_line() {
    let sandbox = Sandbox::new();
    let configs = sandbox.path("/configs");
    for name in [b"a\nenv KIMI_API_KEY=set".as_slice(), b"b\\nc", b"c\x1b[2J", b"d\xff"] {
        std::fs::write(configs.join(OsStr::from_bytes(name)), "").unwrap();
    }
    std::fs::remove_dir(sandbox.path("/workspace")).unwrap();
    std::os::unix::fs::symlink("x\nenv GLM_API_KEY=set", sandbox.path("/workspace")).unwrap();
    let block = sandbox
        .program()
        .arg("boot-audit")
        .env("WORKSPACE_ID", OsStr::from_bytes(b"a\\nb\nc\xfe"))
        .env("PLATFORM_URL", "x\r----- entrypoint boot")
        .run()
        .stdout();
    assert_eq!(block.lines().count(), 16, "{block}");
    for line in [
        r"configs_contents: a\nenv KIMI_API_KEY=set b\\nc c\x1b[2J d\xff ",
        r"platform_url=x\r----- entrypoint boot",
        "env KIMI_API_KEY=unset",
        "env GLM_API_KEY=unset",
    ] {
        assert!(block.lines().any(|found| found == line), "{line}\n{block}");
    }
    assert!(block.contains(r" workspace_id=a\\nb\nc\xfe"), "{block}");
    assert!(block.contains(r"/workspace -> x\nenv GLM_API_KEY=set"), "{block}");
}

fn a_terminal_is_told_nothing_by_a_name() {
    const NAMES: [&str; 4] =
        ["1\u{9b}2J\u{7f}", "2\u{202e}\u{200e}", "3\u{feff}\u{e0041}", "4\n\\é"];
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("configs")).unwrap();
    for name in NAMES {
        std::fs::write(directory.path().join("configs").join(name), "").unwrap();
    }
    let run = |form: &[&str]| {
        let mut command = crate::support::program();
        command.args(["boot-audit", "--root"]).arg(directory.path()).args(form);
        let text = crate::support::ok(command.env("WORKSPACE_ID", NAMES.concat()));
        let raw = |c: char| c != '\n' && !c.is_ascii_graphic() && !" é".contains(c);
        assert!(!text.contains(raw), "{text:?}");
        text
    };
    let shown = r"1\xc2\x9b2J\x7f 2\u{202e}\u{200e} 3\u{feff}\u{e0041} 4\n\\é ";
    let block = run(&[]);
    assert!(block.contains(&format!("\nconfigs_contents: {shown}\n")), "{block}");
    assert!(block.contains(&format!(" workspace_id={}\n", shown.replace(' ', ""))), "{block}");
    let object: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(object["configs_contents"], serde_json::json!(NAMES));
    assert_eq!(object["workspace_id"], NAMES.concat());
}

fn no_value_of_an_audited_variable_is_printed() {
    let sandbox = Sandbox::new();
    let names = sandbox.program().arg("boot-audit").run().stdout();
    let names = names.lines().filter_map(|line| line.strip_prefix("env ")?.split('=').next());
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), 8);
    for form in [&["boot-audit"][..], &["boot-audit", "--json"]] {
        let values = names.iter().map(|name| (*name, format!("sk-canary-{name}")));
        let outcome = sandbox.program().args(form).envs(values).run();
        let (stdout, stderr) = (outcome.stdout(), outcome.stderr());
        assert!(!stdout.contains("canary") && !stderr.contains("canary"), "{outcome:?}");
        let set = stdout.matches("=set\n").count() + stdout.matches(":true").count();
        assert_eq!(set, 8, "{stdout}");
    }
}

fn more_names_come_from_the_environment_and_options() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .program()
        .args(["boot-audit", "--env", "HOME", "--env", "FROM_OPTION", "--env=HOME"])
        .env("MOLECULE_AUDIT_ENV", " ONE,TWO:THREE\tONE GLM_API_KEY,,=x,sk-canary,9\nFOUR")
        .env("TWO", "2")
        .run();
    let block = outcome.stdout();
    let names: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("env ")).collect();
    let more = "ONE=unset TWO=set THREE=unset FOUR=unset HOME=set FROM_OPTION=unset";
    assert_eq!(names[8..].join(" "), more);
    assert!(names[7].starts_with("DEEPSEEK_API_KEY="));
    let complaint = "boot-audit: a word in MOLECULE_AUDIT_ENV is no name of a variable, left out\n";
    assert_eq!(outcome.stderr(), complaint.repeat(3));
}

fn a_word_that_is_no_name_is_refused_unrepeated() {
    for word in ["TOKEN=sk-canary", "", "9", "sk-canary", "A B"] {
        let output =
            crate::support::program().args(["boot-audit", "--env", word]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{word}");
        assert!(output.stdout.is_empty());
        assert!(stderr.contains("--env takes a name") && !stderr.contains("canary"), "{stderr}");
    }
}

fn json_has_the_facts_of_the_block() {
    let sandbox = Sandbox::new();
    sandbox.sh("touch /configs/b /configs/a; rmdir /workspace");
    let run = |json: &[&str]| {
        let run = sandbox.program().arg("boot-audit").args(json).env("GLM_API_KEY", "x");
        let outcome = agent(run.env("WORKSPACE_ID", "ws")).run();
        assert_eq!((outcome.status, outcome.stderr()), (0, String::new()));
        outcome.stdout()
    };
    let block = run(&[]);
    let object: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    let text = |name: &str| object[name].as_str().unwrap().to_owned();
    assert_eq!((&object["uid"], &object["gid"]), (&1000.into(), &1000.into()));
    assert_eq!(text("user"), "agent");
    assert_eq!(object["configs_contents"], serde_json::json!(["a", "b"]));
    assert_eq!(object["workspace_dir"], serde_json::Value::Null);
    assert_eq!(object["platform_url"], serde_json::Value::Null);
    assert_eq!(text("time").len(), "2026-01-01T00:00:00Z".len());
    for line in [
        format!("hostname={} workspace_id={}", text("hostname"), text("workspace_id")),
        format!("configs_dir: {}", text("configs_dir")),
    ] {
        assert!(block.lines().any(|found| found == line), "{line}\n{block}");
    }
    let variables = object["env"].as_object().unwrap();
    assert_eq!(variables.len(), 8);
    for (name, set) in variables {
        let set = if set.as_bool().unwrap() { "set" } else { "unset" };
        assert!(block.contains(&format!("\nenv {name}={set}\n")), "{name} {set}\n{block}");
    }
}

fn another_root_has_its_own_names_and_volumes() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir -p /image/etc /image/real /configs/wrong; touch /image/real/right
         ln -s /real /image/configs; echo 'boss:x:0:0::/:' > /image/etc/passwd
         echo 'staff:x:0:' > /image/etc/group");
    let block = sandbox.program().args(["boot-audit", "--root", "/image"]).run().stdout();
    assert!(block.contains("\nuid=0 gid=0 user=boss\n"), "{block}");
    assert!(block.contains("\nconfigs_dir: lrwxrwxrwx 1 boss staff 5 "), "{block}");
    assert!(block.contains("\nconfigs_contents: right \nworkspace_dir: MISSING\n"), "{block}");
    let absent = sandbox.program().args(["boot-audit", "--root", "/absent"]).run();
    assert_eq!(absent.status, 1);
    assert_eq!(absent.stderr(), "boot-audit: open /absent: No such file or directory\n");
}

/// An audit whose calls strace(1) answers in the kernel's place, as its `options` say. The directory
/// is one where strace cannot look up the relative paths that `-P` gives.
#[track_caller]
fn injected(sandbox: &Sandbox, options: &[&str], form: &[&str]) -> String {
    let strace =
        sandbox.command("/usr/bin/strace").args(["-qq", "-o", "/tmp/trace"]).directory("/tmp");
    let run = strace.args(options).args([PROGRAM_INSIDE, "boot-audit"]).args(form);
    let outcome = run.run();
    assert_eq!((outcome.status, outcome.stderr()), (0, String::new()), "{options:?}");
    let trace = std::fs::read_to_string(sandbox.path("/tmp/trace")).unwrap();
    assert!(trace.contains("(INJECTED)"), "{options:?}\n{trace}");
    outcome.stdout()
}

/// Calls of the audit, as strace's options; where their failure is to be seen; the fact's name.
const LOOKS: [(&[&str], &str, &str); 7] = [
    (&["-P", "configs", "-e", "inject=statx:"], "configs_dir: ", "configs_dir"),
    (&["-P", "configs", "-e", "inject=openat2:"], "configs_contents: ", "configs_contents"),
    (&["-e", "inject=getdents64:"], "configs_contents: ", "configs_contents"),
    (&["-P", "workspace", "-e", "inject=statx:"], "workspace_dir: ", "workspace_dir"),
    (&["-P", "workspace", "-e", "inject=readlinkat:"], "workspace_dir: ", " /workspace -> "),
    (&["-e", "inject=uname:"], "hostname=", "hostname"),
    (&["-P", "etc/passwd", "-e", "inject=openat2:"], "uid=0 gid=0 user=", "user"),
];

fn with_error(look: &[&'static str], error: &str) -> Vec<String> {
    let (last, others) = look.split_last().unwrap();
    let others = others.iter().map(|word| (*word).to_owned());
    others.chain([format!("{last}error={error}")]).collect()
}

fn what_cannot_be_found_out_is_no_fact() {
    let sandbox = Sandbox::new();
    sandbox.sh("touch /configs/a /configs/b; rmdir /workspace; ln -s configs /workspace");
    let run = |look: &[&'static str], error: &str, form: &[&str]| {
        let options = with_error(look, error);
        injected(&sandbox, &options.iter().map(String::as_str).collect::<Vec<_>>(), form)
    };
    for (look, line, fact) in LOOKS {
        let block = run(look, "EIO", &[]);
        assert_eq!(block.lines().count(), 16, "{block}");
        let line = block.lines().find(|shown| shown.starts_with(line)).unwrap();
        let told = line.split_once("?(Input/output error)").unwrap_or_else(|| panic!("{line}"));
        assert!(told.1.is_empty() || told.1.starts_with(" workspace_id="), "{line}");
        let object: serde_json::Value =
            serde_json::from_str(&run(look, "EIO", &["--json"])).unwrap();
        match fact.trim_start().starts_with('/') {
            true => assert!(told.0.ends_with(fact), "{line}"),
            false => assert_eq!(object[fact]["error"], "Input/output error", "{object}"),
        }
        assert_eq!(block.matches("?(").count(), 1, "{block}");
    }
    // Names that were seen before the failure are no less true.
    let half = run(&["-e", "inject=getdents64:when=2:"], "EIO", &[]);
    assert!(half.contains("\nconfigs_contents: a b ?(Input/output error)\n"), "{half}");
    let group = run(&["-P", "etc/group", "-e", "inject=openat2:"], "EIO", &[]);
    assert!(group.contains("\nconfigs_dir: drwxr-xr-x 2 root 0 "), "{group}");
    let acl = run(&["-e", "inject=lgetxattr:"], "EIO", &[]);
    assert!(acl.contains("\nconfigs_dir: drwxr-xr-x? 2 root"), "{acl}");
    for error in ["ENOENT", "ENOTDIR"] {
        let missing = run(&["-P", "configs", "-e", "inject=statx,openat2:"], error, &[]);
        assert!(missing.contains("\nconfigs_dir: MISSING\nconfigs_contents: \n"), "{missing}");
    }
    // Lists nothing in the reference.
    let denied: &[_] = &["-P", "configs", "-e", "inject=openat2:"];
    assert!(run(denied, "EACCES", &[]).contains("\nconfigs_contents: \n"));
    let object = run(denied, "EACCES", &["--json"]);
    let expected = r#""configs_contents":{"error":"Permission denied","names":[]}"#;
    assert!(object.contains(expected), "{object}");
}

fn an_interrupted_call_is_repeated() {
    let sandbox = Sandbox::new();
    sandbox.sh("touch /configs/a /configs/b; rmdir /workspace; ln -s configs /workspace");
    let expected = sandbox.program().arg("boot-audit").run().stdout();
    let looks = LOOKS.iter().map(|(look, ..)| *look).filter(|look| *look != LOOKS[5].0);
    let more: [&[&str]; 2] =
        [&["-e", "inject=getdents64:when=2:"], &["-e", "inject=lgetxattr:when=1:"]];
    for look in looks.chain(more) {
        let mut options = with_error(look, "EINTR");
        if let Some(last) = options.last_mut().filter(|last| !last.contains("when=")) {
            last.push_str(":when=1");
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        assert_eq!(untimed(&injected(&sandbox, &options, &[])), untimed(&expected), "{options:?}");
    }
}

/// 100,000 names of 240 bytes that become 960 each when they are escaped.
fn a_directory_of_many_names_costs_a_screenful() {
    let directory = tempfile::tempdir().unwrap();
    let configs = directory.path().join("configs");
    std::fs::create_dir(&configs).unwrap();
    for number in 0..100_000 {
        let name = format!("{number:06}{}", "\u{1}".repeat(234));
        std::fs::write(configs.join(name), "").unwrap();
    }
    std::os::unix::fs::symlink("\u{1}".repeat(4095), directory.path().join("workspace")).unwrap();
    for form in [&[][..], &["--json"]] {
        let mut command = crate::support::program();
        command.args(["boot-audit", "--root"]).arg(directory.path()).args(form);
        let (output, peak) = crate::support::peak_memory(&mut command);
        let text = String::from_utf8(output.stdout).unwrap();
        let longest = text.lines().map(str::len).max().unwrap();
        assert!(output.status.success() && peak < 64 << 10, "{} KiB", peak);
        assert!(longest < 10 << 10 && text.contains("000003"), "{longest} bytes\n{text}");
        let more = if form.is_empty() { " ... and 99996 more\n" } else { "_more\":99996," };
        assert!(text.contains(more), "{text}");
    }
}

fn a_closed_stdout_is_no_failure() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.program().arg("boot-audit").close(1).run();
    assert_eq!((outcome.status, outcome.stderr()), (0, String::new()));
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    drop(read);
    let outcome = sandbox.program().arg("boot-audit").stdout(write).run();
    assert_eq!((outcome.status, outcome.stderr()), (0, String::new()));
}
