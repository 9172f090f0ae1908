//! What the screen knows of its link to the masters: when the last view came, from whom, and who was tried in vain.

use std::collections::BTreeMap;

use super::escape::clean;
use crate::proto::control::RefreshMaster;

/// A view older than this is stale, milliseconds: views come up to four times a second.
pub const STALE_MS: u64 = 1_000;
/// A view older than this is no longer trusted for decisions, milliseconds.
pub const LOST_MS: u64 = 3_000;
/// Addresses remembered with their last failure: more masters than any cluster has.
const TRIED_MAX: usize = 16;

/// How far the picture can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// No view yet.
    Connecting,
    /// The last view is younger than [`STALE_MS`].
    Live,
    /// Younger than [`LOST_MS`].
    Stale,
    /// Older.
    Lost,
}

/// The last failure at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Why, cleaned.
    pub why: String,
    /// When the next try is due, on the model's monotonic clock, milliseconds.
    pub next_try_ms: u64,
    /// How often in a row.
    pub times: u32,
}

/// A master that somebody told us of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMaster {
    /// Its name, if known.
    pub id: Option<String>,
    /// host:port.
    pub addr: String,
}

/// The state of the link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// All masters known, by address as given.
    pub masters: Vec<KnownMaster>,
    /// Whom the stream comes from.
    pub connected: Option<String>,
    /// When the last accepted view came, monotonic milliseconds.
    pub last_view_ms: Option<u64>,
    /// Last failures by address; cleared when that address connects.
    pub failed: BTreeMap<String, Failed>,
    /// The latest failure: address.
    pub last_failed: Option<String>,
    /// A master that is connected said that nobody leads.
    pub no_leader: bool,
    /// Why the last view was not shown: it was older.
    pub refused: Option<String>,
    ascii: bool,
}

impl Link {
    /// A link to these addresses.
    pub fn new(addrs: &[String], ascii: bool) -> Self {
        let masters = addrs.iter().take(TRIED_MAX).map(|a| KnownMaster { id: None, addr: clean(a, ascii) }).collect();
        Self { masters, ascii, ..Self::default() }
    }

    /// How far the picture can be trusted at `now_ms`.
    pub fn state(&self, now_ms: u64) -> LinkState {
        match self.age_ms(now_ms) {
            None => LinkState::Connecting,
            Some(0..STALE_MS) => LinkState::Live,
            Some(STALE_MS..LOST_MS) => LinkState::Stale,
            Some(_) => LinkState::Lost,
        }
    }

    /// Milliseconds since the last accepted view.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        self.last_view_ms.map(|t| now_ms.saturating_sub(t))
    }

    /// When the state changes next if no view comes, monotonic milliseconds.
    pub fn next_change_ms(&self, now_ms: u64) -> Option<u64> {
        let at = self.last_view_ms?;
        [at.saturating_add(STALE_MS), at.saturating_add(LOST_MS)].into_iter().find(|t| *t > now_ms)
    }

    /// A stream opened.
    pub fn on_connected(&mut self, addr: &str) {
        let addr = clean(addr, self.ascii);
        self.failed.remove(&addr);
        self.connected = Some(addr);
        self.no_leader = false;
    }

    /// A stream ended or a try failed.
    pub fn on_lost(&mut self, now_ms: u64, addr: &str, why: &str, next_try_ms: u64) {
        let addr = clean(addr, self.ascii);
        if self.connected.as_deref() == Some(&addr) {
            self.connected = None;
        }
        if self.failed.len() >= TRIED_MAX && !self.failed.contains_key(&addr) {
            self.failed.clear();
        }
        let times = self.failed.get(&addr).map_or(0, |f| f.times).saturating_add(1);
        let failed =
            Failed { why: in_words(&clean(why, self.ascii)), next_try_ms: now_ms.saturating_add(next_try_ms), times };
        self.failed.insert(addr.clone(), failed);
        self.last_failed = Some(addr);
    }

    /// A master said who leads and who the masters are.
    pub fn on_hint(&mut self, hint: &RefreshMaster) {
        self.no_leader = hint.leader.is_none();
        let masters = hint.masters.iter().map(|(id, addr)| (id.as_str(), addr.as_str()));
        self.know(masters);
    }

    /// Takes names for addresses from a view or a hint; addresses given by the person stay even if no view names them.
    pub fn know<'a>(&mut self, masters: impl Iterator<Item = (&'a str, &'a str)>) {
        for (id, addr) in masters {
            let (id, addr) = (clean(id, self.ascii), clean(addr, self.ascii));
            if let Some(m) = self.masters.iter_mut().find(|m| m.addr == addr) {
                m.id = Some(id);
            } else if self.masters.len() < TRIED_MAX {
                self.masters.push(KnownMaster { id: Some(id), addr });
            }
        }
    }

    /// `m1 127.0.0.1:7101`, or the address alone.
    pub fn title<'a>(&'a self, addr: &'a str) -> String {
        match self.masters.iter().find(|m| m.addr == addr).and_then(|m| m.id.as_deref()) {
            Some(id) => format!("{id} {addr}"),
            None => addr.to_owned(),
        }
    }

    /// Milliseconds until somebody is tried again, as the latest failure said; none before one.
    pub fn next_try_in_ms(&self, now_ms: u64) -> Option<u64> {
        let last = self.failed.get(self.last_failed.as_ref()?)?;
        Some(last.next_try_ms.saturating_sub(now_ms))
    }
}

/// `Connection refused (os error 111)` as an operator says it: `connection refused`.
fn in_words(why: &str) -> String {
    let why = why.split(" (os error").next().unwrap_or(why);
    let mut chars = why.chars();
    match chars.next() {
        // Only a capital that starts a word, not one that starts an abbreviation.
        Some(c) if !chars.clone().next().is_some_and(char::is_uppercase) => c.to_lowercase().chain(chars).collect(),
        _ => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_ages_from_live_to_lost() {
        let mut l = Link::new(&["a:1".into()], false);
        assert_eq!(l.state(9), LinkState::Connecting);
        l.last_view_ms = Some(100);
        assert_eq!(l.state(100), LinkState::Live);
        assert_eq!(l.state(1099), LinkState::Live);
        assert_eq!(l.state(1100), LinkState::Stale);
        assert_eq!(l.state(3100), LinkState::Lost);
        assert_eq!(l.next_change_ms(100), Some(1100));
        assert_eq!(l.next_change_ms(1100), Some(3100));
        assert_eq!(l.next_change_ms(3100), None);
    }

    #[test]
    fn reasons_are_said_in_words() {
        assert_eq!(in_words("Connection refused (os error 111)"), "connection refused");
        assert_eq!(in_words("DNS failed"), "DNS failed");
        assert_eq!(in_words(""), "");
    }

    #[test]
    fn failures_are_counted_until_a_connection() {
        let mut l = Link::new(&["a:1".into()], false);
        l.on_connected("a:1");
        l.on_lost(10, "a:1", "reset", 400);
        l.on_lost(20, "a:1", "refused", 400);
        assert_eq!(l.connected, None);
        assert_eq!(l.failed["a:1"].times, 2);
        assert_eq!(l.next_try_in_ms(100), Some(320));
        l.on_connected("a:1");
        assert!(l.failed.is_empty());
        for i in 0..100 {
            l.on_lost(0, &format!("x:{i}"), "refused", u64::MAX);
        }
        assert!(l.failed.len() <= TRIED_MAX);
        assert_eq!(l.next_try_in_ms(1), Some(u64::MAX - 1));
    }
}
