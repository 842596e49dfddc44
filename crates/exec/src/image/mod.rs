//! Disk images: a file with a file system, or with a table of partitions, becomes mounts that stand nowhere yet
//! (systemd.exec(5), `RootImage=`, `MountImages=`, `ExtensionImages=`; systemd.image-policy(7)), and what is built of several.
//!
//! Each file system is shown by a loop device of its own, partitions too, so that neither the kernel's reading of the table
//! nor udevd is waited for. A device goes with the last mount of it. What must stay true: what the policy does not allow is
//! never mounted, and what cannot be protected as it is asked for neither.

pub mod disk;
pub mod ephemeral;
pub mod extension;
pub mod live;
pub mod mstack;
pub mod signature;
pub mod verity;
pub mod versions;

use crate::steps::{Done, Failed};
use disk::{Content, Slice};
use muster_unit::{ExecSection, ImageOption, ImagePolicy, Partition, PartitionUse};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use verity::{Hash, Verity};

/// Where the image of `RootImage=` is mounted before it becomes the root.
pub const ROOT: &str = "/run/systemd/mount-rootfs";

/// How an image is to be mounted.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The directive, for messages.
    pub directive: &'static str,
    /// The image.
    pub source: &'a str,
    /// Options of its partitions.
    pub options: &'a [ImageOption],
    /// What it may be.
    pub policy: &'a ImagePolicy,
    /// Nothing is written to it.
    pub read_only: bool,
    /// The settings that say what a root image is checked against.
    pub root: Option<&'a ExecSection>,
}

/// An image that is being looked at.
struct Image {
    file: File,
    writable: bool,
    slices: Vec<Slice>,
    /// What its root and its /usr are checked against.
    hashes: [(&'static str, Option<Hash>); 2],
}

impl Image {
    fn slice(&self, name: &str) -> Option<&Slice> {
        self.slices.iter().find(|slice| slice.partition.name() == name)
    }

    fn hash(&self, partition: Partition) -> Option<&Hash> {
        let mut of = self.hashes.iter().filter(|(name, _)| *name == partition.name());
        of.find_map(|(_, hash)| hash.as_ref())
    }
}

/// The file systems of an image: where below its top each belongs, the top first.
pub type Parts = Vec<(&'static str, OwnedFd)>;

/// Where partitions belong. Those of the boot loader are not a service's business.
const PLACES: [(&str, &str); 6] =
    [("root", ""), ("usr", "/usr"), ("home", "/home"), ("srv", "/srv"), ("tmp", "/var/tmp"), ("var", "/var")];

impl Wish<'_> {
    fn fail<T>(&self, error: impl std::fmt::Display) -> Done<T> {
        Err(Failed { exit: None, message: format!("{}{}: {error}", self.directive, self.source) })
    }

    fn or<T, E: std::fmt::Display>(&self, done: Result<T, E>) -> Done<T> {
        done.or_else(|error| self.fail(error))
    }

    /// Opens the image and mounts what the policy lets it have.
    pub fn open(&self) -> Done<Parts> {
        let (file, writable) = self.or(open_file(self.source, self.read_only))?;
        let root = match self.root {
            Some(exec) => verity::of_root(exec, self.source),
            None => verity::beside(self.source, "root"),
        };
        let hashes = [("root", self.or(root)?), ("usr", self.or(verity::beside(self.source, "usr"))?)];
        let whole = Slice { partition: Partition::ROOT, offset: 0, size: 0, read_only: false, grows: false };
        let (slices, has_table) = match self.or(disk::content(&file, 0))? {
            Content::Unknown => match self.or(disk::partitions(&file))? {
                Some(slices) => (slices, true),
                None => {
                    return self.fail("there is no file system that is known, and no table of partitions");
                }
            },
            _ => (vec![whole], false),
        };
        let image = Image { file, writable, slices, hashes };
        let mut parts = Parts::new();
        // Without a table nothing but the root is asked about.
        for (name, place) in PLACES.into_iter().take(if has_table { PLACES.len() } else { 1 }) {
            let Some(partition) = Partition::named(name) else { continue };
            if let Some(slice) = self.allowed(partition, &image)? {
                parts.push((place, self.mount(&image, slice)?));
            }
        }
        for partition in Partition::all() {
            let is_placed = PLACES.iter().any(|(name, _)| *name == partition.name());
            if has_table && !is_placed && self.policy.rules.contains_key(&partition) {
                self.allowed(partition, &image)?;
            }
        }
        match parts.first() {
            None => self.fail("it has no partition that can be used"),
            Some(("", _)) => Ok(parts),
            // Without a root, what else there is stands in an empty one.
            Some(_) => {
                let flags = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
                let top = self.or(crate::sandbox::mount::file_system("tmpfs", &[("mode", "0755")], flags))?;
                for (place, _) in &parts {
                    let name = place.trim_start_matches('/').split('/').next().unwrap_or("usr");
                    let _ = rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755));
                }
                parts.insert(0, ("", top));
                Ok(parts)
            }
        }
    }

