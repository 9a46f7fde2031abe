//! Which disk is meant, by recorded sysfs trees and Identify Controller pages of real shape.

use std::path::Path;

use molecule_tools::volume::discover::{
    ControllerRecord, DiskSelection, Mounts, SelectionReason, WholeDisk, by_name, by_volume_id,
    describe_disk, device_number, disks, is_relevant,
};

use crate::support::sandbox::{LoopDevice, Sandbox};
use crate::support::{Case, Need, test_case};
use crate::volume::disk::{EXT4, Fs, clean, has_marker, said};
use crate::volume::journals::is_complete;

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(sysfs_tells_disks_partitions_and_use, &[]),
        test_case!(the_disk_whose_record_has_the_name_is_taken, &[]),
        test_case!(sd_and_xvd_names_are_the_same_request, &[]),
        test_case!(without_a_record_the_only_spare_ebs_disk_is_taken, &[]),
        test_case!(of_several_spare_disks_none_is_taken, &[]),
        test_case!(a_disk_in_use_elsewhere_is_not_spare, &[]),
        test_case!(other_disks_are_never_guessed_at, &[]),
        test_case!(a_xen_disk_is_found_by_its_kernel_name, &[]),
        test_case!(restore_takes_the_only_spare_disk_with_a_warning, EXT4),
        test_case!(restore_lists_several_spare_disks_and_takes_none, EXT4),
        test_case!(restore_finds_a_volume_id, EXT4),
        test_case!(a_volume_id_is_a_serial_number, &[]),
        test_case!(a_disk_that_cannot_be_looked_at_is_not_passed_over, &[]),
        test_case!(the_only_spare_disk_is_found_again, EXT4),
    ]
}

const EBS: &str = "Amazon Elastic Block Store";

/// A sysfs tree as a t3.medium has it: the root disk with three partitions, and what is added.
struct Machine {
    sysfs: tempfile::TempDir,
    mounts: Mounts,
    pages: Vec<(String, Vec<u8>)>,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self::empty();
        machine.disk("nvme0n1", "259:0", 8 << 30, EBS, "vol00000000000000000");
        for (name, dev, start, size) in [
            ("nvme0n1p1", "259:1", 227_328, 16_549_855),
            ("nvme0n1p14", "259:2", 2048, 8192),
            ("nvme0n1p15", "259:3", 10_240, 217_088),
        ] {
            let partition = format!("nvme0n1/{name}");
            machine.file(&partition, "dev", dev);
            machine.file(&partition, "partition", name.rsplit('p').next().unwrap());
            machine.file(&partition, "start", &start.to_string());
            machine.file(&partition, "size", &size.to_string());
            machine.directory(&format!("{partition}/holders"));
        }
        machine.page("nvme0n1", "vol00000000000000000", b"/dev/xvda");
        machine.mounts.add(b"22 1 259:1 / / rw,relatime shared:1 - xfs /dev/nvme0n1p1 rw\n");
        machine
    }

    fn empty() -> Self {
        let sysfs = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sysfs.path().join("class/block")).unwrap();
        Self { sysfs, mounts: Mounts::default(), pages: Vec::new() }
    }

    fn directory(&self, path: &str) -> std::path::PathBuf {
        // Entries of a class are links into the tree of devices.
        let disk = path.split('/').next().unwrap();
        let devices = self.sysfs.path().join("devices");
        std::fs::create_dir_all(devices.join(path)).unwrap();
        let link = self.sysfs.path().join("class/block").join(disk);
        let _ = std::os::unix::fs::symlink(format!("../../devices/{disk}"), link);
        devices.join(path)
    }

    fn file(&self, path: &str, name: &str, text: &str) {
        std::fs::write(self.directory(path).join(name), format!("{text}\n")).unwrap();
    }

    fn disk(&self, name: &str, dev: &str, size: u64, model: &str, serial: &str) {
        self.file(name, "dev", dev);
        self.file(name, "size", &(size / 512).to_string());
        self.directory(&format!("{name}/holders"));
        let device = format!("{name}/device");
        self.directory(&device);
        if !model.is_empty() {
            self.file(&device, "model", &format!("{model:<40}"));
            self.file(&device, "serial", serial);
        }
    }

    /// An Identify Controller page of an EBS volume.
    fn page(&mut self, disk: &str, serial: &str, name: &[u8]) {
        let mut page = vec![0; 4096];
        page[..4].copy_from_slice(&[0x0f, 0x1d, 0x0f, 0x1d]);
        page[4..24].copy_from_slice(format!("{serial:<20}").as_bytes());
        page[24..64].copy_from_slice(format!("{EBS:<40}").as_bytes());
        page[64..72].copy_from_slice(b"1.0     ");
        let mut field = [b' '; 32];
        field[..name.len()].copy_from_slice(name);
        page[3072..3104].copy_from_slice(&field);
        self.pages.push((disk.into(), page));
    }

    /// A second EBS disk; with a name in its record if `name` is not empty.
    fn attach(&mut self, disk: &str, minor: u32, serial: &str, name: &[u8]) {
        self.disk(disk, &format!("259:{minor}"), 30 << 30, EBS, serial);
        if !name.is_empty() {
            self.page(disk, serial, name);
        }
    }

    fn disks(&self) -> Vec<WholeDisk> {
        disks(self.sysfs.path(), &self.mounts, |_| true).unwrap()
    }

    fn find(&self, name: &str) -> DiskSelection {
        self.find_among_busy(name, &[])
    }

    fn find_among_busy(&self, name: &str, busy: &[&str]) -> DiskSelection {
        let identify = |disk: &WholeDisk| Ok(self.identify(disk));
        let wanted = |disk: &str| is_relevant(disk, name);
        let disks = disks(self.sysfs.path(), &self.mounts, wanted).unwrap();
        by_name(name, &disks, &identify, &|disk| Ok(busy.contains(&disk.name.as_str())))
    }

    fn identify(&self, disk: &WholeDisk) -> Option<ControllerRecord> {
        let (_, page) = self.pages.iter().find(|(name, _)| *name == disk.name)?;
        ControllerRecord::parse(page)
    }
}

