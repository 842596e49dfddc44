//! A unit, as its files say: the typed sections, where they came from, and what was wrong with them.

use crate::diagnostic::Diagnostic;
use crate::table::*;
use crate::value::{KeyringMode, UnitKind, UnitName};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// `LoadState` on D-Bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its word
pub enum LoadState {
    Stub,
    Loaded,
    #[default]
    NotFound,
    BadSetting,
    Error,
    Merged,
    Masked,
}

impl LoadState {
    /// The word on D-Bus.
    pub fn as_str(self) -> &'static str {
        match self {
            LoadState::Stub => "stub",
            LoadState::Loaded => "loaded",
            LoadState::NotFound => "not-found",
            LoadState::BadSetting => "bad-setting",
            LoadState::Error => "error",
            LoadState::Merged => "merged",
            LoadState::Masked => "masked",
        }
    }
}

/// The section of a unit's type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its type
pub enum Body {
    Service(Rc<ServiceSection>),
    Socket(Rc<SocketSection>),
    Target,
    Slice(SliceSection),
    Timer(Box<TimerSection>),
    Path(Box<PathSection>),
    Mount(Box<MountSection>),
    Automount(Box<AutomountSection>),
    Swap(Box<SwapSection>),
    Scope(Box<ScopeSection>),
    Device,
}

impl Body {
    /// The empty body of a type.
    pub fn new(kind: UnitKind) -> Body {
        match kind {
            UnitKind::Service => Body::Service(Rc::default()),
            UnitKind::Socket => Body::Socket(Rc::default()),
            UnitKind::Target => Body::Target,
            UnitKind::Slice => Body::Slice(SliceSection::default()),
            UnitKind::Timer => Body::Timer(Box::default()),
            UnitKind::Path => Body::Path(Box::default()),
            UnitKind::Mount => Body::Mount(Box::default()),
            UnitKind::Automount => Body::Automount(Box::default()),
            UnitKind::Swap => Body::Swap(Box::default()),
            UnitKind::Scope => Body::Scope(Box::default()),
            UnitKind::Device => Body::Device,
        }
    }

    /// The name of the type's own section.
    pub fn section(&self) -> Option<&'static str> {
        Some(match self {
            Body::Service(_) => "Service",
            Body::Socket(_) => "Socket",
            Body::Slice(_) => "Slice",
            Body::Timer(_) => "Timer",
            Body::Path(_) => "Path",
            Body::Mount(_) => "Mount",
            Body::Automount(_) => "Automount",
            Body::Swap(_) => "Swap",
            Body::Scope(_) => "Scope",
            Body::Target | Body::Device => return None,
        })
    }
}

/// The names of a unit, in order. Nearly all have one, so there is no room for more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Names(Box<[UnitName]>);

impl Names {
    /// Only this name.
    pub fn of(name: UnitName) -> Names {
        Names(Box::new([name]))
    }

    /// Adds a name, unless it is there.
    pub fn insert(&mut self, name: UnitName) {
        if let Err(at) = self.0.binary_search(&name) {
            let mut names = std::mem::take(&mut self.0).into_vec();
            names.reserve_exact(1);
            names.insert(at, name);
            self.0 = names.into_boxed_slice();
        }
    }

    /// Adds names.
    pub fn extend(&mut self, names: impl IntoIterator<Item = UnitName>) {
        names.into_iter().for_each(|name| self.insert(name));
    }
}

impl std::ops::Deref for Names {
    type Target = [UnitName];
    fn deref(&self) -> &[UnitName] {
        &self.0
    }
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitFile {
    /// Its primary name.
    pub id: UnitName,
    /// All its names.
    pub names: Names,
    /// The load state.
    pub load_state: LoadState,
    /// Why it is `bad-setting` or `error`.
    pub load_error: Option<String>,
    /// Its file.
    pub fragment_path: Option<String>,
    /// Its drop-ins, in the order they were read.
    pub drop_in_paths: Vec<String>,
    /// When each of these files was last changed as it was read, in microseconds since 1970.
    pub stamps: Vec<(String, u64)>,
    /// `[Unit]`, with what `.wants` and its kin add.
    pub unit: Rc<UnitSection>,
    /// `[Install]`.
    pub install: Rc<InstallSection>,
    /// Execution context, where the type has one.
    pub exec: Option<Rc<ExecSection>>,
    /// Kill context, where the type has one.
    pub kill: Option<Rc<KillSection>>,
    /// Resource control, where the type has it.
    pub cgroup: Option<Rc<CGroupSection>>,
    /// The type's own section.
    pub body: Body,
    /// Diagnostics, in order.
    pub diagnostics: Vec<Diagnostic>,
    /// Directives that were set and have no effect yet.
    pub not_applied: Vec<String>,
    /// How the settings depend on the instance's name.
    #[serde(default)]
    pub instance_use: InstanceUse,
    /// All that it was loaded from, as one number; see [`crate::origin::is_unchanged`]. Not handed over: a new program reads
    /// everything anew.
    #[serde(skip)]
    pub origin: Option<u64>,
}

/// What in a template's settings differs from instance to instance, beside the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceUse {
    /// Nothing.
    #[default]
    Nothing,
    /// `Description=`, with this text before expansion.
    Description(String),
    /// Some other setting.
    More,
}

