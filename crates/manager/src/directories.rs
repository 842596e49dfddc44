//! The end of what a unit owns on the disk: what goes at the end of a run (systemd.exec(5), `RuntimeDirectory=`;
//! systemd.service(5), `PIDFile=`; systemd.socket(5), `RemoveOnStop=`), and what `systemctl clean` takes away.
//!
//! A helper removes it, since that may take its time; the unit waits for it. A run is not over before its things are
//! gone, so that a start that follows never loses what it has just made, and a unit that is being cleaned does not start.

use crate::effect::{Effect, Level, QueryId};
use crate::manager::Manager;
use crate::refused::Refused;
use crate::state::{ActiveState, ServiceSub, Unit, UnitResult};
use muster_graph::{JobType, UnitId};
use muster_unit::{Body, DirectoryPreserve, ExecDirectory, ExecSection, Source, UnitKind, UnitName};
use serde::{Deserialize, Serialize};

/// What a helper is removing for a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The question that it answers when it is done.
    pub query: QueryId,
    /// What goes.
    pub things: Things,
    /// What goes after that: it was left while the helper was at work.
    #[serde(default)]
    pub more: Things,
    /// Somebody asked for it; otherwise it belongs to the end of a run.
    pub cleans: bool,
    /// When it is no longer waited for, on the monotonic clock in microseconds.
    pub deadline_usec: Option<u64>,
}

/// Things on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Things {
    /// Absolute paths, each removed with all below it.
    pub paths: Vec<String>,
    /// Absolute paths of single files: PID files, nodes of sockets.
    #[serde(default)]
    pub files: Vec<String>,
    /// Names of POSIX message queues.
    #[serde(default)]
    pub queues: Vec<String>,
    /// Symbolic links, as place and target: one that leads elsewhere by now stays.
    pub links: Vec<(String, String)>,
}

impl Things {
    /// Whether nothing is to be removed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.files.is_empty() && self.queues.is_empty() && self.links.is_empty()
    }

    fn extend(&mut self, more: Things) {
        self.paths.extend(more.paths);
        self.files.extend(more.files);
        self.queues.extend(more.queues);
        self.links.extend(more.links);
    }

    fn add(&mut self, base: &str, directories: &[ExecDirectory]) {
        for directory in directories {
            self.paths.push(format!("{base}/{}", directory.path));
            self.links.extend(directory.symlinks.iter().map(|link| {
                (
                    format!("{base}/{link}"),
                    format!("{}{}", "../".repeat(link.matches('/').count()), directory.path),
                )
            }));
        }
    }
}

/// The kinds of directories: the word of `systemctl clean`, where they are, and the list.
type List = for<'a> fn(&'a ExecSection) -> &'a [ExecDirectory];
const KINDS: [(&str, &str, List); 5] = [
    ("runtime", "/run", |exec| exec.runtime_directory()),
    ("state", "/var/lib", |exec| exec.state_directory()),
    ("cache", "/var/cache", |exec| exec.cache_directory()),
    ("logs", "/var/log", |exec| exec.logs_directory()),
    ("configuration", "/etc", |exec| exec.configuration_directory()),
];
/// The word for stored descriptors.
const FDSTORE: &str = "fdstore";

/// What `systemctl clean` can remove of a unit, by its words.
pub fn can_clean(unit: &Unit) -> Vec<&'static str> {
    let mut words = Vec::new();
    match &unit.file.body {
        Body::Timer(timer) => words.extend(timer.persistent().then_some("state")),
        Body::Service(_) | Body::Socket(_) | Body::Mount(_) | Body::Swap(_) => {
            let exec = unit.file.exec.as_deref();
            words.extend(exec.into_iter().flat_map(|exec| {
                KINDS.iter().filter(|(.., list)| !list(exec).is_empty()).map(|(word, ..)| *word)
            }));
        }
        _ => {}
    }
    let stores = matches!(&unit.file.body, Body::Service(service) if service.file_descriptor_store_max() > 0);
    words.extend(stores.then_some(FDSTORE));
    words
}

impl Manager {
    // ---- the end of a run -----------------------------------------------------------------------------------------

    /// Whether something of a unit is being removed.
    pub(crate) fn is_removing(&self, id: UnitId) -> bool {
        self.state.units.get(&id).is_some_and(|unit| unit.removal.is_some())
    }

