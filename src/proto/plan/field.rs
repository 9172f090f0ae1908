//! The nodes as the planner counts with them: indices instead of names, fair shares and bounds as slots.

use std::collections::{BTreeMap, HashMap};

use super::{NodeId, PlanNode};
use crate::proto::ring::{Ring, sane_weight};

/// No node, in a table of indices.
pub(super) const NOBODY: u32 = u32::MAX;

/// How far above its fair share a node may be (PROTOCOL 2).
const OVER: f64 = 1.02;
/// How far below it a node may be before others give to it. Bounded loads know no such bound, but without one the 51st
/// node would get nothing: an even share of 50 is within 1.02 × a share of 51.
const UNDER: f64 = 0.95;

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// 0 = no zone given.
    zone: u32,
    host: u32,
}

/// Nodes sorted by name; everything else indexed like them.
pub(super) struct Field<'a> {
    index: HashMap<&'a NodeId, u32>,
    /// Zone and host of each node, as numbers: they are compared a million times in a large plan.
    places: Vec<Place>,
    /// Slots in all.
    pub slots: usize,
    /// Weights, 0 for a node that does not accept.
    pub weight: Vec<f64>,
    /// The sum of them.
    pub total: f64,
    /// The circle, with the points of accepting nodes only.
    pub ring: Ring,
    /// Whether nodes of more than one zone accept: then no backup may be in its primary's.
    zones_bind: bool,
}

/// The domain that no backup may be in: its primary's zone while another one lives.
pub(super) const SAME_ZONE: u8 = 3;

impl<'a> Field<'a> {
    /// `nodes` sorted by name, without doubles.
    pub fn new(nodes: &[&'a PlanNode], slots: usize) -> Self {
        let weight: Vec<f64> = nodes.iter().map(|n| if n.accepts { sane_weight(n.weight) } else { 0.0 }).collect();
        let total = weight.iter().sum();
        let index = nodes.iter().enumerate().map(|(i, n)| (&n.id, i as u32)).collect();
        let mut ring = Ring::new(nodes.iter().filter(|n| n.accepts).map(|n| (&n.id, n.weight)), slots);
        let accepting: Vec<u32> = (0..nodes.len() as u32).filter(|&i| nodes[i as usize].accepts).collect();
        ring.rename(|i| accepting[i as usize]);
        let mut numbers = HashMap::from([("", 0)]);
        let mut number = |label: &'a str| {
            let next = numbers.len() as u32;
            *numbers.entry(label).or_insert(next)
        };
        let places: Vec<Place> = nodes.iter().map(|n| Place { zone: number(&n.zone), host: number(&n.host) }).collect();
        let mut zones = accepting.iter().map(|&i| places[i as usize].zone).filter(|&z| z != 0);
        let first = zones.next();
        let zones_bind = zones.any(|z| Some(z) != first);
        Self { index, places, slots, weight, total, ring, zones_bind }
    }

    /// How many nodes, accepting or not.
    pub fn len(&self) -> usize {
        self.weight.len()
    }

    /// Whether a node may be given anything.
    pub fn accepts(&self, node: u32) -> bool {
        self.weight.get(node as usize).is_some_and(|&w| w > 0.0)
    }

