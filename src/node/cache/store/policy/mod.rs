//! Who goes first when memory is short: the order of one slot's keys. One file for each policy; [`super::evict`] says which slot.

mod list;
mod lru;
mod sieve;
mod tick;

pub use list::List;
pub use lru::{Lru, RENEWED_MAX};
pub use sieve::Sieve;
pub use tick::{ACCESS_MS, Tick, Windows};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::heap::Heap;

/// How a slot's keys are ordered. A new key comes in at the new end of the list under all of them.
pub trait Policy {
    /// The key was used: read, written, touched; `late`: for the first time in one of the [`Windows`]. Whether it
    /// matters enough for those to be told who keep the same order.
    fn used(list: &mut List, heap: &mut Heap, at: u32, late: bool) -> bool;

    /// Which key would go first, or [`NIL`](super::pool::NIL). A policy may put right what it sees on the way; it tells of what it
    /// takes to the new end.
    fn first(list: &mut List, heap: &mut Heap, tick: Tick, renewed: impl FnMut(u32)) -> u32;

    /// It is that key's turn, which [`Policy::first`] told just now.
    fn choose(list: &mut List, heap: &mut Heap, at: u32);
}

/// Which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Eviction {
    /// The least recently used key goes first.
    #[default]
    Lru,
    /// Keys that nobody asked for a second time go first.
    Sieve,
}

/// No policy has this name.
#[derive(Debug, thiserror::Error)]
#[error("not a policy: lru or sieve")]
pub struct UnknownPolicy;

impl FromStr for Eviction {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|e| e.name() == text).ok_or(UnknownPolicy)
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Eviction {
    /// Every policy.
    pub const ALL: [Self; 2] = [Self::Lru, Self::Sieve];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Sieve => "sieve",
        }
    }

    /// See [`Policy::used`].
    #[inline(always)]
    pub fn used(self, list: &mut List, heap: &mut Heap, at: u32, late: bool) -> bool {
        match self {
            Self::Lru => Lru::used(list, heap, at, late),
            Self::Sieve => Sieve::used(list, heap, at, late),
        }
    }

    /// See [`Policy::first`].
    pub fn first(self, list: &mut List, heap: &mut Heap, tick: Tick, renewed: impl FnMut(u32)) -> u32 {
        match self {
            Self::Lru => Lru::first(list, heap, tick, renewed),
            Self::Sieve => Sieve::first(list, heap, tick, renewed),
        }
    }

    /// See [`Policy::choose`].
    pub fn choose(self, list: &mut List, heap: &mut Heap, at: u32) {
        match self {
            Self::Lru => Lru::choose(list, heap, at),
            Self::Sieve => Sieve::choose(list, heap, at),
        }
    }
}
