//! The tables that unit types share: execution and killing.
//! One row a directive: name(s) => field: type = default, whether it has an effect yet, whether specifiers are expanded.

use super::section;
use crate::setting::*;
use crate::value::*;

section! {
    /// How a process is executed (systemd.exec(5)).
    ExecSection ExecRow "Exec" {
        "WorkingDirectory" => working_directory: Option<WorkingDirectory> = None, Applied Expand;
        "RootDirectory" => root_directory: Option<AbsolutePath> = None, Applied Expand;
        "RootImage" => root_image: Option<AbsolutePath> = None, Applied Expand;
        "RootImageOptions" => root_image_options: Vec<ImageOption> = Default::default(), Applied Expand;
        "RootImagePolicy" => root_image_policy: Option<Box<ImagePolicy>> = None, Applied Raw;
        "RootHash" => root_hash: Option<RootHash> = None, Applied Raw;
        "RootHashSignature" => root_hash_signature: Option<RootHashSignature> = None, Applied Raw;
        "RootVerity" => root_verity: Option<AbsolutePath> = None, Applied Expand;
        "RootEphemeral" => root_ephemeral: bool = false, Applied Raw;
        "RootMStack" => root_mstack: Option<AbsolutePath> = None, Applied Expand;
        "ExtensionDirectories" => extension_directories: Vec<MarkedPath> = Default::default(), Applied Expand;
        "ExtensionImages" => extension_images: Vec<ExtensionImage> = Default::default(), Applied Expand;
        "ExtensionImagePolicy" => extension_image_policy: Option<Box<ImagePolicy>> = None, Applied Raw;
        "MountImages" => mount_images: Vec<MountImage> = Default::default(), Applied Expand;
        "MountImagePolicy" => mount_image_policy: Option<Box<ImagePolicy>> = None, Applied Raw;
        "User" => user: Option<Account> = None, Applied Expand;
        "Group" => group: Option<Account> = None, Applied Expand;
        "SupplementaryGroups" => supplementary_groups: Vec<Account> = Default::default(), Applied Expand;
        "SetLoginEnvironment" => set_login_environment: Option<bool> = None, Applied Raw;
        "Nice" => nice: Option<NiceLevel> = None, Applied Raw;
        "OOMScoreAdjust" => oom_score_adjust: Option<OomScore> = None, Applied Raw;
        "CoredumpFilter" => coredump_filter: Option<CoredumpFilter> = None, Applied Raw;
        "IOSchedulingClass" => io_scheduling_class: Option<IoClass> = None, Applied Raw;
        "IOSchedulingPriority" => io_scheduling_priority: Option<IoPriority> = None, Applied Raw;
        "CPUSchedulingPolicy" => cpu_scheduling_policy: Option<CpuPolicy> = None, Applied Raw;
        "CPUSchedulingPriority" => cpu_scheduling_priority: Option<CpuPriority> = None, Applied Raw;
        "CPUSchedulingResetOnFork" => cpu_scheduling_reset_on_fork: bool = false, Applied Raw;
        "CPUAffinity" => cpu_affinity: Option<CpuAffinity> = None, Applied Raw;
        "NUMAPolicy" => numa_policy: Option<NumaPolicy> = None, Applied Raw;
        "NUMAMask" => numa_mask: Option<NumaMask> = None, Applied Raw;
        "UMask" => umask: FileMode = FileMode(0o022), Applied Raw;
        "Environment" => environment: Vec<(String, String)> = Default::default(), Applied Expand;
        "EnvironmentFile" => environment_file: Vec<EnvironmentFile> = Default::default(), Applied Expand;
        "PassEnvironment" => pass_environment: Vec<VariableName> = Default::default(), Applied Expand;
        "UnsetEnvironment" => unset_environment: Vec<VariableMatch> = Default::default(), Applied Expand;
        "DynamicUser" => dynamic_user: bool = false, Applied Raw;
        "RemoveIPC" => remove_ipc: bool = false, Applied Raw;
        "StandardInput" => standard_input: StdInput = Default::default(), Applied Expand;
        "StandardOutput" => standard_output: StdOutput = StdOutput::Journal, Applied Expand;
        "StandardError" => standard_error: StdOutput = Default::default(), Applied Expand;
        "StandardInputText" | "StandardInputData" => standard_input_data: InputData = Default::default(), Applied Expand;
        "TTYPath" => tty_path: Option<AbsolutePath> = None, Applied Expand;
        "TTYReset" => tty_reset: bool = false, Applied Raw;
        "TTYVHangup" => tty_vhangup: bool = false, Applied Raw;
        "TTYVTDisallocate" => tty_vt_disallocate: bool = false, Applied Raw;
        "TTYRows" => tty_rows: Option<u32> = None, Applied Raw;
        "TTYColumns" => tty_columns: Option<u32> = None, Applied Raw;
        "SyslogIdentifier" => syslog_identifier: Option<String> = None, Applied Expand;
        "SyslogFacility" => syslog_facility: SyslogFacility = SyslogFacility::Daemon, Applied Raw;
        "SyslogLevel" => syslog_level: SyslogLevel = SyslogLevel::Info, Applied Raw;
        "SyslogLevelPrefix" => syslog_level_prefix: bool = true, Applied Raw;
        "LogLevelMax" => log_level_max: Option<SyslogLevel> = None, Applied Raw;
        "LogRateLimitIntervalSec" => log_rate_limit_interval_sec: Option<Timespan> = None, Applied Raw;
        "LogRateLimitBurst" => log_rate_limit_burst: Option<u32> = None, Applied Raw;
        "LogExtraFields" => log_extra_fields: Vec<LogField> = Default::default(), Applied Expand;
        "LogFilterPatterns" => log_filter_patterns: Vec<LogPattern> = Default::default(), Applied Raw;
        "SecureBits" => secure_bits: SecureBits = SecureBits(0), Applied Raw;
        "CapabilityBoundingSet" => capability_bounding_set: Option<CapabilitySet> = None, Applied Raw;
        "AmbientCapabilities" => ambient_capabilities: CapabilitySet = CapabilitySet(0), Applied Raw;
        "TimerSlackNSec" => timer_slack_nsec: Option<Nanoseconds> = None, Applied Raw;
        "NoNewPrivileges" => no_new_privileges: bool = false, Applied Raw;
        "KeyringMode" => keyring_mode: KeyringMode = Default::default(), Applied Raw;
        "ProtectProc" => protect_proc: ProtectProc = Default::default(), Applied Raw;
        "ProcSubset" => proc_subset: ProcSubset = Default::default(), Applied Raw;
        "PrivateBPF" => private_bpf: bool = false, Applied Raw;
        "BPFDelegateCommands" => bpf_delegate_commands: BpfDelegation = Default::default(), Applied Raw;
        "BPFDelegateMaps" => bpf_delegate_maps: BpfDelegation = Default::default(), Applied Raw;
        "BPFDelegatePrograms" => bpf_delegate_programs: BpfDelegation = Default::default(), Applied Raw;
        "BPFDelegateAttachments" => bpf_delegate_attachments: BpfDelegation = Default::default(), Applied Raw;
        "SystemCallFilter" => system_call_filter: Box<SyscallFilter> = Default::default(), Applied Raw;
        "SystemCallArchitectures" => system_call_architectures: Architectures = Default::default(), Applied Raw;
        "SystemCallErrorNumber" => system_call_error_number: Option<SyscallAction> = None, Applied Raw;
        "SystemCallLog" => system_call_log: Box<SyscallFilter> = Default::default(), Applied Raw;
        "MemoryDenyWriteExecute" => memory_deny_write_execute: bool = false, Applied Raw;
        "RestrictNamespaces" => restrict_namespaces: Option<Namespaces> = None, Applied Raw;
        "RestrictRealtime" => restrict_realtime: bool = false, Applied Raw;
        "RestrictSUIDSGID" => restrict_suid_sgid: bool = false, Applied Raw;
        "RestrictAddressFamilies" => restrict_address_families: Box<Option<AddressFamilies>> = Default::default(), Applied Raw;
        "LockPersonality" => lock_personality: bool = false, Applied Raw;
        "DelegateNamespaces" => delegate_namespaces: Option<Namespaces> = None, Applied Raw;
        "RestrictFileSystems" => restrict_file_systems: FileSystemList = Default::default(), Applied Raw;
        "LimitCPU" => limit_cpu: Option<LimitSeconds> = None, Applied Raw;
        "LimitFSIZE" => limit_fsize: Option<LimitBytes> = None, Applied Raw;
        "LimitDATA" => limit_data: Option<LimitBytes> = None, Applied Raw;
        "LimitSTACK" => limit_stack: Option<LimitBytes> = None, Applied Raw;
        "LimitCORE" => limit_core: Option<LimitBytes> = None, Applied Raw;
        "LimitRSS" => limit_rss: Option<LimitBytes> = None, Applied Raw;
        "LimitNOFILE" => limit_nofile: Option<LimitCount> = None, Applied Raw;
        "LimitAS" => limit_as: Option<LimitBytes> = None, Applied Raw;
        "LimitNPROC" => limit_nproc: Option<LimitCount> = None, Applied Raw;
        "LimitMEMLOCK" => limit_memlock: Option<LimitBytes> = None, Applied Raw;
        "LimitLOCKS" => limit_locks: Option<LimitCount> = None, Applied Raw;
        "LimitSIGPENDING" => limit_sigpending: Option<LimitCount> = None, Applied Raw;
        "LimitMSGQUEUE" => limit_msgqueue: Option<LimitBytes> = None, Applied Raw;
        "LimitNICE" => limit_nice: Option<LimitNice> = None, Applied Raw;
        "LimitRTPRIO" => limit_rtprio: Option<LimitCount> = None, Applied Raw;
        "LimitRTTIME" => limit_rttime: Option<LimitMicroseconds> = None, Applied Raw;
        "ReadWritePaths" | "ReadWriteDirectories" => read_write_paths: Vec<MarkedPath> = Default::default(), Applied Expand;
        "ReadOnlyPaths" | "ReadOnlyDirectories" => read_only_paths: Vec<MarkedPath> = Default::default(), Applied Expand;
        "InaccessiblePaths" | "InaccessibleDirectories" => inaccessible_paths: Vec<MarkedPath> = Default::default(), Applied Expand;
        "ExecPaths" => exec_paths: Vec<MarkedPath> = Default::default(), Applied Expand;
        "NoExecPaths" => no_exec_paths: Vec<MarkedPath> = Default::default(), Applied Expand;
        "ExecSearchPath" => exec_search_path: SearchPath = Default::default(), Applied Expand;
        "BindPaths" => bind_paths: Vec<BindPath> = Default::default(), Applied Expand;
        "BindReadOnlyPaths" => bind_read_only_paths: Vec<BindPath> = Default::default(), Applied Expand;
        "TemporaryFileSystem" => temporary_file_system: Vec<TemporaryMount> = Default::default(), Applied Expand;
        "PrivateTmp" => private_tmp: PrivateTmp = Default::default(), Applied Raw;
        "PrivateDevices" => private_devices: bool = false, Applied Raw;
        "ProtectKernelTunables" => protect_kernel_tunables: bool = false, Applied Raw;
        "ProtectKernelModules" => protect_kernel_modules: bool = false, Applied Raw;
        "ProtectKernelLogs" => protect_kernel_logs: bool = false, Applied Raw;
        "ProtectClock" => protect_clock: bool = false, Applied Raw;
        "ProtectControlGroups" => protect_control_groups: ProtectControlGroups = Default::default(), Applied Raw;
        "UserNamespacePath" => user_namespace_path: Option<AbsolutePath> = None, Applied Expand;
        "NetworkNamespacePath" => network_namespace_path: Option<AbsolutePath> = None, Applied Expand;
        "IPCNamespacePath" => ipc_namespace_path: Option<AbsolutePath> = None, Applied Expand;
        "LogNamespace" => log_namespace: Option<LogNamespace> = None, Applied Expand;
        "PrivateNetwork" => private_network: bool = false, Applied Raw;
        "PrivateUsers" => private_users: PrivateUsers = Default::default(), Applied Raw;
        "PrivateMounts" => private_mounts: Option<bool> = None, Applied Raw;
        "PrivateIPC" => private_ipc: bool = false, Applied Raw;
        "PrivatePIDs" => private_pids: bool = false, Applied Raw;
        "ProtectSystem" => protect_system: ProtectSystem = Default::default(), Applied Raw;
        "ProtectHome" => protect_home: ProtectHome = Default::default(), Applied Raw;
        "MountFlags" => mount_flags: Option<MountFlags> = None, Applied Raw;
        "MountAPIVFS" => mount_api_vfs: Option<bool> = None, Applied Raw;
        "BindLogSockets" => bind_log_sockets: Option<bool> = None, Applied Raw;
        "Personality" => personality: Option<Personality> = None, Applied Raw;
        "RuntimeDirectoryPreserve" => runtime_directory_preserve: DirectoryPreserve = Default::default(), Applied Raw;
        "RuntimeDirectoryMode" => runtime_directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "RuntimeDirectory" => runtime_directory: Vec<ExecDirectory> = Default::default(), Applied Expand;
        "StateDirectoryMode" => state_directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "StateDirectoryAccounting" => state_directory_accounting: bool = false, Applied Raw;
        "StateDirectoryQuota" => state_directory_quota: Option<Quota> = None, Applied Raw;
        "StateDirectory" => state_directory: Vec<ExecDirectory> = Default::default(), Applied Expand;
        "CacheDirectoryMode" => cache_directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "CacheDirectoryAccounting" => cache_directory_accounting: bool = false, Applied Raw;
        "CacheDirectoryQuota" => cache_directory_quota: Option<Quota> = None, Applied Raw;
        "CacheDirectory" => cache_directory: Vec<ExecDirectory> = Default::default(), Applied Expand;
        "LogsDirectoryMode" => logs_directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "LogsDirectoryAccounting" => logs_directory_accounting: bool = false, Applied Raw;
        "LogsDirectoryQuota" => logs_directory_quota: Option<Quota> = None, Applied Raw;
        "LogsDirectory" => logs_directory: Vec<ExecDirectory> = Default::default(), Applied Expand;
        "ConfigurationDirectoryMode" => configuration_directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "ConfigurationDirectory" => configuration_directory: Vec<ExecDirectory> = Default::default(), Applied Expand;
        "SetCredential" => set_credential: Vec<Credential> = Default::default(), Applied Expand;
        "SetCredentialEncrypted" => set_credential_encrypted: Vec<Credential> = Default::default(), Applied Expand;
        "LoadCredential" => load_credential: Vec<CredentialSource> = Default::default(), Applied Expand;
        "LoadCredentialEncrypted" => load_credential_encrypted: Vec<CredentialSource> = Default::default(), Applied Expand;
        "ImportCredential" => import_credential: Vec<CredentialPattern> = Default::default(), Applied Expand;
        "TimeoutCleanSec" => timeout_clean_sec: Option<Timespan> = None, Applied Raw;
        "PAMName" => pam_name: Option<String> = None, Applied Expand;
        "IgnoreSIGPIPE" => ignore_sigpipe: bool = true, Applied Raw;
        "UtmpIdentifier" => utmp_identifier: Option<String> = None, Ignored Expand;
        "UtmpMode" => utmp_mode: UtmpMode = Default::default(), Ignored Raw;
        "SELinuxContext" => selinux_context: Option<SecurityLabel> = None, Applied Expand;
        "AppArmorProfile" => app_armor_profile: Option<SecurityLabel> = None, Applied Expand;
        "SmackProcessLabel" => smack_process_label: Option<SecurityLabel> = None, Applied Expand;
        "ProtectHostname" => protect_hostname: ProtectHostname = Default::default(), Applied Expand;
        "MemoryKSM" => memory_ksm: Option<bool> = None, Applied Raw;
        "MemoryTHP" => memory_thp: Option<MemoryThp> = None, Applied Raw;
    } also {
        output_is_set: bool, "`StandardOutput=` was said, rather than defaulted.";
    }
}

