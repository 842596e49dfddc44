//! `muster-executor`: carries out a plan and becomes the service. It alone looks up users, makes directories and may
//! block. Each step knows its exit status of systemd.exec(5); what fails is reported to PID 1 by name.
#![forbid(unsafe_code)]

use muster_exec::direct::candidates;
use muster_exec::environment::{Environment, assemble, expand_arguments};
use muster_exec::environment_file;
use muster_exec::{FIRST_FD, PLAN_FD, Plan, REPORT_FD};
use muster_unit::{CapabilitySet, ExecDirectory, Privilege, StdInput, StdOutput};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::ExitCode;

type Step<T = ()> = Result<T, (i32, String)>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, user, group] = arguments.as_slice() {
        return if mode == "--lookup" { look_up(user, group) } else { ExitCode::FAILURE };
    }
    let (plan, report) = (muster_sys::adopt_fd(PLAN_FD), muster_sys::adopt_fd(REPORT_FD));
    // Out of the way of the descriptors that the service gets.
    let report = fcntl(&report, FcntlArg::F_DUPFD_CLOEXEC(512)).map_or(report, muster_sys::adopt_fd);
    let tell = |text: String| {
        // Nobody to tell is no reason not to go on.
        let _ = send(report.as_raw_fd(), text.as_bytes(), MsgFlags::MSG_NOSIGNAL);
    };
    let outcome = read_plan(plan).and_then(|plan| run(&plan, &tell));
    let Err((status, message)) = outcome else { return ExitCode::SUCCESS };
    tell(format!("{status} {message}"));
    ExitCode::from(u8::try_from(status).unwrap_or(203))
}

/// Prints the numbers of a user and a group, which may be empty, or what is wrong.
fn look_up(user: &str, group: &str) -> ExitCode {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let no_user = |name: &str| format!("SocketUser={name}: there is no such user");
    let no_group = |name: &str| format!("SocketGroup={name}: there is no such group");
    let user = given(user).map(|name| find_user(&name).map_err(|_| no_user(&name))).transpose();
    let found = user.and_then(|user| {
        let group = given(group).map(|name| find_group(&name).map_err(|_| no_group(&name))).transpose()?;
        Ok((user.as_ref().map(|user| user.uid), group.or(user.map(|user| user.gid))))
    });
    let shown = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    match found {
        Ok((uid, gid)) => println!("owner {} {}", shown(uid), shown(gid)),
        Err(message) => println!("{message}"),
    }
    ExitCode::SUCCESS
}

fn step<T>(status: i32, what: &str, result: Result<T, impl std::fmt::Display>) -> Step<T> {
    result.map_err(|error| (status, format!("{what}: {error}")))
}

fn read_plan(fd: OwnedFd) -> Step<Plan> {
    let mut bytes = Vec::new();
    step(219, "plan", std::fs::File::from(fd).read_to_end(&mut bytes))?;
    step(219, "plan", ciborium::from_reader(bytes.as_slice()))
}

/// A user, as /etc/passwd or its number says.
#[derive(Clone, Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

