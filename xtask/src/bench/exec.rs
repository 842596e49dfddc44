//! What a confined start costs: a oneshot with the sandboxing of systemd-timesyncd.service.

/// The service, but for its program.
pub const CONFINED: &str = "[Unit]
StartLimitIntervalSec=0
[Service]
Type=oneshot
User=daemon
AmbientCapabilities=CAP_SYS_TIME
CapabilityBoundingSet=CAP_SYS_TIME
Environment=SYSTEMD_NSS_RESOLVE_VALIDATE=0
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectProc=invisible
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RuntimeDirectory=systemd/timesync
StateDirectory=systemd/timesync
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service @clock
";

/// The CPU time of a unit's last run, in milliseconds, as `systemctl show -P CPUUsageNSec` says it.
pub fn cpu_ms(shown: &str) -> anyhow::Result<f64> {
    Ok(shown.trim().parse::<f64>()? / 1e6)
}
