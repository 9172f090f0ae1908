//! What a store means, in the plainest words: maps in order, nothing else. The store is held to it.

use std::collections::BTreeMap;

use crate::node::cache::effect::{Deadline, Effect, Effects, Reader, Ttl};
use crate::node::cache::store::{SlotStats, cost};

/// One key's value and deadline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    pub value: Vec<u8>,
    pub deadline: Option<Deadline>,
}

/// One slot.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub keys: BTreeMap<Vec<u8>, Item>,
}

impl Model {
    pub fn live(&mut self, key: &[u8], now_ms: u64, fx: &mut Effects) -> Option<&mut Item> {
        if self.keys.get(key)?.deadline.is_some_and(|d| d.0 <= now_ms) {
            self.keys.remove(key);
            fx.push(Effect::Del(key));
        }
        self.keys.get_mut(key)
    }

    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Ttl, now_ms: u64, fx: &mut Effects) {
        let old = self.live(key, now_ms, fx).and_then(|i| i.deadline);
        fx.push(Effect::Set(key, value, ttl));
        let deadline = match ttl {
            Ttl::None => None,
            Ttl::Keep => old,
            Ttl::At(d) => Some(d),
        };
        self.keys.insert(key.to_vec(), Item { value: value.to_vec(), deadline });
    }

    pub fn del(&mut self, key: &[u8], now_ms: u64, fx: &mut Effects) -> bool {
        let there = self.live(key, now_ms, fx).is_some();
        if there {
            self.keys.remove(key);
            fx.push(Effect::Del(key));
        }
        there
    }

    pub fn expire(&mut self, key: &[u8], deadline: Option<Deadline>, now_ms: u64, fx: &mut Effects) -> bool {
        let Some(item) = self.live(key, now_ms, fx) else { return false };
        if deadline.is_some_and(|d| d.0 <= now_ms) {
            return self.del(key, now_ms, fx);
        }
        item.deadline = deadline;
        fx.push(Effect::Expire(key, deadline.map_or(Ttl::None, Ttl::At)));
        true
    }

    pub fn apply(&mut self, item: &[u8], now_ms: u64, sender_now_ms: u64) {
        let here = |d: Deadline| Deadline(now_ms + d.0.saturating_sub(sender_now_ms).max(1));
        for e in Reader(item) {
            match e.unwrap() {
                Effect::Set(k, v, ttl) => {
                    let deadline = match ttl {
                        Ttl::None => None,
                        Ttl::Keep => self.keys.get(k).and_then(|i| i.deadline),
                        Ttl::At(d) => Some(here(d)),
                    };
                    self.keys.insert(k.to_vec(), Item { value: v.to_vec(), deadline });
                }
                Effect::Del(k) => {
                    self.keys.remove(k);
                }
                Effect::Expire(k, ttl) => {
                    if let Some(item) = self.keys.get_mut(k) {
                        item.deadline = match ttl {
                            Ttl::At(d) => Some(here(d)),
                            _ => None,
                        };
                    }
                }
                Effect::Flush => self.keys.clear(),
            }
        }
    }

    pub fn stats(&self) -> SlotStats {
        let bytes = self.keys.iter().map(|(k, i)| cost(k.len(), i.value.len(), i.deadline.is_some())).sum();
        SlotStats { keys: self.keys.len() as u64, bytes }
    }

    pub fn digest(&self) -> u64 {
        self.keys.iter().fold(0u64, |sum, (k, i)| {
            let mut bytes = (k.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(k);
            bytes.extend_from_slice(&i.value);
            bytes.push(u8::from(i.deadline.is_some()));
            sum.wrapping_add(xxhash_rust::xxh3::xxh3_64(&bytes))
        })
    }
}