fn run(plan: &Plan, tell: &dyn Fn(String)) -> Step {
    let exec = &plan.exec;
    let full = plan.command.privilege == Privilege::Full;
    let unprivileged =
        plan.command.privilege == Privilege::Normal || plan.command.privilege == Privilege::NoSetuidIfAmbient;
    let _ = setsid();
    muster_sys::reset_signals(if exec.ignore_sigpipe { &[13] } else { &[] });
    umask(Mode::from_bits_truncate(exec.umask.0));
    let user = exec.user.as_deref().map(find_user).transpose()?;
    let group = exec.group.as_deref().map(find_group).transpose()?;
    let gid = group.or(user.as_ref().map(|user| user.gid));
    let owner = (user.as_ref().map_or(0, |user| user.uid), gid.unwrap_or(0));
    if gid.is_some() {
        tell(format!("{}{} {}", muster_exec::RUNS_AS, owner.0, owner.1));
    }
    let fds = passed(plan)?;
    let socket = if plan.has_socket { fds.get(plan.fd_names.len()).copied() } else { None };
    if let Some(socket) = socket {
        set_blocking(socket, true);
    }
    let mut environment = environment(plan, user.as_ref())?;
    if plan.make_directories {
        make_directories(plan, owner, &mut environment)?;
    }
    stdio(plan, socket, &mut environment)?;
    limits(plan)?;
    scheduling(plan)?;
    place_fds(plan, &fds, &mut environment)?;
    if let Some(root) = exec.root_directory.as_deref().filter(|_| !full) {
        step(210, "RootDirectory=", nix::unistd::chroot(root))?;
    }
    working_directory(plan, user.as_ref())?;
    if !full {
        identity(plan, user.as_ref().filter(|_| unprivileged), gid.filter(|_| unprivileged))?;
    }
    if plan.context_from_peer {
        // The connection is a standard stream, or the one passed descriptor.
        let connection = muster_sys::borrow_fd(if plan.has_socket { 0 } else { 3 });
        let program = plan.command.path.as_str();
        step(229, "SELinuxContextFromNet=", muster_exec::selinux::follow_peer(connection, program))?;
    }
    become_program(plan, &environment)
}

/// Numbers of the passed descriptors as they are now.
fn passed(plan: &Plan) -> Step<Vec<i32>> {
    let count =
        plan.fd_names.len().saturating_add(usize::from(plan.has_socket)).saturating_add(plan.stdio.len());
    let count = i32::try_from(count).unwrap_or(0);
    Ok((FIRST_FD..FIRST_FD.saturating_add(count)).collect())
}

fn database(path: &str, wanted: &str, kind: &str) -> Option<Vec<String>> {
    let find = |text: &str| {
        let lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        let mut matching = lines.filter(|fields| {
            fields.first().is_some_and(|name| name == wanted) || fields.get(2).is_some_and(|id| id == wanted)
        });
        matching.next()
    };
    find(&std::fs::read_to_string(path).unwrap_or_default()).or_else(|| {
        // Users of a directory service: the C library's own tool asks it.
        let output = std::process::Command::new("getent").args([kind, wanted]).output().ok()?;
        find(&String::from_utf8_lossy(&output.stdout))
    })
}

fn find_user(wanted: &str) -> Step<User> {
    let entry = database("/etc/passwd", wanted, "passwd");
    let number = |fields: &[String], at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok());
    if let Some(fields) = entry {
        let text = |at: usize| fields.get(at).cloned().unwrap_or_default();
        if let (Some(uid), Some(gid)) = (number(&fields, 2), number(&fields, 3)) {
            return Ok(User { name: text(0), uid, gid, home: text(5), shell: text(6) });
        }
    }
    let uid = wanted.parse::<u32>().map_err(|_| (217, format!("user {wanted}: there is no such user")))?;
    Ok(User { name: wanted.to_owned(), uid, gid: uid, home: "/".to_owned(), shell: "/bin/sh".to_owned() })
}

fn find_group(wanted: &str) -> Step<u32> {
    let entry = database("/etc/group", wanted, "group").and_then(|fields| fields.get(2)?.parse().ok());
    entry.or_else(|| wanted.parse().ok()).ok_or((216, format!("group {wanted}: there is no such group")))
}

