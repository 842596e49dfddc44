//! The tree on plain files: what the kernel would say is written by the tests.

use super::*;
use muster_unit::{AbsolutePath, CGroupRow, CpusetPartition, PerDevice};

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

/// `memory.zswap.writeback`, `io.latency` and partitions of CPUs are in few kernels.
#[test]
fn files_that_few_kernels_have() {
    let mut tree = tree("rare");
    tree.controllers = Controllers::named(["io", "memory", "cpuset"]);
    let mut config = CGroupSection::of([
        CGroupRow::memory_zswap_writeback(Some(false)),
        CGroupRow::cpuset_partition(Some(CpusetPartition::Isolated)),
    ]);
    let mut disks = fs::read_dir("/sys/class/block").into_iter().flatten().filter_map(Result::ok);
    let disk = disks.find_map(|disk| {
        let path = format!("/dev/{}", disk.file_name().to_str()?);
        fs::metadata(&path).is_ok().then_some(path)
    });
    match &disk {
        Some(disk) => {
            let target = PerDevice { path: AbsolutePath(disk.clone()), value: 25_000 };
            config.edit().io_device_latency_target_sec().0.push(target);
        }
        None => eprintln!("io.latency is not looked at: this machine has no block device"),
    }
    let realize = |tree: &mut Tree, config: &CGroupSection| {
        let defaults = Defaults::default();
        let disabled = Controllers::default();
        tree.realize("/a", &Wanted { config, owner: None, disabled, defaults, oom: None, files: None })
    };
    let read = |tree: &Tree, file: &str| fs::read_to_string(format!("{}/{file}", tree.directory("/a")));
    assert_eq!(realize(&mut tree, &config), Ok(()));
    assert_eq!(read(&tree, "memory.zswap.writeback").unwrap(), "0");
    assert_eq!(read(&tree, "cpuset.cpus.partition").unwrap(), "isolated");
    if disk.is_some() {
        let line = read(&tree, "io.latency").unwrap();
        assert!(line.contains(':') && line.ends_with(" target=25000"), "{line}");
    }
    // What is said no more is as the kernel has it.
    // (Programs are for real cgroups.)
    let _ = realize(&mut tree, &CGroupSection::default());
    assert_eq!(read(&tree, "memory.zswap.writeback").unwrap(), "1\n");
    assert_eq!(read(&tree, "cpuset.cpus.partition").unwrap(), "member\n");
    if disk.is_some() {
        assert!(read(&tree, "io.latency").unwrap().ends_with(" target=0"));
    }
}

#[test]
fn devices_are_summed() {
    let text = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=1\n8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n";
    let totals = IoTotals { read_bytes: 11, read_operations: 4, write_bytes: 22, write_operations: 6 };
    assert_eq!(IoTotals::parse(text), totals);
    assert_eq!(IoTotals::parse(""), IoTotals::default());
}
