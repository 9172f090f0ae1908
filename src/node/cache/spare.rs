//! Empty buffers: the connections of a thread share them, for an idle one needs none.

use std::cell::RefCell;

use super::session::Ahead;

/// Empty buffers above this are not kept, bytes.
pub const KEEP: usize = 128 << 10;
/// Empty buffers kept of a kind.
const SPARE_MAX: usize = 64;

/// Buffers that the connections of a thread share: each holds some only while it has something in them.
#[derive(Default)]
pub struct Spare {
    pub input: Vec<Vec<u8>>,
    pub out: Vec<Vec<u8>>,
    pub ahead: Vec<Vec<Ahead>>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// Takes one of the thread's spare ones where there is none of its own.
pub fn take_spare<T>(mine: &mut Vec<T>, spare: fn(&mut Spare) -> &mut Vec<Vec<T>>) {
    if mine.capacity() == 0
        && let Some(one) = SPARE.with_borrow_mut(|all| spare(all).pop())
    {
        *mine = one;
    }
}

/// Leaves an empty one to the thread, unless it grew large.
pub fn leave_spare<T>(mine: &mut Vec<T>, spare: fn(&mut Spare) -> &mut Vec<Vec<T>>) {
    if !mine.is_empty() || mine.capacity() == 0 {
        return;
    }
    let mine = std::mem::take(mine);
    if mine.capacity() * size_of::<T>() <= KEEP {
        SPARE.with_borrow_mut(|all| {
            let all = spare(all);
            if all.len() < SPARE_MAX {
                all.push(mine);
            }
        });
    }
}
