//! Nodes of a socket unit in the file system, and their end (systemd.socket(5), `RemoveOnStop=`).
//!
//! They may lie on a file system that does not answer. What must stay true: they are removed by somebody else, and while
//! that goes on the unit neither ends its run nor begins one.

use crate::directories::Things;
use crate::manager::Manager;
use crate::state::{CommandList, Port, SocketSub, UnitResult};
use muster_graph::UnitId;
use muster_unit::{ListenKind, SocketAddress, SocketSection};

impl Manager {
    /// Has the nodes of these descriptors go, where the unit says so.
    pub(super) fn remove_nodes(&mut self, id: UnitId, ports: &[Port]) {
        let Some(config) = self.socket_section(id).filter(|config| config.remove_on_stop()) else { return };
        let things = things_of(&config, ports);
        if !things.is_empty() {
            let span =
                config.timeout_sec().map_or(self.state.facts.default_timeout_start_usec, |span| span.0);
            let deadline = self.after(span);
            self.remove(id, things, false, deadline);
        }
    }

    /// They are gone: what waited for it goes on.
    pub(super) fn socket_removed(&mut self, id: UnitId, result: UnitResult) {
        let busy = self.socket(id).is_some_and(|socket| socket.control.is_some());
        match self.socket_sub(id) {
            SocketSub::StartChown => self.open_sockets(id),
            SocketSub::StopPreSigterm | SocketSub::StopPreSigkill if !busy => {
                self.note_socket_result(id, result);
                self.socket_list(id, SocketSub::StopPost, CommandList::ExecStopPost);
            }
            SocketSub::FinalSigterm | SocketSub::FinalSigkill if !busy => {
                self.note_socket_result(id, result);
                self.socket_over(id);
            }
            SocketSub::Dead
            | SocketSub::Failed
            | SocketSub::StartPre
            | SocketSub::StartPost
            | SocketSub::Listening
            | SocketSub::Deferred
            | SocketSub::Running
            | SocketSub::StopPre
            | SocketSub::StopPreSigterm
            | SocketSub::StopPreSigkill
            | SocketSub::StopPost
            | SocketSub::FinalSigterm
            | SocketSub::FinalSigkill => {}
        }
    }
}

/// Nodes and message queues of descriptors; the links that lead to the first node of the unit go with that.
fn things_of(config: &SocketSection, ports: &[Port]) -> Things {
    let mut things = Things::default();
    for listen in ports.iter().map(|port| &port.listen) {
        things.files.extend(listen.node().map(str::to_owned));
        if let (ListenKind::MessageQueue, SocketAddress::FilePath(name)) = (listen.kind, &listen.address) {
            things.queues.push(name.clone());
        }
    }
    let first = config.listen().iter().find_map(|listen| listen.node());
    if let Some(target) = first.filter(|node| things.files.iter().any(|file| file == node)) {
        let links = config.symlinks().iter().map(|link| (link.0.clone(), target.to_owned()));
        things.links.extend(links);
    }
    things
}
