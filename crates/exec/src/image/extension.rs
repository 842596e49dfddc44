//! `ExtensionImages=` and `ExtensionDirectories=` (systemd.exec(5)): overlays of /usr and /opt, or of /etc, that show what
//! extensions add.
//!
//! The images stand at places of their own while the overlays are made, and nowhere afterwards: an overlay keeps its layers.
//! What must stay true: an extension that is not made for this system (os-release(5)) stops the start.

use super::{Parts, Wish, policy, put};
use crate::sandbox::mount::{clone, file_system, path_of};
use crate::steps::{Done, Failed};
use muster_unit::{ExecSection, ImagePolicy};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Where images stand while overlays are made.
const PLACES: &str = "/run/systemd/unit-extensions";
/// To disable the check that the file that describes an extension is called as it is.
const RELAXED: &str = "x-systemd.relax-extension-release-check";
/// More layers than a kernel takes.
pub const LAYERS_MAX: usize = 500;
/// A file that describes a system is short.
const RELEASE_MAX: u64 = 64 * 1024;

/// A kind of extension: where its description is, the prefix of its fields, and what it extends.
struct Kind {
    directory: &'static str,
    prefix: &'static str,
    hierarchies: &'static [&'static str],
}
const KINDS: [Kind; 2] = [
    Kind { directory: "usr/lib/extension-release.d", prefix: "SYSEXT", hierarchies: &["/usr", "/opt"] },
    Kind { directory: "etc/extension-release.d", prefix: "CONFEXT", hierarchies: &["/etc"] },
];

/// An extension that can be looked at.
struct Extension {
    directive: &'static str,
    /// As the setting names it.
    source: String,
    /// Where its tree is now.
    top: String,
    relaxed: bool,
}

/// An overlay, where it belongs in the service's root, and the directive.
pub type Overlay = (String, OwnedFd, &'static str);

/// Makes the overlays that the settings ask for. `root` is the service's own root directory, if it has one.
pub fn overlays(exec: &ExecSection, root: Option<&str>) -> Done<Vec<Overlay>> {
    if exec.extension_images().is_empty() && exec.extension_directories().is_empty() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    let mounted = mount_images(exec, &mut all);
    let made = mounted.and_then(|()| {
        directories(exec, &mut all)?;
        layers(&all, root.unwrap_or(""))
    });
    for extension in all.iter().filter(|extension| extension.top.starts_with(PLACES)) {
        let _ = rustix::mount::unmount(extension.top.as_str(), UnmountFlags::DETACH);
    }
    made
}

fn fail<T>(directive: &str, what: &str, why: impl std::fmt::Display) -> Done<T> {
    Err(Failed { exit: None, message: format!("{directive}{what}: {why}") })
}

fn mount_images(exec: &ExecSection, all: &mut Vec<Extension>) -> Done {
    let directive = "ExtensionImages=";
    let policy = policy(exec.extension_image_policy(), ImagePolicy::of_extensions);
    for image in exec.extension_images() {
        let source = image.source.as_str();
        if image.optional && !Path::new(source).exists() {
            continue;
        }
        let wish =
            Wish { directive, source, options: &image.options, policy: &policy, read_only: true, root: None };
        let top =
            mount_at(PLACES, all.len(), &wish.open()?).or_else(|error| fail(directive, source, error))?;
        let relaxed =
            image.options.iter().any(|option| option.options.split(',').any(|word| word == RELAXED));
        all.push(Extension { directive, source: source.to_owned(), top, relaxed });
    }
    Ok(())
}

/// Mounts an image at a numbered place for the while that layers need paths; the place.
pub fn mount_at(places: &str, number: usize, parts: &Parts) -> Result<String, String> {
    let top = format!("{places}/{number}");
    for directory in [places, &top] {
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(format!("{directory}: {error}")),
        }
    }
    let mut mounted = Ok(());
    for (place, tree) in parts {
        mounted = mounted.and_then(|()| put(&top, place, tree));
    }
    if mounted.is_err() {
        let _ = rustix::mount::unmount(top.as_str(), UnmountFlags::DETACH);
    }
    mounted.map(|()| top).map_err(|error| error.to_string())
}