section! {
    /// How processes are ended (systemd.kill(5)).
    KillSection KillRow "Kill" {
        "SendSIGKILL" => send_sigkill: bool = true, Applied Raw;
        "SendSIGHUP" => send_sighup: bool = false, Applied Raw;
        "KillMode" => kill_mode: KillMode = Default::default(), Applied Raw;
        "KillSignal" => kill_signal: Signal = Signal::TERM, Applied Raw;
        "RestartKillSignal" => restart_kill_signal: Option<Signal> = None, Applied Raw;
        "FinalKillSignal" => final_kill_signal: Signal = Signal::KILL, Applied Raw;
        "WatchdogSignal" => watchdog_signal: Signal = Signal::ABRT, Applied Raw;
    }
}

macro_rules! limits {
    ($($name:literal $field:ident;)*) => {
        impl ExecSection {
            /// A limit by its directive.
            pub fn limit(&self, directive: &str) -> Option<ResourceLimit> {
                match directive { $($name => self.$field().map(|limit| limit.0),)* _ => None }
            }
            /// Takes over every limit that it has none of its own for.
            pub fn take_limits(&mut self, from: &ExecSection) {
                $(if let (None, limit @ Some(_)) = (self.$field(), from.$field()) {
                    *self.edit().$field() = limit;
                })*
            }
        }
    };
}
limits! {
    "LimitCPU" limit_cpu;
    "LimitFSIZE" limit_fsize;
    "LimitDATA" limit_data;
    "LimitSTACK" limit_stack;
    "LimitCORE" limit_core;
    "LimitRSS" limit_rss;
    "LimitNOFILE" limit_nofile;
    "LimitAS" limit_as;
    "LimitNPROC" limit_nproc;
    "LimitMEMLOCK" limit_memlock;
    "LimitLOCKS" limit_locks;
    "LimitSIGPENDING" limit_sigpending;
    "LimitMSGQUEUE" limit_msgqueue;
    "LimitNICE" limit_nice;
    "LimitRTPRIO" limit_rtprio;
    "LimitRTTIME" limit_rttime;
}
