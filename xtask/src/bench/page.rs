//! docs/benchmarks.md: prose written by hand, and tables that `--write` puts between marks.
//!
//! What must stay true: what stands outside of a table's marks is never touched, other tables least of all.

use anyhow::{Context, Result, ensure};
use muster_tests::paths;
use std::fs;
use std::process::Command;

/// Writes tables, each by the name of its rows.
pub fn write(tables: &[(&str, String)]) -> Result<()> {
    let path = paths::workspace().join("docs/benchmarks.md");
    let mut page = fs::read_to_string(&path)?;
    let measured = measured()?;
    for (rows, table) in tables {
        page = put(&page, rows, &format!("{measured}\n{table}"))?;
    }
    fs::write(&path, page)?;
    eprintln!("written: {}", path.display());
    Ok(())
}

/// The page with another text between the marks of these rows.
fn put(page: &str, rows: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- rows {rows} -->\n"), format!("<!-- end of rows {rows} -->"));
    let lost = || format!("docs/benchmarks.md has no place for the rows {rows}: {begin}{end}");
    let (before, rest) = page.split_once(&begin).with_context(lost)?;
    let (old, after) = rest.split_once(&end).with_context(lost)?;
    ensure!(!old.contains("<!-- "), "the marks of the rows {rows} hold other marks");
    Ok(format!("{before}{begin}{}\n{end}{after}", text.trim_end()))
}

/// When and where.
fn measured() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let date = Command::new("date").args(["-u", "+%F"]).output()?.stdout;
    Ok(format!(
        "Measured on {}: {cores} cores of {}, Linux {}.",
        String::from_utf8_lossy(&date).trim(),
        model.unwrap_or("an unnamed processor"),
        kernel.trim(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_its_own_place_alone() {
        let page =
            "a\n<!-- rows x -->\nold\n<!-- end of rows x -->\nb\n<!-- rows y -->\n<!-- end of rows y -->\n";
        let new = put(page, "x", "new\n\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        let both = put(&new, "y", "more").unwrap();
        assert!(both.contains("<!-- rows x -->\nnew\n<!--"), "{both}");
        assert!(both.ends_with("<!-- rows y -->\nmore\n<!-- end of rows y -->\n"), "{both}");
        assert!(put(page, "z", "").is_err());
    }

    #[test]
    fn the_page_has_a_place_for_each_table() {
        let page = fs::read_to_string(paths::workspace().join("docs/benchmarks.md")).unwrap();
        for rows in ["stock", "dinit", "units", "mounts", "container", "vm"] {
            put(&page, rows, "").unwrap();
        }
    }
}