    /// Names to indices; who is not in the list is nobody.
    pub fn holders<'b>(&self, names: impl Iterator<Item = Option<&'b NodeId>>) -> Vec<u32> {
        names.map(|n| n.and_then(|n| self.index.get(n).copied()).unwrap_or(NOBODY)).collect()
    }

    /// How much a failure can take both at once: 0 = different zones, 1 = different hosts, 2 = neither, [`SAME_ZONE`] = one
    /// zone, though there are others.
    pub fn domain(&self, a: u32, b: u32) -> u8 {
        let (a, b) = (self.places[a as usize], self.places[b as usize]);
        match a.zone != 0 && b.zone != 0 {
            true if a.zone != b.zone => 0,
            true if self.zones_bind => SAME_ZONE,
            _ => 1 + u8::from(a.host == b.host),
        }
    }

    /// Shares of the backups of what `leads` says: by weight, but a node can't back what it leads, nor a zone what is led in
    /// it. A zone that leads more than half makes the others' shares larger, down to all of it for one that is alone.
    pub fn backup_shares(&self, leads: &[u32]) -> Vec<f64> {
        let led = leads.iter().sum::<u32>();
        // Those that stand or fall together: a zone's nodes; else each by itself.
        let mut groups: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for n in 0..self.len() as u32 {
            let zone = self.places[n as usize].zone;
            let group = if self.zones_bind && zone != 0 { (zone, 0) } else { (0, n) };
            groups.entry(group).or_default().push(n);
        }
        let weight = |of: &Vec<u32>| of.iter().map(|&n| self.weight[n as usize]).sum::<f64>();
        let weights: Vec<f64> = groups.values().map(weight).collect();
        let elsewhere = |of: &Vec<u32>| f64::from(led - of.iter().map(|&n| leads[n as usize]).sum::<u32>());
        let most: Vec<f64> = groups.values().map(elsewhere).collect();
        let mut shares = vec![0.0; self.len()];
        for ((nodes, weight), share) in
            groups.values().zip(weights.iter()).zip(shares_below(&weights, &most, f64::from(led)))
        {
            for &n in nodes.iter().filter(|&&n| self.accepts(n)) {
                shares[n as usize] = share * self.weight[n as usize] / weight;
            }
        }
        shares
    }

    /// Whether there is more than one zone or host at all.
    pub fn has_domains(&self) -> bool {
        self.places.windows(2).any(|p| p[0] != p[1])
    }

    /// The weight of a node's zone, in thousandths so that it can be sorted by; 0 without a zone.
    pub fn zone_weight(&self, node: u32) -> u64 {
        let zone = self.places[node as usize].zone;
        if zone == 0 {
            return 0;
        }
        let of_zone = self.places.iter().zip(&self.weight).filter(|(p, _)| p.zone == zone);
        (of_zone.map(|(_, w)| w).sum::<f64>() * 1000.0) as u64
    }

    /// How many slots each node has in a table.
    pub fn loads(&self, table: &[u32]) -> Vec<u32> {
        let mut loads = vec![0; self.len()];
        for &i in table {
            if let Some(l) = loads.get_mut(i as usize) {
                *l += 1;
            }
        }
        loads
    }
}

/// Bounds on a node's slots, all in slots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// Its share by weight.
    pub fair: f64,
    /// No more than this.
    pub high: u32,
    /// Below this, others give to it.
    pub low: u32,
}

impl Bounds {
    /// Whole slots around a fair share. `high` is never above ceil([`OVER`] × fair), and rounds down where that leaves
    /// room for the share itself: rounded up it would be 1.025 × the mean at 100 nodes.
    pub fn around(fair: f64) -> Self {
        let ceil = ceil(fair);
        Self { fair, high: ceil.max((fair * OVER).floor() as u32), low: ((fair * UNDER).floor() as u32) }
    }

    /// A share rounded to the nearest whole slot: what a node that gets slots is filled up to.
    pub fn fill(&self) -> u32 {
        (self.fair.round() as u32).clamp(self.low, self.high)
    }
}

/// Rounds up, but takes what float sums left above a whole number for that number.
pub(super) fn ceil(x: f64) -> u32 {
    (x - 1e-6).ceil().max(0.0) as u32
}

/// Divides `sum` by weight, but gives nobody more than its `most`; what that leaves over goes to the others.
fn shares_below(weight: &[f64], most: &[f64], sum: f64) -> Vec<f64> {
    let mut shares = vec![0.0; weight.len()];
    let mut open: Vec<usize> = (0..weight.len()).filter(|&i| weight[i] > 0.0).collect();
    let mut left = sum;
    loop {
        let total: f64 = open.iter().map(|&i| weight[i]).sum();
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&i| left * weight[i] / total > most[i] + 1e-9);
        if full.is_empty() {
            open.iter().for_each(|&i| shares[i] = left * weight[i] / total);
            return shares;
        }
        for i in full {
            shares[i] = most[i];
            left -= most[i];
        }
        open = rest;
    }
}
