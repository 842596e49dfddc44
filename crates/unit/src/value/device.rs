//! `DeviceAllow=` (systemd.resource-control(5)): a device, and what may be done with it.

use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};

/// One device, or one kind of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// A path below /dev, or `char-NAME` or `block-NAME` of /proc/devices, where `*` and `?` stand for others.
    pub device: String,
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// A node may be made for it.
    pub make: bool,
}

impl DeviceRule {
    /// Reads `device` or `device access`.
    pub fn parse(text: &str) -> Result<DeviceRule, Fault> {
        let words = super::split_raw(text)?;
        let word = |at: usize| words.get(at).map_or("", |word| &*word.text);
        let place = |at: usize| words.get(at).map_or(0..0, |word| word.at.clone());
        let device = word(0);
        let access = if word(1).is_empty() { "rwm" } else { word(1) };
        let known = ["/dev/", "/run/systemd/inaccessible/", "block-", "char-"];
        if !known.iter().any(|known| device.starts_with(known)) || device.split('/').any(|part| part == "..")
        {
            let expected = "a path below /dev, char-NAME or block-NAME";
            return Err(Fault::new(Code::Path, device, expected).within(place(0)));
        }
        if !access.chars().all(|letter| "rwm".contains(letter)) || words.len() > 2 {
            let expected = "some of the letters r, w and m";
            return Err(Fault::new(Code::Value, access, expected).within(place(1)));
        }
        let has = |letter| access.contains(letter);
        Ok(DeviceRule { device: device.to_owned(), read: has('r'), write: has('w'), make: has('m') })
    }

    /// The letters of what may be done.
    pub fn access(&self) -> String {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.make, 'm')];
        letters.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
    }
}
