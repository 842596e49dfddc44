//! `musterctl graph`: what a unit depends on, or what depends on it, as a tree or in the language of dot(1).
//!
//! The graph is read level by level, many questions at once, and walked with a stack: it may be deep, and it has circles.

use crate::client::{Client, Failure, Listed, Question};
use crate::page::{Page, Style, style_of};
use crate::{Answer, UNIT};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// A property of a unit, the same seen from the other end, and whether the other unit is needed and not only wanted.
struct Kind(&'static str, &'static str, bool);

/// What brings up another unit (systemd.unit(5)).
const WANTED: [Kind; 5] = [
    Kind("Requires", "RequiredBy", true),
    Kind("Requisite", "RequisiteOf", true),
    Kind("BindsTo", "BoundBy", true),
    Kind("Upholds", "UpheldBy", true),
    Kind("Wants", "WantedBy", false),
];
const ORDERED: [Kind; 1] = [Kind("After", "Before", false)];

/// What is shown.
#[derive(Serialize)]
pub struct Graph {
    unit: String,
    reverse: bool,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    #[serde(skip)]
    dot: bool,
}

#[derive(Serialize)]
struct Node {
    unit: String,
    active_state: String,
}

/// `from` depends on `to`.
#[derive(Clone, Serialize)]
struct Edge {
    from: String,
    to: String,
    /// Names of directives.
    kinds: Vec<&'static str>,
    /// Whether `from` waits for `to`.
    after: bool,
}

/// Reads the graph.
pub fn graph(asked: &muster_cli::Graph) -> Result<Graph, Failure> {
    let mut client = Client::connect()?;
    let unit = asked.unit.name();
    let mut known: BTreeMap<String, Listed> =
        client.list("*")?.into_iter().map(|listed| (listed.name.clone(), listed)).collect();
    let kinds: &[Kind] = if asked.order { &ORDERED } else { &WANTED };
    let mut graph = Graph {
        unit: unit.clone(),
        reverse: asked.reverse,
        nodes: Vec::new(),
        edges: Vec::new(),
        dot: asked.dot,
    };
    let mut level = vec![unit.clone()];
    let mut seen = BTreeSet::from([unit]);
    let mut depth = asked.depth.unwrap_or(usize::MAX);
    while !level.is_empty() {
        for unit in &level {
            // What is asked for may be an alias, which is not in the list.
            if !known.contains_key(unit) {
                known.insert(unit.clone(), client.look_up(unit)?);
            }
            let active_state = known.get(unit).map(|listed| listed.active.clone()).unwrap_or_default();
            graph.nodes.push(Node { unit: unit.clone(), active_state });
        }
        let Some(left) = depth.checked_sub(1) else { break };
        depth = left;
        let edges = neighbours(&mut client, &known, &level, kinds, asked.reverse)?;
        let ends = edges.iter().map(|edge| if asked.reverse { &edge.from } else { &edge.to });
        level = ends.filter(|unit| seen.insert((*unit).clone())).cloned().collect();
        graph.edges.extend(edges);
    }
    Ok(graph)
}

/// The edges of these units.
fn neighbours(
    client: &mut Client,
    known: &BTreeMap<String, Listed>,
    units: &[String],
    kinds: &[Kind],
    reverse: bool,
) -> Result<Vec<Edge>, Failure> {
    let name = |kind: &Kind| if reverse { kind.1 } else { kind.0 };
    let paths = || units.iter().filter_map(|unit| Some((unit, known.get(unit)?.path.as_str())));
    let properties = || kinds.iter().chain(&ORDERED).map(name);
    let questions: Vec<Question<'_>> =
        paths().flat_map(|(_, path)| properties().map(move |name| Question(path, UNIT, name))).collect();
    let mut answers = client.ask(&questions)?;
    let mut edges = Vec::new();
    for (unit, _) in paths() {
        let mut others: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        for kind in kinds {
            for other in answers.take::<Vec<String>>().unwrap_or_default() {
                others.entry(other).or_default().push(kind.0);
            }
        }
        let order: BTreeSet<String> = answers.take::<Vec<String>>().unwrap_or_default().into_iter().collect();
        edges.extend(others.into_iter().map(|(other, kinds)| {
            let after = order.contains(&other);
            let (from, to) = if reverse { (other, unit.clone()) } else { (unit.clone(), other) };
            Edge { from, to, kinds, after }
        }));
    }
    Ok(edges)
}

