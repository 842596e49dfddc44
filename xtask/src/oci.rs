//! `cargo xtask image oci`: a container image in the OCI's layout, Debian's smallest root file system with the package muster
//! in it, and muster as what it runs.
//!
//! Two layers: Debian's, and what the package brought. The layout is a directory that skopeo, umoci, podman and buildah read.

use crate::dist::{self, Release, Steps};
use anyhow::{Context, Result};
use muster_tests::image;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the image in its layout.
pub const TAG: &str = "latest";

/// What is thrown away of a root that was just made: package lists and logs.
pub const LEFTOVERS: [&str; 6] = [
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/log/apt",
    "var/log/dpkg.log",
    "var/log/bootstrap.log",
    "var/cache/ldconfig",
];

/// How many steps [`make`] tells of.
pub const STEPS: usize = 4;

/// Makes the image with this package in it; the directory of the layout.
pub fn make(muster: &Path, steps: &mut Steps) -> Result<PathBuf> {
    let release = Release::read()?;
    steps.next("a small Debian");
    let base = image::debian_of("oci")?;
    let root = dist::scratch("oci")?.join("root");
    image::run(Command::new("cp").arg("-a").arg(&base).arg(&root))?;
    clean(&root)?;
    let layout = dist::dir().join("muster-oci");
    let _ = fs::remove_dir_all(&layout);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    steps.next("its layer");
    let whole = layer(&root, &[".".to_owned()], &release, &blobs)?;
    steps.next("muster in it");
    image::run(Command::new("dpkg").arg("--root").arg(&root).args(["--log=/dev/null", "-i"]).arg(muster))?;
    clean(&root)?;
    steps.next("its layer");
    let package = layer(&root, &brought(&base, &root)?, &release, &blobs)?;
    describe(&[whole, package], &release, &layout, &blobs)?;
    fs::remove_dir_all(root)?;
    Ok(layout)
}

/// Empties what was left by the making.
pub fn clean(root: &Path) -> Result<()> {
    for path in LEFTOVERS.map(|name| root.join(name)) {
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
            fs::create_dir(&path)?;
        } else if path.exists() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What differs from the base: all that the package brought, and what dpkg wrote of it.
fn brought(base: &Path, root: &Path) -> Result<Vec<String>> {
    let mut paths = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let path = dir.join(entry?.file_name());
            let new = root.join(&path).symlink_metadata()?;
            let same = base.join(&path).symlink_metadata().is_ok_and(|old| {
                (old.mode(), old.len(), old.mtime()) == (new.mode(), new.len(), new.mtime())
            });
            if new.is_dir() {
                waiting.push(path.clone());
            }
            let is_new_dir = new.is_dir() && !base.join(&path).is_dir();
            if is_new_dir || (!same && !new.is_dir()) {
                paths.insert(path.to_str().context("a path that is not UTF-8")?.to_owned());
            }
        }
    }
    Ok(paths.into_iter().collect())
}

/// A layer: its digest packed, its digest unpacked, its size.
struct Layer {
    digest: String,
    diff: String,
    size: u64,
}

fn layer(root: &Path, names: &[String], release: &Release, blobs: &Path) -> Result<Layer> {
    let file = blobs.join("layer.tar");
    let recursion = if names == ["."] { "--recursion" } else { "--no-recursion" };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    dist::tar(root, &names, &[recursion], &release.epoch, &file)?;
    let diff = dist::sha256(&file)?;
    let packed = dist::gzip(&file)?;
    let digest = dist::sha256(&packed)?;
    let place = blobs.join(&digest);
    fs::rename(packed, &place)?;
    Ok(Layer { digest, diff, size: place.metadata()?.len() })
}

/// The image's configuration, its manifest, and the index that names it.
fn describe(layers: &[Layer], release: &Release, layout: &Path, blobs: &Path) -> Result<()> {
    let created =
        dist::output(Command::new("date").args(["-u", "+%FT%TZ", "-d"]).arg(format!("@{}", release.epoch)))?;
    let diffs: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.diff)).collect();
    let config = blob(
        blobs,
        &json!({
            "created": created.trim(),
            "architecture": dist::architecture()?,
            "os": "linux",
            "config": {
                "Entrypoint": [image::MUSTER],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"],
                "StopSignal": "SIGTERM",
                "Labels": { "org.opencontainers.image.title": "muster", "org.opencontainers.image.version": release.version,
                    "org.opencontainers.image.licenses": "MIT" },
            },
            "rootfs": { "type": "layers", "diff_ids": diffs },
            "history": [
                { "created": created.trim(), "created_by": "mmdebstrap" },
                { "created": created.trim(), "created_by": format!("dpkg -i muster {}", release.version) },
            ],
        }),
    )?;
    let of =
        |layer: &Layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer.digest, layer.size);
    let manifest = blob(
        blobs,
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config.0, config.1),
            "layers": layers.iter().map(of).collect::<Vec<_>>(),
        }),
    )?;
    let mut named = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest.0, manifest.1);
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": TAG });
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [named] }).to_string())?;
    Ok(fs::write(layout.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?)
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

/// Stores a document under its digest; digest and size.
fn blob(blobs: &Path, value: &Value) -> Result<(String, u64)> {
    let file = blobs.join("document.json");
    fs::write(&file, value.to_string())?;
    let digest = dist::sha256(&file)?;
    let place = blobs.join(&digest);
    fs::rename(file, &place)?;
    Ok((digest, place.metadata()?.len()))
}
