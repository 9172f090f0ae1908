//! Who serves which slot: what nobody holds is given out.

use super::field::{Field, NOBODY};

/// Brings the table within its bounds.
pub(super) fn balance(field: &Field<'_>, table: &mut [u32]) {
    for (slot, holder) in table.iter_mut().enumerate() {
        if !field.accepts(*holder) {
            *holder = field.ring.owner(slot).map_or(*holder, |n| n as u32);
        }
    }
    debug_assert!(field.total == 0.0 || table.iter().all(|&n| n != NOBODY));
}
