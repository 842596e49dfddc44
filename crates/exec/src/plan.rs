//! The plan: all that the executor needs, as one serializable value (CBOR in a memfd).

use crate::Request;
use muster_unit::{ExecCommand, ExecSection};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything for one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The unit's name.
    pub unit: String,
    /// The command.
    pub command: ExecCommand,
    /// The context.
    pub exec: ExecSection,
    /// The manager's environment.
    pub base_environment: Vec<String>,
    /// What wins.
    pub own_environment: Vec<String>,
    /// Names of the passed descriptors, in order.
    pub fd_names: Vec<String>,
    /// A connection follows the passed descriptors.
    pub has_socket: bool,
    /// Set `WATCHDOG_PID`.
    pub set_watchdog_pid: bool,
    /// Make directories.
    pub make_directories: bool,
    /// Passed descriptors become non-blocking.
    pub non_blocking: bool,
}

impl Plan {
    /// The plan of a request.
    pub fn of(request: &Request<'_>) -> Plan {
        Plan {
            unit: request.unit.to_owned(),
            command: request.command.clone(),
            exec: request.exec.clone(),
            base_environment: request.base_environment.to_vec(),
            own_environment: request.own_environment.to_vec(),
            fd_names: request.fds.iter().map(|(_, name)| name.clone()).collect(),
            has_socket: request.stdio_socket.is_some(),
            set_watchdog_pid: request.set_watchdog_pid,
            make_directories: request.make_directories,
            non_blocking: request.non_blocking,
        }
    }
}

/// Expands `$VAR` and `${VAR}` in arguments (systemd.service(5), "Command Lines"): a word that is `$VAR` alone is split
/// at white space, within a word the value stands as it is; `$$` is a dollar.
pub fn expand_arguments(argv: &[String], environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut out = Vec::new();
    for word in argv {
        let alone = word.strip_prefix('$').filter(|name| muster_unit::setting::is_variable(name));
        match alone {
            Some(name) => out.extend(
                environment
                    .get(name)
                    .into_iter()
                    .flat_map(|value| value.split_whitespace())
                    .map(str::to_owned),
            ),
            None => out.push(expand_word(word, environment)),
        }
    }
    out
}

fn expand_word(word: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((head, tail)) = rest.split_once('$') {
        out.push_str(head);
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            out.push_str(environment.get(name).map_or("", String::as_str));
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_arguments() {
        let environment = BTreeMap::from([("A".to_owned(), "x y".to_owned())]);
        let argv = ["$A", "${A}z", "$$A", "a$B", "$NONE"].map(str::to_owned);
        assert_eq!(expand_arguments(&argv, &environment), ["x", "y", "x yz", "$A", "a$B"]);
    }
}
