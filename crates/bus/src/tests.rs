//! The peer against itself, against the bytes that sd-bus sends, and against noise.
//!
//! Every refusal here must be a `BusError`, never a panic and never a large allocation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::{BusError, Credentials, Kind, Limits, Outgoing, Peer};

fn server() -> Peer {
    Peer::server([0xab; 16], Credentials { uid: 0, gid: 0, pid: 7 }, true)
}

fn drain(peer: &mut Peer) -> (Vec<u8>, Vec<OwnedFd>) {
    let (mut all, mut passed) = (Vec::new(), Vec::new());
    while peer.wants_write() {
        let (bytes, fds) = peer.output();
        passed.extend(fds.iter().map(|fd| fd.try_clone_to_owned().unwrap()));
        all.extend_from_slice(bytes);
        let count = bytes.len();
        peer.sent(count);
    }
    (all, passed)
}

fn ready() -> Peer {
    let mut peer = server();
    peer.receive(b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n", Vec::new()).unwrap();
    drain(&mut peer);
    peer
}

fn encoded(message: &Outgoing) -> Vec<u8> {
    let mut header = message.header(1, None);
    header.extend_from_slice(message.body_bytes());
    header
}

fn call() -> Outgoing {
    Outgoing::method_call("a.b", "/x", "i.f", "Do").body("sas", |body| {
        body.write_str("one");
        body.write_strs(["two", "three"]);
    })
}

#[test]
fn sd_bus_handshakes() {
    let ok = "OK abababababababababababababababab\r\nAGREE_UNIX_FD\r\n";
    let cases = [
        ("\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n", format!("DATA\r\n{ok}")),
        ("\0AUTH EXTERNAL\r\nDATA 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n", format!("DATA\r\n{ok}")),
        ("\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n", ok.to_owned()),
        (
            "\0AUTH ANONYMOUS\r\nAUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n",
            format!("REJECTED EXTERNAL\r\n{ok}"),
        ),
    ];
    for (sent, answer) in cases {
        let mut whole = sent.as_bytes().to_vec();
        whole.extend(encoded(&call()));
        for step in [1, 3, whole.len()] {
            let mut peer = server();
            for part in whole.chunks(step) {
                peer.receive(part, Vec::new()).unwrap();
            }
            assert!(peer.is_ready() && peer.can_pass_fds());
            assert_eq!(String::from_utf8(drain(&mut peer).0).unwrap(), answer);
            assert_eq!(peer.next_message().unwrap().member(), Some("Do"));
        }
    }
}

#[test]
fn bad_handshakes_end_the_connection() {
    let long = [b"\0AUTH ".as_slice(), &[b'x'; 300]].concat();
    let cases: [&[u8]; 7] =
        [b"\n", b"\0\n", b"x", b"\0AUTH EXTERNAL\n", b"\0BEGIN\r\n", b"\0\xff\xfe\r\n", &long];
    for case in cases {
        for step in [1, case.len()] {
            let mut peer = server();
            let result = case.chunks(step).try_for_each(|part| peer.receive(part, Vec::new()));
            assert!(matches!(result, Err(BusError::Handshake(_))), "{case:?}: {result:?}");
            assert!(peer.receive(b"\0", Vec::new()).is_err() && !peer.is_ready());
        }
    }
    let mut peer = server();
    assert_eq!(peer.receive(b"\0AUTH EXTERNAL 31303030\r\n", Vec::new()), Ok(()));
    assert_eq!(drain(&mut peer).0, b"REJECTED EXTERNAL\r\n");
    assert_eq!(peer.send(&call()), Err(BusError::NotReady));
    let chatter = (0..1000).try_for_each(|_| peer.receive(b"AUTH\r\n", Vec::new()));
    assert_eq!(chatter, Err(BusError::Handshake("too long")));
}

#[test]
fn client_and_server_talk() {
    let (mut client, mut server) = (Peer::client(0), server());
    client.send(&Outgoing::method_call("a.b", "/", "i.f", "Early")).unwrap();
    server.receive(&drain(&mut client).0, Vec::new()).unwrap();
    client.receive(&drain(&mut server).0, Vec::new()).unwrap();
    assert!(client.is_ready());
    let early = server.next_message().unwrap();
    assert_eq!((early.member(), early.serial()), (Some("Early"), 1));

    let (mut near, far) = UnixStream::pair().unwrap();
    let with_fd = Outgoing::method_return(&early).body("h", |body| body.write_fd(OwnedFd::from(far)));
    server.send(&with_fd).unwrap();
    drop(with_fd);
    let (bytes, fds) = drain(&mut server);
    client.receive(&bytes, fds).unwrap();
    let mut reply = client.next_message().unwrap();
    assert_eq!((reply.kind(), reply.reply_serial(), reply.fds().len()), (Kind::MethodReturn, Some(1), 1));
    UnixStream::from(reply.take_fds().remove(0)).write_all(b"hi").unwrap();
    let mut got = [0; 2];
    near.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi");

    let mut refused = Peer::client(5);
    assert_eq!(refused.receive(b"REJECTED EXTERNAL\r\n", Vec::new()), Err(BusError::Rejected));
}

#[test]
fn bodies_agree_with_zbus() {
    let theirs = zbus::message::Message::method_call("/x", "Do");
    let theirs = theirs.interface("i.f").build(&("one", vec!["two", "three"])).unwrap();
    let mut peer = ready();
    for bytes in [theirs.data().to_vec(), encoded(&call())] {
        for byte in bytes {
            peer.receive(&[byte], Vec::new()).unwrap();
        }
        let message = peer.next_message().unwrap();
        assert_eq!(
            (message.path(), message.interface(), message.signature()),
            (Some("/x"), Some("i.f"), "sas")
        );
        let (one, rest): (String, Vec<String>) = message.body().unwrap();
        assert_eq!((one.as_str(), rest.len()), ("one", 2));
        assert!(message.body::<u32>().is_err());
    }
}

#[test]
fn announced_lengths_cost_nothing() {
    let header = |body: u32, fields: u32| {
        let mut out = vec![b'l', 1, 0, 1];
        [body, 1, fields].iter().for_each(|number| out.extend(number.to_le_bytes()));
        out
    };
    for (body, fields) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX), (4 << 20, 0)] {
        assert_eq!(ready().receive(&header(body, fields), Vec::new()), Err(BusError::TooLarge));
    }
    let mut peer = ready();
    assert_eq!(peer.receive(&header((4 << 20) - 16, 0), Vec::new()), Ok(()));
    assert!(peer.input_capacity() < 4096 && peer.next_message().is_none());
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let mut peer = ready().with_limits(Limits { queue: 1 << 20, ..Limits::default() });
    let signal = Outgoing::signal("/", "i.f", "S").body("ay", |body| body.write_bytes(&[7; 4096]));
    let error = (0..1000).find_map(|_| peer.send(&signal).err());
    assert_eq!(error, Some(BusError::SlowReader));
    assert!(!peer.wants_write() && peer.send(&signal).is_err());
}

