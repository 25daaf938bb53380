//! Gives the shared library its soname, so that programs find it by its ABI and not by its file name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let abi = "0"; // the ABI is fixed from 1.0 on; until then it is 0
    let name = format!("libfastsock.so.{abi}");
    let os = std::env::var_os("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os == "linux" || os == "android" || os == "freebsd" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{name}");
    }
}
