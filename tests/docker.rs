//! The image of the Dockerfile in the shapes that containers have. Each row boots, reaches the runtime as the agent
//! without a privilege, and says of what is missing what it costs.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::docker::{WORKSPACE, engine};
use crate::support::sandbox::Image;
use crate::support::{Case, Need, case, test_case};

pub fn cases() -> Vec<Case> {
    let docker = &[Need::Docker];
    let mut cases = vec![
        test_case!(the_tools_image_is_the_program_and_its_links, docker),
        test_case!(the_workspace_has_none_of_what_the_program_replaces, docker),
        test_case!(a_volume_comes_back_in_a_privileged_container, &[Need::Docker, Need::Loop]),
        test_case!(stop_restart_exec_logs_and_status_are_the_runtimes, docker),
    ];
    cases.extend(SHAPES.iter().map(|shape| case(shape.name, docker, || boots(shape))));
    cases
}

/// A row of the matrix.
struct Shape {
    name: &'static str,
    /// Options of `docker run`.
    options: &'static [&'static str],
    /// Directories in which the agent can make a file afterwards.
    writes: &'static [&'static str],
    /// The words of each WARN or error line.
    warnings: &'static [&'static str],
}

const BOTH: &[&str] = &["/configs", "/workspace"];
const SHAPES: &[Shape] = &[
    Shape {
        name: "plain",
        options: &["-v", "/configs", "-v", "/workspace"],
        writes: BOTH,
        warnings: &[],
    },
    Shape {
        name: "read_only_root",
        options: &["--read-only", "--tmpfs", "/tmp:noexec", "-v", "/configs"],
        writes: &["/configs", "/tmp"],
        warnings: &[
            "make directory /home/agent/.claude: Read-only file system",
            "make directory /home/agent/.molecule-token-cache: Read-only file system",
            "make directory /home/agent/Downloads: Read-only file system",
        ],
    },
    Shape {
        name: "five_capabilities_and_no_new_privileges",
        options: &[
            "--cap-drop=ALL",
            "--cap-add=CHOWN",
            "--cap-add=DAC_OVERRIDE",
            "--cap-add=FOWNER",
            "--cap-add=SETGID",
            "--cap-add=SETUID",
            "--security-opt=no-new-privileges",
            "-v",
            "/configs",
            "-v",
            "/workspace",
        ],
        writes: BOTH,
        warnings: &[],
    },
    Shape {
        name: "user_1000_without_capabilities",
        options: &[
            "--user=1000",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--tmpfs=/configs:mode=1777",
        ],
        writes: &["/configs"],
        warnings: &[],
    },
    Shape {
        name: "half_a_gigabyte_and_one_processor",
        options: &["--memory=512m", "--cpus=1", "-v", "/configs", "-v", "/workspace"],
        writes: BOTH,
        warnings: &[],
    },
    Shape {
        name: "an_init_before_it",
        options: &["--init", "-v", "/configs"],
        writes: &["/configs"],
        warnings: &[],
    },
    Shape {
        name: "the_hosts_processes_and_network",
        options: &["--pid=host", "-v", "/configs", "-v", "/workspace"],
        writes: BOTH,
        warnings: &[],
    },
];

fn boots(shape: &Shape) {
    let tries = BOTH
        .iter()
        .chain(&["/tmp"])
        .map(|place| format!("touch {place}/tried 2>/dev/null && echo writes {place};"));
    let script = format!(
        "grep -E '^(Uid|Gid|Cap...|NoNewPrivs)' /proc/self/status; {} echo over",
        tries.collect::<String>()
    );
    let mut words = vec!["run", "--rm", "--network=host", "-e", "MOLECULE_RUNTIME=/bin/sh"];
    words.extend(shape.options);
    words.extend([WORKSPACE, "-c", &script]);
    let output = engine().docker(&words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (log, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && log.ends_with("over\n"), "{log}{errors}");
    let lines =
        |start: &str| log.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    assert_eq!(lines("Uid"), ["Uid:\t1000\t1000\t1000\t1000"], "{log}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(lines(set), [format!("{set}:\t0000000000000000")], "{log}");
    }
    for place in shape.writes {
        assert!(log.contains(&format!("writes {place}\n")), "{place}: {log}");
    }
    let warnings: Vec<&str> =
        log.lines().chain(errors.lines()).filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), shape.warnings.len(), "{log}{errors}");
    for (line, words) in warnings.iter().zip(shape.warnings) {
        assert!(line.contains(words), "{line}");
    }
}

