//! Every combination of marker, record and device, and what a boot makes of a tree then. The expected
//! results are the table of tests/README.md.

use molecule_tools::fs::Dir;
use molecule_tools::record;

use crate::entrypoint::{boots, entrypoint};
use crate::support::clock::tick;
use crate::support::runtime::sandbox;
use crate::support::sandbox::{Image, LoopDevice, PROGRAM_INSIDE, Sandbox};
use crate::support::{Case, Need, case, test_case};

pub fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[Need::Root, Need::Loop, Need::Program("strace")];
    let mut cases = vec![test_case!(the_matrix_has_one_row_for_each_combination, &[])];
    const NAMES: [&str; 4] = [
        "the_matrix_holds_where_the_device_is_there",
        "the_matrix_holds_where_the_device_came_late",
        "the_matrix_holds_where_the_device_is_raw",
        "the_matrix_holds_where_the_device_fails",
    ];
    for (name, device) in NAMES.into_iter().zip(DEVICES) {
        cases.push(case(name, NEEDS, move || column(device)));
    }
    cases
}

const TREES: [&str; 3] = ["/configs", "/workspace", "/home/agent/.claude"];
const MARKERS: [&str; 4] = ["there", "absent", "in doubt", "odd"];
const RECORDS: [&str; 6] =
    ["none", "older", "newer", "forged", "of the future", "from the snapshot"];
const DEVICES: [&str; 4] = ["there", "late", "raw", "failing"];
/// The files by which a result is told, and what each result makes of them.
const FILES: [&str; 4] = ["older", "missing", "newer", "made"];
const RESULTS: [(&str, [&str; 4]); 5] = [
    ("nothing", ["image", "-", "agent", "agent"]),
    ("whole", ["snapshot", "snapshot", "snapshot", "-"]),
    ("careful", ["snapshot", "snapshot", "agent", "agent"]),
    ("adds", ["snapshot", "snapshot", "snapshot", "agent"]),
    ("missing only", ["image", "snapshot", "agent", "agent"]),
];

/// The results of all rows that say something of this combination.
fn expected(marker: &str, record: &str, device: &str) -> Vec<&'static str> {
    let table =
        include_str!("../README.md").split_once("| marker | record | device | result |").unwrap().1;
    let rows = table.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    let fits = |cell: &str, value: &str| cell == "any" || cell.split(", ").any(|one| one == value);
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|row| fits(row[0], marker) && fits(row[1], record) && fits(row[2], device))
        .map(|row| row[3])
        .collect()
}

fn the_matrix_has_one_row_for_each_combination() {
    for (marker, record, device) in MARKERS.iter().flat_map(|marker| {
        RECORDS
            .iter()
            .flat_map(move |record| DEVICES.iter().map(move |device| (marker, record, device)))
    }) {
        let rows = expected(marker, record, device);
        let known = rows.iter().all(|row| RESULTS.iter().any(|(name, _)| name == row));
        assert!(known && rows.len() == 1, "{marker}, {record}, {device}: {rows:?}");
    }
}

/// All boots with one state of the device. Each has another record with each tree.
#[track_caller]
fn column(device: &str) {
    let scene = Scene::new();
    for marker in MARKERS {
        for first in 0..RECORDS.len() {
            let records: [&str; 3] =
                std::array::from_fn(|tree| RECORDS[(first + tree) % RECORDS.len()]);
            let log = scene.boot(marker, records, device);
            for (tree, record) in TREES.into_iter().zip(records) {
                let result = expected(marker, record, device)[0];
                let files = RESULTS.iter().find(|(name, _)| *name == result).unwrap().1;
                assert_eq!(
                    scene.found(tree),
                    files,
                    "{tree}: marker {marker}, record {record}, device {device}: {result}\n{log}"
                );
            }
        }
    }
}

struct Scene {
    sandbox: Sandbox,
    volume: LoopDevice,
    /// The same with a record of an earlier life with each tree.
    with_records: LoopDevice,
    raw: LoopDevice,
}

