//! The configuration that must agree: members and the slot table; how it travels (ranges; full or delta) and how two are compared.
//!
//! A view is judged by `cluster_id` and `cfg_index` alone, whoever brings it (ARCHITECTURE: views).

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{ClusterId, HomeId, Incarnation, NodeId, Ref};
use super::slot::{SLOTS, Slot};
use super::status::NodeState;
use super::table::SlotTable;

/// A cache node as the masters know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its current (or last) life.
    pub incarnation: Incarnation,
    /// The state directory it runs from.
    pub home: HomeId,
    /// Client address, host:port.
    pub addr: String,
    /// Peer address, host:port.
    pub peer_addr: String,
    /// Where in its life; never `Suspect`.
    pub state: NodeState,
    /// Failure domain; empty if none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Share of slots relative to the others.
    pub weight: f64,
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its primary serves it.
    Serving,
    /// Its primary is giving it to `handover_to`.
    Handover,
    /// Nobody holds it.
    #[default]
    Orphan,
}

/// A member of a slot and the Raft index of the entry that made it one: what it holds of the slot is from then on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Who.
    pub node: Ref,
    /// Since which entry.
    pub since: u64,
}

/// One slot as the masters agreed on it (PROTOCOL section 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SlotState {
    /// Raft index at which the primary last changed.
    pub pterm: u64,
    /// Raft index at which anything of the slot last changed.
    pub cver: u64,
    /// What it is doing.
    pub phase: Phase,
    /// This pterm was made by SWITCH, or by the first hand-out: nobody may hold a lease of an earlier primary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clean: bool,
    /// This pterm was made by NODE_BACK: the primary's membership goes on, and it keeps what it holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returned: bool,
    /// Who serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Ref>,
    /// All that hold every acknowledged write, the primary among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub insync: Vec<Replica>,
    /// Those being copied to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<Replica>,
    /// Who shall be primary next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover_to: Option<Ref>,
    /// The only in-sync member left when it died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_holder: Option<Ref>,
    /// Since which entry the last holder was a member: what it has from before a membership is not the slot's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_since: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl SlotState {
    /// Whether this life of a node is in sync.
    pub fn in_sync(&self, node: &Ref) -> bool {
        self.insync.iter().any(|r| &r.node == node)
    }

    /// The in-sync members but the primary.
    pub fn backups(&self) -> impl Iterator<Item = &Replica> {
        self.insync.iter().filter(|r| Some(&r.node) != self.primary.as_ref())
    }

    /// The entry of this life of a node, whatever its rank.
    pub fn replica(&self, node: &Ref) -> Option<&Replica> {
        self.insync.iter().chain(&self.learners).find(|r| &r.node == node)
    }
}

/// A run of consecutive slots with one state. `last` is included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRange {
    /// First slot.
    pub first: Slot,
    /// Last slot.
    pub last: Slot,
    /// What all of them are.
    #[serde(flatten)]
    pub state: SlotState,
}

/// Everything a node or a client needs to know: the applied configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Whose.
    pub cluster_id: ClusterId,
    /// Raft index of the last entry that changed members or slots; "epoch" to people.
    pub cfg_index: u64,
    /// How many backups each slot shall have: 0 or 1.
    pub backups: u8,
    /// A planned stop of everything is under way.
    pub stopping: bool,
    /// All nodes ever registered and not forgotten.
    pub members: BTreeMap<NodeId, Member>,
    /// Which state each slot is in.
    pub slots: SlotTable,
}

impl Config {
    /// An empty configuration of `slots` orphan slots.
    pub fn empty(cluster_id: ClusterId, slots: usize) -> Self {
        Self { cluster_id, slots: SlotTable::new(slots, SlotState::default()), ..Self::default() }
    }

    /// The current life of a node.
    pub fn current(&self, id: &NodeId) -> Option<Ref> {
        let m = self.members.get(id)?;
        Some(Ref { id: id.clone(), incarnation: m.incarnation })
    }

