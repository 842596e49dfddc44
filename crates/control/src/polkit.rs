//! polkit's part in authorization: the question whether a caller may do something, and what its answer means.
//!
//! Pure: the runtime sends the question and keeps the call until the answer is there. What must stay true: whatever is not
//! a clear yes is a refusal. (polkit(8); the details are those that rules for systemd look up: `unit` and `verb`.)

use crate::Call;
use crate::authorize::Right;
use crate::error::Refusal;
use crate::object::Object;
use crate::wire::Args;
use muster_bus::{Incoming, Kind, Outgoing};

const NAME: &str = "org.freedesktop.PolicyKit1";
const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";
/// AllowUserInteraction, a flag of CheckAuthorization.
const ALLOW_INTERACTION: u32 = 1;

/// What is done to a unit: the name of the method without "Unit", the verb in rules, and what a person is told.
const VERBS: &[(&str, &str, &str)] = &[
    ("Start", "start", "Authentication is required to start '$(unit)'."),
    ("StartTransient", "start", "Authentication is required to start transient unit '$(unit)'."),
    ("StartReplace", "start", "Authentication is required to start '$(unit)'."),
    ("Stop", "stop", "Authentication is required to stop '$(unit)'."),
    ("Reload", "reload", "Authentication is required to reload '$(unit)'."),
    ("Restart", "restart", "Authentication is required to restart '$(unit)'."),
    ("TryRestart", "try-restart", "Authentication is required to restart '$(unit)'."),
    ("ReloadOrRestart", "reload-or-restart", "Authentication is required to restart '$(unit)'."),
    ("ReloadOrTryRestart", "reload-or-try-restart", "Authentication is required to restart '$(unit)'."),
    ("Kill", "kill", "Authentication is required to send a UNIX signal to the processes of '$(unit)'."),
    (
        "QueueSignal",
        "kill",
        "Authentication is required to send a UNIX signal to the processes of '$(unit)'.",
    ),
    ("ResetFailed", "reset-failed", "Authentication is required to reset the \"failed\" state of '$(unit)'."),
    ("SetProperties", "set-property", "Authentication is required to set properties on '$(unit)'."),
    ("Ref", "ref", ""),
    ("Clean", "clean", ""),
    ("Freeze", "freeze", ""),
    ("Thaw", "thaw", ""),
    ("AttachProcesses", "attach-processes", ""),
];

/// A question for polkit, about one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the caller needs.
    pub right: Right,
    details: Vec<(&'static str, String)>,
    interactive: bool,
}

impl Question {
    /// About a call whose caller lacks `right`; none where polkit has no say, or the caller is not on the bus.
    pub(crate) fn about(call: &Call<'_>, right: Right) -> Option<Question> {
        call.message.sender()?;
        right.action()?;
        let details = details(call).unwrap_or_default();
        Some(Question { right, details, interactive: call.message.allow_interactive() })
    }

    /// CheckAuthorization, about the caller with this name on the bus.
    pub fn message(&self, caller: &str) -> Outgoing {
        let call = Outgoing::method_call(NAME, PATH, INTERFACE, "CheckAuthorization");
        let flags = if self.interactive { ALLOW_INTERACTION } else { 0 };
        call.body("(sa{sv})sa{ss}us", |body| {
            let mut out = crate::wire::Out(body);
            out.structure(|out| {
                out.str("system-bus-name");
                out.array("{sv}", |out| {
                    out.dict_entry(|out| {
                        out.str("name");
                        out.variant("s", |out| out.str(caller));
                    });
                });
            });
            out.str(self.right.action().unwrap_or_default());
            out.array("{ss}", |out| {
                for (key, value) in &self.details {
                    out.dict_entry(|out| {
                        out.str(key);
                        out.str(value);
                    });
                }
            });
            out.u32(flags);
            out.str("");
        })
    }
}

/// Which unit it is about and what is done to it, where the call says.
fn details(call: &Call<'_>) -> Option<Vec<(&'static str, String)>> {
    let unit = match call.object {
        Object::Unit(view) => view.unit.name.as_str().to_owned(),
        _ => Args::new(call.message).ok()?.str().ok()?,
    };
    let member = call.method.name.replace("Unit", "");
    let (_, verb, message) = VERBS.iter().find(|(name, ..)| *name == member)?;
    let mut details = vec![("unit", unit), ("verb", (*verb).to_owned())];
    if !message.is_empty() {
        details.push(("polkit.message", (*message).to_owned()));
        details.push(("polkit.gettext_domain", "systemd".to_owned()));
    }
    Some(details)
}

/// What polkit's answer means for the call. Where there is no polkit on the bus, only root may.
pub fn verdict(answer: &Incoming) -> Result<(), Refusal> {
    let denied = || Refusal::access_denied("Access denied");
    if answer.kind() == Kind::Error {
        let name = answer.error_name().unwrap_or_default();
        let absent =
            ["org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"];
        if absent.contains(&name) {
            return Err(denied());
        }
        let message = answer.body::<(String,)>().map(|text| text.0).unwrap_or_default();
        return Err(Refusal { name: name.to_owned(), message });
    }
    type Answer = ((bool, bool, std::collections::HashMap<String, String>),);
    match answer.body::<Answer>() {
        Ok(((true, ..),)) => Ok(()),
        Ok(((false, true, _),)) => Err(Refusal::interactive("Interactive authentication required.")),
        Ok(((false, false, _),)) | Err(_) => Err(denied()),
    }
}