    /// Holds a partition against the policy. Nothing where it is not to be used.
    fn allowed<'s>(&self, partition: Partition, image: &'s Image) -> Done<Option<&'s Slice>> {
        let uses = self.policy.of(partition);
        let name = partition.name();
        let Some(slice) = image.slice(name) else {
            return match uses.allows(PartitionUse::ABSENT) {
                true => Ok(None),
                false => self.fail(format!("the policy wants a partition {name}")),
            };
        };
        let found = self.or(disk::content(&image.file, slice.offset))?;
        let is = match (image.hash(partition), found) {
            (Some(Hash { signature: Some(_), .. }), _) => PartitionUse::SIGNED,
            (Some(_), _) => PartitionUse::VERITY,
            (None, Content::Encrypted) => PartitionUse::ENCRYPTED,
            (None, Content::FileSystem(_) | Content::Unknown) => PartitionUse::UNPROTECTED,
        };
        // What is signed has a hash.
        let is_checked = is == PartitionUse::SIGNED && uses.allows(PartitionUse::VERITY);
        if uses.allows(is) || is_checked {
            return match uses.allows_flags(slice.read_only, slice.grows) {
                true => Ok(Some(slice)),
                false => self.fail(format!("the policy does not allow the flags of its partition {name}")),
            };
        }
        match uses.allows(PartitionUse::UNUSED) {
            true => Ok(None),
            false => self.fail(format!("the policy does not allow its partition {name} as it is")),
        }
    }

    fn mount(&self, image: &Image, slice: &Slice) -> Done<OwnedFd> {
        let name = slice.partition.name();
        let file = &image.file;
        let kind = match self.or(disk::content(file, slice.offset))? {
            Content::FileSystem(kind) => kind,
            Content::Encrypted => return self.fail(format!("its partition {name} is encrypted")),
            Content::Unknown => {
                return self.fail(format!("its partition {name} has no file system that is known"));
            }
        };
        let mine = self.options.iter().filter(|option| option.partition == slice.partition);
        let mut options: Vec<&str> = mine.flat_map(|option| option.options.split(',')).collect();
        let hash = image.hash(slice.partition);
        if self.read_only || slice.read_only || !image.writable || hash.is_some() {
            options.push("ro");
        }
        let read_only = options.contains(&"ro") || ["squashfs", "erofs"].contains(&kind);
        let device = self.or(Device::of(file, self.source, slice, read_only))?;
        let verity = hash.map(|hash| self.verity(image, hash, name, &device)).transpose()?;
        let path = verity.as_ref().map_or(&device.path, |verity| &verity.path);
        self.or(mount(path, kind, &options, read_only))
    }

    /// The data of a partition as far as it is what its hash stands for.
    fn verity(&self, image: &Image, hash: &Hash, name: &str, data: &Device) -> Done<Verity> {
        let whole = Slice { partition: Partition::ROOT, offset: 0, size: 0, read_only: true, grows: false };
        match (&hash.tree, image.slice(&format!("{name}-verity"))) {
            (_, Some(slice)) => {
                let tree = self.or(Device::of(&image.file, self.source, slice, true))?;
                self.or(Verity::of(hash, data, &tree, &image.file, slice.offset))
            }
            (Some(path), None) => {
                let (file, _) = self.or(open_file(path, true).map_err(|error| format!("{path}: {error}")))?;
                let tree = self.or(Device::of(&file, path, &whole, true))?;
                self.or(Verity::of(hash, data, &tree, &file, 0))
            }
            (None, None) => self.fail("it has a hash, and no tree of hashes"),
        }
    }
}