fn environment(plan: &Plan, user: Option<&User>) -> Step<Environment> {
    let mut login = Vec::new();
    if let Some(user) = user {
        // A user without a home or a shell of its own gets no variable that says so.
        let real = |value: &str| {
            !value.is_empty()
                && value != "/"
                && value != "/nonexistent"
                && !value.ends_with("/nologin")
                && !value.ends_with("/false")
        };
        let all =
            [("HOME", &user.home), ("LOGNAME", &user.name), ("USER", &user.name), ("SHELL", &user.shell)];
        login.extend(
            all.into_iter().filter(|(_, value)| real(value)).map(|(name, value)| (name, value.as_str())),
        );
    } else {
        login.push(("USER", "root"));
    }
    let mut from_files = Vec::new();
    for file in &plan.exec.environment_file {
        match std::fs::read_to_string(&file.path) {
            Ok(text) => from_files.extend(environment_file::parse(&text)),
            Err(_) if file.optional => {}
            Err(error) => return Err((1, format!("EnvironmentFile={}: {error}", file.path))),
        }
    }
    let me = std::process::id().to_string();
    let mut own = vec![("SYSTEMD_EXEC_PID", me.as_str())];
    if plan.set_watchdog_pid {
        own.push(("WATCHDOG_PID", me.as_str()));
    }
    let (base, made) = (&plan.base_environment, &plan.own_environment);
    Ok(assemble(base, &login, &plan.exec, &from_files, made, &own))
}

/// `RuntimeDirectory=` and its kin.
fn make_directories(plan: &Plan, (uid, gid): (u32, u32), environment: &mut Environment) -> Step {
    let exec = &plan.exec;
    let table: [(i32, &str, &str, &[ExecDirectory], u32); 5] = [
        (233, "RUNTIME_DIRECTORY", "/run", &exec.runtime_directory, exec.runtime_directory_mode.0),
        (238, "STATE_DIRECTORY", "/var/lib", &exec.state_directory, exec.state_directory_mode.0),
        (239, "CACHE_DIRECTORY", "/var/cache", &exec.cache_directory, exec.cache_directory_mode.0),
        (240, "LOGS_DIRECTORY", "/var/log", &exec.logs_directory, exec.logs_directory_mode.0),
        (
            241,
            "CONFIGURATION_DIRECTORY",
            "/etc",
            &exec.configuration_directory,
            exec.configuration_directory_mode.0,
        ),
    ];
    for (status, variable, base, directories, mode) in table {
        let mut paths = Vec::new();
        for directory in directories {
            let path = format!("{base}/{}", directory.path);
            // Those above it are for all to pass through.
            let own = umask(Mode::from_bits_truncate(0o022));
            let made = std::fs::create_dir_all(&path);
            umask(own);
            step(status, &path, made)?;
            step(status, &path, std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)))?;
            step(status, &path, chown(&path, Some(uid), Some(gid)))?;
            for link in &directory.symlinks {
                let _ = symlink(&path, format!("{base}/{link}"));
            }
            paths.push(path);
        }
        if !paths.is_empty() {
            environment.insert(variable.to_owned(), paths.join(":"));
        }
    }
    Ok(())
}

/// Puts a descriptor in place of 0, 1 or 2.
fn place(fd: impl AsFd, target: i32) -> Step {
    step(if target == 0 { 208 } else { 209 }, "standard streams", muster_sys::place_fd(fd.as_fd(), target))
}

fn open_at(path: &str, flags: OFlag, target: i32) -> Step {
    let fd = step(
        if target == 0 { 208 } else { 209 },
        path,
        open(path, flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::from_bits_truncate(0o644)),
    )?;
    place(fd, target)
}

/// `StandardInput=`.
fn standard_input(plan: &Plan, socket: Option<i32>, tty: &str) -> Step {
    let place_number = |number: i32, target: i32| place(borrow(number), target);
    match &plan.exec.standard_input {
        StdInput::Null => open_at("/dev/null", OFlag::O_RDONLY, 0)?,
        StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail => {
            open_at(tty, OFlag::O_RDWR, 0)?;
            let _ = muster_sys::take_terminal(
                std::io::stdin().as_fd(),
                plan.exec.standard_input == StdInput::TtyForce,
            );
        }
        StdInput::File(path) => {
            open_at(path, OFlag::O_RDWR, 0).or_else(|_| open_at(path, OFlag::O_RDONLY, 0))?
        }
        StdInput::Socket => {
            place_number(socket.ok_or((208, "StandardInput=socket: there is no socket".to_owned()))?, 0)?
        }
        StdInput::Fd(name) => place_number(
            named_fd(plan, name)
                .ok_or((208, format!("StandardInput=fd:{name}: there is none of that name")))?,
            0,
        )?,
        StdInput::Data => open_at("/dev/null", OFlag::O_RDONLY, 0)?,
    }
    Ok(())
}