fn directories(exec: &ExecSection, all: &mut Vec<Extension>) -> Done {
    let directive = "ExtensionDirectories=";
    for directory in exec.extension_directories() {
        let source = directory.path.as_str();
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let fd = match rustix::fs::open(source, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) if directory.optional => continue,
            fd => fd.or_else(|error| fail(directive, source, error))?,
        };
        let top = path_of(&fd).or_else(|error| fail(directive, source, error))?;
        all.push(Extension { directive, source: source.to_owned(), top, relaxed: false });
    }
    Ok(())
}

/// Checks all extensions, and lays them over what is in the root.
fn layers(all: &[Extension], root: &str) -> Done<Vec<Overlay>> {
    let host = host_release(root)?;
    let mut overlays = Vec::new();
    let mut is_known = vec![false; all.len()];
    for kind in &KINDS {
        let mut of_kind = Vec::new();
        for (extension, known) in all.iter().zip(&mut is_known) {
            if let Some(release) = extension.release(kind)? {
                extension.check(kind, &release, &host)?;
                *known = true;
                of_kind.push(extension);
            }
        }
        for hierarchy in kind.hierarchies {
            let below = |top: &str| real_directory(top, hierarchy);
            let mut layers: Vec<String> = of_kind.iter().rev().filter_map(|one| below(&one.top)).collect();
            let Some(last) = of_kind.last().filter(|_| !layers.is_empty()) else { continue };
            layers.extend(real_directory(if root.is_empty() { "/" } else { root }, hierarchy));
            let tree = overlay(&layers).or_else(|error| fail(last.directive, &last.source, error))?;
            overlays.push((format!("{root}{hierarchy}"), tree, last.directive));
        }
    }
    match all.iter().zip(&is_known).find(|(_, known)| !**known) {
        Some((extension, _)) => extension.fail("it has no extension-release file of its name"),
        None => Ok(overlays),
    }
}

/// A directory below a root, if it is one, following no link out of it.
pub fn real_directory(top: &str, hierarchy: &str) -> Option<String> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let above = rustix::fs::open(top, flags, Mode::empty()).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let name = hierarchy.trim_start_matches('/');
    let fd = rustix::fs::openat2(&above, name, flags, Mode::empty(), resolve).ok()?;
    path_of(&fd).ok()
}