/// The policy that holds for an image.
pub fn policy(said: &Option<Box<ImagePolicy>>, otherwise: fn() -> ImagePolicy) -> ImagePolicy {
    said.as_deref().cloned().unwrap_or_else(otherwise)
}

/// What `RootImage=` or `RootMStack=` asks for, mounted on [`ROOT`]: the settings as they are with that for a root directory.
pub fn root(exec: &ExecSection) -> Done<Option<ExecSection>> {
    if let Some(directory) = exec.root_mstack().as_deref() {
        return mstack::root(exec, directory).map(Some);
    }
    let Some(source) = exec.root_image().as_deref() else { return Ok(None) };
    let policy = policy(exec.root_image_policy(), ImagePolicy::of_images);
    let directive = "RootImage=";
    let options = exec.root_image_options();
    let wish = Wish { directive, source, options, policy: &policy, read_only: false, root: Some(exec) };
    let parts = wish.open()?;
    wish.or(make_root())?;
    for (place, tree) in &parts {
        wish.or(put(ROOT, place, tree))?;
    }
    let mut rooted = exec.clone();
    *rooted.edit().root_directory() = Some(muster_unit::AbsolutePath(ROOT.to_owned()));
    Ok(Some(rooted))
}

/// Makes [`ROOT`] where it is missing.
fn make_root() -> rustix::io::Result<()> {
    match rustix::fs::mkdir(ROOT, Mode::from_raw_mode(0o755)) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// The word of systemd.unit(5), `ConditionArchitecture=`, for what this program was built for.
fn architecture() -> String {
    std::env::consts::ARCH.replace("x86_64", "x86-64").replace("aarch64", "arm64")
}

/// Puts a part of an image where it belongs below its top. One whose place the image does not have is left out.
pub fn put(top: &str, place: &str, tree: &OwnedFd) -> rustix::io::Result<()> {
    use rustix::fs::ResolveFlags;
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let above = rustix::fs::openat2(rustix::fs::CWD, top, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let place = if place.is_empty() { "." } else { place.trim_start_matches('/') };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&above, place, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        target => crate::sandbox::mount::attach(tree, target?),
    }
}

/// Opens an image for writing where that can be done and is not ruled out; says whether it was.
fn open_file(path: &str, read_only: bool) -> std::io::Result<(File, bool)> {
    let flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let open = |access| rustix::fs::open(path, flags | access, Mode::empty());
    let refusals = [rustix::io::Errno::ROFS, rustix::io::Errno::ACCESS, rustix::io::Errno::PERM];
    let (fd, writable) = match open(if read_only { OFlags::RDONLY } else { OFlags::RDWR }) {
        Err(error) if refusals.contains(&error) => (open(OFlags::RDONLY)?, false),
        fd => (fd?, !read_only),
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => Ok((fd.into(), writable)),
        FileType::Directory => Err(rustix::io::Errno::ISDIR.into()),
        _ => Err(rustix::io::Errno::NOTBLK.into()),
    }
}

/// A block device for a while: until it is mounted it has to stay open.
struct Device {
    path: String,
    _open: OwnedFd,
}

/// How often somebody else may be faster.
const ATTEMPTS: u32 = 64;

impl Device {
    /// A loop device with a part of an image.
    fn of(file: &File, source: &str, slice: &Slice, read_only: bool) -> std::io::Result<Device> {
        let is_device = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::BlockDevice;
        if is_device && slice.size == 0 {
            return Ok(Device { path: source.to_owned(), _open: file.try_clone()?.into() });
        }
        let about =
            |path: &str, error: std::io::Error| std::io::Error::new(error.kind(), format!("{path}: {error}"));
        let control = "/dev/loop-control";
        let control =
            File::options().read(true).write(true).open(control).map_err(|error| about(control, error))?;
        let mut last = std::io::ErrorKind::ResourceBusy.into();
        for _ in 0..ATTEMPTS {
            let number =
                muster_sys::free_loop(control.as_fd()).map_err(|error| about("/dev/loop-control", error))?;
            let path = format!("/dev/loop{number}");
            let device = File::options()
                .read(true)
                .write(!read_only)
                .open(&path)
                .map_err(|error| about(&path, error))?;
            let (size, offset) = (slice.size, slice.offset);
            match muster_sys::configure_loop(device.as_fd(), file.as_fd(), offset, size, read_only) {
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                    last = error
                }
                done => {
                    done.map_err(|error| about(&path, error))?;
                    return Ok(Device { path, _open: device.into() });
                }
            }
        }
        Err(about("/dev/loop-control", last))
    }
}

