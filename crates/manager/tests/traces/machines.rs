//! The unit types, each with its events and how its states are reached. A state that none of them can rest in is left out:
//! `dead-before-auto-restart` and `failed-before-auto-restart` of services are passed through within one event.

use super::Machine;

/// All lists of commands, each program named for its list.
macro_rules! commands {
    ($first:literal) => {
        concat!(
            "[Service]\n",
            $first,
            "\nExecCondition=/bin/condition\nExecStartPre=/bin/pre\nExecStart=/bin/main\nExecStartPost=/bin/post\n",
            "ExecReload=/bin/reload\nExecStop=/bin/stop\nExecStopPost=/bin/stop-post\n"
        )
    };
}

const SIMPLE: &str = commands!("Type=simple");
const ABORTS: &str = commands!("TimeoutStopFailureMode=abort");
const WATCHED: &str = commands!("WatchdogSec=10");
const RESTARTS: &str = "[Unit]\nAfter=b.service\n[Service]\nRestart=always\nExecStart=/bin/main\n";

pub(super) const SERVICE: Machine = Machine {
    file: "service",
    unit: "a.service",
    others: &[("b.service", "[Service]\nType=oneshot\nExecStart=/bin/slow\n")],
    events: &[
        ("control ends", "c0"),
        ("control fails", "c1"),
        ("main ends", "m0"),
        ("main fails", "m1"),
        ("READY=1", "ready"),
        ("time is up", "late"),
        ("cgroup empty", "empty"),
        ("stop", "stop"),
        ("", "start"),
        ("", "reload"),
        ("", "reloading"),
        ("", "stopping"),
    ],
    states: &[
        ("dead", SIMPLE, ""),
        ("condition", SIMPLE, "start"),
        ("start-pre", SIMPLE, "start c0"),
        ("start (forking)", commands!("Type=forking"), "start c0 c0"),
        ("start (notify)", commands!("Type=notify"), "start c0 c0"),
        ("start (oneshot)", commands!("Type=oneshot"), "start c0 c0"),
        ("start (exec)", commands!("Type=exec"), "start c0 c0"),
        ("start-post", SIMPLE, "start c0 c0"),
        ("running", SIMPLE, "start c0 c0 c0"),
        ("exited", commands!("RemainAfterExit=yes"), "start c0 c0 c0 m0"),
        ("reload", SIMPLE, "start c0 c0 c0 reload"),
        ("reload-signal", "[Service]\nType=notify-reload\nExecStart=/bin/main\n", "start ready reload"),
        (
            "reload-notify",
            "[Service]\nType=notify-reload\nExecStart=/bin/main\n",
            "start ready reload reloading",
        ),
        ("reload-post", commands!("ExecReloadPost=/bin/reload-post"), "start c0 c0 c0 reload c0"),
        ("stop", SIMPLE, "start c0 c0 c0 stop"),
        ("stop-watchdog", WATCHED, "start c0 c0 c0 late"),
        ("stop-sigterm", SIMPLE, "start c0 c0 c0 stop c0"),
        ("stop-sigkill", SIMPLE, "start c0 c0 c0 stop c0 late"),
        ("stop-post", SIMPLE, "start c0 c0 c0 m0 c0 empty"),
        ("final-sigterm", SIMPLE, "start c0 c0 c0 m0 c0 empty late"),
        ("final-watchdog", ABORTS, "start c0 c0 c0 m0 c0 empty late"),
        ("final-sigkill", SIMPLE, "start c0 c0 c0 m0 c0 empty late late"),
        ("failed", "[Service]\nExecStart=/bin/main\n", "start m1 empty"),
        ("auto-restart", RESTARTS, "start m0 empty"),
        ("auto-restart-queued", RESTARTS, "start b.service:start m0 empty late"),
    ],
};

macro_rules! socket {
    ($more:literal) => {
        concat!(
            "[Socket]\nListenStream=/run/a\nExecStartPre=/bin/pre\nExecStartPost=/bin/post\n",
            "ExecStopPre=/bin/stop-pre\nExecStopPost=/bin/stop-post\n",
            $more
        )
    };
}
const LISTENS: &str = socket!("");

pub(super) const SOCKET: Machine = Machine {
    file: "socket",
    unit: "a.socket",
    others: &[
        ("a.service", "[Unit]\nConflicts=b.service\n[Service]\nExecStart=/bin/main\n"),
        ("a@.service", "[Service]\nExecStart=/bin/main\n"),
        ("b.service", "[Service]\nExecStart=/bin/main\n"),
    ],
    events: &[
        ("control ends", "c0"),
        ("control fails", "c1"),
        ("opened", "opened"),
        ("not opened", "unopened"),
        ("traffic", "traffic"),
        ("service ends", "a.service:m0"),
        ("time is up", "late"),
        ("stop", "stop"),
        ("", "start"),
        ("", "empty"),
    ],
    states: &[
        ("dead", LISTENS, ""),
        ("start-pre", LISTENS, "start"),
        ("start-chown", LISTENS, "start c0"),
        ("start-post", LISTENS, "start c0 opened"),
        ("listening", LISTENS, "start c0 opened c0"),
        ("listening (Accept=yes)", socket!("Accept=yes\n"), "start c0 opened c0"),
        ("deferred", socket!("DeferTrigger=patient\n"), "b.service:start start c0 opened c0 traffic"),
        ("running", LISTENS, "start c0 opened c0 traffic"),
        ("stop-pre", LISTENS, "start c0 opened c0 stop"),
        ("stop-pre-sigterm", LISTENS, "start c0 opened c0 stop late"),
        ("stop-pre-sigkill", LISTENS, "start c0 opened c0 stop late late"),
        ("stop-post", LISTENS, "start c0 opened c0 stop c0"),
        ("final-sigterm", LISTENS, "start c0 opened c0 stop c0 late"),
        ("final-sigkill", LISTENS, "start c0 opened c0 stop c0 late late"),
        ("failed", LISTENS, "start c0 unopened c0"),
    ],
};

