//! The planner: `(nodes, current table) -> (target table, moves)`. Pure and deterministic; masters apply what it says, the
//! TUI and CLI show it first.
//!
//! ```text
//! names ─▶ indices ─▶ primaries (ring, bounded loads) ─▶ backups (domains, bounds, spread) ─▶ differences ─▶ digest
//! ```
//!
//! The ring proposes, the current table wins: a slot stays where it is unless its holder is gone, drains, is above its
//! bound, or is what a node below its bound is filled up from. What holds of a plan in [`Mode::Balance`]:
//!
//! - No node leads more than ceil(1.02 × its share by weight), nor backs more where its copies can be elsewhere at all (a
//!   node with over half of the weight forces the others above theirs). With up to 100 equal nodes max/mean ≤ 1.02.
//! - A node below 0.95 × its share is filled up to it. Bounded loads have no such rule; without it the 51st node would get
//!   nothing.
//! - Adding one of N equal nodes moves ≤ 1.05 × slots/(N+1) primaries; draining one moves only what it leads.
//! - A backup is on another node always, and in another zone than its primary while nodes of two zones accept: zones go
//!   before bounds, since they are there to be lost as a whole. A zone that leads more than half makes the others' shares of
//!   backups larger. On another host as far as bounds allow.
//! - Right after any one death among equal nodes in balance no survivor leads more than 1.25 × the mean.
//! - Given its own target, it moves nothing.
//! - Runs stay long, since a piece goes to a neighbour on the circle where one has room: at 100 nodes the ring alone makes
//!   1,600 runs, a formation about 1,400, and 20 changes later there are no more than 1,600.
//!
//! In [`Mode::Rebuild`] primaries stay, and bounds on backups hold as far as that allows.

mod backups;
mod field;
pub mod figures;
mod primaries;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::id::NodeId;
pub use super::operation::Role;
use super::slot::{SLOTS, Slot};
use field::{Field, NOBODY};

/// A node as the planner sees it. A node that is not in the list is gone: what it held goes to others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNode {
    /// Its name.
    pub id: NodeId,
    /// Failure domain; empty if none.
    pub zone: String,
    /// The host part of its address.
    pub host: String,
    /// Share of slots relative to the others.
    pub weight: f64,
    /// False while it drains (or waits without slots): it is given nothing and gives away all it has.
    pub accepts: bool,
}

/// Who holds one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Placement {
    /// Who serves it.
    pub primary: Option<NodeId>,
    /// Who holds the copy.
    pub backup: Option<NodeId>,
}

/// How much a plan may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Primaries stay wherever a live holder is; only missing backups are placed.
    Rebuild,
    /// Everything within its bounds: scale-out, scale-in, rebalance, first formation.
    Balance,
}

/// A run of consecutive slots whose holder changes in the same way. `last` is included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Move {
    /// First slot.
    pub first: Slot,
    /// Last slot.
    pub last: Slot,
    /// Which place.
    pub what: Role,
    /// Who has it in the current table, dead or alive; none = nobody.
    pub from: Option<NodeId>,
    /// Who shall have it; none = nobody can (a backup with one node left).
    pub to: Option<NodeId>,
}

impl Move {
    /// How many slots.
    pub fn slots(&self) -> usize {
        self.last.ix() + 1 - self.first.ix()
    }
}

/// What shall be, and how it differs from what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One entry per slot.
    pub target: Vec<Placement>,
    /// The differences: all primaries' by slot, then all backups' by slot.
    pub moves: Vec<Move>,
    /// Equal for equal `moves`: what an operator agreed to is what gets applied.
    pub digest: u64,
}

