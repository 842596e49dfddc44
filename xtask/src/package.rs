//! `cargo xtask package`: Debian packages of muster, and an archive for all else, with their checksums.
//!
//! `muster` brings programs, manual pages, completions and documents; `muster-sysv` makes it /sbin/init and gives that back
//! when it is removed. Control files and maintainer scripts are those of `packaging/`, written by hand; what is said of contents
//! is read from the contents.
//! What must stay true: the same commit gives the same bytes, whatever directory it lies in.

use crate::dist::{self, Release, Steps};
use crate::{man, sbom};
use anyhow::{Context, Result, bail};
use muster_tests::{image, paths};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs: where they lie, by directory of a root.
pub type Programs = Vec<(PathBuf, String)>;

/// What was made.
pub struct Packages {
    /// The package `muster`.
    pub muster: PathBuf,
    /// The package `muster-sysv`.
    pub sysv: PathBuf,
    /// The archive of the programs.
    pub archive: PathBuf,
    /// The checksums of them.
    pub sums: PathBuf,
}

/// Builds programs as they are released, and makes all of it in `to`.
pub fn run(to: &Path) -> Result<i32> {
    let mut steps = Steps::of(1 + STEPS);
    steps.next("building the programs (some minutes)");
    let programs = build()?;
    let made = make(&programs, to, &mut steps)?;
    for path in [&made.muster, &made.sysv, &made.archive, &made.sums] {
        dist::show(path)?;
    }
    Ok(0)
}

/// Builds the programs in a target directory of their own: no path of this machine is in them, and no profile set by an
/// environment changes them.
pub fn build() -> Result<Programs> {
    let target = paths::target().join("package");
    for (dir, linking, profile, packages) in [
        (
            "static",
            "+crt-static",
            "release",
            &["-p", "muster-init", "-p", "muster-exec", "-p", "muster-ctl"][..],
        ),
        ("dynamic", "-crt-static", "pam", &["-p", "muster-exec"][..]),
    ] {
        let mut command = cargo();
        command.args(["build", "--quiet", "--locked", "--profile", profile]).args(packages);
        command.arg("--target-dir").arg(target.join(dir)).env("CARGO_ENCODED_RUSTFLAGS", flags(linking)?);
        image::run(&mut command)?;
    }
    let place = |(_, name, dir): &(&str, &str, &str)| {
        let (linking, profile, built) = match *name {
            image::PAM_EXECUTOR => ("dynamic", "pam", "muster-executor"),
            name => ("static", "release", name),
        };
        let built_in = target.join(linking).join(image::triple()?).join(profile);
        Ok((built_in.join(built), format!("{dir}/{name}")))
    };
    image::PROGRAMS.iter().map(place).collect()
}

/// cargo in the workspace, whatever the profile of the caller's environment.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string()));
    let set = std::env::vars_os().map(|(name, _)| name);
    for name in set.filter(|name| name.to_string_lossy().starts_with("CARGO_PROFILE_")) {
        command.env_remove(name);
    }
    command.env_remove("RUSTFLAGS").current_dir(paths::workspace());
    command
}

/// Flags for rustc, as cargo takes them with spaces in paths: sources have the same names wherever they lie.
fn flags(linking: &str) -> Result<String> {
    let home = |variable: &str, below: &str| {
        let set = std::env::var_os(variable).map(PathBuf::from);
        set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(below))).context("no HOME is set")
    };
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [
        format!("-Ctarget-feature={linking}"),
        remap(&paths::workspace(), "/muster"),
        remap(&home("CARGO_HOME", ".cargo")?.join("registry/src"), "/crates"),
        remap(&home("RUSTUP_HOME", ".rustup")?, "/rust"),
    ];
    Ok(flags.join("\u{1f}"))
}

/// How many steps [`make`] tells of.
pub const STEPS: usize = 3;

/// Makes packages and archive of these programs.
pub fn make(programs: &Programs, to: &Path, steps: &mut Steps) -> Result<Packages> {
    image::need_program("dpkg-deb", "dpkg")?;
    image::need_program("strip", "binutils")?;
    fs::create_dir_all(to)?;
    image::run(
        Command::new("sh").args(["-c", "rm -f -- muster*.deb muster*.tar.gz SHA256SUMS"]).current_dir(to),
    )?;
    let release = Release::read()?;
    steps.next("programs and documents");
    let root = dist::scratch("muster")?;
    place_programs(programs, &root)?;
    place_manual(&root)?;
    let archive = archive(&root, &release, to)?;
    place_documents(&root, &release)?;
    let sysv = dist::scratch("muster-sysv")?;
    let doc = sysv.join("usr/share/doc");
    fs::create_dir_all(&doc)?;
    symlink("muster", doc.join("muster-sysv"))?;
    steps.next("the package muster");
    let muster = deb("muster", &root, &release, to)?;
    steps.next("the package muster-sysv");
    let sysv = deb("muster-sysv", &sysv, &release, to)?;
    Ok(Packages { muster, sysv, archive, sums: checksums(to)? })
}

