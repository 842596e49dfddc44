//! The dependency graph: kinds of edges, their inverses, and the edges themselves.
//!
//! Every edge is stored twice, once from each end, so that both directions are a look-up; [`Graph`]'s methods are the
//! only writers and keep the two in step. Eight bytes an end: a unit has a dozen of them, and a machine thousands of
//! units. Kinds are those of systemd.unit(5).

use crate::crowd::Crowd;
use muster_unit::NameHasher;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

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

/// At most this many edges of one kind stand in the list of a unit; more of them are a crowd, so that adding and removing
/// one stays cheap where thousands hang on one target.
const FEW: usize = 64;

/// One edge as one of its ends sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Edge {
    to: UnitId,
    kind: Dependency,
    /// This end said so. Whoever declared an edge takes back exactly that.
    declared: bool,
}

impl Edge {
    fn key(&self) -> (Dependency, UnitId) {
        (self.kind, self.to)
    }
}

/// The edges of one unit. A kind stands in one of the two, never in both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Edges {
    /// Ordered by kind, then by unit.
    few: Vec<Edge>,
    /// Kinds with many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[allow(clippy::box_collection)] // one word instead of three in every unit that has few
    many: Option<Box<BTreeMap<Dependency, Crowd>>>,
}

impl Edges {
    fn many(&self, kind: Dependency) -> Option<&Crowd> {
        self.many.as_ref()?.get(&kind)
    }

    fn few(&self, kind: Dependency) -> &[Edge] {
        let begin = self.few.partition_point(|edge| edge.kind < kind);
        let end = self.few.partition_point(|edge| edge.kind <= kind);
        self.few.get(begin..end).unwrap_or_default()
    }

    fn of(&self, kind: Dependency) -> impl Iterator<Item = UnitId> + '_ {
        let many = self.many(kind).into_iter().flat_map(Crowd::iter).map(|(to, _)| to);
        self.few(kind).iter().map(|edge| edge.to).chain(many)
    }

    /// Whether the edge exists, and was declared here.
    fn get(&self, kind: Dependency, to: UnitId) -> Option<bool> {
        match self.many(kind) {
            Some(many) => many.get(to),
            None => {
                let at = self.few.binary_search_by_key(&(kind, to), Edge::key).ok()?;
                self.few.get(at).map(|edge| edge.declared)
            }
        }
    }

    /// Makes the edge, or says anew whether it was declared here.
    fn set(&mut self, kind: Dependency, to: UnitId, declared: bool) {
        self.with(kind, to, Some(declared));
    }

    /// Makes the edge as one that the other end declared; one that there is stays as it is.
    fn mirror(&mut self, kind: Dependency, to: UnitId) {
        self.with(kind, to, None);
    }

    /// Says whether the edge was declared here, or leaves that as it is; the edge is made where there is none.
    fn with(&mut self, kind: Dependency, to: UnitId, declared: Option<bool>) {
        if self.few.len() >= FEW && self.few(kind).len() >= FEW {
            self.spread(kind);
        }
        if let Some(many) = self.many.as_mut().and_then(|many| many.get_mut(&kind)) {
            return many.set(to, declared);
        }
        let at = self.few.binary_search_by_key(&(kind, to), Edge::key).unwrap_or_else(|at| {
            if self.few.len() == self.few.capacity() {
                self.few.reserve_exact((self.few.len() / 4).max(4));
            }
            self.few.insert(at, Edge { to, kind, declared: false });
            at
        });
        if let (Some(edge), Some(declared)) = (self.few.get_mut(at), declared) {
            edge.declared = declared;
        }
    }

    /// Makes a kind a crowd.
    fn spread(&mut self, kind: Dependency) {
        let edges: Crowd = self.few(kind).iter().map(|edge| (edge.to, edge.declared)).collect();
        self.many.get_or_insert_default().insert(kind, edges);
        self.few.retain(|edge| edge.kind != kind);
        self.few.shrink_to_fit();
    }

    fn remove(&mut self, kind: Dependency, to: UnitId) {
        if let Some(many) = self.many.as_mut().and_then(|many| many.get_mut(&kind)) {
            many.remove(to);
        } else if let Ok(at) = self.few.binary_search_by_key(&(kind, to), Edge::key) {
            self.few.remove(at);
        }
    }

    fn iter(&self) -> impl Iterator<Item = Edge> + '_ {
        let many =
            self.many.iter().flat_map(|kinds| kinds.iter()).flat_map(|(kind, edges)| {
                edges.iter().map(|(to, declared)| Edge { to, kind: *kind, declared })
            });
        self.few.iter().copied().chain(many)
    }
}

/// All edges between loaded units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Nothing depends on its order.
    edges: HashMap<UnitId, Edges, BuildHasherDefault<NameHasher>>,
}

impl Graph {
    /// Adds `from kind to` and its inverse. An edge to itself is never stored.
    pub fn add(&mut self, from: UnitId, kind: Dependency, to: UnitId) {
        self.add_all(from, &[(kind, to)]);
    }

