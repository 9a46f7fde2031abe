//! The lives: random steps, and the judgement after each boot.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sequences::model::{Model, ONCE, Work};
use crate::sequences::workspace::{TREES, Volume, Workspace};
use crate::support::destination::Filesystem;

/// Lives in all when nothing else is asked for, over the five file systems.
const LIVES: u64 = 200;
/// Most steps of a life.
const STEPS: usize = 14;

/// Runs this file system's share of the lives.
pub fn run(filesystem: Filesystem) {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let count = setting("MOLECULE_SEQUENCES").unwrap_or(LIVES);
    let first = setting("MOLECULE_SEED").unwrap_or(0);
    let mut workspace = Workspace::new(filesystem);
    // The seed decides whose share it is, so that one life alone is run by one case.
    for seed in (first..first + count).filter(|seed| seed % 5 == filesystem as u64) {
        live(&mut workspace, seed);
    }
}

#[track_caller]
fn live(workspace: &mut Workspace, seed: u64) {
    let mut state = seed;
    let mut random = |below: usize| (next(&mut state) % below as u64) as usize;
    let mut life =
        Life { model: Model::default(), running: false, story: Vec::new(), log: String::new() };
    workspace.reset();
    if random(4) == 0 {
        life.upgrade(workspace, &mut random);
    }
    for _ in 0..4 + random(STEPS - 4) {
        life.step(workspace, &mut random);
        let lost = life.model.lost(workspace);
        assert!(
            lost.is_empty(),
            "MOLECULE_SEED={seed}: lost\n{}\nafter\n{}\nthe last log:\n{}",
            lost.join("\n"),
            life.story.join("\n"),
            life.log
        );
    }
}

struct Life {
    model: Model,
    /// Whether a runtime runs, so that the agent can work.
    running: bool,
    story: Vec<String>,
    log: String,
}

impl Life {
    fn step(&mut self, workspace: &mut Workspace, random: &mut impl FnMut(usize) -> usize) {
        match random(if self.running { 17 } else { 12 }) {
            0..=3 => self.boot(workspace),
            4 => self.boot_twice(workspace),
            5 => self.boot_and_die(workspace, random(25_000) as u64),
            11 => self.boot_without_a_step(workspace, random(25_000) as u64),
            6..=7 => {
                const KINDS: [Volume; 9] = [
                    Volume::Old,
                    Volume::Old,
                    Volume::Old,
                    Volume::Future,
                    Volume::Absent,
                    Volume::Raw,
                    Volume::Damaged,
                    Volume::Failing,
                    Volume::Unreadable,
                ];
                let volume = KINDS[random(KINDS.len())];
                self.tell(format!("volume: {volume:?}"));
                workspace.attach(volume);
            }
            8 => {
                let index = random(TREES.len());
                self.tell(format!("the container stops, {} is made anew", TREES[index]));
                self.running = false;
                workspace.kill();
                workspace.make_anew(index);
                self.model.forget(index);
            }
            9 => {
                self.tell("the marker is removed".into());
                let _ = std::fs::remove_file(workspace.path(0, ".restore-completed"));
            }
            10 => {
                self.tell("the machine starts anew".into());
                self.running = false;
                workspace.kill();
                workspace.reboot(random(1_000_000) as u64);
            }
            _ => self.work(workspace, random),
        }
    }

    fn work(&mut self, workspace: &Workspace, random: &mut impl FnMut(usize) -> usize) {
        for _ in 0..1 + random(4) {
            let (index, work) = (random(TREES.len()), Work::random(random));
            let result = self.model.work(workspace, index, work);
            self.tell(format!("in {}: {work:?} {result:?}", TREES[index]));
        }
    }

    /// A workspace that the old script has restored and started, and the first boot after the upgrade.
    fn upgrade(&mut self, workspace: &Workspace, random: &mut impl FnMut(usize) -> usize) {
        std::fs::write(workspace.path(0, ".restore-completed"), "").unwrap();
        self.tell("the old script has run".into());
        self.work(workspace, random);
        self.boot(workspace);
    }

    #[track_caller]
    fn boot(&mut self, workspace: &Workspace) {
        let outcome = workspace.entrypoint().run();
        self.log = outcome.stdout() + &outcome.stderr();
        self.running = workspace.runtime_ran();
        assert!(self.running, "no runtime\n{}\n{}", self.story.join("\n"), self.log);
        self.tell("boot".into());
    }

    /// Two starts at once, whose runtimes work from their first moment on.
    #[track_caller]
    fn boot_twice(&mut self, workspace: &Workspace) {
        let content = self.model.content();
        let work =
            format!("for d in {}; do printf %s '{content}' > $d/{ONCE}; done\n", TREES.join(" "));
        std::fs::write(workspace.sandbox.path("/run/work"), work).unwrap();
        let both =
            [workspace.entrypoint().start(), workspace.sandbox.program().arg("entrypoint").start()];
        self.log = both
            .map(|run| run.wait())
            .map(|it| it.stdout() + &it.stderr())
            .join("\n--- the other\n");
        std::fs::remove_file(workspace.sandbox.path("/run/work")).unwrap();
        self.running = workspace.runtime_ran();
        assert!(self.running, "no runtime\n{}\n{}", self.story.join("\n"), self.log);
        for index in 0..TREES.len() {
            self.model.remember(index, ONCE, &content);
        }
        self.tell(format!("two boots at once, {content:?}"));
    }

    fn boot_and_die(&mut self, workspace: &Workspace, microseconds: u64) {
        let started = workspace.entrypoint().start();
        std::thread::sleep(Duration::from_micros(microseconds));
        workspace.kill();
        self.log = started.wait().stdout();
        self.running = false;
        self.tell(format!(
            "boot, killed after {microseconds} us, runtime {}",
            workspace.runtime_ran()
        ));
    }

    /// A boot of which one step is killed at most, so that it goes on without it.
    fn boot_without_a_step(&mut self, workspace: &Workspace, microseconds: u64) {
        let started = workspace.entrypoint().start();
        std::thread::sleep(Duration::from_micros(microseconds));
        for step in workspace.steps(started.child.id()) {
            let _ = kill(Pid::from_raw(step.cast_signed()), Signal::SIGKILL);
        }
        let outcome = started.wait();
        self.log = outcome.stdout() + &outcome.stderr();
        self.running = workspace.runtime_ran();
        self.tell(format!(
            "boot, step killed after {microseconds} us: {}, runtime {}",
            self.log.contains("ended by SIGKILL"),
            self.running
        ));
    }

    fn tell(&mut self, step: String) {
        self.story.push(step);
    }
}

/// The next number of splitmix64 (Steele, Lea, Flood, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
