//! `RootMStack=` (systemd.exec(5), systemd.mstack(7)): a root directory put together of layers and of what is bound into it,
//! as the names in a directory say.
//!
//! Images of layers stand at places of their own while the overlay is made, and nowhere afterwards: an overlay keeps its
//! layers. What must stay true: nothing but `rw` and `root` is written to, and `bind@`, which asks for it.

use super::extension::{LAYERS_MAX, joined, mount_at, overlay, real_directory};
use super::{Parts, Wish, put, versions};
use crate::sandbox::mount::{attach, clone, file_system, make_below, path_of};
use crate::steps::{Done, Failed, failed};
use muster_unit::{AbsolutePath, ExecSection, ImagePolicy, compare_versions, path_unescape};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use std::os::fd::{AsFd, OwnedFd};

const DIRECTIVE: &str = "RootMStack=";
/// Where images of layers stand while the overlay is made.
const PLACES: &str = "/run/systemd/mount-stack";

/// What the names of a stack ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stack {
    /// What orders them and their names, the lowest first.
    layers: Vec<(String, String)>,
    writable: Option<String>,
    root: Option<String>,
    /// Where in the root, whether it can only be read, and the name; what is above comes first.
    binds: Vec<(String, bool, String)>,
}

impl Stack {
    /// Names that mean nothing are left alone.
    fn of(names: impl Iterator<Item = String>) -> Self {
        let mut stack = Stack::default();
        for name in names {
            let (plain, is_image) = kind_of(&name);
            match plain.split_once('@') {
                None if plain == "rw" && !is_image => stack.writable = Some(name),
                None if plain == "root" && !is_image => stack.root = Some(name),
                Some(("layer", id)) => stack.layers.push((id.to_owned(), name)),
                Some((kind @ ("bind" | "robind"), place)) => {
                    stack.binds.push((path_unescape(place), kind == "robind", name));
                }
                _ => {}
            }
        }
        stack.layers.sort_by(|(one, first), (two, second)| {
            compare_versions(one, two).then_with(|| first.cmp(second))
        });
        stack.binds.sort();
        stack
    }
}

/// A name without its suffixes, and whether it is that of an image.
fn kind_of(name: &str) -> (&str, bool) {
    let plain = name.strip_suffix(".v").unwrap_or(name);
    plain.strip_suffix(".raw").map_or((plain, false), |plain| (plain, true))
}

/// Makes the root of a stack at [`super::ROOT`]: the settings as they are with that for a root directory.
pub fn root(exec: &ExecSection, directory: &str) -> Done<ExecSection> {
    if exec.root_directory().is_some() || exec.root_image().is_some() || exec.root_ephemeral() {
        return failed("RootMStack= does not go together with RootDirectory=, RootImage= or RootEphemeral=");
    }
    let builder =
        Builder { directory, policy: super::policy(exec.root_image_policy(), ImagePolicy::of_images) };
    builder.make()?;
    let mut rooted = exec.clone();
    let mut edit = rooted.edit();
    *edit.root_mstack() = None;
    *edit.root_directory() = Some(AbsolutePath(super::ROOT.to_owned()));
    drop(edit);
    Ok(rooted)
}

struct Builder<'a> {
    directory: &'a str,
    policy: ImagePolicy,
}

