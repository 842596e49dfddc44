//! A reload keeps what was loaded from files that did not change, and notices everything else.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test of real files and their times

use muster_unit::origin::is_unchanged;
use muster_unit::{Index, SpecifierContext, UnitFile};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scan(directory: &Path) -> Index {
    Index::scan(vec![directory.to_str().unwrap().to_owned()])
}

/// Loads the unit once its files are old enough to be known again.
fn load(directory: &Path) -> UnitFile {
    std::thread::sleep(Duration::from_millis(60));
    muster_unit::load(&"a.service".parse().unwrap(), &scan(directory), &SpecifierContext::default())
}

#[test]
fn only_the_same_files_are_the_same() {
    let directory = Directory(std::env::temp_dir().join(format!("muster-unchanged-{}", std::process::id())));
    let at = |name: &str| directory.0.join(name);
    fs::create_dir_all(&directory.0).unwrap();
    fs::write(at("a.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let just_written =
        muster_unit::load(&"a.service".parse().unwrap(), &scan(&directory.0), &SpecifierContext::default());
    assert!(
        !is_unchanged(&just_written, &scan(&directory.0)),
        "may change within the same step of the clock"
    );

    let changes: [(&str, &dyn Fn()); 9] = [
        ("a drop-in", &|| {
            fs::create_dir(at("a.service.d")).unwrap();
            fs::write(at("a.service.d/x.conf"), "[Service]\nNice=1\n").unwrap();
        }),
        ("its contents", &|| fs::write(at("a.service.d/x.conf"), "[Service]\nNice=2\n").unwrap()),
        ("a drop-in of its type", &|| {
            fs::create_dir(at("service.d")).unwrap();
            fs::write(at("service.d/y.conf"), "[Service]\nNice=3\n").unwrap();
        }),
        ("a masked drop-in", &|| symlink("/dev/null", at("a.service.d/y.conf")).unwrap()),
        ("a wish", &|| {
            fs::create_dir(at("a.service.wants")).unwrap();
            symlink("../b.service", at("a.service.wants/b.service")).unwrap();
        }),
        ("another name", &|| symlink("a.service", at("c.service")).unwrap()),
        ("a file of equal length", &|| {
            fs::write(at("a.service"), "[Service]\nExecStart=/bin/tree\n").unwrap()
        }),
        ("a file put in its place", &|| {
            fs::write(at("new"), "[Service]\nExecStart=/bin/tree\n").unwrap();
            fs::rename(at("new"), at("a.service")).unwrap();
        }),
        ("its mask", &|| {
            fs::remove_file(at("a.service")).unwrap();
            symlink("/dev/null", at("a.service")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let before = load(&directory.0);
        assert!(is_unchanged(&before, &scan(&directory.0)), "before {what}");
        change();
        assert!(!is_unchanged(&before, &scan(&directory.0)), "{what}");
    }
}
