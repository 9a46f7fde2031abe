//! `restore` against rsync, cp, tar and a plain copy, on trees of its own making.
//!
//! It prints the comparison in Markdown. Words after `mirror` choose scenarios by a part of their name;
//! `million` (memory at 1,000,000 files) only runs when named. `MOLECULE_BENCH_SCALE` (1) scales the trees, `MOLECULE_BENCH_ROUNDS` (9) says how often
//! each contestant runs, in turns within each round; against a slow source at most 3 times. It needs
//! root, 12 GiB in the temporary directory (20 for `million`), and an otherwise idle machine.
mod contest;
mod forest;
mod measure;
mod plain_copy;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support;
use crate::support::device::{Device, Manners};
use crate::support::mounts::Mounted;
use contest::Contestant::{Cp, Molecule, PlainCopy, Rsync, Tar};
use contest::{Contest, Contestant, Line, Start};
use forest::Forest;

/// What this program does when a contest starts it anew: it measures a command, or is the plain copy.
pub fn part(words: &[&str]) -> bool {
    match words {
        ["--plain-copy", from, to, threads] => plain_copy::copy(from, to, threads.parse().unwrap()),
        ["--measure", command @ ..] => measure::print(command),
        _ => return false,
    }
    true
}

/// The benchmark: the scenarios that have one of `chosen` in their name, or all.
pub fn bench(chosen: &[&str]) {
    if !support::Need::Root.met() {
        println!("the mirror's benchmarks need root");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let bench = Bench {
        place: place.path().into(),
        chosen: chosen.iter().map(ToString::to_string).collect(),
        scale: setting("MOLECULE_BENCH_SCALE", 1.0),
        rounds: setting("MOLECULE_BENCH_ROUNDS", 9.0) as usize,
    };
    let mut lines = bench.local();
    lines.extend(bench.delayed(5));
    lines.extend(bench.delayed(20));
    lines.extend(bench.million());
    contest::print(&lines);
}

fn setting(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

struct Bench {
    place: PathBuf,
    chosen: Vec<String>,
    scale: f64,
    rounds: usize,
}

/// Who is compared stands side by side, for the machine is not the same a minute later.
const ALL: &[Contestant] = &[Rsync, Molecule, PlainCopy(2), Tar, Cp];

impl Bench {
    fn wants(&self, name: &str) -> bool {
        match self.chosen.is_empty() {
            true => name != "million",
            false => self.chosen.iter().any(|word| name.contains(word.as_str())),
        }
    }

    /// The scenarios whose source is a local disk.
    fn local(&self) -> Vec<Line> {
        let scenarios: &[(&str, &str, Start, &[Contestant])] = &[
            ("hot, small files", "all/small", Start::Hot, ALL),
            ("hot, packs", "all/packs", Start::Hot, ALL),
            ("hot, both", "all", Start::Hot, ALL),
            ("cold, both", "all", Start::Cold, &[Rsync, Molecule, PlainCopy(8), Tar, Cp]),
            ("second run, both", "all", Start::Done, &[Rsync, Molecule]),
        ];
        if !scenarios.iter().any(|(name, ..)| self.wants(name)) {
            return Vec::new();
        }
        let forest = Forest { files: 100_000, directories: 12_000, packs: 2, pack_mebibytes: 400 };
        let image = self.place.join("local.image");
        forest.scaled(self.scale).plant(&image, &self.place.join("planting"));
        let source = Mounted::image(&image, self.place.join("source"), "ro");
        let mut lines = Vec::new();
        for (name, tree, start, contestants) in scenarios.iter().filter(|row| self.wants(row.0)) {
            lines.extend(self.contest(name, &source.0, tree, *start).run(contestants));
        }
        lines
    }

    /// A source that takes `milliseconds` for every read and answers many at once.
    fn delayed(&self, milliseconds: u64) -> Vec<Line> {
        let name = format!("{milliseconds} ms per read");
        if !self.wants(&name) {
            return Vec::new();
        }
        let forest = Forest { files: 3_000, directories: 360, packs: 1, pack_mebibytes: 16 };
        let image = self.place.join("slow.image");
        forest.scaled(self.scale).plant(&image, &self.place.join("planting"));
        let delay = Duration::from_millis(milliseconds);
        let manners = Manners { delay, bad: Vec::new() };
        let device = Device::of(&image, &self.place.join(format!("disk{milliseconds}")), manners);
        let ratio = device.prove_concurrent();
        eprintln!("{name}: 32 reads at once take {ratio:.2} times as long as one");
        assert!(ratio < 4.0, "the delayed device does not overlap its reads");
        let source = Mounted::node(device.node(), self.place.join("slow"), "ro,noload");
        let mut contest = self.contest(&name, &source.0, "all", Start::Cold);
        // Of 20 ms rsync takes more than a minute.
        contest.rounds = self.rounds.min(3);
        contest.run(&[Rsync, Molecule, PlainCopy(32)])
    }

    /// Peak memory at a million files.
    fn million(&self) -> Vec<Line> {
        if !self.wants("million") {
            return Vec::new();
        }
        let forest = Forest { files: 1_000_000, directories: 60_000, packs: 0, pack_mebibytes: 0 };
        let image = self.place.join("million.image");
        forest.scaled(self.scale).plant(&image, &self.place.join("planting"));
        let source = Mounted::image(&image, self.place.join("million"), "ro");
        let contest = self.contest("million files", &source.0, "all", Start::Hot);
        let contest = Contest { rounds: 1, mebibytes: 12_288, ..contest };
        contest.run(&[Rsync, Molecule])
    }

    fn contest(&self, name: &str, source: &Path, tree: &str, start: Start) -> Contest {
        Contest {
            name: name.into(),
            source: source.into(),
            tree: tree.into(),
            start,
            place: self.place.clone(),
            rounds: self.rounds,
            mebibytes: 6144,
        }
    }
}
