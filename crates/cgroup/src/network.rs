//! What the processes of a cgroup may do with the network, as programs that the kernel runs: `IPAddressAllow=`, `IPAddressDeny=`,
//! `RestrictNetworkInterfaces=` for each packet, `BindNetworkInterface=` for each socket(2), `SocketBindAllow=`, `SocketBindDeny=` for each bind(2)
//! (systemd.resource-control(5)).
//!
//! What must stay true: while a list is replaced, the old one holds until the new one does.

use crate::program::{COPY, JUMP_IF_NOT, LOAD_WORD, SET, replace, step, verdict};
use muster_sys::bpf::{Hook, Operation};
use muster_unit::{AddressPrefix, BindRule, CGroupSection};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// How our programs are known among others'.
const NAME: &str = "muster_network";
/// At most this many prefixes, so that every jump fits.
const PREFIXES_MAX: usize = 2000;

/// Sets what a cgroup may do with the network. `is_new`: nothing was set before.
pub fn apply(cgroup: BorrowedFd<'_>, config: &CGroupSection, is_new: bool) -> Result<(), String> {
    let prefixes = config.ip_address_allow().len().saturating_add(config.ip_address_deny().len());
    if prefixes > PREFIXES_MAX {
        return Err(format!("IPAddressAllow= and IPAddressDeny=: more than {PREFIXES_MAX} prefixes"));
    }
    let set = |hook, program: Option<Vec<Operation>>| match program {
        None if is_new => Ok(()),
        program => replace(cgroup, hook, NAME, program.as_deref()),
    };
    let failed = |what: &'static str| move |error: io::Error| format!("{what} does not hold: {error}");
    for hook in [Hook::Bind4, Hook::Bind6] {
        set(hook, binding(config)).map_err(failed("SocketBindAllow= or SocketBindDeny="))?;
    }
    for hook in [Hook::Ingress, Hook::Egress] {
        set(hook, packets(config, hook))
            .map_err(failed("IPAddressAllow=, IPAddressDeny= or RestrictNetworkInterfaces="))?;
    }
    Ok(())
}

/// Binds the sockets of a cgroup to an interface. An error says why nothing may run there.
pub fn bind(cgroup: BorrowedFd<'_>, config: &CGroupSection, is_new: bool) -> Result<(), String> {
    match bound(config)? {
        None if is_new => Ok(()),
        program => replace(cgroup, Hook::SockCreate, NAME, program.as_deref())
            .map_err(|error| format!("BindNetworkInterface= does not hold: {error}")),
    }
}

/// Whether anything is said about the network.
pub fn is_silent(config: &CGroupSection) -> bool {
    config.socket_bind_allow().is_empty()
        && config.socket_bind_deny().is_empty()
        && !filters_addresses(config)
        && config.restrict_network_interfaces().0.names.is_empty()
        && config.bind_network_interface().is_none()
}

fn filters_addresses(config: &CGroupSection) -> bool {
    !config.ip_address_allow().is_empty() || !config.ip_address_deny().is_empty()
}

const BYTES_IN_ORDER: u8 = 0xdc;
const JUMP_IF_LESS: u8 = 0xa5;
const JUMP_IF_MORE: u8 = 0x25;
const CALL: u8 = 0x85;
const ADD: u8 = 0x07;
const STORE_WORD: u8 = 0x63;
const JUMP: u8 = 0x05;
const JUMP_IF: u8 = 0x15;
/// Of the lower halves of registers.
const AND_WORD: u8 = 0x54;
const JUMP_IF_WORD_NOT: u8 = 0x56;

/// The program for socket(2): each socket of the Internet is the interface's from its beginning. The context (`struct bpf_sock`)
/// begins with the interface's number.
fn bound(config: &CGroupSection) -> Result<Option<Vec<Operation>>, String> {
    let Some(name) = config.bind_network_interface() else { return Ok(None) };
    let number = index(&name.0)
        .ok_or_else(|| format!("BindNetworkInterface={}: there is no such interface", name.0))?;
    let mut all = vec![step(SET, 0x02, 0, number), step(STORE_WORD, 0x21, 0, 0)];
    all.extend(verdict(true));
    Ok(Some(all))
}

/// The program for bind(2), if anything is said of it. The context (`struct bpf_sock_addr`) has the port at 24, the family at
/// 28, the protocol at 36.
fn binding(config: &CGroupSection) -> Option<Vec<Operation>> {
    let (allow, deny) = (config.socket_bind_allow(), config.socket_bind_deny());
    if allow.is_empty() && deny.is_empty() {
        return None;
    }
    // 2: port, 3: family, 4: protocol.
    let mut all = vec![
        step(LOAD_WORD, 0x12, 24, 0),
        step(BYTES_IN_ORDER, 0x02, 0, 16),
        step(LOAD_WORD, 0x13, 28, 0),
        step(LOAD_WORD, 0x14, 36, 0),
    ];
    for (rules, allowed) in [(allow, true), (deny, false)] {
        for rule in rules {
            all.extend(bind_rule(*rule, allowed));
            // The kernel takes no program with steps that are never reached.
            if *rule == BindRule::default() {
                return Some(all);
            }
        }
    }
    all.extend(verdict(true));
    Some(all)
}

