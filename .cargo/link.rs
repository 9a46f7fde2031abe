//! How the program is linked in a release: without what only unwinding would use, which a program that aborts on
//! panic never does. A fifth of its size.

fn main() {
    println!("cargo::rerun-if-changed=.cargo/no_unwind.ld");
    // Tests and their programs catch panics.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.cargo/no_unwind.ld");
        for argument in ["-z,pack-relative-relocs", "--no-eh-frame-hdr", &format!("-T,{script}")] {
            println!("cargo::rustc-link-arg-bins=-Wl,{argument}");
        }
    }
}
