//! Step 4: names of other programs become indexes; what waits for itself is an error.

use super::assemble_board::Owned;
use super::nearest::nearest;
use super::report::Report;
use super::text::short;
use super::{Place, Program};

/// A program whose dependencies are still names, with the places where they stand.
#[derive(Default)]
pub(super) struct Linked {
    pub(super) program: Program,
    pub(super) after: (Place, Vec<String>),
    pub(super) requires: (Place, Vec<String>),
    pub(super) name_place: Place,
    /// Names of outputs and inputs, and where they stand.
    pub(super) owned: (Place, Place, Owned),
}

/// Sorts by priority and resolves all names. Where the document is incomplete, a name that is not
/// found may be in the part that is missing, and is no error of its own.
pub(super) fn link(unsorted: Vec<Linked>, incomplete: bool, report: &mut Report) -> Vec<Program> {
    let mut linked: Vec<Linked> = Vec::with_capacity(unsorted.len());
    for one in unsorted {
        let at = linked.partition_point(|other| other.program.priority <= one.program.priority);
        linked.insert(at, one);
    }
    let mut edges: Vec<Vec<Edge>> = Vec::with_capacity(linked.len());
    for index in 0..linked.len() {
        let mut own = Vec::new();
        let after = resolve(&linked, index, "after", &mut own, incomplete, report);
        let requires = resolve(&linked, index, "requires", &mut own, incomplete, report);
        edges.push(own);
        let program = &mut linked[index].program;
        program.after = after;
        program.requires = requires;
    }
    let programs: Vec<Program> = linked.into_iter().map(|one| one.program).collect();
    let mut search = Search {
        programs: &programs,
        edges: &edges,
        path: Vec::new(),
        seen: vec![Seen::No; edges.len()],
        report,
    };
    for index in 0..programs.len() {
        search.visit(index);
    }
    programs
}

/// One program waits for another; where that is written.
#[derive(Clone, Copy)]
struct Edge {
    to: usize,
    place: Place,
}

fn resolve(
    linked: &[Linked],
    index: usize,
    key: &str,
    edges: &mut Vec<Edge>,
    incomplete: bool,
    report: &mut Report,
) -> Vec<usize> {
    let (place, names) = if key == "after" { &linked[index].after } else { &linked[index].requires };
    let mut found = Vec::new();
    for name in names {
        let all = linked.iter().enumerate();
        let mut targets: Vec<usize> =
            all.clone().filter(|(_, one)| one.program.name == *name).map(|(at, _)| at).collect();
        if targets.is_empty() {
            targets = all.filter(|(_, one)| one.program.section == *name).map(|(at, _)| at).collect();
        }
        if targets.contains(&index) {
            report.error(*place, format_args!("{key}: {name} cannot wait for itself"));
            continue;
        }
        if targets.is_empty() && !incomplete {
            report.explain(*place, &|| unknown(linked, key, name));
        }
        for to in targets {
            if !found.contains(&to) {
                found.push(to);
                edges.push(Edge { to, place: *place });
            }
        }
    }
    found
}

fn unknown(linked: &[Linked], key: &str, name: &str) -> String {
    let known = linked.iter().flat_map(|one| [one.program.name.as_str(), one.program.section.as_str()]);
    let name = &short(name);
    match nearest(name, known) {
        Some(known) => format!("{key}: there is no program {name}; did you mean {known}?"),
        None => format!("{key}: there is no program {name}"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    OnPath,
    Done,
}

/// Depth-first; an edge back to the path closes a cycle.
struct Search<'a> {
    programs: &'a [Program],
    edges: &'a [Vec<Edge>],
    /// The program and the place of the edge that leaves it.
    path: Vec<(usize, Place)>,
    seen: Vec<Seen>,
    report: &'a mut Report,
}

impl Search<'_> {
    /// Recursive; the depth is at most the number of programs, `limits::PROGRAM_COUNT_MAX`.
    fn visit(&mut self, index: usize) {
        if self.seen[index] != Seen::No {
            return;
        }
        self.seen[index] = Seen::OnPath;
        let edges = self.edges;
        for edge in &edges[index] {
            self.path.push((index, edge.place));
            if self.seen[edge.to] == Seen::OnPath {
                self.cycle(edge.to);
            }
            self.visit(edge.to);
            self.path.pop();
        }
        self.seen[index] = Seen::Done;
    }

    fn cycle(&mut self, first: usize) {
        let start = self.path.iter().position(|(index, _)| *index == first).unwrap_or(0);
        let steps = &self.path[start..];
        let Some((_, place)) = steps.first() else { return };
        let lines: Vec<String> = steps.iter().map(|(_, at)| self.report.refer(*at, *place)).collect();
        self.report.explain(*place, &|| {
            let mut names: Vec<&str> =
                steps.iter().map(|(index, _)| self.programs[*index].name.as_str()).collect();
            names.push(&self.programs[first].name);
            format!("these programs wait for each other: {} ({})", names.join(" -> "), lines.join(", "))
        });
    }
}
