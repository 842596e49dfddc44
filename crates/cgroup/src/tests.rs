//! The tree on plain files: what the kernel would say is written by the tests.

use super::*;

/// A tree of plain files.
fn tree(name: &str) -> Tree {
    let mount = std::env::temp_dir().join(format!("muster-cgroup-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&mount);
    fs::create_dir_all(&mount).unwrap();
    let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
    Tree::new(mount.to_str().unwrap().to_owned(), String::new(), Controllers::default(), events)
}

fn put(tree: &Tree, path: &str, text: &str) {
    fs::create_dir_all(tree.directory(path)).unwrap();
    fs::write(format!("{}/cgroup.events", tree.directory(path)), text).unwrap();
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.mount);
    }
}

#[test]
fn what_cannot_be_read_is_not_empty() {
    let mut tree = tree("population");
    put(&tree, "/full", "populated 1\nfrozen 0\n");
    put(&tree, "/empty", "populated 0\nfrozen 0\n");
    put(&tree, "/odd", "populated maybe\n");
    // A read of it fails, as one may for want of memory.
    fs::create_dir_all(format!("{}/cgroup.events", tree.directory("/broken"))).unwrap();
    assert_eq!(tree.population("/full"), Population::Populated);
    assert_eq!(tree.population("/empty"), Population::Empty);
    assert_eq!(tree.population("/never-was"), Population::Empty);
    assert!(!tree.is_uncertain());
    assert_eq!(tree.population("/odd"), Population::Unknown);
    assert_eq!(tree.population("/broken"), Population::Unknown);
    // They are asked for again, and told of.
    assert_eq!(tree.take_uncertain(), ["/broken", "/odd"]);
    put(&tree, "/odd", "populated 0\n");
    assert_eq!(tree.drain(), ["/odd"]);
}

#[test]
fn a_watch_that_fails_is_asked_for_instead() {
    let mut tree = tree("watch");
    fs::write(tree.directory("/a"), "no directory").unwrap();
    tree.watch("/a");
    assert_eq!(tree.take_uncertain(), ["/a"]);
    assert!(tree.is_uncertain());
    fs::remove_file(tree.directory("/a")).unwrap();
    put(&tree, "/a", "populated 1\n");
    assert_eq!(tree.take_uncertain(), ["/a"]);
    assert!(!tree.is_uncertain());
    put(&tree, "/a", "populated 0\n");
    assert_eq!(tree.drain(), ["/a"]);
}

#[test]
fn lost_events_are_those_of_all() {
    let mut tree = tree("overflow");
    for path in ["/a", "/b", "/quiet"] {
        put(&tree, path, "populated 1\n");
        tree.watch(path);
    }
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let open = |path| fs::File::create(format!("{}/cgroup.events", tree.directory(path))).unwrap();
    let (mut a, mut b) = (open("/a"), open("/b"));
    // Two by turns, since equal events become one.
    for _ in 0..limit.trim().parse::<usize>().unwrap() {
        io::Write::write_all(&mut a, b"x").unwrap();
        io::Write::write_all(&mut b, b"x").unwrap();
    }
    assert_eq!(tree.drain(), ["/a", "/b", "/quiet"]);
    assert!(tree.drain().is_empty());
}
