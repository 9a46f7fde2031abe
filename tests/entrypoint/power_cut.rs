//! Boots after the machine went down: what a marker says is on the disk, or is restored again.

use std::path::Path;
use std::time::{Duration, Instant};

use molecule_tools::fs::Dir;
use molecule_tools::record;

use crate::entrypoint::{boots, entrypoint};
use crate::support::clock::tick;
use crate::support::runtime::sandbox;
use crate::support::sandbox::{LoopDevice, Sandbox};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const LOOP: &[Need] = &[Need::Root, Need::Loop];
    const XFS: &[Need] = &[
        Need::Root,
        Need::Loop,
        Need::Program("mkfs.xfs"),
        Need::Filesystem("xfs"),
        Need::Filesystem("ext4"),
    ];
    vec![
        test_case!(a_marker_becomes_durable_behind_the_runtimes_back, LOOP),
        test_case!(a_marker_that_was_cut_off_restores_again_and_keeps_what_is_newer, LOOP),
        test_case!(markers_of_the_old_script_and_of_earlier_versions_are_final, LOOP),
        test_case!(a_power_cut_at_20_moments_of_a_boot_loses_nothing, XFS),
    ]
}

const MARKER: &str = "/configs/.restore-completed";
const OTHER_BOOT: &str = "00000000-0000-4000-8000-000000000000";

/// A snapshot with files of many sizes.
fn volume() -> LoopDevice {
    LoopDevice::ext4(
        64,
        "mkdir -p configs workspace/many home/agent/.claude
         for d in configs workspace home/agent/.claude; do echo snapshot > $d/work; echo snapshot > $d/old; done
         for n in $(seq 300); do echo snapshot $n > workspace/many/$n; done
         for n in $(seq 20); do yes snapshot $n | head -c 1500000 > home/agent/.claude/large$n; done
         chown -R 1000:1000 configs workspace home/agent",
    )
}

/// A sandbox in which the kernel has been booted once more.
fn another_boot(script: &str) -> Sandbox {
    sandbox(&format!(
        "echo {OTHER_BOOT} > run/boot_id; mount --bind run/boot_id proc/sys/kernel/random/boot_id
         {script}"
    ))
}

fn log_of(sandbox: &Sandbox) -> String {
    boots(sandbox, entrypoint(sandbox)).0.stdout()
}

