//! Contestants that copy the same tree in turns, and the table of how they did.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::measure::{self, Usage};
use crate::support::mounts::{Mounted, ext4_image};
use crate::support::{PROGRAM, ok};

/// What the caches and the destination hold at the start of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The source in the page cache, the destination empty.
    Hot,
    /// Nothing in any cache, the destination empty.
    Cold,
    /// The source in the page cache, the destination a perfect copy.
    Done,
}

/// Who copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    Rsync,
    Cp,
    Tar,
    /// With so many threads.
    PlainCopy(usize),
    Molecule,
}

impl Contestant {
    fn label(self) -> String {
        match self {
            Self::Rsync => "rsync -aHAX --delete".into(),
            Self::Cp => "cp -a".into(),
            Self::Tar => "tar \\| tar".into(),
            Self::PlainCopy(threads) => format!("plain copy, {threads} threads"),
            Self::Molecule => "molecule-tools restore".into(),
        }
    }

    fn command(self, source: &Path, root: &Path, tree: &str) -> Vec<String> {
        let (from, to) = (source.join(tree), root.join(tree));
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        let line = match self {
            Self::Rsync => format!("rsync -aHAX --delete --numeric-ids {from}/ {to}/"),
            Self::Cp => format!("cp -a {from}/. {to}/"),
            Self::Tar => format!(
                "tar -C {from} --xattrs --acls -cf - . | \
                 tar -C {to} --xattrs --acls --numeric-owner -xpf -"
            ),
            Self::PlainCopy(threads) => {
                let this = std::env::current_exe().unwrap();
                return [this.to_str().unwrap(), "--plain-copy", from, to, &threads.to_string()]
                    .map(String::from)
                    .into();
            }
            Self::Molecule => {
                let (source, root) = (source.to_str().unwrap(), root.to_str().unwrap());
                let options = ["--force", "--progress", "never", "--path", tree];
                return [PROGRAM, "restore", "--source", source, "--root", root]
                    .into_iter()
                    .chain(options)
                    .map(String::from)
                    .collect();
            }
        };
        vec!["sh".into(), "-c".into(), line]
    }
}

/// One tree, one state of the caches, several contestants.
pub struct Contest {
    pub name: String,
    pub source: PathBuf,
    pub tree: String,
    pub start: Start,
    pub place: PathBuf,
    pub rounds: usize,
    /// Size of the destination.
    pub mebibytes: u64,
}

/// One contestant's results.
pub struct Line {
    scenario: String,
    contestant: Contestant,
    runs: Vec<Usage>,
    /// How many times faster than rsync, each round.
    ratios: Vec<f64>,
}

impl Contest {
    /// Every round every contestant runs once; every other round in the opposite order.
    pub fn run(&self, contestants: &[Contestant]) -> Vec<Line> {
        let mut lines: Vec<Line> = contestants
            .iter()
            .map(|contestant| Line {
                scenario: self.name.clone(),
                contestant: *contestant,
                runs: Vec::new(),
                ratios: Vec::new(),
            })
            .collect();
        for round in 0..self.rounds {
            let mut order: Vec<usize> = (0..lines.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let usage = self.once(lines[index].contestant, round == 0);
                eprintln!("{}: {}: {usage:.2?}", self.name, lines[index].contestant.label());
                lines[index].runs.push(usage);
            }
            let reference = lines.iter().find(|line| line.contestant == Contestant::Rsync);
            let reference = reference.map_or(f64::NAN, |line| line.runs[round].seconds);
            for line in &mut lines {
                line.ratios.push(reference / line.runs[round].seconds);
            }
        }
        lines
    }

    fn once(&self, contestant: Contestant, check: bool) -> Usage {
        let image = self.place.join("destination.image");
        let _ = std::fs::remove_file(&image);
        ext4_image(&image, self.mebibytes, &["-N", "1400000"]);
        let root = Mounted::image(&image, self.place.join("destination"), "rw");
        std::fs::create_dir_all(root.0.join(&self.tree)).unwrap();
        std::fs::create_dir_all(root.0.join("configs")).unwrap();
        if self.start == Start::Done {
            measure::run(&Contestant::Rsync.command(&self.source, &root.0, &self.tree));
        }
        rustix::fs::sync();
        match self.start {
            Start::Cold => std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap(),
            Start::Hot | Start::Done => {
                let tree = self.source.join(&self.tree);
                // tar reads nothing when it sees that it writes to /dev/null itself.
                let heat = format!("tar -C {} -cf - . | cat > /dev/null", tree.display());
                ok(Command::new("sh").args(["-c", &heat]));
            }
        }
        let usage = measure::run(&contestant.command(&self.source, &root.0, &self.tree));
        if check && contestant == Contestant::Molecule {
            let slash = |top: &Path| format!("{}/", top.join(&self.tree).display());
            let left = ok(Command::new("rsync")
                .args(["-aHAXn", "--delete", "--numeric-ids", "-i"])
                .args([slash(&self.source), slash(&root.0)]));
            assert!(left.is_empty(), "the copy is not perfect:\n{left}");
        }
        usage
    }
}

/// Median, least and largest.
fn spread(numbers: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (middle, sorted[0], sorted[sorted.len() - 1])
}

/// The table in Markdown. What else a machine does only ever adds time, so beside the medians stand
/// the shortest runs, which come nearest to an idle one.
pub fn print(lines: &[Line]) {
    println!(
        "| scenario | program | seconds (shortest) | times rsync's speed (range) | by the shortest \
         | peak MiB | user CPU |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
    let seconds = |line: &Line| spread(line.runs.iter().map(|run| run.seconds));
    for line in lines {
        let (middle, shortest, _) = seconds(line);
        let (ratio, least, most) = spread(line.ratios.iter().copied());
        let reference = lines
            .iter()
            .find(|other| other.contestant == Contestant::Rsync && other.scenario == line.scenario);
        let best = reference.map_or(f64::NAN, |reference| seconds(reference).1 / shortest);
        let (_, _, memory) = spread(line.runs.iter().map(|run| run.mebibytes));
        let share = |run: &Usage| 100.0 * run.user / (run.user + run.system);
        let (share, ..) = spread(line.runs.iter().map(share));
        let (scenario, label) = (&line.scenario, line.contestant.label());
        println!(
            "| {scenario} | {label} | {middle:.2} ({shortest:.2}) \
             | {ratio:.2} ({least:.2} to {most:.2}) | {best:.2} | {memory:.0} | {share:.0} % |"
        );
    }
}