impl InstanceUse {
    /// After one more assignment: of a text that names the instance, or of one that does not.
    pub(crate) fn after(&self, section: &str, key: &str, naming: Option<&str>) -> InstanceUse {
        match (self, section, key, naming) {
            (InstanceUse::More, ..) => InstanceUse::More,
            (_, "Unit", "Description", Some(text)) => InstanceUse::Description(text.to_owned()),
            (_, "Unit", "Description", None) => InstanceUse::Nothing,
            (_, _, _, Some(_)) => InstanceUse::More,
            (_, _, _, None) => self.clone(),
        }
    }
}

// Most units say little of these two large sections, and many nothing: those share one.
thread_local! {
    static DEFAULT_EXEC: Rc<ExecSection> = Rc::default();
    // What is no service shares its keyring with PID 1.
    static OTHER_EXEC: Rc<ExecSection> =
        Rc::new(ExecSection::of([ExecRow::keyring_mode(KeyringMode::Shared)]));
    static DEFAULT_CGROUP: Rc<CGroupSection> = Rc::default();
    static DEFAULT_INSTALL: Rc<InstallSection> = Rc::default();
    static DEFAULT_KILL: Rc<KillSection> = Rc::default();
}

/// Why a unit is refused for a line that could not be read.
pub(crate) const FATAL: &str = "Unit configuration has a fatal error.";

impl UnitFile {
    /// Whether it was refused for a line of its file: nothing that follows from all of it holds.
    pub fn is_cut_short(&self) -> bool {
        self.load_state == LoadState::BadSetting && self.load_error.as_deref() == Some(FATAL)
    }

    /// Whether all of its lines were read, be it that they do not hold together.
    pub fn is_whole(&self) -> bool {
        matches!(self.load_state, LoadState::Loaded | LoadState::BadSetting) && !self.is_cut_short()
    }

    /// A unit that exists as a name only.
    pub fn not_found(name: UnitName) -> UnitFile {
        let kind = name.kind();
        let runs = matches!(kind, UnitKind::Service | UnitKind::Socket | UnitKind::Mount | UnitKind::Swap);
        let kills = runs || kind == UnitKind::Scope;
        let holds = kills || kind == UnitKind::Slice;
        UnitFile {
            names: Names::of(name.clone()),
            id: name,
            load_state: LoadState::NotFound,
            load_error: None,
            fragment_path: None,
            drop_in_paths: Vec::new(),
            stamps: Vec::new(),
            unit: Rc::default(),
            install: DEFAULT_INSTALL.with(Rc::clone),
            exec: runs.then(|| {
                (if kind == UnitKind::Service { &DEFAULT_EXEC } else { &OTHER_EXEC }).with(Rc::clone)
            }),
            kill: kills.then(|| DEFAULT_KILL.with(Rc::clone)),
            cgroup: holds.then(|| DEFAULT_CGROUP.with(Rc::clone)),
            body: Body::new(kind),
            diagnostics: Vec::new(),
            not_applied: Vec::new(),
            instance_use: InstanceUse::Nothing,
            origin: None,
        }
    }

    /// Whether it runs commands of its own, so that its execution context matters.
    pub fn executes(&self) -> bool {
        match &self.body {
            Body::Service(_) | Body::Mount(_) | Body::Swap(_) => true,
            Body::Socket(socket) => {
                let lists = [
                    &socket.exec_start_pre(),
                    &socket.exec_start_post(),
                    &socket.exec_stop_pre(),
                    &socket.exec_stop_post(),
                ];
                lists.into_iter().any(|list| !list.is_empty())
            }
            Body::Target
            | Body::Slice(_)
            | Body::Timer(_)
            | Body::Path(_)
            | Body::Automount(_)
            | Body::Scope(_)
            | Body::Device => false,
        }
    }

    /// `SourcePath=`.
    pub fn source_path(&self) -> Option<&str> {
        self.unit.source_path().as_deref()
    }
}