/// Waits until nobody of the sandbox runs any more, and gives the marker.
#[track_caller]
fn settled_marker(sandbox: &Sandbox) -> String {
    let end = Instant::now() + Duration::from_secs(60);
    while !sandbox.processes().is_empty() {
        assert!(Instant::now() < end, "{}", sandbox.sh("ps axo pid,stat,args"));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::read_to_string(sandbox.path(MARKER)).unwrap()
}

fn a_marker_becomes_durable_behind_the_runtimes_back() {
    let sandbox = sandbox("");
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let (_, view) = boots(&sandbox, entrypoint(&sandbox));
    assert_eq!(
        (view["SigPnd"].as_str(), view["SigBlk"].as_str()),
        ("0000000000000000", "0000000000000000")
    );
    let report: serde_json::Value = serde_json::from_str(&settled_marker(&sandbox)).unwrap();
    assert_eq!(report["durable"], true);
    assert_eq!(report["boot_id"], kernel.trim());
    // One whose disk failed then is made durable by the next start.
    sandbox.sh(&format!("sed -i 's/\"durable\": true /\"durable\": false/' {MARKER}"));
    assert!(settled_marker(&sandbox).contains("\"durable\": false,"));
    assert!(log_of(&sandbox).contains("present — skipping"));
    assert!(settled_marker(&sandbox).contains("\"durable\": true ,"));
    // By hand it is waited for.
    let by_hand = sandbox.program().args(["restore", "--force"]).run();
    assert_eq!(by_hand.status, 0, "{by_hand:?}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sandbox.path(MARKER)).unwrap()).unwrap();
    assert_eq!(report["durable"], true);
}

fn a_marker_that_was_cut_off_restores_again_and_keeps_what_is_newer() {
    for (marker_is_empty, with_records) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let sandbox = another_boot("");
        let volume = volume();
        sandbox.add_device("xvdb", &volume);
        log_of(&sandbox);
        settled_marker(&sandbox);
        cut(&sandbox, marker_is_empty);
        tick();
        sandbox
            .sh("echo agent > /workspace/work; echo agent > /configs/made; rm /workspace/many/7");
        if with_records {
            // A time of modification tells nothing then.
            sandbox.sh("touch -d @1000 /workspace/work");
            for tree in TREES.map(|tree| Dir::open_operator_path(sandbox.path(tree)).unwrap()) {
                record::start(&tree).unwrap();
            }
            tick();
            sandbox.sh("touch -d @1000 /workspace/work");
        }
        std::fs::write(sandbox.path("/run/boot_id"), "another\n").unwrap();
        let log = log_of(&sandbox);
        assert!(log.contains("the machine went down before everything"), "{log}");
        assert_eq!(sandbox.sh("cat /workspace/work /configs/made"), "agent\nagent\n", "{log}");
        assert_eq!(sandbox.sh("cat /workspace/many/7 /configs/old"), "snapshot 7\nsnapshot\n");
        assert_eq!(sandbox.sh("wc -c < /home/agent/.claude/large3"), "1500000\n");
        assert!(settled_marker(&sandbox).contains("\"boot_id\": \"another\""));
        assert!(log_of(&sandbox).contains("present — skipping"));
    }
}

const TREES: [&str; 3] = ["/configs", "/workspace", "/home/agent/.claude"];

/// Leaves the trees as a power cut does: a marker that is not durable (or has lost its content), files of the
/// restore that are empty, and no record.
fn cut(sandbox: &Sandbox, marker_is_empty: bool) {
    match marker_is_empty {
        true => sandbox.sh(&format!(": > {MARKER}")),
        false => sandbox.sh(&format!("sed -i 's/\"durable\": true /\"durable\": false/' {MARKER}")),
    };
    sandbox.sh("for f in /configs/old /home/agent/.claude/large3; do
             m=$(stat -c %y $f); : > $f; touch -d \"$m\" $f
         done");
    for tree in TREES {
        rustix::fs::removexattr(sandbox.path(tree), "user.molecule.started").unwrap();
    }
}

fn markers_of_the_old_script_and_of_earlier_versions_are_final() {
    let sandbox = another_boot("");
    let volume = volume();
    sandbox.add_device("xvdb", &volume);
    for marker in [
        "",
        "{\n  \"program\": \"molecule-tools 0.1.0\",\n  \"status\": 0\n}\n",
        "not JSON",
        "\0\0\0",
    ] {
        std::fs::write(sandbox.path(MARKER), marker).unwrap();
        let log = log_of(&sandbox);
        assert!(log.contains("present — skipping"), "{marker:?} {log}");
        assert_eq!(settled_marker(&sandbox), marker);
    }
    assert_eq!(sandbox.sh("ls /workspace"), "");
}

/// The three trees on one disk of their own, whose image file can be copied in an instant.
const STATE: &str = "
    truncate -s 400M store.img; mkfs.xfs -q store.img; mkdir store state; mount -o loop store.img store
    truncate -s 128M store/disk
    mkfs.ext4 -q -F -m 0 -E lazy_itable_init=0,lazy_journal_init=0 store/disk
    node=$(losetup --find --show --direct-io=on store/disk)
    mount -o commit=1 \"$node\" state; losetup --detach \"$node\"
    mkdir -p state/configs state/workspace state/claude home/agent/.claude
    chown -R 1000:1000 state home/agent
    mount --bind state/configs configs; mount --bind state/workspace workspace
    mount --bind state/claude home/agent/.claude; sync -f state";
/// The agent: new files, and its own words in two restored ones. It has them written to disk, and so the journal.
const AGENT: &str = "#!/bin/sh
    n=0
    while [ $n -lt 40 ]; do
        n=$((n + 1))
        for d in /configs /workspace /home/agent/.claude; do
            echo agent | dd of=$d/made$n conv=fsync status=none
            echo agent $n > $d/.work; sync $d/.work; mv $d/.work $d/work
        done
    done
";

fn a_power_cut_at_20_moments_of_a_boot_loses_nothing() {
    let volume = volume();
    let mut ends = Vec::new();
    // Chance alone decides whether a cut falls between the marker and the end of the writing.
    for round in 0..20 {
        if round >= 4 && ends.contains(&"restored again") {
            break;
        }
        let sandbox = sandbox(STATE);
        sandbox.add_device("xvdb", &volume);
        sandbox.install("/app/runtime", AGENT);
        let mut state = u64::from(std::process::id()) + round;
        let boot = entrypoint(&sandbox).env("MOLECULE_RUNTIME", "/app/runtime").start();
        // Somebody else's work has the journal written all the time.
        let other = "while :; do echo x > /state/other; sync /state/other; sleep 0.01; done";
        let mut other = sandbox.command("/bin/sh").args(["-c", other]).start();
        for number in 0..5 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis((state >> 33) % 60));
            sandbox.sh(&format!("cp --reflink=always /store/disk /store/cut{number}"));
        }
        other.child.kill().unwrap();
        boot.wait();
        ends.extend((0..5).map(|n| judge_cut(&sandbox.path(format!("/store/cut{n}")), &volume)));
    }
    assert!(ends.contains(&"restored again"), "{ends:?}");
}

/// Boots over what the disk had; says how the boot took it.
#[track_caller]
fn judge_cut(image: &Path, volume: &LoopDevice) -> &'static str {
    let disk = LoopDevice::of(image, &[]);
    let sandbox = another_boot(&format!(
        "mkdir state; mount {} state; mkdir -p home/agent/.claude
         mount --bind state/configs configs; mount --bind state/workspace workspace
         mount --bind state/claude home/agent/.claude",
        disk.path().display()
    ));
    sandbox.add_device("xvdb", volume);
    let agents = "grep -rlx 'agent.*' /configs /workspace /home/agent/.claude | sort || :";
    let before = sandbox.sh(agents);
    let content = |names: &str| sandbox.sh(&format!("cat /dev/null {}", names.replace('\n', " ")));
    let words = content(&before);
    let marker = std::fs::read_to_string(sandbox.path(MARKER)).unwrap_or_default();
    let log = log_of(&sandbox);
    assert_eq!(content(&before), words, "{marker}\n{log}");
    let wrong = sandbox.sh("cd /workspace/many
         for n in $(seq 300); do [ \"$(cat $n)\" = \"snapshot $n\" ] || echo $n; done
         cd /home/agent/.claude
         for n in $(seq 20); do yes snapshot $n | head -c 1500000 | cmp - large$n || :; done
         for d in /configs /workspace /home/agent/.claude; do
             [ \"$(cat $d/old)\" = snapshot ] || echo $d/old
             grep -qx 'snapshot\\|agent.*' $d/work || echo $d/work: $(cat $d/work)
         done");
    assert_eq!(wrong, "", "{marker}\n{log}");
    assert!(log_of(&sandbox).contains("present — skipping"));
    match log.contains("present — skipping") {
        true => "trusted",
        false if log.contains("the machine went down") => "restored again",
        false => "restored",
    }
}
