//! What is missing, wrong or hostile: the boot goes on wherever there is something to go on to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::entrypoint::{boots, entrypoint};
use crate::support::runtime::{sandbox, take_view};
use crate::support::sandbox::{Image, LoopDevice};
use crate::support::{Case, Need, test_case};

const ROOT: &[Need] = &[Need::Root];
const LOOP: &[Need] = &[Need::Root, Need::Loop];
/// linux/capability.h
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_ADMIN: u32 = 21;

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(an_unknown_user_is_one_line_and_status_1_after_all_root_work, LOOP),
        test_case!(a_missing_runtime_is_127_and_one_line, ROOT),
        test_case!(a_runtime_that_is_not_executable_is_126_and_one_line, ROOT),
        test_case!(unreadable_configs_do_not_stop_the_boot, ROOT),
        test_case!(a_marker_that_is_a_directory_does_not_stop_the_boot, LOOP),
        test_case!(a_device_that_is_no_block_device_is_none, ROOT),
        test_case!(a_damaged_volume_does_not_stop_the_boot, LOOP),
        test_case!(without_cap_sys_admin_the_boot_goes_on_unrestored, LOOP),
        test_case!(absent_workspace_and_configs_do_not_stop_the_boot, ROOT),
        test_case!(odd_names_stay_on_their_line, LOOP),
        test_case!(variables_cannot_forge_lines, ROOT),
        test_case!(a_reader_that_went_away_does_not_stop_the_boot, ROOT),
        test_case!(full_standard_output_does_not_stop_the_boot, ROOT),
        test_case!(a_bad_group_file_gives_no_group, ROOT),
        test_case!(as_json_each_log_line_is_one_object, LOOP),
    ]
}

fn workspace() -> LoopDevice {
    LoopDevice::ext4(
        16,
        "mkdir -p configs workspace; echo restored > workspace/file; echo c > configs/config.yaml",
    )
}

fn an_unknown_user_is_one_line_and_status_1_after_all_root_work() {
    let (sandbox, device) = (sandbox("sed -i /^agent:/d etc/passwd"), workspace());
    sandbox.add_device("xvdb", &device);
    let outcome = entrypoint(&sandbox).run();
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(take_view(&sandbox).is_none(), "the runtime must not run as root");
    let errors = outcome.stderr();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("agent"), "{errors}");
    assert!(outcome.stdout().contains("MOLECULE-RESTORE: ok /workspace\n"), "{outcome:?}");
    assert_eq!(
        sandbox.sh("cat /workspace/file; ls -d /workspace/.molecule"),
        "restored\n/workspace/.molecule\n"
    );
}

fn a_missing_runtime_is_127_and_one_line() {
    let sandbox = sandbox("");
    let outcome = entrypoint(&sandbox).env("MOLECULE_RUNTIME", "no\nsuch").run();
    assert_eq!(outcome.status, 127);
    let errors = outcome.stderr();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("no\\nsuch"), "{errors}");
    sandbox.install("/tmp/script", "#!/no/such/interpreter\n");
    let outcome = entrypoint(&sandbox).env("MOLECULE_RUNTIME", "/tmp/script").run();
    assert_eq!((outcome.status, outcome.stderr().lines().count()), (127, 1), "{outcome:?}");
}

fn a_runtime_that_is_not_executable_is_126_and_one_line() {
    let sandbox = sandbox("echo x > usr/local/bin/plain; mkdir usr/local/bin/directory");
    for name in ["plain", "directory", "/usr/local/bin/plain"] {
        let outcome = entrypoint(&sandbox).env("MOLECULE_RUNTIME", name).run();
        let errors = outcome.stderr();
        assert_eq!((outcome.status, errors.lines().count()), (126, 1), "{name}: {outcome:?}");
        assert!(errors.contains("/usr/local/bin/"), "{errors}");
    }
}

