//! Socket options: one row a directive.

use muster_unit::{SocketSection, Timespan};
use std::os::fd::BorrowedFd;

const SOL_SOCKET: i32 = 1;
const IPPROTO_IP: i32 = 0;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_IPV6: i32 = 41;

/// Sets every option of the unit that fits the socket; gives those that the kernel refused.
pub fn apply(section: &SocketSection, fd: BorrowedFd<'_>) -> Vec<String> {
    let domain = muster_sys::get_option(fd, SOL_SOCKET, 39).unwrap_or(0);
    let kind = muster_sys::get_option(fd, SOL_SOCKET, 3).unwrap_or(0);
    let (unix, inet) = (domain == 1, domain == 2 || domain == 10);
    let (v6, tcp, netlink) = (domain == 10, inet && kind == 1, domain == 16);
    let seconds = |span: Option<Timespan>| span.map(|span| number(span.0.div_ceil(1_000_000)));
    let on = |set: bool| set.then_some(1);
    let size = |size: Option<muster_unit::setting::Size>| size.map(|size| number(size.0));
    let stamps = (section.timestamping != muster_unit::Timestamping::Off).then_some(1);
    let stamp_option = if section.timestamping == muster_unit::Timestamping::Ns { 35 } else { 29 };
    let rows = [
        ("ReuseAddress", inet, SOL_SOCKET, 2, Some(1)),
        ("KeepAlive", tcp, SOL_SOCKET, 9, on(section.keep_alive)),
        ("KeepAliveTimeSec", tcp, IPPROTO_TCP, 4, seconds(section.keep_alive_time_sec)),
        ("KeepAliveIntervalSec", tcp, IPPROTO_TCP, 5, seconds(section.keep_alive_interval_sec)),
        (
            "KeepAliveProbes",
            tcp,
            IPPROTO_TCP,
            6,
            section.keep_alive_probes.map(|probes| number(probes.into())),
        ),
        ("DeferAcceptSec", tcp, IPPROTO_TCP, 9, seconds(section.defer_accept_sec)),
        ("NoDelay", tcp, IPPROTO_TCP, 1, on(section.no_delay)),
        ("Broadcast", inet, SOL_SOCKET, 6, on(section.broadcast)),
        ("PassCredentials", unix || netlink, SOL_SOCKET, 16, on(section.pass_credentials)),
        ("PassPIDFD", unix, SOL_SOCKET, 76, on(section.pass_pidfd)),
        ("PassSecurity", unix || netlink, SOL_SOCKET, 34, on(section.pass_security)),
        ("AcceptFileDescriptors", unix, SOL_SOCKET, 83, (!section.accept_file_descriptors).then_some(0)),
        ("PassPacketInfo", domain == 2, IPPROTO_IP, 8, on(section.pass_packet_info)),
        ("PassPacketInfo", v6, IPPROTO_IPV6, 49, on(section.pass_packet_info)),
        ("PassPacketInfo", netlink, 270, 3, on(section.pass_packet_info)),
        ("Timestamping", true, SOL_SOCKET, stamp_option, stamps),
        ("Priority", true, SOL_SOCKET, 12, section.priority),
        ("Mark", true, SOL_SOCKET, 36, section.mark),
        ("ReusePort", inet, SOL_SOCKET, 15, on(section.reuse_port)),
        ("IPTOS", inet, IPPROTO_IP, 1, section.ip_tos.map(|tos| tos.0)),
        ("IPTTL", inet, IPPROTO_IP, 2, section.ip_ttl),
        ("IPTTL", v6, IPPROTO_IPV6, 16, section.ip_ttl),
        ("FreeBind", inet, IPPROTO_IP, 15, on(section.free_bind)),
        ("Transparent", inet, IPPROTO_IP, 19, on(section.transparent)),
        ("Transparent", v6, IPPROTO_IPV6, 75, on(section.transparent)),
    ];
    let mut warnings = Vec::new();
    for (name, fits, level, option, value) in rows {
        if let (true, Some(value)) = (fits, value) {
            if let Err(error) = muster_sys::set_option(fd, level, option, value) {
                warnings.push(format!("{name}={value} was refused: {error}"));
            }
        }
    }
    for (name, forced, plain, value) in [
        ("ReceiveBuffer", 33, 8, size(section.receive_buffer)),
        ("SendBuffer", 32, 7, size(section.send_buffer)),
    ] {
        if let Some(value) = value {
            let set = muster_sys::set_option(fd, SOL_SOCKET, forced, value)
                .or_else(|_| muster_sys::set_option(fd, SOL_SOCKET, plain, value));
            warnings.extend(set.err().map(|error| format!("{name}={value} was refused: {error}")));
        }
    }
    for (name, fits, level, option, value) in [
        ("BindToDevice", inet, SOL_SOCKET, 25, &section.bind_to_device),
        ("TCPCongestion", tcp, IPPROTO_TCP, 13, &section.tcp_congestion),
    ] {
        if let (true, Some(value)) = (fits, value) {
            let set = muster_sys::set_option_bytes(fd, level, option, value.as_bytes());
            warnings.extend(set.err().map(|error| format!("{name}={value} was refused: {error}")));
        }
    }
    warnings
}

fn number(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
