//! What the cases stand on: the Debian root directory, the init under test, and a booted container of them.

use anyhow::{Result, bail};
use muster_tests::{Builder, Container, image};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How long a boot may take; 0.5 s is usual.
pub const BOOT_LIMIT: Duration = Duration::from_secs(60);

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

/// Everything built, ready for containers.
pub struct Ground {
    /// Who is process 1.
    pub init: Init,
    debian: PathBuf,
}

impl Ground {
    /// Builds the programs that are needed.
    pub fn build(init: Init) -> Result<()> {
        match init {
            Init::Muster => image::build_programs(),
            Init::Systemd => image::build(&["muster-demo"]),
        }
    }

    /// Makes the Debian root directory where it is missing.
    pub fn prepare(init: Init) -> Result<Self> {
        Ok(Self { init, debian: image::debian()? })
    }

    /// A Debian container with the init under test and the demo program.
    pub fn debian(&self) -> Builder {
        self.debian_under(self.init)
    }

    /// A Debian container under this init.
    pub fn debian_under(&self, init: Init) -> Builder {
        let demo = muster_tests::paths::release().join("muster-demo");
        let builder = Container::builder(&self.debian).copy(&demo, image::DEMO);
        match init {
            Init::Systemd => builder.init("/usr/lib/systemd/systemd"),
            Init::Muster => image::installed_files()
                .iter()
                .fold(builder, |builder, (from, to)| builder.copy(from, to))
                .init(image::MUSTER),
        }
    }
}

/// Makes a smaller boot: nothing beyond the sockets and the bus.
pub fn basic(builder: Builder) -> Builder {
    builder.link("etc/systemd/system/default.target", "/usr/lib/systemd/system/basic.target")
}

/// Boots until `systemctl` says that it is done.
pub fn booted(builder: Builder) -> Result<Container> {
    let container = builder.spawn()?;
    container.until(BOOT_LIMIT, "systemctl is-system-running | grep -qxE 'running|degraded'")?;
    Ok(container)
}
