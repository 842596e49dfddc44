//! io.systemd.UserDatabase: users of `DynamicUser=` for nss-systemd(8), over varlink.

use crate::varlink::{Message, Refusal, invalid, unknown};
use muster_manager::Manager;
use serde_json::{Value, json};

/// The name that callers give for us.
const SERVICE: &str = "io.systemd.DynamicUser";

pub(crate) const DESCRIPTION: &str = "interface io.systemd.UserDatabase

method GetUserRecord(uid: ?int, userName: ?string, service: string) -> (record: object, incomplete: ?bool)
method GetGroupRecord(gid: ?int, groupName: ?string, service: string) -> (record: object, incomplete: ?bool)
method GetMemberships(userName: ?string, groupName: ?string, service: string) -> (userName: string, groupName: string)

error NoRecordFound()
error BadService()
error ServiceNotAvailable()
error ConflictingRecordFound()
error EnumerationNotSupported()
";

const NOT_FOUND: Refusal = Refusal::Plain("io.systemd.UserDatabase.NoRecordFound");

/// Answers a call.
pub(crate) fn dispatch(manager: &Manager, call: &Message) -> Result<Vec<Value>, Refusal> {
    match call.method.as_str() {
        "io.systemd.UserDatabase.GetUserRecord" => {
            find(manager, call, "userName", "uid").map(|found| found.into_iter().map(user).collect())
        }
        "io.systemd.UserDatabase.GetGroupRecord" => {
            find(manager, call, "groupName", "gid").map(|found| found.into_iter().map(group).collect())
        }
        "io.systemd.UserDatabase.GetMemberships" => check_service(call).and(Err(NOT_FOUND)),
        _ => Err(unknown(call)),
    }
}

fn check_service(call: &Message) -> Result<(), Refusal> {
    match call.parameters.get("service").and_then(Value::as_str) {
        None => Err(invalid("service")),
        Some(SERVICE) => Ok(()),
        Some(_) => Err(Refusal::Plain("io.systemd.UserDatabase.BadService")),
    }
}

type Found<'a> = (&'a str, u32);

/// The accounts that a call asks for: one by name or number, all with neither.
fn find<'a>(
    manager: &'a Manager,
    call: &Message,
    name_key: &str,
    number_key: &str,
) -> Result<Vec<Found<'a>>, Refusal> {
    check_service(call)?;
    let given = |key: &str| call.parameters.get(key).filter(|value| !value.is_null());
    let name = match given(name_key) {
        Some(value) => Some(value.as_str().ok_or_else(|| invalid(name_key))?),
        None => None,
    };
    let number = match given(number_key) {
        Some(value) => Some(value.as_u64().ok_or_else(|| invalid(number_key))?),
        None => None,
    };
    if (name, number) == (None, None) && !call.more {
        return Err(Refusal::Plain("org.varlink.service.ExpectedMore"));
    }
    let by_name: Option<Found<'a>> = match name {
        None => None,
        Some(name) => Some(all(manager).find(|(known, _)| *known == name).ok_or(NOT_FOUND)?),
    };
    let found: Vec<Found<'a>> = match (by_name, number) {
        (Some((_, known)), Some(number)) if u64::from(known) != number => {
            return Err(Refusal::Plain("io.systemd.UserDatabase.ConflictingRecordFound"));
        }
        (Some(found), _) => vec![found],
        (None, Some(number)) => {
            all(manager).filter(|(_, known)| u64::from(*known) == number).take(1).collect()
        }
        (None, None) => all(manager).collect(),
    };
    if found.is_empty() { Err(NOT_FOUND) } else { Ok(found) }
}

/// Names and numbers of all dynamic users and groups.
pub fn all(manager: &Manager) -> impl Iterator<Item = (&str, u32)> {
    let accounts = manager.state().accounts.iter().filter(|(_, account)| account.dynamic);
    accounts.filter_map(|(name, account)| Some((name.as_str(), account.number?)))
}

fn user((name, number): Found<'_>) -> Value {
    json!({ "record": {
        "userName": name, "uid": number, "gid": number, "realName": "Dynamic User", "homeDirectory": "/",
        "shell": "/usr/sbin/nologin", "locked": true, "service": SERVICE, "disposition": "dynamic",
    } })
}

fn group((name, number): Found<'_>) -> Value {
    json!({ "record": {
        "groupName": name, "description": "Dynamic Group", "gid": number, "service": SERVICE, "disposition": "dynamic",
    } })
}
