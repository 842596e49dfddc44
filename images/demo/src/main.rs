//! The demo service of the small image, and the probe that container tests use: one static program, many small modes.
//!
//! Everything it answers is read from what it was given (descriptors, environment, cgroup), so that a client sees the
//! activation as the service saw it.

mod agent;
mod ask_bus;
mod bench;
mod churn;
mod facts;
mod give;
mod hang;
mod notify;
mod options;
mod probe;
mod root_disk;
mod sees;
mod serve;
mod shortage;

use anyhow::{Result, bail};

const USAGE: &str = "muster-demo MODE
  serve [--once]        answers on every descriptor of LISTEN_FDS
  inetd                 answers on the connection on standard input
  accepted              answers on the connected descriptor 3
  ask ADDRESS           connects to a path, @abstract name or host:port, prints the answer
  far-end PATH          connects to a unix socket, prints the process at the far end
  connect ADDRESS       connects (vsock:CID:PORT too), and leaves
  mq-send NAME TEXT     sends a message to a queue
  options               prints what the kernel says about each of LISTEN_FDS
  facts                 prints LISTEN_*, cgroup, identity and the like
  sees                  prints what this process may do: identity, capabilities, limits, scheduling
  try CALL...           tries system calls ([i386:|x32:]NAME[,ARGUMENT...]), prints ok, the errno or the signal of each
  notify [--wait] LINE  sends lines to NOTIFY_SOCKET, then waits for a signal
  raw-notify PATH TEXT  sends text to a notify socket, whatever it is
  notify-main PID       names the main process of a service by a descriptor
  flood PATH SEC        sends datagrams to a notify socket without end
  peers PATH COUNT SEC  holds idle connections to a unix socket
  hex PATH HEX [STEP]   sends bytes to a unix socket, STEP at a time, prints how it went
  forge PATH COUNT      sends random datagrams and streams
  accept-bench ADDRESS COUNT PARALLEL
                        connects, reads to the end, prints microseconds (median, 90%) and connections a second
  load ADDRESS COUNT PARALLEL
                        connects, reads to the end, prints how many were answered, refused, and left without either
  flaky                 answers on standard output, and ends well or badly, by chance
  repeat COUNT COMMAND  runs a command again and again, prints microseconds (median, 90%)
  bus-time COUNT METHOD [TEXT...]
                        calls the manager over its private socket, prints microseconds (median, longest)
  churn PREFIX COUNT    makes transient units of seven kinds, COUNT of each, that end, fail, are refused or stopped
  give UNIT NAME=PATH... -- COMMAND...
                        starts a transient service with these files as descriptors
  spawn-floor COUNT COMMAND
                        forks and executes, prints the CPU time that took here, in microseconds
  fork-floor ADDRESS    an accept, fork and exec server: the floor under every activation
  agent DEVICE          runs scripts that come over a serial line
  load-modules FILE...  loads kernel modules
  hang-fs DIRECTORY     mounts a file system that does not answer
  spin-exit CODE        exits at once
  shortage NUMBER FILE PROGRAM ...
                        becomes a program whose system call of this number fails; its name is added to the file
As /init of an initramfs it goes on to the disk.";

fn main() -> Result<()> {
    if std::env::args().next().as_deref() == Some("/init") {
        return root_disk::boot();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve"] => serve::listeners(false),
        ["serve", "--once"] => serve::listeners(true),
        ["inetd"] => serve::connection(0),
        ["accepted"] => serve::connection(3),
        ["ask", address] => serve::ask(address),
        ["far-end", path] => probe::far_end(path),
        ["connect", address] => serve::connect(address).map(drop),
        ["mq-send", name, text] => probe::message(name, text.as_bytes()),
        ["options"] => serve::print(&options::report()?),
        ["facts"] => serve::print(&facts::gather()),
        ["sees"] => serve::print(&sees::report()),
        ["try", calls @ ..] => serve::print(&sees::attempts(calls)?),
        ["notify", "--wait", lines @ ..] => notify::send(lines).and_then(|()| notify::wait()),
        ["notify-main", pid] => notify::send_main(pid.parse()?),
        ["notify", lines @ ..] => notify::send(lines),
        ["raw-notify", path, text] => probe::datagram(path, text.as_bytes()),
        ["flood", path, seconds] => probe::flood(path, seconds.parse()?),
        ["peers", path, count, seconds] => probe::peers(path, count.parse()?, seconds.parse()?),
        ["hex", path, bytes] => probe::bytes(path, bytes, usize::MAX),
        ["hex", path, bytes, step] => probe::bytes(path, bytes, step.parse()?),
        ["forge", path, count] => probe::forge(path, count.parse()?),
        ["accept-bench", address, count, parallel] => {
            bench::accept(address, count.parse()?, parallel.parse()?)
        }
        ["load", address, count, parallel] => bench::load(address, count.parse()?, parallel.parse()?),
        ["flaky"] => bench::flaky(),
        ["repeat", count, command @ ..] => bench::repeat(count.parse()?, command),
        ["give", unit, rest @ ..] => give::start(unit, rest),
        ["bus-time", count, method, arguments @ ..] => ask_bus::time(count.parse()?, method, arguments),
        ["churn", prefix, count] => churn::run(prefix, count.parse()?),
        ["spawn-floor", count, command @ ..] => bench::spawn_floor(count.parse()?, command),
        ["fork-floor", address] => bench::floor(address),
        ["agent", device] => agent::serve(device),
        ["load-modules", paths @ ..] => agent::load_modules(paths),
        ["hang-fs", place] => hang::serve(place),
        ["shortage", place, report, program, arguments @ ..] => {
            shortage::run(place, report, program, arguments)
        }
        ["shortage-of", pid, place, report] => shortage::trace(pid.parse()?, place.parse()?, report),
        ["spin-exit", code] => std::process::exit(code.parse()?),
        _ => bail!("{USAGE}"),
    }
}
