//! `KeyringMode=` (systemd.exec(5), keyrings(7)): a session keyring for the process, with the id of its run in it.

use super::{Direct, Step};
use crate::{Context, Exit};
use muster_sys::Step as Raw;
use muster_unit::KeyringMode;

/// Where the kernel refuses keyrings, or has none, the process keeps that of PID 1: systemd does not fail either.
pub const KEYRING: Step = Step {
    directive: "KeyringMode=",
    exit: Exit::Keyring,
    needed: |context| context.exec.keyring_mode() != KeyringMode::Inherit,
    direct: Direct::By(|context, draft| {
        // The user's keyring is that of whom the process becomes, which is the executor's to know.
        if context.exec.keyring_mode() == KeyringMode::Shared {
            return None;
        }
        draft.step(Raw::Keyring { invocation: invocation(context) }, Exit::Keyring)
    }),
    run: |context, process| {
        let shared = context.exec.keyring_mode() == KeyringMode::Shared;
        let owner = if shared && context.changes_identity() { process.owner() } else { (0, 0) };
        let made = muster_sys::own_keyring(owner, shared);
        if let (Ok(()), Some(invocation)) = (made, invocation(context)) {
            let _ = muster_sys::keep_invocation(&invocation);
        }
        Ok(())
    },
};

/// The id of the run in bytes.
fn invocation(context: &Context<'_>) -> Option<[u8; 16]> {
    let text = context.own_environment.iter().find_map(|line| line.strip_prefix("INVOCATION_ID="))?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}
