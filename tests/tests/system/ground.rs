//! What the cases stand on: the Debian root directory, the init under test, and a booted container or machine of them.

use crate::asked::Asked;
use anyhow::{Result, anyhow, bail};
use muster_tests::kernel::Kernel;
use muster_tests::machine::{AGENT, Emulator, Hands, Parts};
use muster_tests::{Builder, Container, cpio, image, paths};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime};

/// How long a boot may take; 0.5 s is usual.
pub const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The same for a machine whose processor is translated.
const MACHINE_LIMIT: Duration = Duration::from_secs(240);

/// What the machine's kernel gets: a loopback for vsock, a USB controller that is its own device, and functions for it; what
/// images need; block devices without and with a queue; a watchdog.
const MODULES: [&str; 15] = [
    "vsock_loopback",
    "vsock_diag",
    "dummy_hcd",
    "usb_f_fs",
    "dummy",
    "brd",
    "null_blk",
    "loop",
    "squashfs",
    "ext4",
    "crc32c_generic",
    "overlay",
    "dm_verity",
    "quota_v2",
    "softdog",
];

/// What shows the machine's firmware to its kernel: loaded before the init looks there, if this kernel has them as modules.
const EARLY_MODULES: [&str; 2] = ["dmi_sysfs", "qemu_fw_cfg"];

/// System credentials that the machine's maker passes.
const GIVEN: [&str; 4] = [
    "-smbios",
    "type=11,value=io.systemd.credential:muster.smbios=by-a-string,value=io.systemd.credential.binary:muster.binary=aGkA",
    "-fw_cfg",
    "name=opt/io.systemd.credentials/muster.file,string=by-a-file",
];

/// Who is process 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// What is under test.
    Muster,
    /// The oracle.
    Systemd,
}

impl FromStr for Init {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "muster" => Ok(Self::Muster),
            "systemd" => Ok(Self::Systemd),
            _ => bail!("no such init: {name}"),
        }
    }
}

/// A file system with quotas for projects, which the machine has no program to make.
fn quota_image(path: &Path) -> Result<()> {
    const MKFS: &str = "mkfs.ext4";
    image::need_program(MKFS, "e2fsprogs")?;
    File::create(path)?.set_len(16 << 20)?;
    let options = ["-q", "-O", "quota,project", "-E", "quotatype=prjquota"];
    let status = std::process::Command::new(MKFS).args(options).arg(path).status()?;
    if !status.success() {
        bail!("{MKFS} ended with {status}");
    }
    Ok(())
}

/// Everything built, ready for containers.
pub struct Ground {
    /// Who is process 1.
    pub init: Init,
    /// What the oracle was asked before, where it is the init.
    pub asked: Option<Asked>,
    debian: PathBuf,
    daemons: OnceLock<Result<PathBuf, String>>,
    machine: OnceLock<Result<Mutex<Hands>, String>>,
}

impl Ground {
    /// Builds the programs that are needed.
    pub fn build(init: Init) -> Result<()> {
        match init {
            Init::Muster => image::build_programs(),
            Init::Systemd => image::build(&["muster-demo"]),
        }
    }

    /// Makes the Debian root directory where it is missing. The oracle is asked `again` what it was asked before.
    pub fn prepare(init: Init, again: bool) -> Result<Self> {
        let debian = image::debian()?;
        let asked = (init == Init::Systemd).then(|| Asked::read(&debian, again)).transpose()?;
        Ok(Self { init, asked, debian, daemons: OnceLock::new(), machine: OnceLock::new() })
    }