/// A verdict for what matches a rule; what does not goes on behind it.
fn bind_rule(rule: BindRule, allowed: bool) -> Vec<Operation> {
    let mut tests: Vec<(u8, u8, u32)> = Vec::new();
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    tests.extend((rule.family != 0).then(|| (JUMP_IF_NOT, 3, number(rule.family))));
    tests.extend((rule.protocol != 0).then(|| (JUMP_IF_NOT, 4, number(rule.protocol))));
    if rule.count > 0 {
        let last = u32::from(rule.first).saturating_add(u32::from(rule.count).saturating_sub(1));
        tests.push((JUMP_IF_LESS, 2, u32::from(rule.first)));
        tests.push((JUMP_IF_MORE, 2, last));
    }
    let mut all = Vec::new();
    for (index, (code, register, value)) in tests.iter().enumerate() {
        let skipped = tests.len().saturating_sub(index).saturating_add(1);
        all.push(step(*code, *register, i16::try_from(skipped).unwrap_or(i16::MAX), *value));
    }
    all.extend(verdict(allowed));
    all
}

/// ETH_P_IP and ETH_P_IPV6, as the context has them.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// The address is read to the stack from here on.
const STACK: i16 = -16;

/// The program for packets, if anything is said of them. The context (`struct __sk_buff`) has the protocol at 16, the index of
/// the interface at 40. Coming in, the source decides; going out, the destination.
fn packets(config: &CGroupSection, hook: Hook) -> Option<Vec<Operation>> {
    let interfaces = &config.restrict_network_interfaces().0;
    if interfaces.names.is_empty() && !filters_addresses(config) {
        return None;
    }
    // 6: the context, which calls keep.
    let mut all = vec![step(COPY, 0x16, 0, 0)];
    if !interfaces.names.is_empty() {
        let known: Vec<u32> = interfaces.names.iter().filter_map(|name| index(name)).collect();
        all.extend(on_interfaces(&known, interfaces.allow));
        if interfaces.allow && known.is_empty() {
            return Some(all);
        }
    }
    if filters_addresses(config) {
        let (offset4, offset6) = if hook == Hook::Ingress { (12, 8) } else { (16, 24) };
        let four = addresses(config, offset4, 4);
        let six = addresses(config, offset6, 16);
        all.push(step(LOAD_WORD, 0x67, 16, 0));
        all.push(step(JUMP_IF_NOT, 0x07, length(&four), IPV4));
        all.extend(four);
        all.push(step(JUMP_IF_NOT, 0x07, length(&six), IPV6));
        all.extend(six);
    }
    all.extend(verdict(true));
    Some(all)
}

fn length(program: &[Operation]) -> i16 {
    i16::try_from(program.len()).unwrap_or(i16::MAX)
}

/// Leaves packets of these interfaces alone and drops the others, or the other way round.
fn on_interfaces(known: &[u32], allow: bool) -> Vec<Operation> {
    let mut all = vec![step(LOAD_WORD, 0x67, 40, 0)];
    for (index, number) in known.iter().enumerate() {
        match allow {
            // Those that are listed go on behind the verdict.
            true => {
                let behind = known.len().saturating_sub(index).saturating_mul(2);
                all.push(step(JUMP_IF_NOT, 0x07, 1, *number));
                all.push(step(JUMP, 0x00, i16::try_from(behind).unwrap_or(i16::MAX), 0));
            }
            false => {
                all.push(step(JUMP_IF_NOT, 0x07, 2, *number));
                all.extend(verdict(false));
            }
        }
    }
    if allow {
        all.extend(verdict(false));
    }
    all
}