#[track_caller]
fn taken(selection: DiskSelection) -> (String, SelectionReason) {
    match selection {
        DiskSelection::Taken(disk, why) => (disk.name, why),
        other => panic!("{other:?}"),
    }
}

fn sysfs_tells_disks_partitions_and_use() {
    let mut machine = Machine::new();
    machine.attach("nvme10n1", 8, "vol0aaaa", b"");
    machine.attach("nvme2n1", 9, "vol0bbbb", b"");
    machine.directory("nvme2n1/holders/dm-0");
    machine.disk("loop0", "7:0", 0, "", "");
    machine.disk("zram0", "252:0", 1 << 20, "", "");
    machine.file("garbage", "dev", "no number");
    let disks = machine.disks();
    let lines: Vec<String> = disks.iter().map(describe_disk).collect();
    let expected = [
        "/dev/nvme0n1: 8.0 GiB, model Amazon Elastic Block Store, serial vol00000000000000000, \
         mounted at /",
        "/dev/nvme2n1: 30.0 GiB, model Amazon Elastic Block Store, serial vol0bbbb, held by dm-0",
        "/dev/nvme10n1: 30.0 GiB, model Amazon Elastic Block Store, serial vol0aaaa, not mounted",
    ];
    assert_eq!(lines, expected);
    let starts: Vec<(&str, u64, u64)> = disks[0]
        .partitions
        .iter()
        .map(|part| (part.name.as_str(), part.start_bytes, part.size_bytes))
        .collect();
    let expected = [
        ("nvme0n1p14", 1 << 20, 4 << 20),
        ("nvme0n1p15", 5 << 20, 106 << 20),
        ("nvme0n1p1", 111 << 20, 16_549_855 * 512),
    ];
    assert_eq!(starts, expected);
    assert_eq!(device_number(machine.sysfs.path(), "block", "nvme2n1").unwrap(), Some((259, 9)));
    assert_eq!(device_number(machine.sysfs.path(), "block", "nvme3n1").unwrap(), None);
    assert!(disks[0].partitions[0].number == (259, 2));
    assert!(
        molecule_tools::volume::discover::disks(Path::new("/no/such"), &Mounts::default(), |_| {
            true
        })
        .is_err()
    );
}