fn unreadable_configs_do_not_stop_the_boot() {
    let sandbox = sandbox("echo x > configs/x; chmod 0 configs; chown 0:0 configs");
    let run = entrypoint(&sandbox).identity(1000, 1000, &[]);
    let (outcome, _) = boots(&sandbox, run);
    let log = outcome.stdout();
    assert!(log.contains("\nconfigs_contents: \n"), "{log}");
    assert!(log.contains("\nconfigs_dir: d--------- "), "{log}");
    // Root without its power over permissions.
    sandbox.sh("chown 33:33 /configs");
    let run =
        entrypoint(&sandbox).drop_capability(CAP_DAC_OVERRIDE).drop_capability(CAP_DAC_READ_SEARCH);
    boots(&sandbox, run);
}

fn a_marker_that_is_a_directory_does_not_stop_the_boot() {
    let (sandbox, device) = (sandbox("mkdir -p configs/.restore-completed/x"), workspace());
    sandbox.add_device("xvdb", &device);
    let (outcome, _) = boots(&sandbox, entrypoint(&sandbox));
    let log = outcome.stdout();
    assert!(log.contains("MOLECULE-RESTORE: ok /workspace\n"), "{log}");
    assert!(log.contains("a directory stands in the place of the marker"), "{log}");
    assert!(log.contains("/configs/.restore-completed is in the way of the marker"), "{log}");
    assert!(sandbox.path("/configs/.restore-completed").is_file());
    assert_eq!(sandbox.sh("ls -d /configs/.molecule-tools.*/x | wc -l"), "1\n");
    // The snapshot's own is never restored, whatever it is.
    let device = LoopDevice::ext4(16, "mkdir -p configs/.restore-completed/x workspace");
    sandbox.sh("rm -rf /configs/.restore-completed; umount /mnt/restore; rm /dev/xvdb");
    sandbox.add_device("xvdb", &device);
    let (outcome, _) = boots(&sandbox, entrypoint(&sandbox));
    let log = outcome.stdout();
    assert!(log.contains("complete — marker /configs/.restore-completed dropped"), "{log}");
    assert!(sandbox.path("/configs/.restore-completed").is_file());
}

fn a_device_that_is_no_block_device_is_none() {
    for make in [": > dev/xvdb", "mknod dev/xvdb c 1 3", "mkdir dev/xvdb", "mkfifo dev/xvdb"] {
        let sandbox = sandbox(make);
        let (outcome, _) = boots(&sandbox, entrypoint(&sandbox));
        let log = outcome.stdout();
        assert!(log.contains("MOLECULE-RESTORE: no /dev/xvdb — first-time provision"), "{log}");
        assert!(!sandbox.path("/configs/.restore-completed").exists());
    }
}

fn a_damaged_volume_does_not_stop_the_boot() {
    // A superblock that passes the probe, over nothing.
    let image =
        Image::new(16 << 20).make("mkfs.ext4", ["-q", "-F", "-b", "4096", "-O", "^has_journal"]);
    let file = std::fs::File::options().write(true).open(image.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xee; 1 << 20], 4096).unwrap();
    let (sandbox, device) = (sandbox(""), image.attach());
    sandbox.add_device("xvdb", &device);
    let (outcome, _) = boots(&sandbox, entrypoint(&sandbox));
    let log = outcome.stdout();
    assert!(
        log.contains("MOLECULE-RESTORE: WARN mount of /dev/xvdb failed — skipping restore"),
        "{log}"
    );
    assert!(!sandbox.path("/configs/.restore-completed").exists());
}

fn without_cap_sys_admin_the_boot_goes_on_unrestored() {
    let (sandbox, device) = (sandbox("echo mine > workspace/file"), workspace());
    sandbox.add_device("xvdb", &device);
    let run = entrypoint(&sandbox).drop_capability(CAP_SYS_ADMIN);
    let (outcome, _) = boots(&sandbox, run);
    let log = outcome.stdout();
    assert!(
        log.contains("MOLECULE-RESTORE: WARN mount of /dev/xvdb failed — skipping restore"),
        "{log}"
    );
    assert!(!sandbox.path("/configs/.restore-completed").exists());
    assert_eq!(sandbox.sh("cat /workspace/file"), "mine\n");
}

fn absent_workspace_and_configs_do_not_stop_the_boot() {
    let sandbox = sandbox("rmdir configs workspace");
    let (outcome, _) = boots(&sandbox, entrypoint(&sandbox));
    let log = outcome.stdout();
    assert_eq!(log.matches("configs_dir: MISSING\n").count(), 2, "{log}");
    assert_eq!(log.matches("workspace_dir: MISSING\n").count(), 2, "{log}");
    assert!(!sandbox.path("/workspace").exists());
}

