//! Each directive of the execution table that has an effect, by the direct lane: carried out, or left to the executor. A
//! directive that is new in the table fails here until somebody says which.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::compile;
use crate::Request;
use muster_sys::Program;
use muster_unit::setting::Context;
use muster_unit::table::Effect;
use muster_unit::{ExecCommand, ExecSection};

/// The steps or the environment differ.
const DIRECT: &[(&str, &str)] = &[
    ("WorkingDirectory", "/usr"),
    ("UMask", "0077"),
    ("Environment", "A=b"),
    ("PassEnvironment", "PATH"),
    ("StandardOutput", "null"),
    ("StandardError", "null"),
    ("SyslogIdentifier", "someone"),
    ("SyslogFacility", "local0"),
    ("SyslogLevel", "debug"),
    ("SyslogLevelPrefix", "no"),
    ("NoNewPrivileges", "yes"),
    ("LimitCPU", "10"),
    ("LimitFSIZE", "1M"),
    ("LimitDATA", "1M"),
    ("LimitSTACK", "1M"),
    ("LimitCORE", "0"),
    ("LimitRSS", "1M"),
    ("LimitNOFILE", "100"),
    ("LimitAS", "1G"),
    ("LimitNPROC", "100"),
    ("LimitMEMLOCK", "1M"),
    ("LimitLOCKS", "10"),
    ("LimitSIGPENDING", "10"),
    ("LimitMSGQUEUE", "10"),
    ("LimitNICE", "10"),
    ("LimitRTPRIO", "10"),
    ("LimitRTTIME", "10"),
    ("ExecSearchPath", "/opt/bin"),
    ("IgnoreSIGPIPE", "no"),
    ("KeyringMode", "inherit"),
];