/// Layers, the topmost first, as one tree that is only read.
pub fn overlay(layers: &[String]) -> Result<OwnedFd, String> {
    if layers.len() > LAYERS_MAX {
        return Err("too many extensions".to_owned());
    }
    if let [only] = layers {
        let fd = rustix::fs::open(only.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        return fd.and_then(|fd| clone(fd, false)).map_err(|error| error.to_string());
    }
    file_system("overlay", &[("lowerdir", &joined(layers))], MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(|error| format!("overlay: {error}"))
}

/// Layers as overlayfs takes them.
pub fn joined(layers: &[String]) -> String {
    let quoted = |path: &String| path.replace('\\', "\\\\").replace(':', "\\:");
    layers.iter().map(quoted).collect::<Vec<_>>().join(":")
}

type Release = BTreeMap<String, String>;

/// What os-release(5) has to say; values without their quotes.
fn parse_release(text: &str) -> Release {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let quoted = |mark: char| value.strip_prefix(mark).and_then(|value| value.strip_suffix(mark));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        Some((name.to_owned(), value.replace('\\', "")))
    };
    lines.filter_map(pair).collect()
}

/// Reads a file below a root, following no link out of it.
fn read_below(top: &str, path: &str) -> rustix::io::Result<String> {
    use std::io::Read;
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let above = rustix::fs::open(if top.is_empty() { "/" } else { top }, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::openat2(&above, path, flags, Mode::empty(), resolve)?;
    let mut text = String::new();
    let file: std::fs::File = fd.into();
    file.take(RELEASE_MAX).read_to_string(&mut text).map_err(|_| rustix::io::Errno::IO)?;
    Ok(text)
}

fn host_release(root: &str) -> Done<Release> {
    let text = read_below(root, "etc/os-release").or_else(|_| read_below(root, "usr/lib/os-release"));
    match text {
        Ok(text) => Ok(parse_release(&text)),
        Err(error) => fail("", &format!("{root}/etc/os-release"), error),
    }
}

impl Extension {
    fn fail<T>(&self, why: impl std::fmt::Display) -> Done<T> {
        fail(self.directive, &self.source, why)
    }

    /// What describes it, if it is of this kind.
    fn release(&self, kind: &Kind) -> Done<Option<Release>> {
        let name = self.source.rsplit('/').next().unwrap_or("");
        let name = name.strip_suffix(".raw").unwrap_or(name);
        // Its version need not be in the name of what describes it.
        let short = name.split('_').next().unwrap_or(name);
        for name in [name, short] {
            match read_below(&self.top, &format!("{}/extension-release.{name}", kind.directory)) {
                Ok(text) => return Ok(Some(parse_release(&text))),
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return self.fail(error),
            }
        }
        // The only one there is may have another name.
        let Some(directory) = real_directory(&self.top, kind.directory) else { return Ok(None) };
        let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(None) };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut named = names.filter(|name| name.starts_with("extension-release."));
        let (Some(only), None) = (named.next(), named.next()) else { return Ok(None) };
        let path = format!("{directory}/{only}");
        let mut value = [0_u8; 8];
        let marked = rustix::fs::getxattr(path.as_str(), "user.extension-release.strict", &mut value);
        let lax = self.relaxed
            || marked.is_ok_and(|length| matches!(value.get(..length), Some(b"0" | b"no" | b"false")));
        if !lax {
            return Ok(None);
        }
        match read_below(&self.top, &format!("{}/{only}", kind.directory)) {
            Ok(text) => Ok(Some(parse_release(&text))),
            Err(error) => self.fail(error),
        }
    }

    /// Whether it is made for the system that it is to extend.
    fn check(&self, kind: &Kind, release: &Release, host: &Release) -> Done {
        match mismatch(kind.prefix, release, host) {
            Some(why) => self.fail(why),
            None => Ok(()),
        }
    }
}

/// Why an extension is not made for a system.
fn mismatch(prefix: &str, release: &Release, host: &Release) -> Option<String> {
    let field = |release: &Release, name: &str| release.get(name).cloned().unwrap_or_default();
    let scope = release.get(&format!("{prefix}_SCOPE")).map_or("system portable", String::as_str);
    if !scope.split_whitespace().any(|word| word == "portable") {
        return Some(format!("{prefix}_SCOPE={scope} does not name portable"));
    }
    let machine = field(release, "ARCHITECTURE");
    let own = super::architecture();
    if !machine.is_empty() && machine != "_any" && machine != own {
        return Some(format!("ARCHITECTURE={machine} is not {own}"));
    }
    let (id, mine) = (field(release, "ID"), field(host, "ID"));
    if id == "_any" {
        return None;
    }
    let like = field(host, "ID_LIKE");
    if id.is_empty() || (id != mine && !like.split_whitespace().any(|word| word == id)) {
        return Some(format!("ID={id} is not {mine}"));
    }
    let level = format!("{prefix}_LEVEL");
    for name in [level.as_str(), "VERSION_ID"] {
        let (theirs, mine) = (field(release, name), field(host, name));
        if !theirs.is_empty() && !mine.is_empty() {
            return (theirs != mine).then(|| format!("{name}={theirs} is not {mine}"));
        }
    }
    // A system that has no versions takes what names none.
    let (theirs, mine) = (field(release, "VERSION_ID"), field(host, "VERSION_ID"));
    (theirs != mine).then(|| format!("VERSION_ID={theirs} is not {mine}"))
}

#[cfg(test)]
mod tests {
    use super::{mismatch, parse_release};

    #[test]
    fn an_extension_is_made_for_a_system() {
        let host =
            parse_release("# a comment\nID=debian\nID_LIKE='a b'\nVERSION_ID=\"13\"\nSYSEXT_LEVEL=2\n");
        for (text, fits) in [
            ("ID=debian\nVERSION_ID=13", true),
            ("ID=\"debian\"\nVERSION_ID=12", false),
            ("ID=b\nVERSION_ID=13", true),
            ("ID=fedora\nVERSION_ID=13", false),
            ("ID=_any", true),
            ("ID=debian\nSYSEXT_LEVEL=2\nVERSION_ID=1", true),
            ("ID=debian\nSYSEXT_LEVEL=1\nVERSION_ID=13", false),
            ("ID=debian", false),
            ("VERSION_ID=13", false),
            ("ID=_any\nARCHITECTURE=s390x", false),
            ("ID=_any\nSYSEXT_SCOPE=initrd", false),
            ("ID=_any\nSYSEXT_SCOPE=system portable", true),
        ] {
            assert_eq!(mismatch("SYSEXT", &parse_release(text), &host).is_none(), fits, "{text}");
        }
    }
}