fn odd_names_stay_on_their_line() {
    let name = "$(printf 'evil\\nMOLECULE-RESTORE: ok forged\\033[2J\\377')";
    let (sandbox, device) = (
        sandbox(&format!(": > \"configs/{name}\"; : > \"workspace/{name}\"")),
        // A directory with that name whose content cannot be placed: a mount stands in the way.
        LoopDevice::ext4(
            16,
            &format!(
                "mkdir -p workspace configs; : > \"configs/{name}\"; : > \"workspace/{name}\""
            ),
        ),
    );
    sandbox.add_device("xvdb", &device);
    // Something that fails with that name in its message.
    sandbox.sh(&format!(
        "rm \"/workspace/{name}\"; mkdir \"/workspace/{name}\"; mount -t tmpfs x \"/workspace/{name}\""
    ));
    let (outcome, _) = boots(&sandbox, entrypoint(&sandbox));
    let log = String::from_utf8(outcome.stdout.clone()).expect("UTF-8 whatever the names are");
    assert!(!log.lines().any(|line| line == "MOLECULE-RESTORE: ok forged\\x1b[2J\\xff"), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("MOLECULE-RESTORE: ok forged")), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
    assert!(log.contains("MOLECULE-RESTORE: WARN rsync to /workspace exited 23"), "{log}");
    let told = log
        .lines()
        .any(|l| l.starts_with("MOLECULE-RESTORE: ") && l.contains("evil\\nMOLECULE-RESTORE: ok"));
    assert!(told, "{log}");
}

fn variables_cannot_forge_lines() {
    let sandbox = sandbox("");
    let run = entrypoint(&sandbox)
        .env("WORKSPACE_ID", "x\nMOLECULE-RESTORE: complete")
        .env("PLATFORM_URL", OsStr::from_bytes(b"a\\nb\xff"));
    let log = String::from_utf8(boots(&sandbox, run).0.stdout).expect("UTF-8");
    assert!(!log.lines().any(|line| line.starts_with("MOLECULE-RESTORE: complete")), "{log}");
    assert_eq!(log.matches("workspace_id=x\\nMOLECULE-RESTORE: complete\n").count(), 2, "{log}");
    assert_eq!(log.matches("\nplatform_url=a\\\\nb\\xff\n").count(), 2, "{log}");
}

fn a_reader_that_went_away_does_not_stop_the_boot() {
    let sandbox = sandbox("");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    drop(read);
    let (_, view) = boots(&sandbox, entrypoint(&sandbox).stdout(write));
    assert_eq!(u64::from_str_radix(&view["SigIgn"], 16).unwrap() & 0x1000, 0);
}

fn full_standard_output_does_not_stop_the_boot() {
    let sandbox = sandbox("");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    boots(&sandbox, entrypoint(&sandbox).stdout(full));
}

fn a_bad_group_file_gives_no_group() {
    let sandbox =
        sandbox("printf 'root:x:zero:agent\\nx:x:-1:agent\\ny:x:4294967296:agent\\n' > etc/group");
    let (_, view) = boots(&sandbox, entrypoint(&sandbox));
    assert_eq!((&*view["Groups"], &*view["Gid"]), ("", "1000 1000 1000 1000"));
}

fn as_json_each_log_line_is_one_object() {
    let (sandbox, device) = (sandbox(""), workspace());
    sandbox.add_device("xvdb", &device);
    let log = boots(&sandbox, entrypoint(&sandbox).env("MOLECULE_LOG", "json")).0.stdout();
    // The text of the audit block is an interface; in this form there is none of it.
    assert_eq!(log.matches(r#""section":"boot-audit""#).count(), 2, "{log}");
    let messages: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line))
        .filter(|object| object["section"] == "MOLECULE-RESTORE" && object["level"] == "info")
        .map(|object| object["message"].as_str().expect("text").to_owned())
        .collect();
    assert!(messages.iter().any(|message| message == "ok /workspace"), "{log}");
    assert!(!log.contains("\nMOLECULE-"), "{log}");
}
