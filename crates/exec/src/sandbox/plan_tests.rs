//! Plans as text: settings in one string, the places that become of them, one a line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Facts, arrange, entries, is_needed};
use muster_unit::ExecSection;
use muster_unit::setting::Context;

fn section(settings: &str) -> ExecSection {
    let expand = |text: &str| Ok(text.to_owned());
    let context = Context { expand: &expand, expands: false, directive: "", lists: None };
    let mut section = ExecSection::default();
    for line in settings.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').expect("NAME=VALUE");
        section.assign(name, value, &context).expect("a directive").expect("a value");
    }
    section
}

/// Every path is taken to exist and to be canonical.
fn plan(settings: &str) -> String {
    let places = arrange(entries(&section(settings), &Facts::default()));
    places.iter().map(|place| format!("{place}\n")).collect()
}

#[test]
fn a_longer_path_wins_and_of_two_for_one_the_stricter() {
    assert_eq!(
        plan("ReadOnlyPaths=/srv\nReadWritePaths=/srv/a\nReadOnlyPaths=/srv/a/b /srv/c"),
        "/srv ro\n/srv/a rw\n/srv/a/b ro\n"
    );
    assert_eq!(plan("ReadOnlyPaths=/a\nReadWritePaths=/a"), "/a ro\n");
    assert_eq!(plan("InaccessiblePaths=/a\nReadOnlyPaths=/a\nReadWritePaths=/a/b"), "/a none\n");
    // Not below, though the text is longer.
    assert_eq!(plan("ReadOnlyPaths=/a\nReadOnlyPaths=/a-b /a/b"), "/a ro\n/a-b ro\n");
}

#[test]
fn what_may_be_executed_is_another_matter_than_what_may_be_written() {
    assert_eq!(
        plan("NoExecPaths=/\nExecPaths=/usr\nReadOnlyPaths=/srv /usr/lib"),
        "/ rw noexec\n/srv ro noexec\n/usr rw\n/usr/lib ro\n"
    );
}

#[test]
fn strict_leaves_the_kernels_file_systems_and_the_units_own_directories() {
    assert_eq!(
        plan("ProtectSystem=strict\nProtectHome=yes\nStateDirectory=a\nReadWritePaths=-/srv"),
        "/ ro\n/dev rw\n/home none\n/proc rw\n/root none\n/run/user none\n/srv rw\n/sys rw\n/var/lib/a rw\n"
    );
}

#[test]
fn what_is_mounted_covers_what_is_below_it() {
    assert_eq!(
        plan("TemporaryFileSystem=/srv:ro\nBindPaths=/srv/a\nReadOnlyPaths=/srv/a/b"),
        "/srv ro Memory(\"mode=0755,size=10%,nr_inodes=400k,ro\")\n\
         /srv/a rw Bind { source: \"/srv/a\", recursive: true, optional: false } covered\n\
         /srv/a/b ro covered\n"
    );
}

#[test]
fn bind_mounts_by_their_words() {
    assert_eq!(
        plan("BindPaths=-/a:/b:norbind\nBindReadOnlyPaths=/c\nReadOnlyPaths=/b"),
        "/b ro Bind { source: \"/a\", recursive: false, optional: true }\n\
         /c ro Bind { source: \"/c\", recursive: true, optional: false }\n"
    );
}

#[test]
fn paths_of_the_root_directory() {
    let text = plan("RootDirectory=/r\nMountAPIVFS=no\nReadOnlyPaths=+/a /b\nProtectSystem=yes");
    assert_eq!(text, "/b ro\n/r/a ro\n/r/boot ro\n/r/efi ro\n/r/usr ro\n");
}

#[test]
fn nothing_is_asked_for() {
    assert!(!is_needed(&section("ProtectSystem=no\nPrivateTmp=no\nRuntimeDirectory=a")));
    for line in ["PrivateMounts=yes", "MountFlags=slave", "PrivateNetwork=yes", "ReadOnlyPaths=-/a"] {
        assert!(is_needed(&section(line)), "{line}");
    }
}
