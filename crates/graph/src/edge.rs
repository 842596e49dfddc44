//! The dependency graph: kinds of edges, their inverses, and the edges themselves.
//!
//! Every edge is stored twice, once from each end, so that both directions are a look-up; [`Graph::add`] and
//! [`Graph::remove_from`] are the only writers and keep the two in step. Kinds are those of systemd.unit(5).

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A loaded unit, by number. Never reused within one run of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId(pub u32);

macro_rules! dependencies {
    ($($name:ident <=> $inverse:ident;)*) => {
        /// A kind of dependency as seen from the unit that has it (systemd.unit(5), org.freedesktop.systemd1(5)).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)] // the names are the D-Bus properties
        pub enum Dependency { $($name,)* }

        impl Dependency {
            /// All kinds, in table order.
            pub const ALL: &'static [Dependency] = &[$(Dependency::$name,)*];
            /// The same edge as the other unit sees it.
            pub fn inverse(self) -> Dependency {
                match self { $(Dependency::$name => Dependency::$inverse,)* }
            }
            /// The name of the D-Bus property that lists this kind.
            pub fn name(self) -> &'static str {
                match self { $(Dependency::$name => stringify!($name),)* }
            }
        }
    };
}
dependencies! {
    Requires <=> RequiredBy;
    Requisite <=> RequisiteOf;
    Wants <=> WantedBy;
    BindsTo <=> BoundBy;
    PartOf <=> ConsistsOf;
    Upholds <=> UpheldBy;
    RequiredBy <=> Requires;
    RequisiteOf <=> Requisite;
    WantedBy <=> Wants;
    BoundBy <=> BindsTo;
    UpheldBy <=> Upholds;
    ConsistsOf <=> PartOf;
    Conflicts <=> ConflictedBy;
    ConflictedBy <=> Conflicts;
    Before <=> After;
    After <=> Before;
    OnSuccess <=> OnSuccessOf;
    OnSuccessOf <=> OnSuccess;
    OnFailure <=> OnFailureOf;
    OnFailureOf <=> OnFailure;
    Triggers <=> TriggeredBy;
    TriggeredBy <=> Triggers;
    PropagatesReloadTo <=> ReloadPropagatedFrom;
    ReloadPropagatedFrom <=> PropagatesReloadTo;
    PropagatesStopTo <=> StopPropagatedFrom;
    StopPropagatedFrom <=> PropagatesStopTo;
    JoinsNamespaceOf <=> JoinsNamespaceOf;
    References <=> ReferencedBy;
    ReferencedBy <=> References;
    InSlice <=> SliceOf;
    SliceOf <=> InSlice;
}

/// All edges between loaded units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    nodes: BTreeMap<UnitId, BTreeMap<Dependency, BTreeSet<UnitId>>>,
    /// Edges as their owner declared them, so that a reload can take back exactly these.
    declared: BTreeSet<(UnitId, Dependency, UnitId)>,
}

impl Graph {
    /// Adds `from kind to` and its inverse. An edge to itself is never stored.
    pub fn add(&mut self, from: UnitId, kind: Dependency, to: UnitId) {
        if from == to || !self.declared.insert((from, kind, to)) {
            return;
        }
        self.nodes.entry(from).or_default().entry(kind).or_default().insert(to);
        self.nodes.entry(to).or_default().entry(kind.inverse()).or_default().insert(from);
    }

    /// The units that `from` has this kind of dependency on, in id order.
    pub fn of(&self, from: UnitId, kind: Dependency) -> impl Iterator<Item = UnitId> + '_ {
        self.nodes.get(&from).and_then(|kinds| kinds.get(&kind)).into_iter().flatten().copied()
    }

    /// Whether this edge exists, declared from either side.
    pub fn has(&self, from: UnitId, kind: Dependency, to: UnitId) -> bool {
        self.nodes.get(&from).and_then(|kinds| kinds.get(&kind)).is_some_and(|set| set.contains(&to))
    }

    /// Whether any edge ties this unit to another, from either side.
    pub fn is_isolated(&self, unit: UnitId) -> bool {
        self.nodes.get(&unit).is_none_or(|kinds| kinds.values().all(BTreeSet::is_empty))
    }

    /// The units that say something about this one, in their files or by their types; some of them several times.
    pub fn named_by(&self, unit: UnitId) -> impl Iterator<Item = UnitId> + '_ {
        let kinds = self.nodes.get(&unit).into_iter().flatten();
        kinds
            .flat_map(move |(kind, others)| others.iter().map(move |other| (*other, kind.inverse(), unit)))
            .filter(|edge| self.declared.contains(edge))
            .map(|(other, _, _)| other)
    }

    /// Takes back every edge that `owner` declared; what others declared about it stays.
    pub fn remove_from(&mut self, owner: UnitId) {
        let low = (owner, Dependency::Requires, UnitId(0));
        let mine: Vec<_> = self.declared.range(low..).take_while(|edge| edge.0 == owner).copied().collect();
        for (from, kind, to) in mine {
            self.declared.remove(&(from, kind, to));
            if !self.declared.contains(&(to, kind.inverse(), from)) {
                self.unlink(from, kind, to);
                self.unlink(to, kind.inverse(), from);
            }
        }
    }

    /// Forgets a unit that is being unloaded, with every edge from either side.
    pub fn remove_unit(&mut self, unit: UnitId) {
        let Some(kinds) = self.nodes.remove(&unit) else { return };
        for (kind, others) in kinds {
            for other in others {
                self.unlink(other, kind.inverse(), unit);
                self.declared.remove(&(unit, kind, other));
                self.declared.remove(&(other, kind.inverse(), unit));
            }
        }
    }

    fn unlink(&mut self, from: UnitId, kind: Dependency, to: UnitId) {
        if let Some(set) = self.nodes.get_mut(&from).and_then(|kinds| kinds.get_mut(&kind)) {
            set.remove(&to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_declared_by_both_ends_survives_the_loss_of_one() {
        let (a, b) = (UnitId(1), UnitId(2));
        let mut graph = Graph::default();
        graph.add(a, Dependency::Before, b);
        graph.add(b, Dependency::After, a);
        graph.remove_from(a);
        assert!(graph.has(b, Dependency::After, a) && graph.has(a, Dependency::Before, b));
        graph.remove_from(b);
        assert!(graph.is_isolated(a) && graph.is_isolated(b));
    }
}
