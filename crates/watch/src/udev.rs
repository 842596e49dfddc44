//! Devices as udevd announces and remembers them: its monitor on netlink, and its database below /run/udev (udev(7)).
//!
//! udevd marks what PID 1 is to know of with the tag `systemd`. What must stay true: only root is believed; a message or a
//! database file of any shape is read with a cap, and what is not understood is passed over; what was announced while nobody
//! listened, or was lost, is found by [`enumerate`].

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::ucred;
use nix::sys::socket::sockopt::{PassCred, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
    recvmsg, setsockopt, socket,
};
use std::fs;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// The multicast group of what udevd has worked off; the kernel's own announcements are group 1.
const UDEV_GROUP: u32 = 2;
/// The longest message that is read, in bytes.
const MESSAGE_MAX: usize = 64 << 10;
/// The longest file of the database that is read, in bytes.
const RECORD_MAX: u64 = 64 << 10;
/// How many bytes of messages may wait, as the kernel counts them.
const QUEUE_MAX: usize = 8 << 20;
/// At most this many messages are taken in one go.
const MESSAGES_MAX: usize = 256;
/// At most this many devices are read from the database.
const DEVICES_MAX: usize = 65_536;
/// What begins a message of udevd, and the number behind it.
const PREFIX: &[u8; 8] = b"libudev\0";
const MAGIC: u32 = 0xfeed_cafe;
/// The tag of what PID 1 is to know of.
const TAG: &str = "systemd";
/// Names of the devices that have the tag, one an entry.
const TAGGED: &str = "/run/udev/tags/systemd";
/// A record for each device.
const RECORDS: &str = "/run/udev/data";

/// A device that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its directory in sysfs, below `/sys/devices`.
    pub syspath: String,
    /// Its node, as a path.
    pub node: Option<String>,
    /// Links to the node, as paths.
    pub links: Vec<String>,
    /// For a network interface its name.
    pub interface: Option<String>,
    /// `SYSTEMD_READY=` is not 0.
    pub ready: bool,
    /// `SYSTEMD_ALIAS=`: further paths that it is known by.
    pub aliases: Vec<String>,
    /// `SYSTEMD_WANTS=`: units to start when it is there.
    pub wants: Vec<String>,
    /// `SYSTEMD_MOUNT_DEVICE_BOUND=`: whether a mount of it goes when it goes.
    pub binds_mounts: Option<bool>,
    /// What a person would call it.
    pub model: Option<String>,
}

/// What is announced of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, and this is how it is now.
    Present(Device),
    /// The device of this sysfs path is gone, or no longer PID 1's business.
    Gone(String),
}

/// The monitor.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
    /// Made once: to clear it for each message would cost more than the message.
    buffer: Vec<u8>,
}

/// What was read of it in one go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The changes in order of arrival.
    pub changes: Vec<Change>,
    /// Some were lost: the whole is to be enumerated.
    pub lost: bool,
    /// Nothing waits any more.
    pub drained: bool,
}

