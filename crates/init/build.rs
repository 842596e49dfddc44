//! Tells the linker which functions PID 1 runs, so that they lie together (`cargo xtask order` writes the list).
//!
//! What must stay true: only lld knows the option; it is the linker of rustc since 1.90 for this target.

fn main() {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/functions.order");
    println!("cargo::rerun-if-changed={list}");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let is_lld = var("CARGO_CFG_TARGET_ARCH") == "x86_64"
        && var("CARGO_CFG_TARGET_ENV") == "gnu"
        && !var("CARGO_ENCODED_RUSTFLAGS").contains("link");
    if is_lld && std::path::Path::new(list).exists() {
        println!("cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file={list}");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    }
}
