//! Long lists of names, one name a line: each is there once, in the order of the file, and what the lines cost grows with them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)] // a test

use muster_unit::load::{Lookup, Source};
use muster_unit::{SpecifierContext, UnitFile, UnitName};
use std::rc::Rc;

/// One unit file.
struct One(String);

impl Source for One {
    fn lookup(&self, _: &UnitName) -> Lookup {
        Lookup::File("/a.service".to_owned())
    }
    fn aliases(&self, _: &UnitName) -> Vec<UnitName> {
        Vec::new()
    }
    fn read(&self, _: &str) -> Result<Rc<str>, String> {
        Ok(Rc::from(self.0.as_str()))
    }
    fn drop_ins(&self, _: &str) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
    fn linked(&self, _: &str) -> Vec<UnitName> {
        Vec::new()
    }
}

fn load(lines: impl Iterator<Item = String>) -> UnitFile {
    let text = std::iter::once("[Unit]\n".to_owned()).chain(lines).collect();
    muster_unit::load(&"a.service".parse().unwrap(), &One(text), &SpecifierContext::default())
}

fn names(list: &[UnitName]) -> Vec<&str> {
    list.iter().map(UnitName::as_str).collect()
}

#[test]
fn each_name_is_there_once_in_the_order_of_the_file() {
    let lines = (0..1_000)
        .chain((0..1_000).rev())
        .map(|i| format!("After=b{i}.service\nWants=c{}.service\n", i % 400));
    let file = load(lines);
    assert_eq!(names(file.unit.after()), (0..1_000).map(|i| format!("b{i}.service")).collect::<Vec<_>>());
    assert_eq!(file.unit.wants().len(), 400);
}

#[test]
fn a_list_that_begins_anew_knows_nothing_of_the_old_one() {
    let line = |i: u32| format!("Requires=b{i}.service\n");
    let all = (0..500).map(|i| format!("b{i}.service ")).collect::<String>();
    // By an old name, and at once, to the same length.
    for again in [format!("RequiresOverridable={all}\n"), format!("Requires={all}\n")] {
        let lines = (500..1_000).map(line).chain(["Requires=\n".to_owned(), again]);
        let file = load(lines.chain([line(700), line(700), line(3)]));
        assert_eq!(file.unit.requires().len(), 501);
        assert_eq!(file.unit.requires()[500].as_str(), "b700.service");
    }
}

#[test]
fn a_hundred_thousand_lines_of_one_name_are_read_in_a_moment() {
    for count in [1_000, 10_000, 100_000] {
        let begun = std::time::Instant::now();
        let file = load((0..count).map(|i| format!("After=b{i}.service\n")));
        println!("{count} lines: {:?}", begun.elapsed());
        assert_eq!(file.unit.after().len(), count);
    }
}