    /// The one machine, booted for the first case that wants it; for one case at a time. The reason if it cannot be had.
    pub fn machine(&self) -> Result<MutexGuard<'_, Hands>, String> {
        let boot = || self.boot_machine().map(Mutex::new).map_err(|error| format!("{error:#}"));
        let machine = self.machine.get_or_init(boot).as_ref().map_err(Clone::clone)?;
        Ok(machine.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn boot_machine(&self) -> Result<Hands> {
        let kernel = Kernel::get()?;
        let emulator = Emulator::prepare(&kernel)?;
        let dir = std::env::temp_dir().join(format!("muster-machine-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("layer"))?;
        self.machine_layer(&kernel, &dir.join("layer"))?;
        let (initramfs, agent) = (dir.join("initramfs"), dir.join("agent"));
        cpio::write(&dir.join("layer"), &dir.join("layer.cpio"))?;
        cpio::write(&self.debian, &initramfs)?;
        std::io::copy(
            &mut File::open(dir.join("layer.cpio"))?,
            &mut File::options().append(true).open(&initramfs)?,
        )?;
        let machine = emulator.boot(&Parts {
            initramfs: &initramfs,
            memory: "1536",
            words: "systemd.unit=machine.target systemd.set_credential=muster.given:by-command-line lsm=lockdown,yama,apparmor,bpf",
            agent: Some(&agent),
            disk: None,
            more: &GIVEN,
        })?;
        let hands = Hands::reach(machine, &agent, MACHINE_LIMIT);
        // QEMU has read the one and listens on the other by now.
        fs::remove_dir_all(&dir)?;
        hands
    }

    /// What the machine has beside Debian: the init under test as /init, kernel modules, and the agent as its target.
    fn machine_layer(&self, kernel: &Kernel, layer: &Path) -> Result<()> {
        let put = |from: &Path, path: &str| -> Result<()> {
            let to = layer.join(path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap_or(layer))?;
            Ok(fs::copy(from, to).map(drop)?)
        };
        put(&paths::release().join("muster-demo"), image::DEMO)?;
        let init = match self.init {
            Init::Systemd => "/usr/lib/systemd/systemd",
            Init::Muster => {
                image::install(layer, false)?;
                image::MUSTER
            }
        };
        let demo = image::DEMO;
        let place = |files: Vec<PathBuf>| -> Result<String> {
            let mut paths = String::new();
            for file in files {
                let path =
                    format!("/usr/lib/modules/{}", file.file_name().unwrap_or_default().to_string_lossy());
                put(&file, &path)?;
                paths += &format!(" {path}");
            }
            Ok(paths)
        };
        let early = EARLY_MODULES.iter().filter_map(|name| kernel.modules(&[name]).ok()).flatten();
        let early = place(early.collect())?;
        let script = format!("#!/bin/sh\n{demo} load-modules{early}\nexec {init} \"$@\"\n");
        fs::write(layer.join("init"), script)?;
        fs::set_permissions(layer.join("init"), PermissionsExt::from_mode(0o755))?;
        let modules = place(kernel.modules(&MODULES)?)?;
        quota_image(&layer.join("usr/lib/quota.ext4"))?;
        self.without_generators(layer)?;
        let units = layer.join("etc/systemd/system");
        fs::create_dir_all(&units)?;
        fs::write(
            units.join("machine.target"),
            "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=agent.service\n",
        )?;
        fs::write(
            units.join("agent.service"),
            format!("[Service]\nExecStartPre={demo} load-modules{modules}\nExecStart={demo} agent {AGENT}\n"),
        )?;
        Ok(())
    }

    /// No case of the machine needs what a generator makes, and the eleven of Debian are four fifths of a reload that is
    /// translated. Containers and the machine from a disk run them.
    fn without_generators(&self, layer: &Path) -> Result<()> {
        let masks = layer.join("etc/systemd/system-generators");
        fs::create_dir_all(&masks)?;
        for generator in fs::read_dir(self.debian.join("usr/lib/systemd/system-generators"))? {
            symlink("/dev/null", masks.join(generator?.file_name()))?;
        }
        Ok(())
    }

    /// The same over the image with more daemons, which is made for the first case that wants it.
    pub fn daemons(&self) -> Result<Builder> {
        let make = || image::debian_of("daemons").map_err(|error| format!("{error:#}"));
        let root = self.daemons.get_or_init(make).as_ref().map_err(|reason| anyhow!("{reason}"))?;
        Ok(self.over(root, self.init))
    }

    /// A Debian 12 container, made for the case that wants it.
    pub fn bookworm(&self) -> Result<Builder> {
        Ok(self.over(&image::debian_of("bookworm")?, self.init))
    }

    /// A Debian container with the init under test and the demo program.
    pub fn debian(&self) -> Builder {
        self.debian_under(self.init)
    }

    /// A Debian container under this init.
    pub fn debian_under(&self, init: Init) -> Builder {
        self.over(&self.debian, init)
    }

    fn over(&self, root: &Path, init: Init) -> Builder {
        let demo = paths::release().join("muster-demo");
        let builder = Container::builder(root).copy(&demo, image::DEMO);
        match init {
            Init::Systemd => builder.init("/usr/lib/systemd/systemd"),
            Init::Muster => image::installed_files()
                .iter()
                .fold(builder, |builder, (from, to)| builder.copy(from, to))
                .init(image::MUSTER),
        }
    }
}

/// Makes a smaller boot: nothing beyond the sockets and the bus, and nothing of what only the first boot after an update does
/// (`ConditionNeedsUpdate=`), which Debian's packages have done.
pub fn basic(builder: Builder) -> Builder {
    let updated = |to: &Path| {
        // Whatever is added to /usr is older.
        File::create(to)?.set_modified(SystemTime::now() + Duration::from_secs(3600))
    };
    builder
        .change("etc/.updated", updated)
        .change("var/.updated", updated)
        .link("etc/systemd/system/default.target", "/usr/lib/systemd/system/basic.target")
}

/// Boots until `systemctl` says that it is done.
pub fn booted(builder: Builder) -> Result<Container> {
    booted_to(builder, "running|degraded")
}

/// Those of Debian's generators that have nothing to do in a container whose init gets no words: they look for partitions, a
/// hibernated system, a TPM. All eleven run in every container that boots as Debian does.
const IDLE_GENERATORS: [&str; 5] = [
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-run-generator",
    "systemd-system-update-generator",
    "systemd-tpm2-generator",
];

/// Without them: a boot or a reload takes as long as its generators.
pub fn without_idle_generators(builder: Builder) -> Builder {
    IDLE_GENERATORS.iter().fold(builder, |builder, name| {
        builder.link(&format!("etc/systemd/system-generators/{name}"), "/dev/null")
    })
}

/// Boots until `systemctl is-system-running` says one of these words. One that waits takes the place of dozens that ask; not for
/// long, since a boot may come to no end.
pub fn booted_to(builder: Builder, states: &str) -> Result<Container> {
    let container = builder.spawn()?;
    let ask = format!("timeout 3 systemctl is-system-running --wait | grep -qxE '{states}'");
    container.until(BOOT_LIMIT, &ask)?;
    Ok(container)
}