    /// Whether this very life is a member that is neither dead nor gone.
    pub fn is_live(&self, node: &Ref) -> bool {
        self.members
            .get(&node.id)
            .is_some_and(|m| m.incarnation == node.incarnation && !matches!(m.state, NodeState::Dead | NodeState::Left))
    }

    /// The member record of this very life.
    pub fn member(&self, node: &Ref) -> Option<&Member> {
        self.members.get(&node.id).filter(|m| m.incarnation == node.incarnation)
    }

    /// Packs the slots for which `keep` holds into ranges.
    pub fn ranges(&self, keep: impl Fn(&SlotState) -> bool) -> Vec<SlotRange> {
        ranges(&self.slots, keep)
    }

    /// The whole of it, ready to travel.
    pub fn full(&self) -> View {
        self.since(0)
    }

    /// What changed after `base`; a full view when `base` is 0. Correct because `cver` dates every slot.
    pub fn since(&self, base: u64) -> View {
        let (slots, alike) = match base {
            0 => (self.ranges(|_| true), Vec::new()),
            _ => (Vec::new(), self.alike(|s| s.cver > base)),
        };
        View {
            cluster_id: self.cluster_id,
            base,
            cfg_index: self.cfg_index,
            backups: self.backups,
            stopping: self.stopping,
            members: self.members.clone(),
            slots,
            alike,
        }
    }

    /// Packs the slots for which `keep` holds by what they are.
    fn alike(&self, keep: impl Fn(&SlotState) -> bool) -> Vec<Alike> {
        let mut known: HashMap<&SlotState, usize> = HashMap::new();
        let mut out: Vec<Alike> = Vec::new();
        let groups = self.slots.each(|s| keep(s).then(|| Cell::new(None)));
        for (i, s) in self.slots.iter().enumerate() {
            let Some(group) = &groups[i] else { continue };
            let slot = Slot(i as u16);
            let group = group.get().unwrap_or_else(|| {
                let n = *known.entry(s).or_insert_with(|| {
                    out.push(Alike { ranges: Vec::new(), state: SlotState::clone(s) });
                    out.len() - 1
                });
                group.set(Some(n));
                n
            });
            match out[group].ranges.last_mut() {
                Some((_, last)) if last.ix() + 1 == i => *last = slot,
                _ => out[group].ranges.push((slot, slot)),
            }
        }
        out
    }

    /// Lets all slots that changed at `since` or later and are alike share their state.
    pub fn share(&mut self, since: u64) {
        self.slots.share(|s| s.cver >= since);
    }

    /// Takes a view in: another cluster's is refused, an older one ignored, a delta applied only onto exactly its base.
    pub fn absorb(&mut self, view: &View) -> Absorbed {
        if self.cluster_id != ClusterId(0) && view.cluster_id != self.cluster_id {
            return Absorbed::Foreign;
        }
        if view.cfg_index <= self.cfg_index {
            return Absorbed::Old;
        }
        if view.base != 0 && view.base != self.cfg_index {
            return Absorbed::Gap;
        }
        if self.slots.is_empty() {
            self.slots = SlotTable::new(SLOTS, SlotState::default());
        }
        let end = self.slots.len();
        let apart = view.slots.iter().map(|r| (r.first, r.last));
        if apart.chain(view.alike.iter().flat_map(|a| a.ranges.iter().copied())).any(|(a, b)| a > b || b.ix() >= end) {
            return Absorbed::Foreign;
        }
        for r in &view.slots {
            self.slots.fill(r.first.ix()..r.last.ix() + 1, Arc::new(r.state.clone()));
        }
        for a in &view.alike {
            self.slots
                .fill_runs(a.ranges.iter().map(|(first, last)| first.ix()..last.ix() + 1), Arc::new(a.state.clone()));
        }
        match view.base {
            0 => self.share(0),
            _ => self.slots.tidy(),
        }
        self.cluster_id = view.cluster_id;
        self.cfg_index = view.cfg_index;
        self.backups = view.backups;
        self.stopping = view.stopping;
        self.members = view.members.clone();
        Absorbed::New
    }
}

