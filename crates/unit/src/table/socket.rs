//! The table of `[Socket]`.
//! One row a directive: name(s) => field: type = default, whether it has an effect yet, whether specifiers are expanded.

use super::section;
use crate::setting::*;
use crate::value::*;

section! {
    /// `[Socket]` (systemd.socket(5)).
    SocketSection SocketRow "Socket" {
        "SocketProtocol" => socket_protocol: Option<SocketProtocol> = None, Applied Raw;
        "BindIPv6Only" => bind_ipv6_only: BindIpv6Only = Default::default(), Applied Raw;
        "Backlog" => backlog: u32 = u32::MAX, Applied Raw;
        "BindToDevice" => bind_to_device: Option<InterfaceName> = None, Applied Expand;
        "ExecStartPre" => exec_start_pre: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStartPost" => exec_start_post: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStopPre" => exec_stop_pre: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStopPost" => exec_stop_post: Vec<ExecCommand> = Default::default(), Applied Expand;
        "TimeoutSec" => timeout_sec: Option<Timespan> = None, Applied Raw;
        "SocketUser" => socket_user: Option<Account> = None, Applied Expand;
        "SocketGroup" => socket_group: Option<Account> = None, Applied Expand;
        "SocketMode" => socket_mode: FileMode = FileMode(0o666), Applied Raw;
        "DirectoryMode" => directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "Accept" => accept: bool = false, Applied Raw;
        "FlushPending" => flush_pending: bool = false, Applied Raw;
        "Writable" => writable: bool = false, Applied Raw;
        "MaxConnections" => max_connections: u32 = 64, Applied Raw;
        "MaxConnectionsPerSource" => max_connections_per_source: u32 = 0, Applied Raw;
        "KeepAlive" => keep_alive: bool = false, Applied Raw;
        "KeepAliveTimeSec" => keep_alive_time_sec: Option<Timespan> = None, Applied Raw;
        "KeepAliveIntervalSec" => keep_alive_interval_sec: Option<Timespan> = None, Applied Raw;
        "KeepAliveProbes" => keep_alive_probes: Option<u32> = None, Applied Raw;
        "DeferAcceptSec" => defer_accept_sec: Option<Timespan> = None, Applied Raw;
        "NoDelay" => no_delay: bool = false, Applied Raw;
        "Priority" => priority: Option<i32> = None, Applied Raw;
        "ReceiveBuffer" => receive_buffer: Option<Size> = None, Applied Raw;
        "SendBuffer" => send_buffer: Option<Size> = None, Applied Raw;
        "IPTOS" => ip_tos: Option<IpTos> = None, Applied Raw;
        "IPTTL" => ip_ttl: Option<i32> = None, Applied Raw;
        "Mark" => mark: Option<i32> = None, Applied Raw;
        "PipeSize" => pipe_size: Option<Size> = None, Applied Raw;
        "FreeBind" => free_bind: bool = false, Applied Raw;
        "Transparent" => transparent: bool = false, Applied Raw;
        "Broadcast" => broadcast: bool = false, Applied Raw;
        "PassCredentials" => pass_credentials: bool = false, Applied Raw;
        "PassPIDFD" => pass_pidfd: bool = false, Applied Raw;
        "PassSecurity" => pass_security: bool = false, Applied Raw;
        "PassPacketInfo" => pass_packet_info: bool = false, Applied Raw;
        "AcceptFileDescriptors" => accept_file_descriptors: bool = true, Applied Raw;
        "Timestamping" => timestamping: Timestamping = Default::default(), Applied Raw;
        "TCPCongestion" => tcp_congestion: Option<String> = None, Applied Raw;
        "ReusePort" => reuse_port: bool = false, Applied Raw;
        "MessageQueueMaxMessages" => message_queue_max_messages: Option<i64> = None, Applied Raw;
        "MessageQueueMessageSize" => message_queue_message_size: Option<i64> = None, Applied Raw;
        "RemoveOnStop" => remove_on_stop: bool = false, Applied Raw;
        "Symlinks" => symlinks: Vec<AbsolutePath> = Default::default(), Applied Expand;
        "FileDescriptorName" => file_descriptor_name: Option<FdName> = None, Applied Expand;
        "Service" => service: Option<ServiceName> = None, Applied Expand;
        "PassFileDescriptorsToExec" => pass_file_descriptors_to_exec: bool = false, Applied Raw;
        "TriggerLimitIntervalSec" => trigger_limit_interval_sec: Option<Timespan> = None, Applied Raw;
        "TriggerLimitBurst" => trigger_limit_burst: Option<u32> = None, Applied Raw;
        "PollLimitIntervalSec" => poll_limit_interval_sec: Option<Timespan> = None, Applied Raw;
        "PollLimitBurst" => poll_limit_burst: Option<u32> = None, Applied Raw;
        "DeferTrigger" => defer_trigger: DeferTrigger = Default::default(), Applied Raw;
        "DeferTriggerMaxSec" => defer_trigger_max_sec: Option<Timespan> = None, Applied Raw;
        "XAttrEntryPoint" => xattr_entry_point: Vec<Attribute> = Default::default(), Applied Expand;
        "XAttrListen" => xattr_listen: Vec<Attribute> = Default::default(), Applied Expand;
        "XAttrAccept" => xattr_accept: Vec<Attribute> = Default::default(), Applied Expand;
        "SmackLabel" => smack_label: Option<String> = None, Applied Expand;
        "SmackLabelIPIn" => smack_label_ip_in: Option<String> = None, Applied Expand;
        "SmackLabelIPOut" => smack_label_ip_out: Option<String> = None, Applied Expand;
        "SELinuxContextFromNet" => selinux_context_from_net: bool = false, Applied Raw;
        "TriggerLimitAction" => trigger_limit_action: TriggerLimitAction = Default::default(), Applied Raw;
        "ListenErrorAction" => listen_error_action: ListenErrorAction = Default::default(), Applied Raw;
    } also {
        listen: Vec<Listen>, "`Listen*=`.";
    }
}