fn the_tools_image_is_the_program_and_its_links() {
    let container = engine().ok(&["create", "molecule-tools", "/usr/local/bin/entrypoint"]);
    let list = tempfile::tempdir().unwrap();
    engine().ok(&["cp", &format!("{container}:/usr"), list.path().to_str().unwrap()]);
    engine().ok(&["rm", &container]);
    let bin = list.path().join("usr/local/bin");
    let mut names = Vec::new();
    for entry in bin.read_dir().unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name != "molecule-tools" {
            assert_eq!(
                std::fs::read_link(entry.path()).unwrap(),
                Path::new("molecule-tools"),
                "{name}"
            );
            names.push(name);
        }
    }
    let mut listed: Vec<String> = crate::support::ok(crate::support::program().arg("--list"))
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    listed.sort();
    assert_eq!(names, listed);
}

fn the_workspace_has_none_of_what_the_program_replaces() {
    for name in ["gosu", "rsync", "curl", "tini"] {
        let look = engine().docker(&[
            "run",
            "--rm",
            "--network=none",
            "--entrypoint=/bin/sh",
            WORKSPACE,
            "-c",
            &format!("! command -v {name}"),
        ]);
        assert!(look.status.success() || name == "gosu", "{name}: {look:?}");
    }
    // That one is the program.
    let gosu = engine().ok(&[
        "run",
        "--rm",
        "--network=none",
        "--entrypoint=gosu",
        WORKSPACE,
        "agent",
        "id",
        "-un",
    ]);
    assert_eq!(gosu, "agent");
}

/// As much of `--privileged` as the machine has: with CAP_SYS_RESOURCE missing there, Docker gives none of it.
fn privileged() -> Vec<String> {
    let probe =
        ["run", "--rm", "--network=none", "--privileged", "--entrypoint=/bin/true", WORKSPACE];
    if engine().docker(&probe).status.success() {
        return vec!["--privileged".into()];
    }
    println!("every capability but CAP_SYS_RESOURCE, in place of --privileged");
    let names = "AUDIT_CONTROL AUDIT_READ BLOCK_SUSPEND DAC_READ_SEARCH IPC_LOCK IPC_OWNER LEASE LINUX_IMMUTABLE \
        MAC_ADMIN MAC_OVERRIDE NET_ADMIN NET_BROADCAST SYSLOG SYS_ADMIN SYS_BOOT SYS_MODULE SYS_NICE SYS_PACCT \
        SYS_PTRACE SYS_RAWIO SYS_TIME SYS_TTY_CONFIG WAKE_ALARM";
    let able = |name: &&str| {
        let add = format!("--cap-add={name}");
        engine()
            .docker(&["run", "--rm", "--network=none", &add, "--entrypoint=/bin/true", WORKSPACE])
            .status
            .success()
    };
    let mut options: Vec<String> =
        names.split_whitespace().filter(able).map(|name| format!("--cap-add={name}")).collect();
    options.push("--security-opt=seccomp=unconfined".into());
    options
}

fn a_volume_comes_back_in_a_privileged_container() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("workspace")).unwrap();
    std::fs::write(tree.path().join("workspace/notes"), "from the snapshot").unwrap();
    let image = Image::new(16 << 20).make("mkfs.ext4", ["-q", "-d", tree.path().to_str().unwrap()]);
    let device = image.attach();
    let device = format!("--device={}:/dev/xvdb", device.path().display());
    let mut words =
        vec!["run", "--rm", "--network=host", "-e", "MOLECULE_RUNTIME=/bin/cat", &device];
    let privileged = privileged();
    words.extend(privileged.iter().map(String::as_str));
    words.extend(["-v", "/configs", "-v", "/workspace", WORKSPACE, "/workspace/notes"]);
    let log = engine().ok(&words);
    assert!(log.contains("MOLECULE-RESTORE: ok /workspace"), "{log}");
    assert!(log.ends_with("from the snapshot"), "{log}");
}

fn stop_restart_exec_logs_and_status_are_the_runtimes() {
    let container = engine().ok(&["run", "-d", "--network=host", WORKSPACE, "--model", "a b"]);
    let said = |times: usize| {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let log = engine().ok(&["logs", &container]);
            if log.matches("molecule-runtime --model a b").count() == times {
                return log;
            }
            assert!(Instant::now() < until, "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert!(said(1).starts_with("----- entrypoint boot "));
    assert_eq!(engine().ok(&["exec", &container, "gosu", "agent", "id", "-u"]), "1000");
    let begin = Instant::now();
    engine().ok(&["stop", &container]);
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "the runtime did not get the signal: {:?}",
        begin.elapsed()
    );
    engine().ok(&["start", &container]);
    said(2);
    engine().ok(&["rm", "-f", &container]);
    let run = [
        "run",
        "--rm",
        "--network=none",
        "-e",
        "MOLECULE_RUNTIME=/bin/sh",
        WORKSPACE,
        "-c",
        "exit 42",
    ];
    assert_eq!(engine().docker(&run).status.code(), Some(42));
}