/// What a client gave for one of the three, whatever the settings say.
fn given(plan: &Plan, target: i32) -> Option<i32> {
    let at = plan.stdio.iter().position(|number| *number == target)?;
    let before = plan.fd_names.len().saturating_add(usize::from(plan.has_socket));
    i32::try_from(before.saturating_add(at)).ok()?.checked_add(FIRST_FD)
}

fn stdio(plan: &Plan, socket: Option<i32>, environment: &mut Environment) -> Step {
    let exec = &plan.exec;
    let tty = exec.tty_path.clone().unwrap_or_else(|| "/dev/console".to_owned());
    let place_number = |number: i32, target: i32| place(borrow(number), target);
    match given(plan, 0) {
        Some(number) => place_number(number, 0)?,
        None => standard_input(plan, socket, &tty)?,
    }
    for (target, output) in [(1, &exec.standard_output), (2, &exec.standard_error)] {
        if let Some(number) = given(plan, target) {
            place_number(number, target)?;
            continue;
        }
        match output {
            // One file for both is opened once, so that neither overwrites the other.
            StdOutput::Inherit if target == 2 => place(std::io::stdout(), 2)?,
            same if target == 2 && same.is_file() && *same == exec.standard_output => {
                place(std::io::stdout(), 2)?
            }
            StdOutput::Inherit if exec.standard_input == StdInput::Null => {
                journal(plan, target, environment)?
            }
            StdOutput::Inherit => place(std::io::stdin(), target)?,
            StdOutput::Null => open_at("/dev/null", OFlag::O_WRONLY, target)?,
            StdOutput::Tty => open_at(&tty, OFlag::O_WRONLY, target)?,
            StdOutput::Journal | StdOutput::JournalConsole => journal(plan, target, environment)?,
            StdOutput::Kmsg | StdOutput::KmsgConsole => open_at("/dev/kmsg", OFlag::O_WRONLY, target)
                .or_else(|_| open_at("/dev/null", OFlag::O_WRONLY, target))?,
            StdOutput::File(path) => open_at(path, OFlag::O_WRONLY | OFlag::O_CREAT, target)?,
            StdOutput::Append(path) => {
                open_at(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND, target)?
            }
            StdOutput::Truncate(path) => {
                open_at(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, target)?
            }
            StdOutput::Socket => place_number(
                socket.ok_or((209, "StandardOutput=socket: there is no socket".to_owned()))?,
                target,
            )?,
            StdOutput::Fd(name) => place_number(
                named_fd(plan, name)
                    .ok_or((209, format!("StandardOutput=fd:{name}: there is none of that name")))?,
                target,
            )?,
        }
    }
    Ok(())
}

/// A descriptor that this process was started with.
fn borrow(number: i32) -> OwnedFd {
    muster_sys::adopt_fd(
        nix::fcntl::fcntl(muster_sys::borrow_fd(number), FcntlArg::F_DUPFD_CLOEXEC(FIRST_FD)).unwrap_or(2),
    )
}

fn named_fd(plan: &Plan, name: &str) -> Option<i32> {
    let at = plan.fd_names.iter().position(|known| known == name)?;
    i32::try_from(at).ok()?.checked_add(FIRST_FD)
}

