//! Says to the sources of the core that they are compiled as this package.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(inside)");
    println!("cargo::rustc-check-cfg=cfg(models)"); // of `../models`
    println!("cargo::rustc-cfg=inside");
    println!("cargo::rerun-if-changed=build.rs");
}