/// The number of an interface; none where there is none of that name.
fn index(name: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// Reads an address of the packet, and ends with what the lists say of it.
fn addresses(config: &CGroupSection, offset: u32, bytes: u32) -> Vec<Operation> {
    let mut all = vec![
        // skb_load_bytes(context, offset, stack, bytes)
        step(COPY, 0x61, 0, 0),
        step(SET, 0x02, 0, offset),
        step(COPY, 0xa3, 0, 0),
        step(ADD, 0x03, 0, i32::from(STACK).cast_unsigned()),
        step(SET, 0x04, 0, bytes),
        step(CALL, 0x00, 0, 26),
        // A packet without an address goes nowhere.
        step(JUMP_IF, 0x00, 2, 0),
    ];
    all.extend(verdict(false));
    for (list, allowed) in [(config.ip_address_allow(), true), (config.ip_address_deny(), false)] {
        for prefix in list {
            let Some(tests) = match_prefix(prefix, bytes) else { continue };
            let whole = tests.is_empty();
            all.extend(tests);
            all.extend(verdict(allowed));
            if whole {
                return all;
            }
        }
    }
    all.extend(verdict(true));
    all
}

/// Skips the verdict behind it unless the address on the stack has the prefix; none for the other family.
fn match_prefix(prefix: &AddressPrefix, bytes: u32) -> Option<Vec<Operation>> {
    let octets: Vec<u8> = match prefix.address {
        IpAddr::V4(v4) if bytes == 4 => v4.octets().to_vec(),
        IpAddr::V6(v6) if bytes == 16 => v6.octets().to_vec(),
        _ => return None,
    };
    let mut words = Vec::new();
    let mut left = u32::from(prefix.length);
    for (number, word) in octets.chunks(4).enumerate() {
        let bits = left.min(32);
        left = left.saturating_sub(bits);
        if bits > 0 {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            let value = word.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
            let at = i16::try_from(number).unwrap_or(0).saturating_mul(4);
            // As the machine has the bytes in a word.
            words.push((STACK.saturating_add(at), mask.to_be(), value.to_be()));
        }
    }
    let mut all = Vec::new();
    for (index, (at, mask, value)) in words.iter().enumerate() {
        let behind = words.len().saturating_sub(index).saturating_sub(1).saturating_mul(3).saturating_add(2);
        all.push(step(LOAD_WORD, 0xa2, *at, 0));
        // Words of 32 bits: what the upper half would be is not compared.
        all.push(step(AND_WORD, 0x02, 0, *mask));
        all.push(step(JUMP_IF_WORD_NOT, 0x02, i16::try_from(behind).unwrap_or(i16::MAX), *value));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_unit::{CGroupRow, setting::Setting};

    fn prefixes(text: &str) -> Vec<AddressPrefix> {
        let mut list = Vec::new();
        let context = muster_unit::setting::Context {
            expand: &|text| Ok(text.to_owned()),
            expands: false,
            directive: "",
            lists: None,
        };
        assert!(list.set(text, &context).is_ok());
        list
    }

    /// Every jump ends inside of the program, and every step is reached: what the kernel looks at first.
    fn is_whole(program: &[Operation]) {
        let mut reached = vec![false; program.len()];
        let mut open = vec![0_usize];
        while let Some(at) = open.pop() {
            assert!(at < program.len(), "step {at} of {}", program.len());
            let Some(seen) = reached.get_mut(at) else { continue };
            if std::mem::replace(seen, true) {
                continue;
            }
            let step = program.get(at).copied();
            let Some(step) = step else { continue };
            let target =
                at.saturating_add(1).saturating_add(usize::try_from(step.offset.max(0)).unwrap_or(0));
            let jumps = matches!(step.code & 7, 5 | 6) && !matches!(step.code, 0x95 | CALL);
            open.extend(jumps.then_some(target));
            open.extend((!matches!(step.code, 0x95 | JUMP)).then_some(at.saturating_add(1)));
        }
        assert!(reached.iter().all(|seen| *seen), "{reached:?}");
    }

    #[test]
    fn programs_are_whole() {
        let rule = |text: &str| {
            let mut list = Vec::<BindRule>::new();
            let context = muster_unit::setting::Context {
                expand: &|text| Ok(text.to_owned()),
                expands: false,
                directive: "",
                lists: None,
            };
            assert!(list.set(text, &context).is_ok());
            list
        };
        for (allow, deny) in [("tcp:80", "any"), ("ipv4:udp:1-5", "ipv6"), ("any", "any"), ("0", "tcp")] {
            let config = CGroupSection::of([
                CGroupRow::socket_bind_allow(rule(allow)),
                CGroupRow::socket_bind_deny(rule(deny)),
            ]);
            is_whole(&binding(&config).unwrap_or_default());
        }
        for (allow, deny) in
            [("10.0.0.0/8 ::1", "any"), ("localhost", "10.1.0.0/13 fe80::/65"), ("any", "any")]
        {
            let config = CGroupSection::of([
                CGroupRow::ip_address_allow(prefixes(allow)),
                CGroupRow::ip_address_deny(prefixes(deny)),
            ]);
            for hook in [Hook::Ingress, Hook::Egress] {
                is_whole(&packets(&config, hook).unwrap_or_default());
            }
        }
        for (known, allow) in [(&[1, 2, 3][..], true), (&[1, 2], false), (&[], false)] {
            let mut program = vec![step(COPY, 0x16, 0, 0)];
            program.extend(on_interfaces(known, allow));
            program.extend(verdict(true));
            is_whole(&program);
        }
        assert!(is_silent(&CGroupSection::default()) && binding(&CGroupSection::default()).is_none());
    }
}
