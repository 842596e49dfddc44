//! The execution context and the kill context, as every type that runs processes shows them.
//!
//! What is not set shows systemd's default, so that `systemctl show` reads the same on both.

use crate::show::{Each, Emit, Listed, UNSET, or};
use crate::table::properties;
use crate::view::UnitView;
use crate::wire::Out;
use muster_unit::{
    AddressFamilies, BindPath, CapabilitySet, CoredumpFilter, CpuAffinity, CpuPolicy, Credential,
    CredentialPattern, CredentialSource, EnvironmentFile, ExecDirectory, ExtensionImage, ImageOption,
    ImagePolicy, IoClass, LogPattern, MarkedPath, MountFlags, MountImage, NumaMask, NumberSet,
    PROCESSORS_MAX, Personality, PrivateUsers, ProtectControlGroups, RootHash, RootHashSignature,
    SecurityLabel, StdInput, StdOutput, SyscallAction, SyscallFilter, SyslogLevel, TemporaryMount, UnitKind,
    WorkingDirectory,
};

fn assignments(list: &[(String, String)]) -> Vec<String> {
    list.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// A directory that may be missing has a `!` before it.
fn working_directory(u: &UnitView<'_>) -> String {
    let shown =
        |wished: &WorkingDirectory| format!("{}{}", if wished.optional { "!" } else { "" }, wished.place());
    u.exec().working_directory().as_ref().map(shown).unwrap_or_default()
}

fn environment_file(file: &EnvironmentFile, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&file.path);
        out.bool(file.optional);
    });
}

fn is_loaded(u: &UnitView<'_>) -> bool {
    u.unit.file.is_whole()
}

/// `MountAPIVFS=`, which a root of its own turns on.
fn mounts_api(u: &UnitView<'_>) -> bool {
    u.exec().mount_api_vfs().unwrap_or_else(|| u.exec().has_own_root())
}

/// What the unit says, else what PID 1 has and its children inherit.
fn limit(u: &UnitView<'_>, name: &str, soft: bool) -> u64 {
    match u.exec().limit(name).or_else(|| u.manager.state().facts.config.limit(name)) {
        Some(limit) => {
            if soft {
                limit.soft
            } else {
                limit.hard
            }
        }
        None => u.live.resource_limit(name, soft).unwrap_or(u64::MAX),
    }
}

fn paths(directories: &[ExecDirectory]) -> Vec<String> {
    sorted(directories).map(|directory| directory.path.clone()).collect()
}

fn sorted(directories: &[ExecDirectory]) -> impl Iterator<Item = &ExecDirectory> {
    let mut sorted: Vec<&ExecDirectory> = directories.iter().collect();
    sorted.sort_by(|one, other| one.path.cmp(&other.path));
    sorted.into_iter()
}

/// Each directory with its links; one without any has an empty one.
fn links(directories: &[ExecDirectory]) -> impl Iterator<Item = (&str, &str)> {
    sorted(directories).flat_map(|directory| {
        let links = directory.symlinks.iter().map(String::as_str);
        let none = directory.symlinks.is_empty().then_some("");
        links.chain(none).map(|link| (directory.path.as_str(), link))
    })
}

fn link((path, link): (&str, &str), out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(path);
        out.str(link);
        out.u64(0);
    });
}

/// Classes by the number of ioprio_set(2); best effort by default.
fn io_class(class: Option<IoClass>) -> i32 {
    match class {
        Some(IoClass::Realtime) => 1,
        Some(IoClass::None | IoClass::BestEffort) | None => 2,
        Some(IoClass::Idle) => 3,
    }
}

/// Policies by the number of sched(7).
fn cpu_policy(policy: Option<CpuPolicy>) -> i32 {
    match policy {
        Some(CpuPolicy::Other) | None => 0,
        Some(CpuPolicy::Fifo) => 1,
        Some(CpuPolicy::Rr) => 2,
        Some(CpuPolicy::Batch) => 3,
        Some(CpuPolicy::Idle) => 5,
        Some(CpuPolicy::Ext) => 7,
    }
}

/// The lowest that a policy for real time knows; 0 for others.
fn usual_priority(u: &UnitView<'_>) -> i128 {
    i128::from(matches!(u.exec().cpu_scheduling_policy(), Some(CpuPolicy::Fifo | CpuPolicy::Rr)))
}