/// What became of a view that was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absorbed {
    /// The configuration is now the view's.
    New,
    /// Nothing new in it.
    Old,
    /// A delta onto another base: pull the whole.
    Gap,
    /// Of another cluster, or malformed: refused.
    Foreign,
}

/// A configuration as it travels (REFRESH_IP).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Whose.
    pub cluster_id: ClusterId,
    /// 0 = full; else the `cfg_index` this is a delta onto.
    #[serde(default)]
    pub base: u64,
    /// What the taker stands at afterwards.
    pub cfg_index: u64,
    /// Backups asked for per slot.
    pub backups: u8,
    /// A planned stop is under way.
    #[serde(default)]
    pub stopping: bool,
    /// All members (few, so always whole).
    pub members: BTreeMap<NodeId, Member>,
    /// All slots, as ranges: of a full view.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotRange>,
    /// The slots that changed: of a delta. What changes together is alike, but seldom side by side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alike: Vec<Alike>,
}

/// Slots that are all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// Which: first and last of every run.
    pub ranges: Vec<(Slot, Slot)>,
    /// What all of them are.
    #[serde(flatten)]
    pub state: SlotState,
}

/// Packs the slots of a table for which `keep` holds into ranges.
pub fn ranges(slots: &SlotTable, keep: impl Fn(&SlotState) -> bool) -> Vec<SlotRange> {
    let mut out: Vec<SlotRange> = Vec::new();
    let mut last: Option<&Arc<SlotState>> = None;
    for (i, s) in slots.iter().enumerate() {
        if !keep(s) {
            continue;
        }
        match out.last_mut() {
            Some(r) if r.last.ix() + 1 == i && last.is_some_and(|l| l == s) => r.last = Slot(i as u16),
            _ => out.push(SlotRange { first: Slot(i as u16), last: Slot(i as u16), state: SlotState::clone(s) }),
        }
        last = Some(s);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(id: &str) -> Ref {
        Ref { id: NodeId::new(id).unwrap(), incarnation: Incarnation(7) }
    }

    fn config() -> Config {
        let mut c = Config::empty(ClusterId(9), 16);
        c.cfg_index = 5;
        let held = SlotState { cver: 5, primary: Some(r("n1")), ..SlotState::default() };
        c.slots.fill(4..12, Arc::new(held));
        c
    }

    #[test]
    fn a_full_view_survives_the_wire() {
        let c = config();
        let text = serde_json::to_string(&c.full()).unwrap();
        let mut d = Config { slots: SlotTable::new(16, SlotState::default()), ..Config::default() };
        assert_eq!(d.absorb(&serde_json::from_str(&text).unwrap()), Absorbed::New);
        assert_eq!(c, d);
        assert_eq!(c.full().slots.len(), 3);
    }

    #[test]
    fn a_delta_fits_only_its_base() {
        let old = config();
        let mut new = old.clone();
        new.cfg_index = 8;
        new.slots.update(3, |s| s.cver = 8);
        let delta = new.since(5);
        assert_eq!((delta.slots.len(), delta.alike.len()), (0, 1));
        let mut taker = old.clone();
        assert_eq!(taker.absorb(&delta), Absorbed::New);
        assert_eq!(taker, new);
        assert_eq!(taker.absorb(&delta), Absorbed::Old);
        let mut behind = Config::empty(ClusterId(9), 16);
        behind.cfg_index = 4;
        assert_eq!(behind.absorb(&delta), Absorbed::Gap);
        let mut other = Config::empty(ClusterId(1), 16);
        assert_eq!(other.absorb(&delta), Absorbed::Foreign);
    }
}