fn the_disk_whose_record_has_the_name_is_taken() {
    let mut machine = Machine::new();
    machine.attach("nvme1n1", 4, "vol0aaaa", b"/dev/sdf");
    machine.attach("nvme2n1", 5, "vol0bbbb", b"xvdb");
    let expected = ("nvme2n1".to_owned(), SelectionReason::Record("xvdb".into()));
    assert_eq!(taken(machine.find("xvdb")), expected);
}

fn sd_and_xvd_names_are_the_same_request() {
    for (asked, recorded) in
        [("xvdb", &b"sdb"[..]), ("sdb", b"/dev/xvdb"), ("sdb", b"/dev/sdb"), ("xvdb", b"/dev/xvdb")]
    {
        let mut machine = Machine::new();
        machine.attach("nvme1n1", 4, "vol0aaaa", recorded);
        assert_eq!(taken(machine.find(asked)).0, "nvme1n1", "{asked}");
    }
}

fn without_a_record_the_only_spare_ebs_disk_is_taken() {
    let mut machine = Machine::new();
    machine.attach("nvme1n1", 4, "vol0aaaa", b"");
    let expected = ("nvme1n1".to_owned(), SelectionReason::OnlySpare(None));
    assert_eq!(taken(machine.find("xvdb")), expected);
    // A mounted one beside it is no choice.
    machine.attach("nvme2n1", 5, "vol0bbbb", b"/dev/sdf");
    machine.mounts.add(b"40 22 259:5 / /data rw - ext4 /dev/nvme2n1 rw\n");
    assert_eq!(taken(machine.find("xvdb")), expected);
}

fn of_several_spare_disks_none_is_taken() {
    let mut machine = Machine::new();
    machine.attach("nvme1n1", 4, "vol0aaaa", b"");
    machine.attach("nvme2n1", 5, "vol0bbbb", b"/dev/sdf");
    let DiskSelection::Several(disks) = machine.find("xvdb") else { panic!("one was taken") };
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["nvme0n1", "nvme1n1", "nvme2n1"]);
    // Two controllers that both claim the name.
    let mut machine = Machine::new();
    machine.attach("nvme1n1", 4, "vol0aaaa", b"xvdb");
    machine.attach("nvme2n1", 5, "vol0bbbb", b"sdb");
    assert!(matches!(machine.find("xvdb"), DiskSelection::Several(disks) if disks.len() == 2));
}

fn a_disk_in_use_elsewhere_is_not_spare() {
    let mut machine = Machine::new();
    machine.attach("nvme1n1", 4, "vol0aaaa", b"");
    assert_eq!(machine.find_among_busy("xvdb", &["nvme1n1"]), DiskSelection::None);
    machine.attach("nvme2n1", 5, "vol0bbbb", b"");
    assert_eq!(taken(machine.find_among_busy("xvdb", &["nvme1n1"])).0, "nvme2n1");
}

fn other_disks_are_never_guessed_at() {
    assert_eq!(Machine::new().find("xvdb"), DiskSelection::None);
    let machine = Machine::new();
    // Instance storage, a disk of a hypervisor, a loop device: not what a control plane attaches.
    machine.disk("nvme1n1", "259:4", 75 << 30, "Amazon EC2 NVMe Instance Storage", "AWS1234");
    machine.disk("sdb", "8:16", 75 << 30, "QEMU HARDDISK", "1");
    machine.disk("vdb", "253:16", 75 << 30, "", "");
    machine.disk("loop0", "7:0", 1 << 30, "", "");
    assert_eq!(machine.find("xvdb"), DiskSelection::None);
}

fn a_xen_disk_is_found_by_its_kernel_name() {
    let machine = Machine::empty();
    machine.disk("xvda", "202:0", 8 << 30, "", "");
    machine.disk("xvdb", "202:16", 8 << 30, "", "");
    for asked in ["xvdb", "sdb"] {
        let expected = ("xvdb".to_owned(), SelectionReason::KernelName);
        assert_eq!(taken(machine.find(asked)), expected);
    }
    assert_eq!(machine.find("xvdc"), DiskSelection::None);
}