/// Policies by the number of set_mempolicy(2); -1 for none.
fn numa_policy(u: &UnitView<'_>) -> i32 {
    u.exec().numa_policy().map_or(-1, |policy| policy as i32)
}

fn input_name(u: &UnitView<'_>) -> String {
    match &u.exec().standard_input() {
        StdInput::Fd(name) => name.clone(),
        StdInput::Null
        | StdInput::Tty
        | StdInput::TtyForce
        | StdInput::TtyFail
        | StdInput::Data
        | StdInput::File(_)
        | StdInput::Socket => String::new(),
    }
}

/// `StandardOutput=`; of a service that does not exist, what it is before systemd's default is taken; the root runs nothing.
fn standard_output(u: &UnitView<'_>) -> String {
    match u.unit.name.kind() {
        _ if u.unit.name.as_str() == "-.mount" => StdOutput::Null.to_string(),
        UnitKind::Service if !is_loaded(u) => StdOutput::Inherit.to_string(),
        _ if !is_loaded(u) => StdOutput::Journal.to_string(),
        _ => u.exec().standard_output().to_string(),
    }
}

/// What may be mounted of an image when nothing is said (systemd.image-policy(7)).
const IMAGE_POLICY: &str = "root=verity+signed+encrypted+unprotected+absent:usr=verity+signed+encrypted+unprotected+absent:\
    home=encrypted+unprotected+absent:srv=encrypted+unprotected+absent:tmp=encrypted+unprotected+absent:\
    var=encrypted+unprotected+absent";

fn output_name(output: &StdOutput) -> String {
    match output {
        StdOutput::Fd(name) => name.clone(),
        _ => String::new(),
    }
}

/// syslog(3)'s number of a level: the place of its word.
fn number_of_level(level: SyslogLevel) -> i32 {
    place(SyslogLevel::WORDS, level.as_str())
}

fn place(words: &[&str], word: &str) -> i32 {
    words.iter().position(|known| *known == word).and_then(|at| i32::try_from(at).ok()).unwrap_or(0)
}

fn level(u: &UnitView<'_>) -> i32 {
    number_of_level(u.exec().syslog_level())
}

fn facility(u: &UnitView<'_>) -> i32 {
    place(muster_unit::SyslogFacility::WORDS, u.exec().syslog_facility().as_str())
}

fn log_pattern(pattern: &LogPattern, out: &mut Out<'_>) {
    out.structure(|out| {
        out.bool(pattern.keep);
        out.str(&pattern.text);
    });
}

/// What is not said is everything, those that nobody knows yet included.
fn bounding_set(u: &UnitView<'_>) -> u64 {
    let rest = if u.exec().capability_bounding_set().is_none() { !CapabilitySet::ALL.0 } else { 0 };
    u.exec().bounding_set().map_or(u64::MAX, |set| set.0 | rest)
}

fn image_policy(policy: &Option<Box<ImagePolicy>>) -> String {
    policy.as_ref().map_or_else(|| IMAGE_POLICY.to_owned(), ToString::to_string)
}

/// `(ss)`: a partition, and with which options it is mounted.
fn image_option(option: &ImageOption, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(option.partition.name());
        out.str(&option.options);
    });
}

fn extension_image(image: &ExtensionImage, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&image.source);
        out.bool(image.optional);
        Each(&image.options, image_option).emit("a(ss)", out);
    });
}

fn mount_image(image: &MountImage, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&image.source);
        out.str(&image.destination);
        out.bool(image.optional);
        Each(&image.options, image_option).emit("a(ss)", out);
    });
}

/// The hash, or the file that holds it.
fn root_hash<'a>(u: &'a UnitView<'_>) -> (&'a [u8], &'a str) {
    match u.exec().root_hash() {
        Some(RootHash::Hash(bytes)) => (bytes, ""),
        Some(RootHash::File(path)) => (&[], path),
        None => (&[], ""),
    }
}

/// The signature, or the file that holds it.
fn root_hash_signature<'a>(u: &'a UnitView<'_>) -> (&'a [u8], &'a str) {
    match u.exec().root_hash_signature() {
        Some(RootHashSignature::Data(bytes)) => (bytes, ""),
        Some(RootHashSignature::File(path)) => (&[], path),
        None => (&[], ""),
    }
}