impl Builder<'_> {
    fn or<T, E: std::fmt::Display>(&self, name: &str, done: Result<T, E>) -> Done<T> {
        let path = self.path(name);
        done.map_err(|error| Failed { exit: None, message: format!("{DIRECTIVE}{path}: {error}") })
    }

    fn path(&self, name: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        format!("{}{slash}{name}", self.directory.trim_end_matches('/'))
    }

    fn make(&self) -> Done {
        let stack = Stack::of(self.or("", versions::names(self.directory))?.into_iter());
        let made = self.merge(&stack);
        for number in 0..stack.layers.len() {
            let _ = rustix::mount::unmount(format!("{PLACES}/{number}").as_str(), UnmountFlags::DETACH);
        }
        let top = self.top(&stack, made?)?;
        self.or("", super::make_root())?;
        self.or("", put(super::ROOT, "", &top))?;
        stack.binds.iter().try_for_each(|(place, read_only, name)| self.bind(place, *read_only, name))
    }

    /// The newest version of a name, where it stands for several.
    fn picked(&self, name: &str) -> Done<(String, bool)> {
        let path = self.or(name, versions::pick(&self.path(name), ""))?;
        Ok((path, kind_of(name).1))
    }

    fn directory(&self, name: &str) -> Done<OwnedFd> {
        let (path, _) = self.picked(name)?;
        self.or(name, open_directory(&path))
    }

    fn image(&self, source: &str, read_only: bool) -> Done<Parts> {
        Wish { directive: DIRECTIVE, source, options: &[], policy: &self.policy, read_only, root: None }
            .open()
    }

    /// The layers as one tree, with what can be written on top.
    fn merge(&self, stack: &Stack) -> Done<Option<OwnedFd>> {
        if stack.layers.len() > LAYERS_MAX {
            return self.or("", Err("too many layers"));
        }
        let mut layers = Vec::with_capacity(stack.layers.len());
        for (number, (_, name)) in stack.layers.iter().enumerate() {
            let (path, is_image) = self.picked(name)?;
            layers.push(match is_image {
                true => self.or(name, mount_at(PLACES, number, &self.image(&path, true)?))?,
                false => self.or(name, open_directory(&path).and_then(|fd| path_of(&fd)))?,
            });
        }
        layers.reverse();
        match (&stack.writable, layers.as_slice()) {
            (Some(name), _) => self.writable(name, &layers).map(Some),
            (None, []) => Ok(None),
            (None, _) => {
                let tree = self.or("", overlay(&layers))?;
                self.or("", read_only(&tree))?;
                Ok(Some(tree))
            }
        }
    }

    /// `rw`: what is written to goes to its `data`.
    fn writable(&self, name: &str, layers: &[String]) -> Done<OwnedFd> {
        let above = self.directory(name)?;
        for part in ["data", "work"] {
            match rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return self.or(&format!("{name}/{part}"), Err(error)),
            }
        }
        let path = self.or(name, path_of(&above))?;
        let data = format!("{path}/data");
        if layers.is_empty() {
            let fd =
                rustix::fs::openat2(&above, "data", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH);
            return self.or(name, fd.and_then(|fd| clone(fd, false)));
        }
        let lower = joined(layers);
        let options =
            [("lowerdir", lower.as_str()), ("upperdir", &data), ("workdir", &format!("{path}/work"))];
        self.or(
            name,
            file_system("overlay", &options, MountAttrFlags::empty())
                .map_err(|error| format!("overlay: {error}")),
        )
    }

    /// What becomes the root: the merged tree, or `root` with its /usr.
    fn top(&self, stack: &Stack, merged: Option<OwnedFd>) -> Done<OwnedFd> {
        let Some(name) = &stack.root else {
            return match merged {
                Some(tree) => Ok(tree),
                None => self.or("", Err("there is no layer@…, no rw and no root in it")),
            };
        };
        let directory = self.directory(name)?;
        let root = self.or(name, clone(&directory, false))?;
        if let Some(tree) = merged {
            let usr = "usr";
            let lower =
                rustix::fs::openat2(&tree, usr, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH);
            let lower = self.or(usr, lower.and_then(|fd| clone(fd, false)))?;
            let place = root.try_clone().map_err(|_| rustix::io::Errno::MFILE);
            let place = place.and_then(|root| make_below(root, &[usr], true));
            self.or(name, place.and_then(|place| attach(&lower, place)))?;
        }
        Ok(root)
    }

    /// `bind@` and `robind@`.
    fn bind(&self, place: &str, is_read_only: bool, name: &str) -> Done {
        if place.split('/').any(|part| part == "..") {
            return self.or(name, Err("expected a place without \"..\""));
        }
        let (path, is_image) = self.picked(name)?;
        let parts = match is_image {
            true => self.image(&path, is_read_only)?,
            false => {
                let fd = self.or(
                    name,
                    rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
                )?;
                vec![("", self.or(name, clone(fd, true))?)]
            }
        };
        self.or(name, make_place(place))?;
        for (below, tree) in &parts {
            if is_read_only {
                self.or(name, read_only(tree))?;
            }
            self.or(name, put(super::ROOT, &format!("{}{below}", place.trim_end_matches('/')), tree))?;
        }
        Ok(())
    }
}

fn open_directory(path: &str) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A place in the root, made where it is missing.
fn make_place(place: &str) -> rustix::io::Result<()> {
    if real_directory(super::ROOT, place).is_some() {
        return Ok(());
    }
    let top = rustix::fs::open(super::ROOT, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let names: Vec<&str> = place.split('/').filter(|name| !name.is_empty()).collect();
    make_below(top, &names, true).map(drop)
}

fn read_only(tree: &OwnedFd) -> std::io::Result<()> {
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    muster_sys::set_mount_attributes(tree.as_fd(), true, set, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::Stack;

    #[test]
    fn names_say_what_they_are_for() {
        let names = [
            "layer@10",
            "layer@9.raw",
            "rw",
            "root.raw",
            "layer@9.1.raw.v",
            "README",
            "bind@var-lib",
            "robind@var.raw",
        ];
        let stack = Stack::of(names.map(str::to_owned).into_iter());
        let layers: Vec<&str> = stack.layers.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(layers, ["layer@9.raw", "layer@9.1.raw.v", "layer@10"]);
        assert_eq!((stack.writable.as_deref(), stack.root), (Some("rw"), None));
        let binds: Vec<_> =
            stack.binds.iter().map(|(place, read_only, _)| (place.as_str(), *read_only)).collect();
        assert_eq!(binds, [("/var", true), ("/var/lib", false)]);
    }
}
