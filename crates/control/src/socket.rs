//! `org.freedesktop.systemd1.Socket`: `[Socket]` and the state of a socket.
//!
//! What is not set shows systemd's default; the defaults are systemd.socket(5)'s.

use crate::command::{Commands, pid};
use crate::show::{Each, UNSET, or};
use crate::table::properties;
use crate::view::UnitView;
use crate::wire::Out;
use muster_manager::state::CommandList;
use muster_unit::setting::Size;
use muster_unit::{Attribute, Listen, LoadState, SocketProtocol};

fn size(size: Option<Size>) -> u64 {
    size.map_or(0, |size| size.0)
}

/// `Listen`: the directive's word and the address.
fn listen(listen: &Listen, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(listen.kind.as_str());
        out.str(&listen.address.to_string());
    });
}

/// `FileDescriptorName=`; without it systemd names the descriptors after the unit.
fn descriptor_name(u: &UnitView<'_>) -> String {
    match &u.socket().file_descriptor_name() {
        Some(name) => name.0.clone(),
        None if u.socket().accept() => "connection".to_owned(),
        None => u.unit.name.to_string(),
    }
}

/// `name=value` of `XAttrListen=` and kin.
fn attribute(attribute: &Attribute, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&attribute.name);
        out.str(&attribute.value);
    });
}

/// A default, which what is not loaded does not have.
fn known(u: &UnitView<'_>, default: i128) -> i128 {
    if u.unit.file.load_state == LoadState::Loaded { default } else { UNSET }
}

/// The number of a protocol (protocols(5)).
fn protocol(protocol: Option<SocketProtocol>) -> i32 {
    match protocol {
        None => 0,
        Some(SocketProtocol::UdpLite) => 136,
        Some(SocketProtocol::Sctp) => 132,
        Some(SocketProtocol::Mptcp) => 262,
    }
}