/// `LoadCredential=id:path`; without a path it is looked for by its name.
fn credential_source(source: &CredentialSource, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&source.id);
        out.str(&source.path);
    });
}

/// `SetCredential=id:value`.
fn credential(credential: &Credential, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&credential.id);
        credential.data.as_slice().emit("ay", out);
    });
}

fn patterns(wanted: &[CredentialPattern]) -> Vec<String> {
    wanted.iter().map(|wanted| wanted.pattern.clone()).collect()
}

/// `ImportCredential=pattern:name`.
fn credential_pattern(wanted: &CredentialPattern, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&wanted.pattern);
        out.str(wanted.rename.as_deref().unwrap_or(""));
    });
}

fn search_path(u: &UnitView<'_>) -> Vec<String> {
    u.exec().exec_search_path().0.iter().map(|path| path.0.clone()).collect()
}

/// The bits of mount(2).
fn mount_flags(u: &UnitView<'_>) -> u64 {
    match u.exec().mount_flags() {
        None => 0,
        Some(MountFlags::Shared) => 1 << 20,
        Some(MountFlags::Slave) => 1 << 19,
        Some(MountFlags::Private) => 1 << 18,
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn marked(paths: &[MarkedPath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

/// `(bs)`: a label, and whether it may be missing (`-`).
struct Optional<'a>(Option<&'a SecurityLabel>);
impl Emit for Optional<'_> {
    fn emit(self, _signature: &'static str, out: &mut Out<'_>) {
        out.structure(|out| {
            out.bool(self.0.is_some_and(|label| label.optional));
            out.str(self.0.map_or("", |label| label.label.as_str()));
        });
    }
}

/// Calls of the groups that libseccomp 2.6, which systemd names them by, does not know.
const UNSHOWN: [&str; 3] = ["file_getattr", "file_setattr", "llseek"];

/// The name that a call has in libseccomp 2.6, where two of them share a number.
fn shown_call(name: &str) -> &str {
    if name == "switch_endian" { "sys_debug_setcontext" } else { name }
}

/// The words of a list of what is allowed, or of what is not: no list is a list of nothing that is forbidden.
fn system_calls(filter: &SyscallFilter, always: &str, out: &mut Out<'_>) {
    let (allow, listed) = filter.merged(always).unwrap_or_default();
    let word = |(name, action): (&&str, &Option<SyscallAction>)| {
        let name = shown_call(name);
        action.map_or_else(|| name.to_owned(), |action| format!("{name}:{}", action.name()))
    };
    out.structure(|out| {
        out.bool(allow);
        // What a list of what is allowed fails with an error of its own is not allowed, and not shown.
        let listed = listed.iter().filter(|(name, _)| !UNSHOWN.contains(name));
        let mut words: Vec<String> =
            listed.filter(|(_, action)| !allow || action.is_none()).map(word).collect();
        words.sort_unstable();
        out.strings(words);
    });
}

/// `(bas)` of a filter of system calls; the second is the group that a list of what is allowed has in any case.
struct Calls<'a>(&'a SyscallFilter, &'static str);
impl Emit for Calls<'_> {
    fn emit(self, _signature: &'static str, out: &mut Out<'_>) {
        system_calls(self.0, self.1, out);
    }
}

/// `(bas)` of address families.
struct Families<'a>(Option<&'a AddressFamilies>);
impl Emit for Families<'_> {
    fn emit(self, _signature: &'static str, out: &mut Out<'_>) {
        let mut names: Vec<&str> = self.0.iter().flat_map(|families| families.names()).collect();
        names.sort_unstable();
        out.structure(|out| {
            out.bool(self.0.is_some_and(|families| families.allow));
            out.strings(names);
        });
    }
}

/// The number that stands for killing.
const KILL_NUMBER: i32 = 0x7fff_fffe;

fn error_number(action: Option<SyscallAction>) -> i32 {
    match action {
        Some(SyscallAction::Errno(number)) => i32::from(number),
        Some(SyscallAction::Kill) | None => KILL_NUMBER,
    }
}

fn affinity(u: &UnitView<'_>) -> Vec<u8> {
    match u.exec().cpu_affinity() {
        Some(CpuAffinity::Set(set)) => set.bytes(),
        Some(CpuAffinity::Numa) => {
            let mut all = NumberSet::default();
            let listed = node_set(u);
            let nodes = (0..PROCESSORS_MAX).filter(|node| listed.contains(*node));
            nodes.filter_map(|node| u.live.node_processors(node)).for_each(|more| all.add(&more));
            all.bytes()
        }
        None => Vec::new(),
    }
}