/// Output to the journal; null when there is no journal yet.
fn journal(plan: &Plan, target: i32, environment: &mut Environment) -> Step {
    let address = UnixAddr::new(muster_exec::journal::STREAM);
    let connected = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|fd| connect(fd.as_raw_fd(), &address?).map(|()| fd));
    let Ok(fd) = connected else { return open_at("/dev/null", OFlag::O_WRONLY, target) };
    let header = muster_exec::journal::header(&plan.unit, &plan.command, &plan.exec);
    let mut stream = std::os::unix::net::UnixStream::from(fd);
    let _ = stream.shutdown(std::net::Shutdown::Read);
    if stream.write_all(header.as_bytes()).is_err() {
        return open_at("/dev/null", OFlag::O_WRONLY, target);
    }
    if let Ok(stat) = nix::sys::stat::fstat(&stream) {
        environment.insert("JOURNAL_STREAM".to_owned(), format!("{}:{}", stat.st_dev, stat.st_ino));
    }
    place(stream, target)
}

fn limits(plan: &Plan) -> Step {
    for (resource, soft, hard) in muster_exec::limits::of(&plan.exec) {
        let set = muster_sys::set_limit(resource, soft, hard);
        step(205, muster_exec::limits::name(resource), set)?;
    }
    Ok(())
}

fn scheduling(plan: &Plan) -> Step {
    let exec = &plan.exec;
    if let Some(score) = exec.oom_score_adjust {
        // Without the right to lower it (containers), the score stays as it is.
        match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            done => step(206, "OOMScoreAdjust=", done)?,
        }
    }
    if let Some(nice) = exec.nice {
        step(201, "Nice=", muster_sys::set_nice(nice))?;
    }
    if let Some(policy) = exec.cpu_scheduling_policy {
        use muster_unit::CpuPolicy::{Batch, Ext, Fifo, Idle, Other, Rr};
        let number = match policy {
            Other => 0,
            Fifo => 1,
            Rr => 2,
            Batch => 3,
            Idle => 5,
            Ext => 7,
        };
        let priority = exec
            .cpu_scheduling_priority
            .and_then(|priority| i32::try_from(priority).ok())
            .unwrap_or(i32::from(matches!(policy, Fifo | Rr)));
        // SCHED_RESET_ON_FORK (sched(7)).
        let number = if exec.cpu_scheduling_reset_on_fork { number | 0x4000_0000 } else { number };
        step(214, "CPUSchedulingPolicy=", muster_sys::set_scheduler(number, priority))?;
    }
    if let Some(class) = exec.io_scheduling_class {
        let level = exec.io_scheduling_priority.and_then(|level| i32::try_from(level).ok()).unwrap_or(4);
        step(211, "IOSchedulingClass=", muster_sys::set_io_priority(class as i32, level))?;
    }
    Ok(())
}

