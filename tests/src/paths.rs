//! Where things are: the workspace, the build's output, scratch space.

use std::path::{Path, PathBuf};

/// The root of the workspace, as it was when this program was built.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace exists")
}

/// The directory of the release programs (`target/<triple>/release`), beside the one this program itself was built into.
pub fn release() -> PathBuf {
    let exe = std::env::current_exe().expect("a program knows its own path");
    let of_exe = exe.ancestors().find(|dir| dir.ends_with("release") || dir.ends_with("debug"));
    of_exe.and_then(Path::parent).map_or_else(target, Path::to_path_buf).join("release")
}

/// The `target` directory; everything that is cached lies below it.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Where images are put together and cached.
pub fn images() -> PathBuf {
    target().join("images")
}