impl Monitor {
    /// Begins to listen.
    pub fn open() -> io::Result<Monitor> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkKObjectUEvent)?;
        setsockopt(&socket, PassCred, &true)?;
        // What finds no room is lost, and then all devices are looked at.
        let _ = setsockopt(&socket, RcvBufForce, &QUEUE_MAX);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, UDEV_GROUP))?;
        Ok(Monitor { socket, buffer: vec![0; MESSAGE_MAX] })
    }

    /// Reads all queued announcements.
    pub fn read(&mut self) -> Announced {
        let mut announced = Announced::default();
        for _ in 0..MESSAGES_MAX {
            match self.receive() {
                Ok(Some(change)) => announced.changes.push(change),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    announced.drained = true;
                    break;
                }
                Err(Errno::ENOBUFS) => announced.lost = true,
                Err(_) => {
                    (announced.lost, announced.drained) = (true, true);
                    break;
                }
            }
        }
        announced
    }

    fn receive(&mut self) -> Result<Option<Change>, Errno> {
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let mut space = cmsg_space!(ucred);
        let message = recvmsg::<NetlinkAddr>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut controls = message.cmsgs()?;
        let from_root = controls.any(
            |control| matches!(control, ControlMessageOwned::ScmCredentials(sender) if sender.uid() == 0),
        );
        let to_group = message.address.is_some_and(|address| address.groups() == UDEV_GROUP);
        let whole = !message.flags.contains(MsgFlags::MSG_TRUNC);
        let length = message.bytes;
        if !(from_root && to_group && whole) {
            return Ok(None);
        }
        Ok(self.buffer.get(..length).and_then(parse_message))
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A message: a header that says where the properties are, and these as `NAME=VALUE`, each ended by a NUL.
fn parse_message(bytes: &[u8]) -> Option<Change> {
    let rest = bytes.strip_prefix(PREFIX)?;
    let word = |at: usize| {
        let end = at.checked_add(4)?;
        <[u8; 4]>::try_from(rest.get(at..end)?).ok()
    };
    if u32::from_be_bytes(word(0)?) != MAGIC {
        return None;
    }
    let number = |at: usize| usize::try_from(u32::from_ne_bytes(word(at)?)).ok();
    let (start, length) = (number(8)?, number(12)?);
    let properties = bytes.get(start..start.checked_add(length)?)?;
    let mut record = Record::default();
    let mut action = "";
    for property in properties.split(|byte| *byte == 0) {
        let Some((name, value)) = std::str::from_utf8(property).ok().and_then(|text| text.split_once('='))
        else {
            continue;
        };
        match name {
            "ACTION" => action = value,
            _ => record.take(name, value),
        }
    }
    if record.device.syspath.is_empty() {
        return None;
    }
    if action == "remove" || !record.tagged() {
        return Some(Change::Gone(record.device.syspath));
    }
    Some(Change::Present(record.finish()))
}

/// A device while its properties come in.
#[derive(Debug)]
struct Record {
    device: Device,
    tags: String,
    current_tags: Option<String>,
    from_database: Option<String>,
    model: Option<String>,
    label: Option<String>,
}

impl Default for Record {
    fn default() -> Self {
        let device = Device { ready: true, ..Device::default() };
        Self {
            device,
            tags: String::new(),
            current_tags: None,
            from_database: None,
            model: None,
            label: None,
        }
    }
}

impl Record {
    fn take(&mut self, name: &str, value: &str) {
        let words = || value.split_ascii_whitespace().map(str::to_owned).collect();
        let device = &mut self.device;
        match name {
            "DEVPATH" => device.syspath = format!("/sys{value}"),
            "DEVNAME" => device.node = Some(in_dev(value)),
            "DEVLINKS" => device.links = words(),
            "INTERFACE" => device.interface = Some(value.to_owned()),
            "SYSTEMD_READY" => device.ready = !matches!(value, "0" | "no" | "n" | "false" | "f" | "off"),
            "SYSTEMD_ALIAS" => device.aliases = words(),
            "SYSTEMD_WANTS" => device.wants = words(),
            "SYSTEMD_MOUNT_DEVICE_BOUND" => {
                device.binds_mounts = Some(matches!(value, "1" | "yes" | "y" | "true" | "t" | "on"));
            }
            "TAGS" => self.tags = value.to_owned(),
            "CURRENT_TAGS" => self.current_tags = Some(value.to_owned()),
            "ID_MODEL_FROM_DATABASE" => self.from_database = Some(value.to_owned()),
            "ID_MODEL" => self.model = Some(value.to_owned()),
            "ID_FS_LABEL" => self.label = Some(value.to_owned()),
            "ID_PART_ENTRY_NAME" | "ID_PART_ENTRY_NUMBER" => {
                self.label.get_or_insert_with(|| value.to_owned());
            }
            _ => {}
        }
    }

    /// A line of the database: a letter, a colon and what it means (`S` link, `E` property, `G` tag, `Q` current tag).
    fn take_line(&mut self, line: &str) {
        let Some((kind, value)) = line.split_once(':') else { return };
        match kind {
            "S" => self.device.links.push(in_dev(value)),
            "E" => {
                if let Some((name, value)) = value.split_once('=') {
                    self.take(name, value);
                }
            }
            "G" => self.tags.push_str(&format!(":{value}:")),
            "Q" => self.current_tags.get_or_insert_default().push_str(&format!(":{value}:")),
            _ => {}
        }
    }

    /// Whether it is PID 1's business. A tag that it once had does not count, where udevd tells which it has now.
    fn tagged(&self) -> bool {
        self.current_tags.as_ref().unwrap_or(&self.tags).split(':').any(|tag| tag == TAG)
    }

    fn finish(self) -> Device {
        let with_label = |model: String| match &self.label {
            Some(label) => format!("{model} {label}"),
            None => model,
        };
        let model = self.from_database.or_else(|| self.model.map(with_label));
        Device { model, ..self.device }
    }
}

fn in_dev(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/dev/{name}") }
}

/// All devices that udevd has tagged so far, from its database. None where there is no udevd.
pub fn enumerate() -> Vec<Device> {
    let entries = fs::read_dir(TAGGED).into_iter().flatten().flatten().take(DEVICES_MAX);
    entries.filter_map(|entry| read_record(entry.file_name().to_str()?)).collect()
}

fn read_record(id: &str) -> Option<Device> {
    let directory = fs::canonicalize(sysfs_of(id)?).ok()?;
    let mut record = Record::default();
    for line in read_capped(&directory.join("uevent"))?.lines() {
        if let Some((name, value)) = line.split_once('=') {
            record.take(name, value);
        }
    }
    record.device.syspath = directory.to_str().filter(|path| path.starts_with("/sys/"))?.to_owned();
    for line in read_capped(&Path::new(RECORDS).join(id))?.lines() {
        record.take_line(line);
    }
    record.tagged().then(|| record.finish())
}

/// Where sysfs has the device that the database calls so: by number of its node, by index of its interface, or by name.
fn sysfs_of(id: &str) -> Option<String> {
    let (kind, rest) = id.split_at_checked(1)?;
    if rest.contains('/') || rest.contains("..") {
        return None;
    }
    match kind {
        "b" => Some(format!("/sys/dev/block/{rest}")),
        "c" => Some(format!("/sys/dev/char/{rest}")),
        "n" => {
            let index = rest.parse().ok()?;
            let all = nix::net::if_::if_nameindex().ok()?;
            let name = all.iter().find(|interface| interface.index() == index)?.name().to_str().ok()?;
            Some(format!("/sys/class/net/{name}"))
        }
        "+" => {
            let (subsystem, name) = rest.split_once(':')?;
            let places =
                [format!("/sys/bus/{subsystem}/devices/{name}"), format!("/sys/class/{subsystem}/{name}")];
            places.into_iter().find(|place| Path::new(place).exists())
        }
        _ => None,
    }
}

fn read_capped(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(RECORD_MAX).read_to_end(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn message(properties: &[&str]) -> Vec<u8> {
        let body: Vec<u8> = properties.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect();
        let mut bytes = PREFIX.to_vec();
        bytes.extend(MAGIC.to_be_bytes());
        for word in [40_u32, 40, u32::try_from(body.len()).unwrap(), 0, 0, 0, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_disk_that_comes_and_goes() {
        let path = "DEVPATH=/devices/pci0/vda";
        let come = message(&[
            "ACTION=add",
            path,
            "DEVNAME=/dev/vda",
            "DEVLINKS=/dev/disk/by-id/a /dev/disk/by-path/b",
            "TAGS=:systemd:seat:",
            "CURRENT_TAGS=:systemd:",
            "SYSTEMD_WANTS=x.service",
            "ID_MODEL=Disk",
            "ID_PART_ENTRY_NUMBER=1",
        ]);
        let present = |change| match change {
            Change::Present(device) => Some(device),
            Change::Gone(_) => None,
        };
        let device = parse_message(&come).and_then(present).unwrap();
        assert_eq!(device.syspath, "/sys/devices/pci0/vda");
        assert_eq!(device.node.as_deref(), Some("/dev/vda"));
        assert_eq!(device.links, ["/dev/disk/by-id/a", "/dev/disk/by-path/b"]);
        assert_eq!((device.wants, device.ready), (vec!["x.service".to_owned()], true));
        assert_eq!(device.model.as_deref(), Some("Disk 1"));
        let gone = Some(Change::Gone("/sys/devices/pci0/vda".to_owned()));
        assert_eq!(parse_message(&message(&["ACTION=remove", path, "TAGS=:systemd:"])), gone);
        // It has lost its tag.
        assert_eq!(
            parse_message(&message(&["ACTION=change", path, "TAGS=:systemd:", "CURRENT_TAGS=:seat:"])),
            gone
        );
    }

    #[test]
    fn what_is_no_message_of_udevd() {
        let whole = message(&["ACTION=add", "DEVPATH=/devices/x", "TAGS=:systemd:"]);
        assert!(parse_message(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(parse_message(&whole[..length]), None, "cut to {length}");
        }
        assert_eq!(parse_message(b"add@/devices/x\0ACTION=add\0"), None);
        let mut far = whole;
        far[16..20].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(parse_message(&far), None);
    }

    #[test]
    fn a_record_of_the_database() {
        let mut record = Record::default();
        for line in [
            "S:disk/by-uuid/1",
            "I:77",
            "E:SYSTEMD_READY=0",
            "E:SYSTEMD_ALIAS=/dev/a /dev/b",
            "G:systemd",
            "V:1",
        ] {
            record.take_line(line);
        }
        assert!(record.tagged());
        let device = record.finish();
        assert_eq!(device.links, ["/dev/disk/by-uuid/1"]);
        assert_eq!((device.ready, device.aliases), (false, vec!["/dev/a".to_owned(), "/dev/b".to_owned()]));
        assert_eq!(sysfs_of("c4:64"), Some("/sys/dev/char/4:64".to_owned()));
        assert_eq!((sysfs_of("b../../x"), sysfs_of("")), (None, None));
    }
}