/// Moves the passed descriptors down to 3 and names them (sd_listen_fds(3)).
fn place_fds(plan: &Plan, fds: &[i32], environment: &mut Environment) -> Step {
    let count = plan.fd_names.len();
    for (target, fd) in (3_i32..).zip(fds.iter().take(count)) {
        let copy = borrow(*fd);
        step(202, "descriptors", muster_sys::place_fd(copy.as_fd(), target))?;
        set_blocking(target, !plan.non_blocking);
    }
    let first_extra = i32::try_from(count).unwrap_or(0).saturating_add(3);
    for fd in first_extra..FIRST_FD.saturating_add(i32::try_from(fds.len()).unwrap_or(0)) {
        let _ = fcntl(muster_sys::borrow_fd(fd), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    if count > 0 {
        environment.insert("LISTEN_PID".to_owned(), std::process::id().to_string());
        environment.insert("LISTEN_FDS".to_owned(), count.to_string());
        environment.insert("LISTEN_FDNAMES".to_owned(), plan.fd_names.join(":"));
    }
    Ok(())
}

/// Sets or clears O_NONBLOCK of an open file.
fn set_blocking(fd: i32, blocking: bool) {
    let fd = muster_sys::borrow_fd(fd);
    if let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) {
        let mut flags = OFlag::from_bits_retain(flags);
        flags.set(OFlag::O_NONBLOCK, !blocking);
        let _ = fcntl(fd, FcntlArg::F_SETFL(flags));
    }
}

fn working_directory(plan: &Plan, user: Option<&User>) -> Step {
    let wanted = plan.exec.working_directory.as_deref().unwrap_or("/");
    let (optional, path) = wanted.strip_prefix('-').map_or((false, wanted), |path| (true, path));
    let path = if path == "~" { user.map_or("/root", |user| user.home.as_str()) } else { path };
    match nix::unistd::chdir(path) {
        Err(_) if optional => step(200, "WorkingDirectory=", nix::unistd::chdir("/")),
        done => step(200, &format!("WorkingDirectory={path}"), done),
    }
}

/// Groups, user, capabilities, no-new-privileges, in the order that each leaves the right to do the next.
fn identity(plan: &Plan, user: Option<&User>, gid: Option<u32>) -> Step {
    let exec = &plan.exec;
    if let Some(CapabilitySet(bounding)) = exec.capability_bounding_set {
        for (number, _) in
            muster_unit::CAPABILITIES.iter().enumerate().filter(|(number, _)| (bounding >> number) & 1 == 0)
        {
            // PR_CAPBSET_DROP; a capability that the kernel does not know cannot be had either.
            let _ = muster_sys::process_control(24, u64::try_from(number).unwrap_or(0), 0);
        }
    }
    let ambient = exec.ambient_capabilities.0;
    if ambient != 0 {
        // PR_SET_KEEPCAPS over the change of user.
        let _ = muster_sys::process_control(8, 1, 0);
    }
    if let Some(gid) = gid {
        let mut groups: Vec<Gid> = user.map(|user| groups_of(&user.name)).unwrap_or_default();
        for name in &exec.supplementary_groups {
            groups.push(Gid::from_raw(find_group(name)?));
        }
        groups.push(Gid::from_raw(gid));
        step(216, "Group=", setgroups(&groups))?;
        step(216, "Group=", setgid(Gid::from_raw(gid)))?;
    }
    if let Some(user) = user {
        step(217, "User=", setuid(Uid::from_raw(user.uid)))?;
    }
    if ambient != 0 {
        let all: caps::CapsHashSet =
            caps::all().into_iter().filter(|cap| (ambient >> cap.index()) & 1 == 1).collect();
        step(218, "AmbientCapabilities=", caps::set(None, caps::CapSet::Inheritable, &all))?;
        step(218, "AmbientCapabilities=", caps::set(None, caps::CapSet::Ambient, &all))?;
    }
    if exec.no_new_privileges {
        step(227, "NoNewPrivileges=", muster_sys::process_control(38, 1, 0))?;
    }
    Ok(())
}

/// Groups that list a user in /etc/group.
fn groups_of(name: &str) -> Vec<Gid> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let listed = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        fields.get(3)?.split(',').any(|member| member == name).then(|| fields.get(2)?.parse().ok())?
    });
    listed.map(Gid::from_raw).collect()
}

fn become_program(plan: &Plan, environment: &Environment) -> Step {
    let argv = if plan.command.no_env_expand {
        plan.command.argv.clone()
    } else {
        expand_arguments(&plan.command.argv, environment)
    };
    let c_string = |text: &str| step(203, text, CString::new(text));
    let argv = argv.iter().map(|word| c_string(word)).collect::<Step<Vec<_>>>()?;
    let environment_block = environment
        .iter()
        .map(|(name, value)| c_string(&format!("{name}={value}")))
        .collect::<Step<Vec<_>>>()?;
    let path = &plan.command.path;
    let mut last = nix::errno::Errno::ENOENT;
    for candidate in candidates(&plan.command, &plan.exec, environment) {
        let Err(error) = nix::unistd::execve(&c_string(&candidate)?, &argv, &environment_block);
        last = if error == nix::errno::Errno::ENOENT { last } else { error };
    }
    Err((203, format!("{path}: {last}")))
}
