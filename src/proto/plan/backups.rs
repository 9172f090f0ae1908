//! Who holds the copy of which slot.

use super::Mode;
use super::field::{Field, NOBODY};

/// Places what is missing: the first other node clockwise.
pub(super) fn place(field: &Field<'_>, primary: &[u32], _before: &[u32], backup: &mut [u32], mode: Mode) {
    let points = field.ring.points();
    for (slot, (&p, b)) in primary.iter().zip(backup.iter_mut()).enumerate() {
        if p == NOBODY || (*b != NOBODY && *b != p && (mode == Mode::Rebuild || field.accepts(*b))) {
            continue;
        }
        let from = points.partition_point(|x| x.slot as usize <= slot);
        *b = (0..points.len()).map(|i| points[(from + i) % points.len()].node).find(|&n| n != p).unwrap_or(NOBODY);
    }
}
