//! Boots real things and looks at them: containers in fresh namespaces, machines in QEMU, the images they boot, and the
//! programs under test.
//!
//! What must stay true: no `unsafe`; whatever a test started is gone when its [`Container`] is dropped, and what a killed
//! test left behind is swept by the next one. The same container runs muster and systemd, which is our oracle.
//!
//! A program that uses [`Container`] calls [`hook`] first thing in its `main`: the launcher is that program executed again,
//! because namespaces are entered by a process of one thread.

pub mod cgroup;
pub mod console;
pub mod container;
pub mod cpio;
pub mod enter;
pub mod image;
pub mod kernel;
pub mod launch;
pub mod machine;
pub mod oci;
pub mod paths;

pub use container::{Builder, Container, Exit};
pub use enter::Output;

/// Turns this process into a launcher stage if it was executed as one; returns otherwise. Call it before any thread exists.
pub fn hook() {
    let args: Vec<String> = std::env::args().collect();
    let Some((stage, rest)) = args.get(1).map(String::as_str).zip(args.get(2..)) else {
        return;
    };
    let result = match stage {
        launch::OUTER => launch::outer(rest),
        launch::INNER => launch::inner(rest),
        enter::ENTER => enter::stage(rest),
        launch::NOTHING => Ok(0),
        _ => return,
    };
    std::process::exit(result.unwrap_or_else(|error| {
        eprintln!("launcher {stage}: {error:#}");
        launch::STAGE_FAILED
    }))
}