    /// Adds all that one unit says of others.
    pub fn add_all(&mut self, from: UnitId, edges: &[(Dependency, UnitId)]) {
        let mut others = edges.to_vec();
        others.retain(|(_, to)| *to != from);
        if others.is_empty() {
            return;
        }
        // In the order in which they stand, so that each is added at the end.
        others.sort_unstable();
        let own = self.edges.entry(from).or_default();
        own.few.reserve_exact(others.len().min(FEW));
        others.iter().for_each(|(kind, to)| own.set(*kind, *to, true));
        // Several edges lead to the same unit, which is looked up once.
        others.sort_unstable_by_key(|(_, to)| *to);
        for edges in others.chunk_by(|(_, to), (_, next)| to == next) {
            let Some((_, to)) = edges.first() else { continue };
            let other = self.edges.entry(*to).or_default();
            edges.iter().for_each(|(kind, _)| other.mirror(kind.inverse(), from));
        }
    }

    fn is_declared(&self, from: UnitId, kind: Dependency, to: UnitId) -> bool {
        self.edges.get(&from).and_then(|edges| edges.get(kind, to)) == Some(true)
    }

    /// The units that `from` has this kind of dependency on, in id order.
    pub fn of(&self, from: UnitId, kind: Dependency) -> impl Iterator<Item = UnitId> + '_ {
        self.edges.get(&from).into_iter().flat_map(move |edges| edges.of(kind))
    }

    /// All that `from` depends on in any way: what it has few of in the order of kinds, then what it has many of.
    pub fn all_of(&self, from: UnitId) -> impl Iterator<Item = (Dependency, UnitId)> + '_ {
        self.edges.get(&from).into_iter().flat_map(Edges::iter).map(|edge| (edge.kind, edge.to))
    }

    /// Whether this edge exists, declared from either side.
    pub fn has(&self, from: UnitId, kind: Dependency, to: UnitId) -> bool {
        self.edges.get(&from).is_some_and(|edges| edges.get(kind, to).is_some())
    }

    /// Whether any edge ties this unit to another, from either side.
    pub fn is_isolated(&self, unit: UnitId) -> bool {
        self.edges.get(&unit).is_none_or(|edges| edges.iter().next().is_none())
    }

    /// The units that say something about this one, in their files or by their types; some of them several times.
    pub fn named_by(&self, unit: UnitId) -> impl Iterator<Item = UnitId> + '_ {
        let edges = self.edges.get(&unit).into_iter().flat_map(Edges::iter);
        edges.filter(move |edge| self.is_declared(edge.to, edge.kind.inverse(), unit)).map(|edge| edge.to)
    }

    /// Takes back every edge that `owner` declared; what others declared about it stays.
    pub fn remove_from(&mut self, owner: UnitId) {
        let Some(edges) = self.edges.get(&owner) else { return };
        let mine: Vec<Edge> = edges.iter().filter(|edge| edge.declared).collect();
        for edge in mine {
            if self.is_declared(edge.to, edge.kind.inverse(), owner) {
                self.edges.entry(owner).or_default().set(edge.kind, edge.to, false);
            } else {
                self.unlink(owner, edge.kind, edge.to);
                self.unlink(edge.to, edge.kind.inverse(), owner);
            }
        }
    }

    /// Forgets a unit that is being unloaded, with every edge from either side.
    pub fn remove_unit(&mut self, unit: UnitId) {
        let Some(edges) = self.edges.remove(&unit) else { return };
        for edge in edges.iter() {
            self.unlink(edge.to, edge.kind.inverse(), unit);
        }
    }

    fn unlink(&mut self, from: UnitId, kind: Dependency, to: UnitId) {
        if let Some(edges) = self.edges.get_mut(&from) {
            edges.remove(kind, to);
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

    /// Beyond a few, edges of a kind are a crowd; nothing else may be seen of that.
    #[test]
    fn many_edges_are_like_few() {
        let (hub, count) = (UnitId(0), 1000);
        let mut graph = Graph::default();
        for number in (1..=count).rev() {
            graph.add(UnitId(number), Dependency::After, hub);
            graph.add(UnitId(number), Dependency::Wants, hub);
        }
        let all: Vec<UnitId> = (1..=count).map(UnitId).collect();
        assert_eq!(graph.of(hub, Dependency::Before).collect::<Vec<_>>(), all);
        assert_eq!(graph.of(hub, Dependency::WantedBy).collect::<Vec<_>>(), all);
        assert!(graph.named_by(hub).count() == 2000 && graph.named_by(UnitId(7)).count() == 0);
        graph.add(hub, Dependency::Before, UnitId(7));
        assert_eq!(graph.named_by(UnitId(7)).collect::<Vec<_>>(), [hub]);
        for number in 1..=count {
            graph.remove_from(UnitId(number));
        }
        assert_eq!(graph.of(hub, Dependency::Before).collect::<Vec<_>>(), [UnitId(7)]);
        graph.remove_unit(UnitId(7));
        assert!(graph.is_isolated(hub));
    }
}