impl Answer for Graph {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.dot { self.print_dot(page) } else { self.print_tree(page) }
    }
}

impl Graph {
    fn print_tree(&self, page: &mut Page<'_>) -> io::Result<()> {
        let states: BTreeMap<&str, &str> =
            self.nodes.iter().map(|node| (node.unit.as_str(), node.active_state.as_str())).collect();
        let mut below: BTreeMap<&str, Vec<(&str, &Edge)>> = BTreeMap::new();
        for edge in &self.edges {
            let (near, far) = if self.reverse { (&edge.to, &edge.from) } else { (&edge.from, &edge.to) };
            below.entry(near).or_default().push((far, edge));
        }
        let mut shown = BTreeSet::new();
        // Unit, its edge, what stands before its line, and whether it is the last below its parent.
        let mut stack = vec![(self.unit.as_str(), None::<&Edge>, String::new(), true)];
        while let Some((unit, edge, before, last)) = stack.pop() {
            let state = states.get(unit).copied().unwrap_or("inactive");
            let arm = match edge {
                None => "",
                Some(_) if last => "└─",
                Some(_) => "├─",
            };
            let children = below.get(unit).map(Vec::as_slice).unwrap_or_default();
            let again = !shown.insert(unit) && !children.is_empty();
            let mut notes: Vec<&str> = edge.map(|edge| edge.kinds.clone()).unwrap_or_default();
            // With --order, every edge is one.
            notes.extend(edge.filter(|edge| edge.after && edge.kinds != ["After"]).map(|_| "after"));
            notes.extend(again.then_some("above"));
            let (mark, notes) = (page.paint(style_of(state), mark(state)), notes.join(" "));
            writeln!(page, "{before}{arm}{mark} {unit} {}", page.paint(Style::Dim, &notes))?;
            if again {
                continue;
            }
            let before = match edge {
                None => before,
                Some(_) => format!("{before}{}", if last { "  " } else { "│ " }),
            };
            for (index, (child, edge)) in children.iter().enumerate().rev() {
                let last = index.saturating_add(1) == children.len();
                stack.push((child, Some(edge), before.clone(), last));
            }
        }
        Ok(())
    }

    fn print_dot(&self, page: &mut Page<'_>) -> io::Result<()> {
        writeln!(page, "digraph {} {{", quoted(&self.unit))?;
        writeln!(
            page,
            "  rankdir=LR; node [shape=box, style=filled, fillcolor=white, fontname=sans]; edge [fontname=sans, fontsize=9];"
        )?;
        for Node { unit, active_state } in &self.nodes {
            let colour = match active_state.as_str() {
                "active" | "reloading" | "refreshing" => "palegreen",
                "failed" => "salmon",
                "activating" | "deactivating" | "maintenance" => "khaki",
                _ => "white",
            };
            writeln!(page, "  {} [fillcolor={colour}];", quoted(unit))?;
        }
        for Edge { from, to, kinds, after } in &self.edges {
            let needed = WANTED.iter().any(|kind| kind.2 && kinds.contains(&kind.0));
            let style = if needed { "solid" } else { "dashed" };
            let head = if *after { "normal" } else { "empty" };
            writeln!(
                page,
                "  {} -> {} [label={}, style={style}, arrowhead={head}];",
                quoted(from),
                quoted(to),
                quoted(&kinds.join(" "))
            )?;
        }
        writeln!(page, "}}")
    }
}

fn mark(state: &str) -> &'static str {
    match state {
        "active" | "reloading" | "refreshing" => "●",
        "failed" => "×",
        "activating" | "deactivating" | "maintenance" => "◐",
        _ => "○",
    }
}

/// A name as dot(1) takes it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