properties! {
    /// Properties of sockets.
    SOCKET: Unit(u) {
        BindIPv6Only "s" Const = u.socket().bind_ipv6_only().as_str();
        Backlog "u" Const = u.socket().backlog().min(i32::MAX.unsigned_abs());
        TimeoutUSec "t" Const = or(&u.socket().timeout_sec(), i128::from(u.manager.state().facts.default_timeout_start_usec));
        BindToDevice "s" Const = u.socket().bind_to_device();
        SocketUser "s" Const = u.socket().socket_user();
        SocketGroup "s" Const = u.socket().socket_group();
        SocketMode "u" Const = u.socket().socket_mode().0;
        DirectoryMode "u" Const = u.socket().directory_mode().0;
        Accept "b" Const = u.socket().accept();
        FlushPending "b" Const = u.socket().flush_pending();
        Writable "b" Const = u.socket().writable();
        KeepAlive "b" Const = u.socket().keep_alive();
        KeepAliveTimeUSec "t" Const = or(&u.socket().keep_alive_time_sec(), 0);
        KeepAliveIntervalUSec "t" Const = or(&u.socket().keep_alive_interval_sec(), 0);
        KeepAliveProbes "u" Const = or(&u.socket().keep_alive_probes(), 0);
        DeferAcceptUSec "t" Const = or(&u.socket().defer_accept_sec(), 0);
        NoDelay "b" Const = u.socket().no_delay();
        Priority "i" Const = or(&u.socket().priority(), -1);
        ReceiveBuffer "t" Const = size(u.socket().receive_buffer());
        SendBuffer "t" Const = size(u.socket().send_buffer());
        IPTOS "i" Const = u.socket().ip_tos().map_or(-1, |tos| tos.0);
        IPTTL "i" Const = or(&u.socket().ip_ttl(), -1);
        PipeSize "t" Const = size(u.socket().pipe_size());
        FreeBind "b" Const = u.socket().free_bind();
        Transparent "b" Const = u.socket().transparent();
        Broadcast "b" Const = u.socket().broadcast();
        PassCredentials "b" Const = u.socket().pass_credentials();
        PassFileDescriptorsToExec "b" Const = u.socket().pass_file_descriptors_to_exec();
        PassSecurity "b" Const = u.socket().pass_security();
        PassPacketInfo "b" Const = u.socket().pass_packet_info();
        Timestamping "s" Const = u.socket().timestamping().as_str();
        RemoveOnStop "b" Const = u.socket().remove_on_stop();
        Listen "a(ss)" Const = Each(u.socket().listen(), listen);
        Symlinks "as" Const = u.socket().symlinks();
        Mark "i" Const = or(&u.socket().mark(), -1);
        MaxConnections "u" Const = u.socket().max_connections();
        MaxConnectionsPerSource "u" Const = u.socket().max_connections_per_source();
        MessageQueueMaxMessages "x" Const = or(&u.socket().message_queue_max_messages(), 0);
        MessageQueueMessageSize "x" Const = or(&u.socket().message_queue_message_size(), 0);
        TCPCongestion "s" Const = u.socket().tcp_congestion();
        ReusePort "b" Const = u.socket().reuse_port();
        SmackLabel "s" Const = u.socket().smack_label();
        SmackLabelIPIn "s" Const = u.socket().smack_label_ip_in();
        SmackLabelIPOut "s" Const = u.socket().smack_label_ip_out();
        ControlPID "u" Change = pid(&u.socket_state().control);
        Result "s" Change = u.socket_state().result;
        NConnections "u" Never = u.socket_state().connections;
        NAccepted "u" Never = u.socket_state().accepted;
        NRefused "u" Never = u.socket_state().refused;
        FileDescriptorName "s" Never = descriptor_name(u);
        SocketProtocol "i" Const = protocol(u.socket().socket_protocol());
        TriggerLimitIntervalUSec "t" Const = or(&u.socket().trigger_limit_interval_sec(), known(u, 2_000_000));
        TriggerLimitBurst "u" Const = or(&u.socket().trigger_limit_burst(), known(u, if u.socket().accept() { 200 } else { 20 }));
        PollLimitIntervalUSec "t" Const = or(&u.socket().poll_limit_interval_sec(), known(u, 2_000_000));
        PollLimitBurst "u" Const = or(&u.socket().poll_limit_burst(), known(u, if u.socket().accept() { 150 } else { 15 }));
        UID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(uid, _)| uid);
        GID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(_, gid)| gid);
        ExecStartPre "a(sasbttttuii)" Invalidates = Commands::plain(u.socket().exec_start_pre(), &u.socket_state().command_status, CommandList::ExecStartPre);
        ExecStartPost "a(sasbttttuii)" Invalidates = Commands::plain(u.socket().exec_start_post(), &u.socket_state().command_status, CommandList::ExecStartPost);
        ExecStopPre "a(sasbttttuii)" Invalidates = Commands::plain(u.socket().exec_stop_pre(), &u.socket_state().command_status, CommandList::ExecStopPre);
        ExecStopPost "a(sasbttttuii)" Invalidates = Commands::plain(u.socket().exec_stop_post(), &u.socket_state().command_status, CommandList::ExecStopPost);
    }
}

properties! {
    /// Of sockets, of systemd releases after 257.
    SOCKET_NEWER: Unit(u) {
        AcceptFileDescriptors "b" Const = u.socket().accept_file_descriptors();
        PassPIDFD "b" Const = u.socket().pass_pidfd();
        DeferTrigger "s" Const = u.socket().defer_trigger().as_str();
        DeferTriggerMaxUSec "t" Const = or(&u.socket().defer_trigger_max_sec(), crate::show::UNSET);
        XAttrEntryPoint "a(ss)" Const = Each(u.socket().xattr_entry_point(), attribute);
        XAttrListen "a(ss)" Const = Each(u.socket().xattr_listen(), attribute);
        XAttrAccept "a(ss)" Const = Each(u.socket().xattr_accept(), attribute);
    }
}
