//! Destinations on overlayfs whose image layer has a part of what is restored: a copy-up gives an object
//! a new inode, and takes it out of its hard-link group.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::compare::touched;
use crate::support::mounts::Mounted;
use crate::support::pair::Pair;
use crate::support::tree::Tree;
use crate::support::{Case, Need, ok, test_case};

pub fn cases() -> Vec<Case> {
    let needs = &[Need::Root, Need::Program("rsync"), Need::Filesystem("overlay")];
    vec![
        test_case!(names_that_an_image_layer_lacks_join_their_group, needs),
        test_case!(groups_that_an_image_layer_has_whole_stay_in_it, needs),
        test_case!(a_file_of_an_image_layer_leads_its_group_after_a_mend, needs),
    ]
}

/// The destination as an overlay over a lower layer that `fill` fills.
struct Layered {
    pair: Pair,
    _layers: Mounted,
    _overlay: Mounted,
}

impl Layered {
    fn new(fill: impl FnOnce(&Tree)) -> Self {
        let pair = Pair::new();
        let layers = Mounted::tmpfs(pair.beside("layers"), "64m");
        let place = |name: &str| Tree::at(layers.0.join(name)).0;
        let (lower, upper, work) = (place("lower"), place("upper"), place("work"));
        fill(&Tree(lower.clone()));
        let show = |path: std::path::PathBuf| path.display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", show(lower), show(upper), show(work));
        let to = pair.to().0;
        ok(Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(&to));
        Self { pair, _layers: layers, _overlay: Mounted(to) }
    }
}

/// `names` in `tree`, each a group of `count`, with content and times that are those of the source.
fn group(tree: &Tree, name: &str, members: &[usize]) {
    let member = |number: &usize| format!("dir{}/{name}{number}", number % 3);
    let first = member(&members[0]);
    tree.file(&first, name.repeat(100)).mtime(&first, 1_500_000_000, 5);
    for number in &members[1..] {
        tree.link(member(number), &first);
    }
}

fn names_that_an_image_layer_lacks_join_their_group() {
    for seed in 0..4 {
        let layered = Layered::new(|lower| {
            group(lower, "two", &[0, 1]);
            group(lower, "other", &[1, 2]);
            group(lower, "many", &[0, 2, 3, 5, 7, 8]);
            group(lower, "surplus", &[0, 1]);
            lower.link("dir1/surplus9", "dir0/surplus0");
            group(lower, "whole", &[0, 1, 2]);
        });
        let pair = &layered.pair;
        let members = |from: usize, count: usize| -> Vec<usize> {
            // In each turn another is the first of its group.
            (0..count).map(|number| from + (number + seed) % count).collect()
        };
        for (name, count) in [("two", 3), ("other", 3), ("many", 9), ("surplus", 3), ("whole", 3)] {
            group(&pair.from(), name, &members(0, count));
        }
        pair.mirror();
        pair.assert_equal();
        let before = pair.snapshot();
        pair.mirror();
        let touched = touched(&before, &pair.snapshot());
        // The top gets a record of the run.
        let below: Vec<&String> = touched.iter().filter(|line| !line.contains(" \"\": ")).collect();
        assert_eq!(below, Vec::<&String>::new());
    }
}

fn groups_that_an_image_layer_has_whole_stay_in_it() {
    let layered = Layered::new(|lower| group(lower, "whole", &[0, 1, 2, 3]));
    let pair = &layered.pair;
    group(&pair.from(), "whole", &[0, 1, 2, 3]);
    let inode = || pair.to().path("dir0/whole0").metadata().unwrap().ino();
    let before = inode();
    pair.mirror();
    pair.assert_equal();
    assert_eq!(inode(), before);
}

fn a_file_of_an_image_layer_leads_its_group_after_a_mend() {
    let layered = Layered::new(|lower| {
        group(lower, "one", &[0]);
        lower.mode("dir0/one0", 0o600);
    });
    let pair = &layered.pair;
    group(&pair.from(), "one", &[0, 1, 2]);
    pair.mirror();
    pair.assert_equal();
}
