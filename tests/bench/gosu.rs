//! Latency of one launch: gosu here, Debian's gosu, setpriv and a minimal static su-exec (with musl
//! and with glibc), each before a program that does nothing, against that program alone. Run as root.
//!
//! The runs alternate, so that other work of the machine meets all of them. `MOLECULE_BENCH_ROUNDS` sets
//! how many there are.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A peer and how it is called before the command.
struct Peer {
    name: &'static str,
    words: Vec<String>,
    /// Milliseconds of each run.
    times: Vec<f64>,
}

/// The benchmark.
pub fn bench() {
    let directory = tempfile::tempdir().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/su_exec_like.c");
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let noop = at("noop.c");
    std::fs::write(&noop, "int main(void) { return 0; }\n").unwrap();
    if !compile("musl-gcc", &noop, &at("noop")) && !compile("cc", &noop, &at("noop")) {
        panic!("a C compiler is needed for the program that does nothing");
    }
    // Others must get at the program that does nothing.
    Command::new("chmod").args(["-R", "a+rX"]).arg(directory.path()).status().unwrap();

    let program = env!("CARGO_BIN_EXE_molecule-tools");
    let mut peers = vec![
        peer("nothing before it", ""),
        peer("molecule-tools gosu", &format!("{program} gosu nobody")),
    ];
    for (name, path, words) in [
        ("Debian's gosu", "/usr/sbin/gosu", "/usr/sbin/gosu nobody"),
        (
            "setpriv",
            "/usr/bin/setpriv",
            "/usr/bin/setpriv --reuid nobody --regid nogroup --clear-groups",
        ),
    ] {
        match Path::new(path).exists() {
            true => peers.push(peer(name, words)),
            false => println!("{name} is left out: no {path}"),
        }
    }
    for (name, compiler) in [("su-exec, musl", "musl-gcc"), ("su-exec, glibc", "cc")] {
        let binary = at(compiler);
        match compile(compiler, source, &binary) {
            true => peers.push(peer(name, &format!("{binary} nobody"))),
            false => println!("{name} is left out: no {compiler} that links statically"),
        }
    }

    let rounds = std::env::var("MOLECULE_BENCH_ROUNDS").map_or(500, |text| text.parse().unwrap());
    let warm_up = 20;
    for round in 0..rounds + warm_up {
        for peer in &mut peers {
            let time = launch(&peer.words, &at("noop"));
            if round >= warm_up {
                peer.times.push(time);
            }
        }
    }
    report(&peers);
}

fn peer(name: &'static str, words: &str) -> Peer {
    Peer { name, words: words.split_whitespace().map(String::from).collect(), times: Vec::new() }
}

fn compile(compiler: &str, source: &str, to: &str) -> bool {
    let mut command = Command::new(compiler);
    command.args(["-static", "-O2", "-o", to, source]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Milliseconds from before the launch to the end of the program.
fn launch(words: &[String], noop: &str) -> f64 {
    let mut all = words.iter().map(String::as_str).chain([noop]);
    let mut command = Command::new(all.next().unwrap());
    command.args(all);
    let start = Instant::now();
    let status = command.status().unwrap();
    let time = start.elapsed().as_secs_f64() * 1e3;
    assert!(status.success(), "{command:?}: {status}");
    time
}

fn report(peers: &[Peer]) {
    println!("{:<22} {:>9} {:>9} {:>9}   added", "", "median ms", "10 %", "90 %");
    let base = quantile(&peers[0].times, 0.5);
    for peer in peers {
        let [low, median, high] = [0.1, 0.5, 0.9].map(|part| quantile(&peer.times, part));
        let added = median - base;
        println!("{:<22} {median:>9.3} {low:>9.3} {high:>9.3}   {added:.3} ms", peer.name);
    }
    for peer in &peers[2..] {
        let ratios: Vec<f64> =
            peers[1].times.iter().zip(&peer.times).map(|(ours, theirs)| ours / theirs).collect();
        let [low, median, high] = [0.1, 0.5, 0.9].map(|part| quantile(&ratios, part));
        let name = peer.name;
        println!("ours to {name}, round by round: {median:.2} (10 % {low:.2}, 90 % {high:.2})");
    }
}

/// The value below which `part` of the values lie.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}