    /// Whether the end of a run of a service waits until what it leaves on the disk is gone.
    pub(crate) fn things_go_first(&mut self, id: UnitId) -> bool {
        if self.is_removing(id) {
            return true;
        }
        let followed = self.should_restart(id) || self.job_starts_again(id);
        let mut things = self.runtime_directories(id, followed);
        let pid_file =
            self.service_config(id).and_then(|(_, section)| section.pid_file().as_deref().map(str::to_owned));
        things.files.extend(pid_file);
        if things.is_empty() {
            return false;
        }
        let deadline = self.stop_deadline(id);
        self.remove(id, things, false, deadline);
        let sub = match self.sub(id) {
            sub @ (ServiceSub::FinalSigkill | ServiceSub::FinalWatchdog) => sub,
            _ => ServiceSub::FinalSigterm,
        };
        self.set_sub(id, sub, None);
        true
    }

    /// Removes what the runs of a service made below /run, unless it is preserved. `followed` says whether another run
    /// follows.
    pub(crate) fn remove_runtime_directories(&mut self, id: UnitId, followed: bool) {
        let things = self.runtime_directories(id, followed);
        if !things.is_empty() {
            let deadline = self.stop_deadline(id);
            self.remove(id, things, false, deadline);
        }
    }

    /// What is to be removed of that.
    fn runtime_directories(&mut self, id: UnitId, followed: bool) -> Things {
        let mut things = Things::default();
        let made = self.service(id).is_some_and(|service| service.directories_made);
        let exec = self.state.units.get(&id).and_then(|unit| unit.file.exec.clone());
        let Some(exec) = exec.filter(|exec| made && !exec.runtime_directory().is_empty()) else {
            return things;
        };
        let keep = match exec.runtime_directory_preserve() {
            DirectoryPreserve::Yes => true,
            DirectoryPreserve::Restart => followed,
            DirectoryPreserve::No => false,
        };
        if keep {
            return things;
        }
        if let Some(service) = self.service_mut(id) {
            service.directories_made = false;
        }
        things.add("/run", exec.runtime_directory());
        things
    }

    /// Whether the job at hand starts the unit whose run ends.
    pub(crate) fn job_starts_again(&self, id: UnitId) -> bool {
        self.state.jobs.of(id).is_some_and(|job| match job.kind {
            JobType::Restart => true,
            // A start that runs is that of the run which ends.
            JobType::Start => !job.running,
            _ => false,
        })
    }

    // ---- systemctl clean --------------------------------------------------------------------------------------------

    /// `systemctl clean`: the answer comes at once, and the unit is in `maintenance` until all is gone.
    pub(crate) fn request_clean(
        &mut self,
        source: &dyn Source,
        name: &UnitName,
        mask: &[String],
    ) -> Result<(), Refused> {
        let id = self.load(name, source);
        self.check_load_state(id)?;
        let Some(unit) = self.state.units.get(&id) else { return Ok(()) };
        if !matches!(
            unit.name.kind(),
            UnitKind::Service | UnitKind::Socket | UnitKind::Mount | UnitKind::Swap | UnitKind::Timer
        ) {
            return Err(Refused::NoCleaning { unit: name.clone() });
        }
        let asked = |word: &str| mask.iter().any(|asked| asked == word || asked == "all");
        let words: Vec<&str> = can_clean(unit).into_iter().filter(|word| asked(word)).collect();
        if unit.active_state() != ActiveState::Inactive || self.state.jobs.of(id).is_some() {
            return Err(Refused::NotIdle);
        }
        if words.is_empty() {
            return Err(Refused::NothingToClean);
        }
        let things = cleaned_things(unit, &words);
        let span = unit.file.exec.as_ref().and_then(|exec| exec.timeout_clean_sec());
        let deadline = self.after(span.map_or(u64::MAX, |span| span.0));
        if words.contains(&FDSTORE) {
            let stored = self.service_mut(id).map(|service| std::mem::take(&mut service.fd_store));
            let fds: Vec<_> = stored.into_iter().flatten().map(|stored| stored.fd).collect();
            if !fds.is_empty() {
                self.effects.push_back(Effect::CloseFds { fds });
            }
        }
        if let Some(unit) = self.state.units.edit(&id) {
            unit.clean_result = UnitResult::Success;
        }
        self.remove(id, things, true, deadline);
        self.state_changed(id, ActiveState::Inactive);
        Ok(())
    }

