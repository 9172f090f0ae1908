//! The ring: the circle of slots with each node's virtual points on it (the original design's `consistentHash`). Pure.
//!
//! A node has [`VNODES`] × weight points; a point owns the arc from itself up to the next one, clockwise. The ring only
//! proposes: who holds what is in the slot table, and the planner (`plan`) keeps that table within bounds.

use xxhash_rust::xxh3::Xxh3;

use super::id::NodeId;

/// Points of a node of weight 1. More would even out the arcs further but cut the circle finer: clients parse every run
/// (CLUSTER SLOTS), and the planner's bounds even things out anyway.
pub const VNODES: usize = 16;
/// The lightest weight that is told apart; below it a node would have no point.
pub const WEIGHT_MIN: f64 = 1.0 / VNODES as f64;
/// The heaviest weight that is told apart: 16,000 points, about one a slot.
pub const WEIGHT_MAX: f64 = 1000.0;

/// Where on the 64-bit circle the `i`-th point of a node is. Part of the contract: all versions must agree on it.
///
/// Name and number are hashed as one text. As the hash's seed, `i` would only be XORed into a short name, and the points
/// of `n10` to `n19` would fall together.
pub fn hash64(id: &NodeId, i: u64) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(id.as_str().as_bytes());
    // No name holds a NUL, so no other name and number make the same text.
    hash.update(&[0]);
    hash.update(&i.to_le_bytes());
    hash.digest()
}

/// A weight that can be counted with: what is not a positive finite number counts as 1, the rest is clamped.
pub fn sane_weight(weight: f64) -> f64 {
    if weight.is_finite() && weight > 0.0 { weight.clamp(WEIGHT_MIN, WEIGHT_MAX) } else { 1.0 }
}

/// One virtual node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Its place on the 64-bit circle; orders points that fall into one slot.
    pub hash: u64,
    /// The slot where its arc begins.
    pub slot: u32,
    /// Index of its node in the list the ring was made from.
    pub node: u32,
}

/// All points, in the order of the circle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    points: Vec<Point>,
    slots: u32,
}

impl Ring {
    /// Lays out the points of `nodes` (name, weight) on a circle of `slots` slots. The order of `nodes` only decides
    /// what the indices mean (and ties between equal hashes, which need two equal names).
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a NodeId, f64)>, slots: usize) -> Self {
        let slots = slots as u32;
        let mut points = Vec::new();
        for (node, (id, weight)) in nodes.into_iter().enumerate() {
            let count = (VNODES as f64 * sane_weight(weight)).round().max(1.0) as u64;
            points.extend((0..count).map(|i| {
                let hash = hash64(id, i);
                let slot = ((u128::from(hash) * u128::from(slots)) >> 64) as u32;
                Point { hash, slot, node: node as u32 }
            }));
        }
        points.sort_unstable();
        Self { points, slots }
    }

    /// The points, by place on the circle.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Gives the nodes other indices.
    pub fn rename(&mut self, name: impl Fn(u32) -> u32) {
        for p in &mut self.points {
            p.node = name(p.node);
        }
    }

    /// The node whose arc the slot lies in; none on an empty ring.
    pub fn owner(&self, slot: usize) -> Option<usize> {
        let after = self.points.partition_point(|p| p.slot as usize <= slot);
        let point = if after == 0 { self.points.last()? } else { &self.points[after - 1] };
        Some(point.node as usize)
    }

    /// The owner of every slot, in one pass; empty on an empty ring.
    pub fn owners(&self) -> Vec<u32> {
        let Some(last) = self.points.last() else { return Vec::new() };
        let mut owner = last.node;
        let mut next = 0;
        (0..self.slots)
            .map(|slot| {
                while let Some(p) = self.points.get(next).filter(|p| p.slot <= slot) {
                    owner = p.node;
                    next += 1;
                }
                owner
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::slot::SLOTS;

    fn ids(n: usize) -> Vec<NodeId> {
        (1..=n).map(|i| NodeId::new(&format!("n{i}")).unwrap()).collect()
    }

    fn ring(ids: &[NodeId]) -> Ring {
        Ring::new(ids.iter().map(|id| (id, 1.0)), SLOTS)
    }

    #[test]
    fn points_stay_where_they_are() {
        // Masters of different versions plan for each other's clusters: a changed hash would move every slot.
        assert_eq!(hash64(&NodeId::new("n1").unwrap(), 0), 0x0781_2c4d_3e6c_110b);
    }

    #[test]
    fn neighbouring_names_have_points_of_their_own() {
        let ids = ids(200);
        let mut hashes: Vec<u64> = ids.iter().flat_map(|id| (0..16).map(|i| hash64(id, i))).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 3200);
    }

    #[test]
    fn one_pass_agrees_with_each_look_up() {
        let ids = ids(7);
        let ring = ring(&ids);
        let owners = ring.owners();
        assert_eq!(owners.len(), SLOTS);
        for (slot, owner) in owners.iter().enumerate() {
            assert_eq!(ring.owner(slot), Some(*owner as usize));
        }
    }

    #[test]
    fn a_new_node_takes_only_its_own_arcs() {
        let ids = ids(8);
        let (before, after) = (ring(&ids[..7]).owners(), ring(&ids).owners());
        assert!(after.contains(&7));
        for (b, a) in before.iter().zip(&after) {
            assert!(a == b || *a == 7, "a slot moved between old nodes: {b} → {a}");
        }
    }

    #[test]
    fn weight_is_points() {
        let ids = ids(3);
        for (weight, points) in [(1.0, 16), (2.5, 40), (0.001, 1), (f64::NAN, 16), (-3.0, 16), (1e9, 16_000)] {
            assert_eq!(Ring::new([(&ids[0], weight)], SLOTS).points().len(), points, "weight {weight}");
        }
        assert_eq!(Ring::new(std::iter::empty(), SLOTS).owner(3), None);
        assert!(Ring::new(std::iter::empty(), SLOTS).owners().is_empty());
    }
}