/// Contexts that need the executor.
const EXECUTOR: &[(&str, &str)] = &[
    ("RootDirectory", "/srv"),
    ("DynamicUser", "yes"),
    ("ReadWritePaths", "/srv"),
    ("ReadOnlyPaths", "/srv"),
    ("InaccessiblePaths", "/srv"),
    ("ReadWriteDirectories", "/srv"),
    ("ReadOnlyDirectories", "/srv"),
    ("InaccessibleDirectories", "/srv"),
    ("ExecPaths", "/srv"),
    ("NoExecPaths", "/srv"),
    ("BindPaths", "/srv:/mnt"),
    ("BindReadOnlyPaths", "/srv:/mnt"),
    ("TemporaryFileSystem", "/srv"),
    ("PrivateTmp", "yes"),
    ("PrivateBPF", "yes"),
    ("RestrictFileSystems", "proc"),
    ("UserNamespacePath", "/run/user-namespace"),
    ("MemoryTHP", "disable"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("NetworkNamespacePath", "/run/net"),
    ("IPCNamespacePath", "/run/ipc"),
    ("PrivateNetwork", "yes"),
    ("PrivateUsers", "yes"),
    ("PrivateMounts", "yes"),
    ("PrivateIPC", "yes"),
    ("PrivatePIDs", "yes"),
    ("LogNamespace", "x"),
    ("ProtectSystem", "yes"),
    ("ProtectHome", "yes"),
    ("MountFlags", "slave"),
    ("MountAPIVFS", "yes"),
    ("BindLogSockets", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectProc", "invisible"),
    ("ProcSubset", "pid"),
    ("User", "daemon"),
    ("Group", "daemon"),
    ("SupplementaryGroups", "daemon"),
    ("Nice", "5"),
    ("OOMScoreAdjust", "5"),
    ("IOSchedulingClass", "idle"),
    ("IOSchedulingPriority", "5"),
    ("CPUSchedulingPolicy", "batch"),
    ("CPUSchedulingPriority", "5"),
    ("CPUSchedulingResetOnFork", "yes"),
    ("EnvironmentFile", "/etc/environment"),
    ("UnsetEnvironment", "A"),
    ("SetLoginEnvironment", "no"),
    ("StandardInput", "tty"),
    ("PAMName", "login"),
    ("TTYPath", "/dev/tty9"),
    ("CapabilityBoundingSet", "CAP_CHOWN"),
    ("AmbientCapabilities", "CAP_CHOWN"),
    ("CoredumpFilter", "default"),
    ("CPUAffinity", "0"),
    ("NUMAPolicy", "local"),
    ("TimerSlackNSec", "1ms"),
    ("MemoryKSM", "yes"),
    ("Personality", "x86"),
    ("SystemCallFilter", "~mount"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallLog", "mount"),
    ("MemoryDenyWriteExecute", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RestrictAddressFamilies", "none"),
    ("LockPersonality", "yes"),
    ("ProtectHostname", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectClock", "yes"),
    ("RuntimeDirectory", "a"),
    ("StateDirectory", "a"),
    ("CacheDirectory", "a"),
    ("LogsDirectory", "a"),
    ("ConfigurationDirectory", "a"),
    ("PrivateDevices", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("SecureBits", "noroot"),
    ("RootImage", "/a"),
    ("RootMStack", "/a.mstack"),
    ("MountImages", "/a:/b"),
    ("ExtensionImages", "/a"),
    ("ExtensionDirectories", "/a"),
    ("SetCredential", "a:b"),
    ("SetCredentialEncrypted", "a:YWI="),
    ("LoadCredential", "a:/b"),
    ("LoadCredentialEncrypted", "a:/b"),
    ("ImportCredential", "a"),
];

/// They qualify a directive of the list above, and say nothing alone; or PID 1 says them to journald; or a step is needed where
/// the kernel has that security module.
const QUALIFY: &[&str] = &[
    "TimeoutCleanSec",
    "DelegateNamespaces",
    "BPFDelegateCommands",
    "BPFDelegateMaps",
    "BPFDelegatePrograms",
    "BPFDelegateAttachments",
    "SELinuxContext",
    "AppArmorProfile",
    "SmackProcessLabel",
    "StateDirectoryAccounting",
    "StateDirectoryQuota",
    "CacheDirectoryAccounting",
    "CacheDirectoryQuota",
    "LogsDirectoryAccounting",
    "LogsDirectoryQuota",
    "RootImageOptions",
    "RootImagePolicy",
    "RootEphemeral",
    "RootHash",
    "RootHashSignature",
    "RootVerity",
    "MountImagePolicy",
    "ExtensionImagePolicy",
    "RemoveIPC",
    "StandardInputText",
    "StandardInputData",
    "TTYReset",
    "TTYVHangup",
    "TTYRows",
    "TTYColumns",
    "TTYVTDisallocate",
    "LogLevelMax",
    "LogRateLimitIntervalSec",
    "LogRateLimitBurst",
    "LogExtraFields",
    "LogFilterPatterns",
    "NUMAMask",
    "SystemCallErrorNumber",
    "RuntimeDirectoryPreserve",
    "RuntimeDirectoryMode",
    "StateDirectoryMode",
    "CacheDirectoryMode",
    "LogsDirectoryMode",
    "ConfigurationDirectoryMode",
];

fn with(settings: &[(&str, &str)]) -> Option<Program> {
    let expand = |text: &str| Ok(text.to_owned());
    let context = Context { expand: &expand, expands: false, directive: "", lists: None };
    let mut exec = ExecSection::default();
    for (key, value) in settings {
        exec.assign(key, value, &context).unwrap().unwrap();
    }
    let command: ExecCommand =
        ExecCommand { path: "true".into(), argv: vec!["true".into()], ..Default::default() };
    compile(&Request {
        unit: "a.service",
        command: &command,
        exec: &exec,
        base_environment: &[],
        own_environment: &[],
        fds: Vec::new(),
        stdio_socket: None,
        stdio: Vec::new(),
        cgroup_dir: None,
        invocation_id: "",
        set_watchdog_pid: false,
        make_directories: true,
        non_blocking: false,
        fresh_credentials: false,
        open_files: &[],
        context_from_peer: false,
        place: None,
        private_tmp: None,
        network: None,
        ipc: None,
        copies: None,
        report_exec: false,
        limited_memory: false,
        refresh: None,
    })
}

#[test]
fn every_directive_with_an_effect_is_direct_or_not_plain() {
    let bare = with(&[]).expect("a bare context is plain");
    for (name, value) in DIRECT {
        let program = with(&[(name, value)]).unwrap_or_else(|| panic!("{name}={value} is direct"));
        assert_ne!(program, bare, "{name}={value} has an effect");
    }
    for (name, value) in EXECUTOR {
        assert_eq!(with(&[(name, value)]), None, "{name}={value} is the executor's");
    }
    let known = |name: &str| {
        let listed = DIRECT.iter().chain(EXECUTOR).any(|(listed, _)| *listed == name);
        listed || QUALIFY.contains(&name)
    };
    for row in ExecSection::ROWS.iter().filter(|row| row.effect == Effect::Applied) {
        assert!(known(row.name), "{}= has an effect: say whether the direct lane carries it out", row.name);
    }
}