fn nodes(u: &UnitView<'_>) -> Vec<u8> {
    node_set(u).bytes()
}

fn node_set(u: &UnitView<'_>) -> NumberSet {
    match u.exec().numa_mask() {
        Some(NumaMask::Set(set)) => set.clone(),
        Some(NumaMask::All) => u.live.nodes(),
        None => NumberSet::default(),
    }
}

/// `BindPaths=source:destination:options`: both paths, whether the source may be missing, MS_REC.
fn bind(bind: &BindPath, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&bind.source);
        out.str(&bind.destination);
        out.bool(bind.optional);
        out.u64(if bind.recursive { 0x4000 } else { 0 });
    });
}

fn temporary(mount: &TemporaryMount, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&mount.path);
        out.str(&mount.options);
    });
}

properties! {
    /// Of services, sockets, mounts and swaps.
    EXEC: Unit(u) {
        Environment "as" Const = assignments(u.exec().environment());
        EnvironmentFiles "a(sb)" Const = Each(u.exec().environment_file(), environment_file);
        PassEnvironment "as" Const = u.exec().pass_environment();
        UnsetEnvironment "as" Const = u.exec().unset_environment();
        UMask "u" Const = u.exec().umask().0;
        LimitCPU "t" Const [live] = limit(u, "LimitCPU", false);
        LimitCPUSoft "t" Const [live] = limit(u, "LimitCPU", true);
        LimitFSIZE "t" Const [live] = limit(u, "LimitFSIZE", false);
        LimitFSIZESoft "t" Const [live] = limit(u, "LimitFSIZE", true);
        LimitDATA "t" Const [live] = limit(u, "LimitDATA", false);
        LimitDATASoft "t" Const [live] = limit(u, "LimitDATA", true);
        LimitSTACK "t" Const [live] = limit(u, "LimitSTACK", false);
        LimitSTACKSoft "t" Const [live] = limit(u, "LimitSTACK", true);
        LimitCORE "t" Const [live] = limit(u, "LimitCORE", false);
        LimitCORESoft "t" Const [live] = limit(u, "LimitCORE", true);
        LimitRSS "t" Const [live] = limit(u, "LimitRSS", false);
        LimitRSSSoft "t" Const [live] = limit(u, "LimitRSS", true);
        LimitNOFILE "t" Const [live] = limit(u, "LimitNOFILE", false);
        LimitNOFILESoft "t" Const [live] = limit(u, "LimitNOFILE", true);
        LimitAS "t" Const [live] = limit(u, "LimitAS", false);
        LimitASSoft "t" Const [live] = limit(u, "LimitAS", true);
        LimitNPROC "t" Const [live] = limit(u, "LimitNPROC", false);
        LimitNPROCSoft "t" Const [live] = limit(u, "LimitNPROC", true);
        LimitMEMLOCK "t" Const [live] = limit(u, "LimitMEMLOCK", false);
        LimitMEMLOCKSoft "t" Const [live] = limit(u, "LimitMEMLOCK", true);
        LimitLOCKS "t" Const [live] = limit(u, "LimitLOCKS", false);
        LimitLOCKSSoft "t" Const [live] = limit(u, "LimitLOCKS", true);
        LimitSIGPENDING "t" Const [live] = limit(u, "LimitSIGPENDING", false);
        LimitSIGPENDINGSoft "t" Const [live] = limit(u, "LimitSIGPENDING", true);
        LimitMSGQUEUE "t" Const [live] = limit(u, "LimitMSGQUEUE", false);
        LimitMSGQUEUESoft "t" Const [live] = limit(u, "LimitMSGQUEUE", true);
        LimitNICE "t" Const [live] = limit(u, "LimitNICE", false);
        LimitNICESoft "t" Const [live] = limit(u, "LimitNICE", true);
        LimitRTPRIO "t" Const [live] = limit(u, "LimitRTPRIO", false);
        LimitRTPRIOSoft "t" Const [live] = limit(u, "LimitRTPRIO", true);
        LimitRTTIME "t" Const [live] = limit(u, "LimitRTTIME", false);
        LimitRTTIMESoft "t" Const [live] = limit(u, "LimitRTTIME", true);
        WorkingDirectory "s" Const = working_directory(u);
        RootDirectory "s" Const = u.exec().root_directory();
        RootImage "s" Const = u.exec().root_image();
        RootMStack "s" Const = u.exec().root_mstack();
        RootImageOptions "a(ss)" Const = Each(u.exec().root_image_options(), image_option);
        RootHash "ay" Const = root_hash(u).0;
        RootHashPath "s" Const = root_hash(u).1;
        RootHashSignature "ay" Const = root_hash_signature(u).0;
        RootHashSignaturePath "s" Const = root_hash_signature(u).1;
        RootVerity "s" Const = u.exec().root_verity();
        RootEphemeral "b" Const = u.exec().root_ephemeral();
        ExtensionDirectories "as" Const = marked(u.exec().extension_directories());
        ExtensionImages "a(sba(ss))" Const = Each(u.exec().extension_images(), extension_image);
        MountImages "a(ssba(ss))" Const = Each(u.exec().mount_images(), mount_image);
        OOMScoreAdjust "i" Const = or(&u.exec().oom_score_adjust().or(u.manager.state().facts.config.default_exec.oom_score_adjust()), 0);
        CoredumpFilter "t" Const = u.exec().coredump_filter().map_or(CoredumpFilter::DEFAULT, |filter| filter.0);
        Nice "i" Const = or(&u.exec().nice(), 0);
        IOSchedulingClass "i" Const = io_class(u.exec().io_scheduling_class());
        IOSchedulingPriority "i" Const = or(&u.exec().io_scheduling_priority(), 4);
        CPUSchedulingPolicy "i" Const = cpu_policy(u.exec().cpu_scheduling_policy());
        CPUSchedulingPriority "i" Const = or(&u.exec().cpu_scheduling_priority(), usual_priority(u));
        CPUAffinity "ay" Const = affinity(u).as_slice();
        CPUAffinityFromNUMA "b" Const = u.exec().cpu_affinity() .as_ref() == Some(&CpuAffinity::Numa);
        NUMAPolicy "i" Const = numa_policy(u);
        NUMAMask "ay" Const = nodes(u).as_slice();
        TimerSlackNSec "t" Const = u.exec().timer_slack_nsec().filter(|slack| *slack != muster_unit::Nanoseconds::DEFAULT).map_or(50_000, |slack| slack.0);
        CPUSchedulingResetOnFork "b" Const = u.exec().cpu_scheduling_reset_on_fork();
        NonBlocking "b" Const = u.service().non_blocking();
        StandardInput "s" Const = u.exec().standard_input().to_string();
        StandardInputFileDescriptorName "s" Const = input_name(u);
        StandardInputData "ay" Const = u.exec().standard_input_data().0.as_slice();
        StandardOutput "s" Const = standard_output(u);
        StandardOutputFileDescriptorName "s" Const = output_name(u.exec().standard_output());
        StandardError "s" Const = u.exec().standard_error().to_string();
        StandardErrorFileDescriptorName "s" Const = output_name(u.exec().standard_error());
        TTYPath "s" Const = u.exec().tty_path();
        TTYReset "b" Const = u.exec().tty_reset();
        TTYVHangup "b" Const = u.exec().tty_vhangup();
        TTYVTDisallocate "b" Const = u.exec().tty_vt_disallocate();
        TTYRows "q" Const = or(&u.exec().tty_rows(), 0xffff);
        TTYColumns "q" Const = or(&u.exec().tty_columns(), 0xffff);
        SyslogPriority "i" Const = (facility(u) << 3) | level(u);
        SyslogIdentifier "s" Const = u.exec().syslog_identifier();
        SyslogLevelPrefix "b" Const = u.exec().syslog_level_prefix();
        SyslogLevel "i" Const = level(u);
        SyslogFacility "i" Const = facility(u);
        LogLevelMax "i" Const = u.exec().log_level_max().map_or(-1, number_of_level);
        LogRateLimitIntervalUSec "t" Const = or(&u.exec().log_rate_limit_interval_sec(), 0);
        LogRateLimitBurst "u" Const = or(&u.exec().log_rate_limit_burst(), 0);
        LogExtraFields "aay" Const = Each(u.exec().log_extra_fields(), |field: &muster_unit::setting::LogField, out: &mut Out<'_>| field.as_bytes().emit("ay", out));
        LogFilterPatterns "a(bs)" Const = Each(u.exec().log_filter_patterns(), log_pattern);
        LogNamespace "s" Const = u.exec().log_namespace();
        SecureBits "i" Const = i32::from(u.exec().secure_bits().0);
        CapabilityBoundingSet "t" Const = bounding_set(u);
        AmbientCapabilities "t" Const = u.exec().ambient_capabilities().0;
        User "s" Const = u.exec().user();
        Group "s" Const = u.exec().group();
        DynamicUser "b" Const = u.exec().dynamic_user();
        SetLoginEnvironment "b" Const = u.exec().set_login_environment().unwrap_or_else(|| u.exec().user().is_some());
        RemoveIPC "b" Const = u.exec().remove_ipc();
        SetCredential "a(say)" Const = Each(u.exec().set_credential(), credential);
        SetCredentialEncrypted "a(say)" Const = Each(u.exec().set_credential_encrypted(), credential);
        LoadCredential "a(ss)" Const = Each(u.exec().load_credential(), credential_source);
        LoadCredentialEncrypted "a(ss)" Const = Each(u.exec().load_credential_encrypted(), credential_source);
        ImportCredential "as" Const = patterns(u.exec().import_credential());
        ImportCredentialEx "a(ss)" Const = Each(u.exec().import_credential(), credential_pattern);
        SupplementaryGroups "as" Const = u.exec().supplementary_groups();
        PAMName "s" Const = u.exec().pam_name();
        ReadWritePaths "as" Const = marked(u.exec().read_write_paths());
        ReadOnlyPaths "as" Const = marked(u.exec().read_only_paths());
        InaccessiblePaths "as" Const = marked(u.exec().inaccessible_paths());
        ExecPaths "as" Const = marked(u.exec().exec_paths());
        NoExecPaths "as" Const = marked(u.exec().no_exec_paths());
        ExecSearchPath "as" Const = search_path(u);
        MountFlags "t" Const = mount_flags(u);
        PrivateTmp "b" Const = u.exec().private_tmp_is_set();
        PrivateTmpEx "s" Const = u.exec().private_tmp().as_str();
        PrivateDevices "b" Const = u.exec().private_devices();
        ProtectClock "b" Const = u.exec().protect_clock();
        ProtectKernelTunables "b" Const = u.exec().protect_kernel_tunables();
        ProtectKernelModules "b" Const = u.exec().protect_kernel_modules();
        ProtectKernelLogs "b" Const = u.exec().protect_kernel_logs();
        ProtectControlGroups "b" Const = u.exec().protect_control_groups() != ProtectControlGroups::No;
        ProtectControlGroupsEx "s" Const = u.exec().protect_control_groups().as_str();
        PrivateNetwork "b" Const = u.exec().private_network();
        PrivateUsers "b" Const = u.exec().private_users() != PrivateUsers::No;
        PrivateUsersEx "s" Const = u.exec().private_users().as_str();
        PrivateMounts "b" Const = u.exec().private_mounts().unwrap_or(false);
        PrivateIPC "b" Const = u.exec().private_ipc();
        PrivatePIDs "s" Const = yes_no(u.exec().private_pids());
        ProtectHome "s" Const = u.exec().protect_home().as_str();
        ProtectSystem "s" Const = u.exec().protect_system().as_str();
        SameProcessGroup "b" Const = u.unit.name.kind() == UnitKind::Mount;
        UtmpIdentifier "s" Const = u.exec().utmp_identifier();
        UtmpMode "s" Const = u.exec().utmp_mode().as_str();
        SELinuxContext "(bs)" Const = Optional(u.exec().selinux_context().as_ref());
        AppArmorProfile "(bs)" Const = Optional(u.exec().app_armor_profile().as_ref());
        SmackProcessLabel "(bs)" Const = Optional(u.exec().smack_process_label().as_ref());
        IgnoreSIGPIPE "b" Const = u.exec().ignore_sigpipe();
        NoNewPrivileges "b" Const = u.exec().no_new_privileges();
        SystemCallFilter "(bas)" Const = Calls(u.exec().system_call_filter(), "@default");
        SystemCallArchitectures "as" Const = u.exec().system_call_architectures().0.iter().cloned().collect::<Vec<String>>();
        SystemCallErrorNumber "i" Const = error_number(u.exec().system_call_error_number());
        SystemCallLog "(bas)" Const = Calls(u.exec().system_call_log(), "");
        Personality "s" Const = u.exec().personality().map_or("", Personality::as_str);
        LockPersonality "b" Const = u.exec().lock_personality();
        RestrictAddressFamilies "(bas)" Const = Families(u.exec().restrict_address_families().as_ref());
        RuntimeDirectorySymlink "a(sst)" Const = Each(links(u.exec().runtime_directory()), link);
        RuntimeDirectoryPreserve "s" Const = u.exec().runtime_directory_preserve().as_str();
        RuntimeDirectoryMode "u" Const = u.exec().runtime_directory_mode().0;
        RuntimeDirectory "as" Const = paths(u.exec().runtime_directory());
        StateDirectorySymlink "a(sst)" Const = Each(links(u.exec().state_directory()), link);
        StateDirectoryMode "u" Const = u.exec().state_directory_mode().0;
        StateDirectory "as" Const = paths(u.exec().state_directory());
        CacheDirectorySymlink "a(sst)" Const = Each(links(u.exec().cache_directory()), link);
        CacheDirectoryMode "u" Const = u.exec().cache_directory_mode().0;
        CacheDirectory "as" Const = paths(u.exec().cache_directory());
        LogsDirectorySymlink "a(sst)" Const = Each(links(u.exec().logs_directory()), link);
        LogsDirectoryMode "u" Const = u.exec().logs_directory_mode().0;
        LogsDirectory "as" Const = paths(u.exec().logs_directory());
        ConfigurationDirectoryMode "u" Const = u.exec().configuration_directory_mode().0;
        ConfigurationDirectory "as" Const = paths(u.exec().configuration_directory());
        TimeoutCleanUSec "t" Const = or(&u.exec().timeout_clean_sec(), UNSET);
        MemoryDenyWriteExecute "b" Const = u.exec().memory_deny_write_execute();
        RestrictRealtime "b" Const = u.exec().restrict_realtime();
        RestrictSUIDSGID "b" Const = u.exec().restrict_suid_sgid();
        RestrictNamespaces "t" Const = u.exec().restrict_namespaces().map_or(u64::MAX, |kinds| kinds.0);
        RestrictFileSystems "(bas)" Const = Listed(&u.exec().restrict_file_systems().0);
        BindPaths "a(ssbt)" Const = Each(u.exec().bind_paths(), bind);
        BindReadOnlyPaths "a(ssbt)" Const = Each(u.exec().bind_read_only_paths(), bind);
        TemporaryFileSystem "a(ss)" Const = Each(u.exec().temporary_file_system(), temporary);
        MountAPIVFS "b" Const = mounts_api(u);
        BindLogSockets "b" Const = u.exec().bind_log_sockets().unwrap_or_else(|| mounts_api(u));
        KeyringMode "s" Const = u.exec().keyring_mode().as_str();
        ProtectProc "s" Const = u.exec().protect_proc().as_str();
        ProcSubset "s" Const = u.exec().proc_subset().as_str();
        ProtectHostname "b" Const = u.exec().protect_hostname().name().is_some();
        MemoryKSM "b" Const = u.exec().memory_ksm().unwrap_or(false);
        NetworkNamespacePath "s" Const = u.exec().network_namespace_path();
        IPCNamespacePath "s" Const = u.exec().ipc_namespace_path();
        RootImagePolicy "s" Const = image_policy(u.exec().root_image_policy());
        MountImagePolicy "s" Const = image_policy(u.exec().mount_image_policy());
        ExtensionImagePolicy "s" Const = image_policy(u.exec().extension_image_policy());
    }
}

properties! {
    /// Of types whose processes are killed.
    KILL: Unit(u) {
        KillMode "s" Const = u.kill().kill_mode().as_str();
        KillSignal "i" Const = u.kill().kill_signal().0;
        RestartKillSignal "i" Const = u.kill().restart_kill_signal().unwrap_or(u.kill().kill_signal()).0;
        FinalKillSignal "i" Const = u.kill().final_kill_signal().0;
        SendSIGKILL "b" Const = u.kill().send_sigkill();
        SendSIGHUP "b" Const = u.kill().send_sighup();
        WatchdogSignal "i" Const = u.kill().watchdog_signal().0;
    }
}