impl Scene {
    fn new() -> Self {
        let volume = |record: &str| {
            LoopDevice::ext4(
                16,
                &format!(
                    "for d in configs workspace home/agent/.claude; do
                         mkdir -p $d; for f in older missing newer; do echo snapshot > $d/$f; done; {record}
                     done
                     find . -exec touch -d 2020-01-01 {{}} +; chown -R 1000:1000 configs workspace home/agent"
                ),
            )
        };
        Self {
            sandbox: sandbox("mkdir -p home/agent/.claude"),
            volume: volume(":"),
            with_records: volume("setfattr -n user.molecule.started -v 1.000000000 $d"),
            raw: Image::new(1 << 20).attach(),
        }
    }

    /// The log of a boot over fresh trees in this state.
    #[track_caller]
    fn boot(&self, marker: &str, records: [&str; 3], device: &str) -> String {
        self.sandbox.sh(&format!(
            "rm -f /dev/xvdb; umount -l /mnt/restore 2>/dev/null || :
             for d in {}; do
                 umount $d 2>/dev/null || :; mount -t tmpfs -o mode=755 tree $d
                 echo image > $d/older; touch -d 2019-01-01 $d/older; chown -R 1000:1000 $d
             done",
            TREES.join(" ")
        ));
        if device == "late" {
            boots(&self.sandbox, entrypoint(&self.sandbox));
        }
        tick();
        let open = |tree: &str| Dir::open_operator_path(self.sandbox.path(tree)).unwrap();
        let with = |wanted: &'static str| {
            TREES
                .into_iter()
                .zip(records)
                .filter(move |(_, record)| *record == wanted)
                .map(|(tree, _)| tree)
        };
        with("older").for_each(|tree| record::renew(&open(tree)).unwrap());
        tick();
        self.sandbox.sh(&format!(
            "for d in {}; do echo agent > $d/newer; echo agent > $d/made; chown 1000:1000 $d/newer $d/made; done",
            TREES.join(" ")
        ));
        tick();
        with("newer").for_each(|tree| record::renew(&open(tree)).unwrap());
        let attribute = "user.molecule.started";
        for (record, value) in [("forged", "soon"), ("of the future", "9999999999.000000000")] {
            for tree in with(record) {
                let (tree, flags) = (self.sandbox.path(tree), rustix::fs::XattrFlags::empty());
                rustix::fs::setxattr(tree, attribute, value.as_bytes(), flags).unwrap();
            }
        }
        for tree in with("none").chain(with("from the snapshot")) {
            let removed = rustix::fs::removexattr(self.sandbox.path(tree), attribute);
            assert!(matches!(removed, Ok(()) | Err(rustix::io::Errno::NODATA)), "{removed:?}");
        }
        match device {
            "raw" => self.sandbox.add_device("xvdb", &self.raw),
            // A number for which there is no driver.
            "failing" => drop(self.sandbox.sh("mknod /dev/xvdb b 240 77")),
            _ if records.contains(&"from the snapshot") => {
                self.sandbox.add_device("xvdb", &self.with_records);
            }
            _ => self.sandbox.add_device("xvdb", &self.volume),
        }
        match marker {
            "there" => drop(self.sandbox.sh(": > /configs/.restore-completed")),
            "odd" => drop(self.sandbox.sh("mkfifo /configs/.restore-completed")),
            _ => {}
        }
        let run = match marker {
            "in doubt" => self
                .sandbox
                .command("/usr/bin/strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-P", ".restore-completed"])
                .args(["-e", "trace=statx", "-e", "inject=statx:error=EIO"])
                .args([PROGRAM_INSIDE, "entrypoint"])
                // Names relative to "/" are not to be taken for names here.
                .directory("/tmp"),
            _ => entrypoint(&self.sandbox),
        };
        let log = boots(&self.sandbox, run).0.stdout();
        let doubt = log.contains("cannot tell whether there is a marker");
        assert_eq!(doubt, marker == "in doubt", "{log}");
        log
    }

    /// The word in each of [`FILES`], `-` where there is none.
    fn found(&self, tree: &str) -> [String; 4] {
        FILES.map(|file| {
            let text = std::fs::read_to_string(self.sandbox.path(tree).join(file));
            text.map_or_else(|_| "-".into(), |text| text.trim().into())
        })
    }
}