/// Options that are a mount's, not a file system's: word, what it sets, what it clears.
const ATTRIBUTES: [(&str, MountAttrFlags, MountAttrFlags); 13] = {
    use MountAttrFlags as A;
    let none = A::empty();
    [
        ("nosuid", A::MOUNT_ATTR_NOSUID, none),
        ("suid", none, A::MOUNT_ATTR_NOSUID),
        ("nodev", A::MOUNT_ATTR_NODEV, none),
        ("dev", none, A::MOUNT_ATTR_NODEV),
        ("noexec", A::MOUNT_ATTR_NOEXEC, none),
        ("exec", none, A::MOUNT_ATTR_NOEXEC),
        ("ro", A::MOUNT_ATTR_RDONLY, none),
        ("noatime", A::MOUNT_ATTR_NOATIME, none),
        ("strictatime", A::MOUNT_ATTR_STRICTATIME, none),
        ("relatime", none, none),
        ("nodiratime", A::MOUNT_ATTR_NODIRATIME, none),
        ("diratime", none, A::MOUNT_ATTR_NODIRATIME),
        ("nosymfollow", A::MOUNT_ATTR_NOSYMFOLLOW, none),
    ]
};

/// Words that mean nothing to the kernel.
fn is_for_others(option: &str) -> bool {
    ["", "rw", "defaults", "nofail", "auto", "noauto", "_netdev"].contains(&option)
        || option.starts_with("x-")
        || option.starts_with("X-")
}

/// Mounts a block device nowhere yet.
fn mount(device: &str, kind: &str, options: &[&str], read_only: bool) -> Result<OwnedFd, String> {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NODEV;
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| match error {
        rustix::io::Errno::NODEV => format!("this kernel has no {kind}"),
        error => error.to_string(),
    })?;
    // The kernel says more than a number where it can.
    let explain = |error: rustix::io::Errno| {
        let mut text = [0_u8; 256];
        let length = rustix::io::read(&context, &mut text).unwrap_or(0);
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or(&[])).trim().to_owned();
        let text = text.strip_prefix("e ").unwrap_or(&text);
        if text.is_empty() { format!("{kind}: {error}") } else { format!("{text}: {error}") }
    };
    rustix::mount::fsconfig_set_string(&context, "source", device).map_err(explain)?;
    if read_only {
        rustix::mount::fsconfig_set_flag(&context, "ro").map_err(explain)?;
        flags |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    for option in options.iter().filter(|option| !is_for_others(option)) {
        if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(word, ..)| word == option) {
            flags = (flags | *set).difference(*clear);
            continue;
        }
        match option.split_once('=') {
            Some((name, value)) => rustix::mount::fsconfig_set_string(&context, name, value),
            None => rustix::mount::fsconfig_set_flag(&context, *option),
        }
        .map_err(|error| format!("{option}: {}", explain(error)))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(explain)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(|error| error.to_string())
}