/// Plans. `current` is one entry per slot (empty = 16384 slots that nobody holds), `backups` 0 or 1. The answer does not
/// depend on the order of `nodes`; planning its own `target` again moves nothing.
///
/// A primary that is gone is followed by its slot's backup first, as NODE_DEAD does. A slot without any holder is given
/// out in [`Mode::Balance`] (as an empty one: whether it may be is the caller's business) and left alone in
/// [`Mode::Rebuild`].
pub fn plan(nodes: &[PlanNode], current: &[Placement], backups: u8, mode: Mode) -> Plan {
    let nobody;
    let current = if current.is_empty() {
        nobody = vec![Placement::default(); SLOTS];
        &nobody
    } else {
        current
    };
    let target = target(nodes, current, backups, mode);
    let moves = moves(current, &target);
    let digest = digest(&moves);
    Plan { target, moves, digest }
}

/// What [`plan`] says shall be, by itself.
pub fn target(nodes: &[PlanNode], current: &[Placement], backups: u8, mode: Mode) -> Vec<Placement> {
    let mut sorted: Vec<&PlanNode> = nodes.iter().collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    sorted.dedup_by(|a, b| a.id == b.id);
    let field = Field::new(&sorted, current.len());

    let mut primary = field.holders(current.iter().map(|p| p.primary.as_ref()));
    let mut backup = field.holders(current.iter().map(|p| p.backup.as_ref()));
    for (p, b) in primary.iter_mut().zip(&mut backup) {
        if *p == NOBODY {
            *p = std::mem::replace(b, NOBODY);
        }
    }
    let before = primary.clone();
    if mode == Mode::Balance {
        primaries::balance(&field, &mut primary);
    }
    if backups == 0 {
        backup.fill(NOBODY);
    } else {
        backups::place(&field, &primary, &before, &mut backup, mode);
    }

    let name = |i: u32| sorted.get(i as usize).map(|n| n.id.clone());
    primary.iter().zip(&backup).map(|(&p, &b)| Placement { primary: name(p), backup: name(b) }).collect()
}

/// The table right after the death of one node, before anything is planned: its backups lead, its copies are gone.
pub fn after_death(table: &[Placement], dead: &NodeId) -> Vec<Placement> {
    table
        .iter()
        .map(|p| match p {
            p if p.primary.as_ref() == Some(dead) => Placement { primary: p.backup.clone(), backup: None },
            p if p.backup.as_ref() == Some(dead) => Placement { primary: p.primary.clone(), backup: None },
            p => p.clone(),
        })
        .collect()
}

/// The differences between two tables: all primaries' by slot, then all backups' by slot.
pub fn moves(current: &[Placement], target: &[Placement]) -> Vec<Move> {
    let mut moves = differences(current, target, Role::Primary);
    moves.extend(differences(current, target, Role::Backup));
    moves
}

fn differences(current: &[Placement], target: &[Placement], what: Role) -> Vec<Move> {
    fn of(p: &Placement, what: Role) -> Option<&NodeId> {
        match what {
            Role::Primary => p.primary.as_ref(),
            Role::Backup => p.backup.as_ref(),
        }
    }
    let mut moves: Vec<Move> = Vec::new();
    for (i, (from, to)) in current.iter().zip(target).map(|(a, b)| (of(a, what), of(b, what))).enumerate() {
        if from == to {
            continue;
        }
        let slot = Slot(i as u16);
        match moves.last_mut() {
            Some(m) if m.last.ix() + 1 == i && m.from.as_ref() == from && m.to.as_ref() == to => m.last = slot,
            _ => moves.push(Move { first: slot, last: slot, what, from: from.cloned(), to: to.cloned() }),
        }
    }
    moves
}

/// Only the moves count: a plan made again at a later epoch is the same if it would do the same.
pub fn digest(moves: &[Move]) -> u64 {
    let mut hash = Xxh3::new();
    for m in moves {
        hash.update(&m.first.0.to_le_bytes());
        hash.update(&m.last.0.to_le_bytes());
        hash.update(&[m.what as u8]);
        for id in [&m.from, &m.to] {
            // Names hold no NUL and are not empty, so this can be read in one way only.
            hash.update(id.as_ref().map_or("", NodeId::as_str).as_bytes());
            hash.update(&[0]);
        }
    }
    hash.digest()
}

#[cfg(test)]
mod tests;