    fn cleaned(&mut self, id: UnitId, result: UnitResult) {
        if let Some(unit) = self.state.units.edit(&id) {
            unit.clean_result = result;
            match result {
                UnitResult::Success => {}
                // The helper was killed.
                UnitResult::Timeout => unit.kind.state_mut().set_failed(UnitResult::Signal),
                failure => unit.kind.state_mut().set_failed(failure),
            }
        }
        self.report_result(id);
        self.state_changed(id, ActiveState::Maintenance);
        self.state.gc_queue.insert(id);
    }

    // ---- both -------------------------------------------------------------------------------------------------------

    /// Has a helper remove things, after those that one is removing for the unit already.
    pub(crate) fn remove(&mut self, id: UnitId, things: Things, cleans: bool, deadline_usec: Option<u64>) {
        if self.is_removing(id) {
            let removal = self.state.units.edit(&id).and_then(|unit| unit.removal.as_deref_mut());
            return removal.into_iter().for_each(|removal| removal.more.extend(things.clone()));
        }
        let query = QueryId(self.state.next_query);
        self.state.next_query = self.state.next_query.saturating_add(1);
        self.state.queries.insert(query, id);
        if let Some(unit) = self.state.units.edit(&id) {
            let (things, more) = (things.clone(), Things::default());
            unit.removal = Some(Box::new(Removal { query, things, more, cleans, deadline_usec }));
        }
        self.effects.push_back(Effect::Remove { query: Some(query), things });
        self.touch(id);
    }

    /// The helper is done.
    pub(crate) fn removed(&mut self, query: QueryId, result: Result<(), String>) {
        let Some(id) = self.state.queries.remove(&query) else { return };
        if let Err(why) = &result {
            self.log(Level::Warning, Some(id), format!("{}: {why}", self.unit_name(id)));
        }
        self.removal_over(id, if result.is_ok() { UnitResult::Success } else { UnitResult::ExitCode });
    }

    /// It takes too long.
    pub(crate) fn removal_due(&mut self, id: UnitId) {
        let Some(removal) = self.state.units.get(&id).and_then(|unit| unit.removal.as_deref()) else {
            return;
        };
        let query = removal.query;
        self.state.queries.remove(&query);
        self.effects.push_back(Effect::StopRemoval { query });
        let text = format!("{}: Removing what it left timed out.", self.unit_name(id));
        self.log(Level::Warning, Some(id), text);
        self.removal_over(id, UnitResult::Timeout);
    }

    fn removal_over(&mut self, id: UnitId, result: UnitResult) {
        let removal = self.state.units.edit(&id).and_then(|unit| unit.removal.take());
        self.touch(id);
        let Some(Removal { more, cleans, deadline_usec, .. }) = removal.map(|removal| *removal) else {
            return;
        };
        if !more.is_empty() && result != UnitResult::Timeout {
            return self.remove(id, more, cleans, deadline_usec);
        }
        if cleans {
            return self.cleaned(id, result);
        }
        let result = if result == UnitResult::Timeout { result } else { UnitResult::Success };
        (self.verbs(id).removed)(self, id, result);
        // A start may be waiting for it.
        self.state.jobs.wake(id);
        self.state.gc_queue.insert(id);
    }

    /// What the runs of a service left is gone.
    pub(crate) fn service_removed(&mut self, id: UnitId, result: UnitResult) {
        if !matches!(self.sub(id), ServiceSub::Dead | ServiceSub::Failed) {
            self.note_result(id, result);
            self.run_ends(id);
        }
    }

    /// After a re-execution: the helper's answer would have come to the program before.
    pub(crate) fn removal_resumed(&mut self, id: UnitId) {
        let removal = self.state.units.get(&id).and_then(|unit| unit.removal.as_deref());
        let effect = removal
            .map(|removal| Effect::Remove { query: Some(removal.query), things: removal.things.clone() });
        self.effects.extend(effect);
    }
}

fn cleaned_things(unit: &Unit, words: &[&str]) -> Things {
    let mut things = Things::default();
    if matches!(unit.file.body, Body::Timer(_)) {
        things.paths.push(crate::timer::stamp_path(&unit.name));
        return things;
    }
    let Some(exec) = unit.file.exec.as_deref() else { return things };
    for (_, base, list) in KINDS.iter().filter(|(word, ..)| words.contains(word)) {
        things.add(base, list(exec));
        if exec.dynamic_user() && *base != "/etc" {
            things.add(&format!("{base}/private"), list(exec));
        }
    }
    things
}