fn a_volume_id_is_a_serial_number() {
    let mut machine = Machine::new();
    machine.attach("nvme1n1", 4, "vol0aaaa", b"sdf");
    let find = |machine: &Machine, id: &str| {
        by_volume_id(id, &machine.disks(), &|disk| Ok(machine.identify(disk)))
    };
    assert_eq!(taken(find(&machine, "vol-0aaaa")), ("nvme1n1".to_owned(), SelectionReason::Serial));
    assert_eq!(find(&machine, "vol-0aaab"), DiskSelection::None);
    // Where sysfs has no serial number, the controller is asked.
    machine.file("nvme1n1/device", "serial", "");
    assert_eq!(taken(find(&machine, "vol-0aaaa")).0, "nvme1n1");
}

/// A disk that cannot be looked at may be the one: nothing is guessed, and it is not "no device".
fn a_disk_that_cannot_be_looked_at_is_not_passed_over() {
    let fail = || Err(molecule_tools::Error::os("open", "/dev/x", rustix::io::Errno::IO));
    let mut machine = Machine::new();
    machine.attach("nvme1n1", 4, "", b"/dev/sdf");
    machine.mounts.add(b"22 1 259:1 / / rw - xfs /dev/nvme0n1p1 rw\n");
    let disks = machine.disks();
    let names = |selection: &DiskSelection| match selection {
        DiskSelection::Unclear(disks, _) => disks.iter().map(|disk| disk.name.clone()).collect(),
        _ => Vec::new(),
    };
    let identify = |disk: &WholeDisk| Ok(machine.identify(disk));
    let no_answer = by_name("xvdb", &disks, &|_| fail(), &|_| Ok(false));
    assert_eq!(names(&no_answer), ["nvme1n1"]);
    let no_use = by_name("xvdb", &disks, &identify, &|_| Err(fail().unwrap_err()));
    assert_eq!(names(&no_use), ["nvme1n1"]);
    assert_eq!(names(&by_volume_id("vol-0aaaa", &disks, &|_| fail())), ["nvme1n1"]);
    // Another one that says it is the one is taken.
    machine.attach("nvme2n1", 5, "vol0bbbb", b"/dev/xvdb");
    let some = |disk: &WholeDisk| match disk.name.as_str() {
        "nvme1n1" => fail(),
        _ => Ok(machine.identify(disk)),
    };
    assert_eq!(taken(by_name("xvdb", &machine.disks(), &some, &|_| Ok(false))).0, "nvme2n1");
    assert_eq!(taken(by_volume_id("vol-0bbbb", &machine.disks(), &some)).0, "nvme2n1");
    // Nor is a disk in use, or of another make, the one.
    let machine = Machine::new();
    machine.disk("nvme1n1", "259:4", 75 << 30, "Amazon EC2 NVMe Instance Storage", "AWS1234");
    let mut disks = machine.disks();
    disks[0].in_use = Some("mounted at /".into());
    assert_eq!(by_name("xvdb", &disks, &|_| fail(), &|_| Ok(false)), DiskSelection::None);
}

/// The first restore has mounted it; that is no use of it.
fn the_only_spare_disk_is_found_again() {
    for fs in [Fs::Ext4, Fs::Btrfs] {
        if !Need::Filesystem(fs.name()).met() {
            continue;
        }
        let (image, manifest) = clean(fs);
        let (root, device) = (LoopDevice::ext4(8, ""), image.attach());
        let sandbox = machine_with(&root, &[("nvme1n1", "vol0aaaa", &device)]);
        let restore = || sandbox.program().args(["restore", "--force"]).run();
        let first = restore();
        is_complete(&sandbox, &first, &manifest);
        for _ in 0..2 {
            let again = restore();
            assert_eq!(said(&again)[0], said(&first)[0]);
            assert_eq!(said(&again).last(), said(&first).last());
            is_complete(&sandbox, &again, &manifest);
            assert_eq!(sandbox.sh("grep -c ' /mnt' /proc/mounts"), "1\n");
        }
    }
}

