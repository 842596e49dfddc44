//! Mounts in the namespace of a service that runs: `systemctl bind` and `systemctl mount-image`
//! (org.freedesktop.systemd1(5), `BindMountUnit` and `MountImageUnit`).
//!
//! A helper of its own does it: it takes the source on the host, enters the namespace, and never leaves it again. What must
//! stay true: paths of the service are looked up in its namespace alone, so that no link of the service leads to the host.

use super::{Parts, Wish, put};
use crate::sandbox::mount::{attach, clone, make_below};
use muster_unit::setting::Scalar;
use muster_unit::{ImageOption, ImagePolicy, Partition};
use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MoveMountFlags, UnmountFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is to be mounted where, as the words that the helper is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// A path of the host.
    pub source: String,
    /// A path of the service.
    pub destination: String,
    /// Nothing can be written there.
    pub read_only: bool,
    /// The place is made where it is missing.
    pub make: bool,
    /// The source is an image: its policy, and options by partitions.
    pub image: Option<(String, Vec<(String, String)>)>,
}

impl Order {
    /// As words.
    pub fn words(&self) -> Vec<String> {
        let word = |set: bool| if set { "yes" } else { "no" }.to_owned();
        let mut words =
            vec![word(self.read_only), word(self.make), self.source.clone(), self.destination.clone()];
        if let Some((policy, options)) = &self.image {
            words.push(policy.clone());
            words
                .extend(options.iter().flat_map(|(partition, options)| [partition.clone(), options.clone()]));
        }
        words
    }

    /// From words.
    pub fn of(words: &[&str]) -> Option<Order> {
        let [read_only, make, source, destination, rest @ ..] = words else { return None };
        let image = rest.split_first().map(|(policy, options)| {
            let pair = |pair: &[&str]| match pair {
                [partition, options] => Some(((*partition).to_owned(), (*options).to_owned())),
                _ => None,
            };
            ((*policy).to_owned(), options.chunks(2).filter_map(pair).collect())
        });
        Some(Order {
            source: (*source).to_owned(),
            destination: (*destination).to_owned(),
            read_only: *read_only == "yes",
            make: *make == "yes",
            image,
        })
    }

    /// Carries it out in a mount namespace.
    pub fn carry_out(&self, namespace: BorrowedFd<'_>) -> Result<(), String> {
        let parts = self.parts()?;
        let about = |error: rustix::io::Errno| format!("{}: {error}", self.destination);
        setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|error| format!("its mount namespace: {error}"))?;
        let [(_, top), rest @ ..] = parts.as_slice() else { return Ok(()) };
        let target = self.target(top).map_err(about)?;
        if self.read_only {
            const READ_ONLY: u64 = 1;
            let done = muster_sys::set_mount_attributes(top.as_fd(), true, READ_ONLY, 0, 0);
            done.map_err(|error| format!("{}: {error}", self.destination))?;
        }
        replace(top, &target, &self.destination).map_err(about)?;
        for (place, tree) in rest {
            put(&self.destination, place, tree).map_err(about)?;
        }
        Ok(())
    }

    fn parts(&self) -> Result<Parts, String> {
        let Some((policy, options)) = &self.image else {
            let about = |error: rustix::io::Errno| format!("{}: {error}", self.source);
            let fd = rustix::fs::open(self.source.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            return clone(fd.map_err(about)?, true).map(|tree| vec![("", tree)]).map_err(about);
        };
        let policy = ImagePolicy::read(policy).map_err(|_| "its policy cannot be read".to_owned())?;
        let option = |(partition, options): &(String, String)| {
            Some(ImageOption { partition: Partition::named(partition)?, options: options.clone() })
        };
        let options: Vec<ImageOption> = options.iter().filter_map(option).collect();
        let wish = Wish {
            directive: "",
            source: &self.source,
            options: &options,
            policy: &policy,
            read_only: self.read_only,
            root: None,
        };
        wish.open().map_err(|failed| failed.message)
    }

    /// The place, made if that is asked for.
    fn target(&self, tree: &OwnedFd) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::open(self.destination.as_str(), flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) if self.make => {
                let kind = FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode);
                let top = rustix::fs::open("/", flags, Mode::empty())?;
                let names: Vec<&str> = self.destination.split('/').filter(|name| !name.is_empty()).collect();
                make_below(top, &names, kind == FileType::Directory)
            }
            target => target,
        }
    }
}

/// Mounts on a place; what was mounted there before goes, where the kernel can do that without a gap.
pub fn replace(tree: &OwnedFd, target: &OwnedFd, path: &str) -> rustix::io::Result<()> {
    let beneath = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH
        | MoveMountFlags::from_bits_retain(0x200);
    let is_mount =
        rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_XDEV);
    if is_mount.err() == Some(rustix::io::Errno::XDEV)
        && rustix::mount::move_mount(tree, c"", target, c"", beneath).is_ok()
    {
        return rustix::mount::unmount(path, UnmountFlags::DETACH);
    }
    attach(tree, target)
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn orders_go_as_words() {
        let options = vec![("root".to_owned(), "ro,nosuid".to_owned())];
        for image in [None, Some(("*".to_owned(), Vec::new())), Some(("root=verity".to_owned(), options))] {
            let (source, destination) = ("/a b".to_owned(), "/c".to_owned());
            let order = Order { source, destination, read_only: true, make: false, image };
            let words = order.words();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(Order::of(&words), Some(order));
        }
    }
}