pub(super) const TARGET: Machine = Machine {
    file: "target",
    unit: "a.target",
    others: &[],
    events: &[("start", "start"), ("stop", "stop")],
    states: &[("dead", "[Unit]\n", ""), ("active", "[Unit]\n", "start")],
};

pub(super) const SLICE: Machine = Machine {
    file: "slice",
    unit: "a.slice",
    others: &[],
    events: &[("start", "start"), ("stop", "stop")],
    states: &[("dead", "[Unit]\n", ""), ("active", "[Unit]\n", "start")],
};

pub(super) const SCOPE: Machine = Machine {
    file: "scope",
    unit: "a.scope",
    others: &[],
    events: &[
        ("made", "made"),
        ("stop", "stop"),
        ("cgroup empty", "empty"),
        ("time is up", "late"),
        ("", "start"),
    ],
    states: &[
        ("dead", "", ""),
        ("running", "", "made"),
        ("stop-sigterm", "", "made stop"),
        ("stop-sigkill", "", "made stop late"),
        ("failed", "", "made stop late late"),
    ],
};

const MOUNTS: &str = "[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/a\n";

pub(super) const MOUNT: Machine = Machine {
    file: "mount",
    unit: "a.mount",
    others: &[],
    events: &[
        ("start", "start"),
        ("command ends", "c0"),
        ("command fails", "c1"),
        ("in the table", "mounted"),
        ("not in the table", "gone"),
        ("time is up", "late"),
        ("stop", "stop"),
        ("reload", "reload"),
    ],
    states: &[
        ("dead", MOUNTS, ""),
        ("mounting", MOUNTS, "start"),
        ("mounted", MOUNTS, "start c0 mounted"),
        ("remounting", MOUNTS, "start c0 mounted reload"),
        ("remounting-sigterm", MOUNTS, "start c0 mounted reload late"),
        ("remounting-sigkill", MOUNTS, "start c0 mounted reload late late"),
        ("unmounting", MOUNTS, "start c0 mounted stop"),
        ("unmounting-sigterm", MOUNTS, "start late"),
        ("unmounting-sigkill", MOUNTS, "start late late"),
        ("failed", MOUNTS, "start c1 gone"),
    ],
};

pub(super) const DEVICE: Machine = Machine {
    file: "device",
    unit: "dev-a.device",
    others: &[],
    events: &[
        ("start", "start"),
        ("there", "plug"),
        ("gone", "unplug"),
        ("mounted from", "a.mount:mounted"),
        ("no more", "a.mount:gone"),
        ("stop", "stop"),
    ],
    states: &[
        ("dead", "", ""),
        ("dead (start job)", "", "start"),
        ("tentative", "", "a.mount:mounted"),
        ("plugged", "", "plug"),
    ],
};

const PATH_EXISTS: &str = "[Path]\nPathExists=/x\n";
const SERVED: (&str, &str) = ("a.service", "[Service]\nExecStart=/bin/main\n");

pub(super) const PATH: Machine = Machine {
    file: "path",
    unit: "a.path",
    others: &[SERVED],
    events: &[
        ("start", "start"),
        ("a path holds", "path"),
        ("its unit ends", "a.service:m0"),
        ("the watch failed", "unwatchable"),
        ("stop", "stop"),
    ],
    states: &[
        ("dead", PATH_EXISTS, ""),
        ("waiting", PATH_EXISTS, "start"),
        ("running", PATH_EXISTS, "start path"),
        ("failed", PATH_EXISTS, "start unwatchable"),
    ],
};

const ACTIVE: &str = "[Timer]\nOnActiveSec=10\n";

pub(super) const TIMER: Machine = Machine {
    file: "timer",
    unit: "a.timer",
    others: &[SERVED],
    events: &[
        ("start", "start"),
        ("time is up", "late"),
        ("its unit ends", "a.service:m0"),
        ("the clock was set", "clock"),
        ("stop", "stop"),
    ],
    states: &[
        ("dead", ACTIVE, ""),
        ("waiting", ACTIVE, "start"),
        ("waiting (OnClockChange=)", "[Timer]\nOnActiveSec=10\nOnClockChange=yes\n", "start"),
        (
            "waiting (OnUnitInactiveSec=)",
            "[Timer]\nOnActiveSec=10\nOnUnitInactiveSec=5\n",
            "start late a.service:m0",
        ),
        ("running", ACTIVE, "start late"),
        ("running (OnUnitInactiveSec=)", "[Timer]\nOnActiveSec=10\nOnUnitInactiveSec=5\n", "start late"),
        ("elapsed", ACTIVE, "start late a.service:m0"),
    ],
};