/// A sandbox whose sysfs says that the machine has a root disk, which is mounted at /disk, and the
/// given EBS volumes: name, serial number, and what stands for it here. /dev has no node of any.
fn machine_with(root: &LoopDevice, volumes: &[(&str, &str, &LoopDevice)]) -> Sandbox {
    let machine = Machine::new();
    let (major, minor) = root.number();
    machine.file("nvme0n1", "dev", &format!("{major}:{minor}"));
    for (name, serial, device) in volumes {
        let (major, minor) = device.number();
        machine.disk(name, &format!("{major}:{minor}"), 64 << 20, EBS, serial);
    }
    let (tree, root) = (machine.sysfs.path().display(), root.path().display());
    Sandbox::with(&format!(
        "mkdir disk; mount {root} disk; umount -l sys; mount -t tmpfs recorded sys; cp -a {tree}/. sys; mount -o remount,ro sys"
    ))
}

fn restore_takes_the_only_spare_disk_with_a_warning() {
    let (image, manifest) = clean(Fs::Ext4);
    let (root, device) = (LoopDevice::ext4(8, ""), image.attach());
    let sandbox = machine_with(&root, &[("nvme1n1", "vol0aaaa", &device)]);
    let outcome = sandbox.program().arg("restore").run();
    let expected = [
        "WARN nothing is attached as /dev/xvdb; taking /dev/nvme1n1: 64.0 MiB, model Amazon Elastic \
         Block Store, serial vol0aaaa, not mounted: the only EBS disk that is not in use (its \
         controller tells no name)",
        "/dev/xvdb detected — attempting restore",
        "/dev/xvdb fstype=ext4",
        "mounted /dev/xvdb at /mnt/restore (ro)",
    ];
    assert_eq!(said(&outcome), expected);
    is_complete(&sandbox, &outcome, &manifest);
}

fn restore_lists_several_spare_disks_and_takes_none() {
    let [first, second] = [0, 1].map(|_| clean(Fs::Ext4).0.attach());
    let volumes = [("nvme1n1", "vol0aaaa", &first), ("nvme2n1", "vol0bbbb", &second)];
    let root = LoopDevice::ext4(8, "");
    let sandbox = machine_with(&root, &volumes);
    let outcome = sandbox.program().arg("restore").run();
    let said = said(&outcome);
    let expected = [
        "WARN /dev/xvdb could be any of 3 disks, taking none; name one with --device or \
         MOLECULE_RESTORE_DEVICE",
        "candidate /dev/nvme0n1: 8.0 GiB, model Amazon Elastic Block Store, serial \
         vol00000000000000000, mounted at /disk",
        "candidate /dev/nvme1n1: 64.0 MiB, model Amazon Elastic Block Store, serial vol0aaaa, not \
         mounted",
        "candidate /dev/nvme2n1: 64.0 MiB, model Amazon Elastic Block Store, serial vol0bbbb, not \
         mounted",
        "no /dev/xvdb — first-time provision or no backup snapshot, skipping",
    ];
    assert_eq!(said, expected);
    assert_eq!(outcome.status, 1);
    assert!(!has_marker(&sandbox));
}

fn restore_finds_a_volume_id() {
    let ((image, manifest), (other, _)) = (clean(Fs::Ext4), clean(Fs::Ext4));
    let [first, second] = [other, image].map(|image| image.attach());
    let volumes = [("nvme1n1", "vol0aaaa", &first), ("nvme2n1", "vol0bbbb", &second)];
    let root = LoopDevice::ext4(8, "");
    let sandbox = machine_with(&root, &volumes);
    let outcome = sandbox.program().args(["restore", "--device", "vol-0bbbb"]).run();
    let said = said(&outcome);
    assert!(said[0].starts_with("vol-0bbbb is /dev/nvme2n1: 64.0 MiB"), "{said:?}");
    assert!(said[0].ends_with("its serial number is the volume id"), "{said:?}");
    is_complete(&sandbox, &outcome, &manifest);
}