#[test]
fn descriptors_must_be_claimed() {
    let fd = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let mut peer = ready();
    assert!(matches!(peer.receive(&encoded(&call()), vec![fd()]), Err(BusError::Descriptors(_))));
    let claims = Outgoing::signal("/", "i.f", "S").body("h", |body| body.write_fd(fd()));
    assert!(matches!(ready().receive(&encoded(&claims), Vec::new()), Err(BusError::Descriptors(_))));
}

/// xorshift, so that a failure can be repeated.
struct Noise(u64);
impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn noise_never_panics() {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let good = encoded(&call());
    let nested = encoded(&Outgoing::signal("/", "i.f", "S").body("v", |body| {
        body.begin_variant("a{sv}");
        body.begin_array(8);
        body.begin_property("p", "(ssb)");
        body.begin_struct();
        body.write_str("x");
        body.write_str("y");
        body.write_bool(true);
        body.end_array();
    }));
    for round in 0..20_000_u64 {
        let mut bytes = if round % 2 == 0 { good.clone() } else { nested.clone() };
        for _ in 0..=noise.next() % 4 {
            let at = usize::try_from(noise.next()).unwrap() % bytes.len();
            bytes[at] = noise.next().to_le_bytes()[0];
        }
        let mut peer = if round % 3 == 0 { server() } else { ready() };
        let _ = peer.receive(&bytes, Vec::new());
        while let Some(message) = peer.next_message() {
            let _ = message.body::<(String, Vec<String>)>();
            let _ = message.body::<crate::OwnedVariant>();
        }
    }
}

#[test]
fn variants_of_foreign_types_are_refused() {
    for inner in ["mi", "ami", "(mi)", "a{sm}", "r", "a", "(", "ii", ""] {
        let bytes = encoded(&Outgoing::signal("/", "i.f", "S").body("v", |body| {
            body.write_u8(u8::try_from(inner.len()).unwrap());
            inner.bytes().chain([0; 12]).for_each(|byte| body.write_u8(byte));
        }));
        let mut peer = ready();
        let _ = peer.receive(&bytes, Vec::new());
        let message = peer.next_message().unwrap();
        assert!(message.body::<crate::OwnedVariant>().is_err(), "{inner}");
    }
}
