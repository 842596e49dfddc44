//! A transient service that gets descriptors from who makes it (org.freedesktop.systemd1(5), `ExtraFileDescriptors`).

use crate::ask_bus::{Body, Manager};
use crate::churn::exec;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::fd::AsFd;

/// Starts UNIT with the files of `NAME=PATH`, in this order; what comes behind `--` is its command.
pub fn start(unit: &str, rest: &[&str]) -> Result<()> {
    let at = rest.iter().position(|word| *word == "--").context("-- COMMAND")?;
    let (files, command) = (&rest[..at], &rest[at + 1..]);
    let mut opened = Vec::new();
    for file in files {
        let (name, path) = file.split_once('=').context("NAME=PATH")?;
        opened.push((name, File::open(path).with_context(|| path.to_owned())?));
    }
    let mut body = Body::default();
    body.string(unit);
    body.string("fail");
    body.array(8, |body| {
        exec(body, command);
        body.property("ExtraFileDescriptors", "a(hs)", |body| {
            body.array(8, |body| {
                for (place, (name, _)) in opened.iter().enumerate() {
                    body.pad(8);
                    body.number(place as u32);
                    body.string(name);
                }
            });
        });
    });
    body.array(8, |_| ());
    let fds: Vec<_> = opened.iter().map(|(_, file)| file.as_fd()).collect();
    Manager::connect()?.call_with("StartTransientUnit", "ssa(sv)a(sa(sv))", body, &fds).map(drop)
}
