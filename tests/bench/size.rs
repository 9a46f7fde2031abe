//! The size of the program, with https and without.

use std::process::Command;

/// Builds both from the start and prints a table.
pub fn bench() {
    let directory = tempfile::tempdir().unwrap();
    println!("| program | bytes | MiB |\n|---|---:|---:|");
    for (name, options) in [("with https", &[][..]), ("without", &["--no-default-features"])] {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--release", "--quiet", "--bin", "molecule-tools"]).args(options);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--target-dir").arg(directory.path());
        assert!(build.status().expect("cargo").success());
        let program = walkdir::WalkDir::new(directory.path())
            .into_iter()
            .flatten()
            .find(|entry| {
                entry.file_name() == "molecule-tools"
                    && entry.path().parent().unwrap().ends_with("release")
            })
            .expect("the program");
        let bytes = program.metadata().unwrap().len();
        println!("| {name} | {bytes} | {:.2} |", bytes as f64 / f64::from(1 << 20));
    }
}
