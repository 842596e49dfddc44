//! Where the manager's own configuration lies (systemd-system.conf(5)).

use std::collections::BTreeMap;
use std::path::Path;

/// Directories, highest precedence first.
const DIRECTORIES: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// system.conf and its drop-ins, (path, text), lowest precedence first. Of files of one name the first directory's counts,
/// and one that is empty or a link to /dev/null hides the others. What cannot be read is passed over.
pub fn read() -> Vec<(String, String)> {
    let main = DIRECTORIES.iter().map(|directory| format!("{directory}/system.conf"));
    let main = main.into_iter().find(|path| Path::new(path).exists());
    let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
    for directory in DIRECTORIES {
        let directory = format!("{directory}/system.conf.d");
        for entry in std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            if let Ok(name) = entry.file_name().into_string() {
                if name.ends_with(".conf") {
                    let path = format!("{directory}/{name}");
                    drop_ins.entry(name).or_insert(path);
                }
            }
        }
    }
    let text = |path: String| {
        let text = muster_unit::index::read_unit_file(&path).ok()?.to_string();
        Some((path, text))
    };
    let generated =
        Some(muster_manager::config::GENERATED.to_owned()).filter(|path| Path::new(path).exists());
    main.into_iter().chain(drop_ins.into_values()).chain(generated).filter_map(text).collect()
}