fn place_programs(programs: &Programs, root: &Path) -> Result<()> {
    for (from, to) in programs {
        let to = root.join(to);
        image::copy(from, &to)?;
        image::run(Command::new("strip").args(["--strip-unneeded", "--remove-section=.comment"]).arg(&to))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Manual pages, packed as Debian has them, and completions.
fn place_manual(root: &Path) -> Result<()> {
    let placed = man::write(root)?;
    placed
        .iter()
        .filter(|path| path.starts_with(root.join("usr/share/man")))
        .try_for_each(|page| dist::gzip(page).map(drop))
}

/// What lies in /usr/share/doc/muster, and what lintian is told.
fn place_documents(root: &Path, release: &Release) -> Result<()> {
    let (doc, workspace) = (root.join("usr/share/doc/muster"), paths::workspace());
    fs::create_dir_all(&doc)?;
    let linked = sbom::linked()?;
    fs::write(doc.join("sbom.cdx.json"), sbom::cyclonedx(&linked, release)?)?;
    fs::write(doc.join("third-party.txt"), sbom::notices(&linked)?)?;
    dist::gzip(&doc.join("third-party.txt"))?;
    let licence = fs::read_to_string(workspace.join("LICENSE"))?;
    fs::write(doc.join("copyright"), copyright(&licence))?;
    let date = dist::output(Command::new("date").args(["-Ru", "-d"]).arg(format!("@{}", release.epoch)))?;
    fs::write(doc.join("changelog"), changelog(release, date.trim()))?;
    dist::gzip(&doc.join("changelog"))?;
    image::copy(&workspace.join("CHANGELOG.md"), &doc.join("NEWS.md"))?;
    dist::gzip(&doc.join("NEWS.md"))?;
    for page in fs::read_dir(workspace.join("docs"))? {
        let page = page?.path();
        if page.extension().is_some_and(|extension| extension == "md" || extension == "svg") {
            image::copy(&page, &doc.join(page.file_name().context("a page has a name")?))?;
        }
    }
    Ok(())
}

/// As the machine-readable format of Debian has it: an empty line of a text is a dot.
fn copyright(licence: &str) -> String {
    let body = licence.lines().skip_while(|line| !line.starts_with("Permission"));
    let body: String =
        body.map(|line| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }).collect();
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: muster\n\
         Comment: Crates of others are linked into the programs: sbom.cdx.json lists\n them, and third-party.txt.gz has their licences.\n\n\
         Files: *\nCopyright: 2026 The muster authors\nLicense: MIT\n\nLicense: MIT\n{body}"
    )
}

fn changelog(release: &Release, date: &str) -> String {
    let maintainer = "The muster authors <muster@example.org>";
    format!(
        "muster ({}) unstable; urgency=medium\n\n  * NEWS.md.gz beside this file says what changed.\n\n -- {maintainer}  {date}\n",
        release.version
    )
}

/// One package of a directory: what `packaging/NAME` holds is its control data.
fn deb(name: &str, root: &Path, release: &Release, to: &Path) -> Result<PathBuf> {
    let source = paths::workspace().join("packaging").join(name);
    let architecture = dist::architecture()?;
    let size = dist::output(Command::new("du").args(["-sk", "--apparent-size"]).arg(root))?;
    let overrides = root.join("usr/share/lintian/overrides");
    image::copy(&source.join("lintian-overrides"), &overrides.join(name))?;
    readable(root)?;
    let sums = checksums_of_contents(root)?;
    let control = root.join("DEBIAN");
    fs::create_dir(&control)?;
    let text = fs::read_to_string(source.join("control"))?
        .replace("@VERSION@", &release.version)
        .replace("@ARCH@", architecture)
        .replace("@SIZE@", size.split_whitespace().next().unwrap_or("0"))
        .replace("@LIBC@", &libc_needed(root)?);
    fs::write(control.join("control"), text)?;
    fs::write(control.join("md5sums"), sums)?;
    for script in ["postinst", "prerm"] {
        image::copy(&source.join(script), &control.join(script))?;
        fs::set_permissions(control.join(script), fs::Permissions::from_mode(0o755))?;
    }
    let file = to.join(format!("{name}_{}_{}.deb", release.version, architecture));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(root).arg(&file);
    image::run(command.env("SOURCE_DATE_EPOCH", &release.epoch))?;
    Ok(file)
}

/// Modes do not follow the umask of who builds.
fn readable(root: &Path) -> Result<()> {
    image::run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(root))
}

fn checksums_of_contents(root: &Path) -> Result<String> {
    let find = "find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
    dist::output(Command::new("sh").args(["-c", find]).current_dir(root))
}

/// The newest glibc whose symbols the dynamic program wants.
fn libc_needed(root: &Path) -> Result<String> {
    let program = root.join("usr/lib/muster").join(image::PAM_EXECUTOR);
    if !program.exists() {
        return Ok(String::new());
    }
    let symbols = dist::output(Command::new("objdump").arg("-T").arg(program))?;
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let number = rest.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
        number.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()
    });
    let newest = versions.max().context("the dynamic executor wants no symbol of glibc")?;
    Ok(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

/// The programs as they lie in a root, with manual pages and completions: static, but for the executor that loads PAM.
fn archive(root: &Path, release: &Release, to: &Path) -> Result<PathBuf> {
    let file = to.join(format!("muster-{}-{}.tar", release.version, std::env::consts::ARCH));
    dist::tar(root, &["usr"], &["--owner=0", "--group=0"], &release.epoch, &file)?;
    dist::gzip(&file)
}

/// `SHA256SUMS` of what lies there, as sha256sum -c reads it.
fn checksums(dir: &Path) -> Result<PathBuf> {
    let sum = "LC_ALL=C; export LC_ALL; sha256sum -- *.deb *.tar.gz > SHA256SUMS";
    image::run(Command::new("sh").args(["-c", sum]).current_dir(dir))?;
    Ok(dir.join("SHA256SUMS"))
}

/// What lintian finds wrong, warnings and errors; an error where it finds an error.
pub fn lint(package: &Path) -> Result<String> {
    image::need_program("lintian", "lintian")?;
    let output =
        Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(package).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        bail!("lintian, {}:\n{said}", package.display());
    }
    Ok(said)
}
