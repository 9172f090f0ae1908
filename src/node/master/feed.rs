//! What is sent without being asked: configurations to nodes, views to watchers, and who leads. Connections pull from here
//! at their own pace, so a slow one holds nothing but its own next line, and what is made is made once for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;

use super::raft::Consensus;
use super::report;
use super::state::State;
use crate::proto::control::{self, ENVELOPE_V, Envelope, Message, RefreshIp, RefreshMaster};
use crate::proto::event::Event;
use crate::proto::id::{ClusterId, MasterId};
use crate::proto::status::Status;
use crate::proto::table::SlotTable;
use crate::proto::view::{Config, ranges};

/// Between two views of a stream: four a second are as many as a person can follow.
pub const VIEW_EVERY: Duration = Duration::from_millis(250);
/// Deltas kept for one configuration, one for each base that takers stand at: nodes stand at one or two.
const DELTAS_MAX: usize = 8;

/// One moment of the cluster, as watchers get it.
#[derive(Debug)]
pub struct Frame {
    /// The status document.
    status: Box<RawValue>,
    /// The slot table: made into text when somebody is to be sent it.
    slots: SlotTable,
    /// Which configuration the table is of.
    cfg_index: u64,
    /// The last event that happened by then.
    event_seq: u64,
}

impl Frame {
    /// The status document, read back.
    pub fn status(&self) -> Option<Status> {
        serde_json::from_str(self.status.get()).ok()
    }
}

/// How far one WATCH stream has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    cfg_index: Option<u64>,
    event_seq: u64,
}

#[derive(Serialize)]
struct View<'a> {
    status: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<Event>,
}

/// Where connections find what to send.
pub struct Feed {
    me: MasterId,
    raft: Consensus,
    frames: watch::Sender<Option<Arc<Frame>>>,
    leader: watch::Sender<RefreshMaster>,
    /// The slot table as it was last serialised, and of which configuration.
    table: Mutex<Option<(u64, Arc<RawValue>)>>,
    /// Lines of REFRESH_IP for the newest configuration, by the base they are a delta onto.
    deltas: Mutex<(u64, BTreeMap<u64, Bytes>)>,
}

impl Feed {
    /// Nothing to send yet.
    pub fn new(me: MasterId, raft: Consensus, masters: Vec<(MasterId, String)>) -> Self {
        let nobody = RefreshMaster { leader: None, addr: None, masters };
        Self {
            me,
            raft,
            frames: watch::Sender::new(None),
            leader: watch::Sender::new(nobody),
            table: Mutex::default(),
            deltas: Mutex::default(),
        }
    }

    /// Views, as they are made. Whoever holds this is a watcher.
    pub fn frames(&self) -> watch::Receiver<Option<Arc<Frame>>> {
        self.frames.subscribe()
    }

    /// Who leads, whenever that is announced.
    pub fn leader(&self) -> watch::Receiver<RefreshMaster> {
        self.leader.subscribe()
    }

    /// Tells everyone who leads; again, if they were told before.
    pub fn announce(&self, who: RefreshMaster) {
        self.leader.send_replace(who);
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.frames.receiver_count()
    }

    /// Makes a view of this moment; `status` judges the state it is given.
    pub fn frame(&self, status: impl FnOnce(&State) -> Status) -> Arc<Frame> {
        let (status, cfg_index, event_seq, slots) = self.raft.read(|r| {
            let state = &r.state;
            (status(state), state.cfg.cfg_index, state.event_seq, state.cfg.slots.clone())
        });
        Arc::new(Frame { status: raw(&status), slots, cfg_index, event_seq })
    }

    /// The slot table of a frame as text, made once for all watchers.
    fn table(&self, frame: &Frame) -> Arc<RawValue> {
        let mut table = lock(&self.table);
        match &*table {
            Some((index, text)) if *index == frame.cfg_index => text.clone(),
            _ => {
                let text: Arc<RawValue> = raw(&ranges(&frame.slots, |_| true)).into();
                *table = Some((frame.cfg_index, text.clone()));
                text
            }
        }
    }

    /// Hands a view to all watchers; the one before it is gone, sent or not.
    pub fn publish(&self, frame: Arc<Frame>) {
        self.frames.send_replace(Some(frame));
    }

    /// The line that brings a stream to this view: the slot table if it changed, the events since. `id` is the request's.
    pub fn view(&self, frame: &Frame, cursor: &mut Cursor, id: u64) -> Bytes {
        let table = (cursor.cfg_index != Some(frame.cfg_index)).then(|| self.table(frame));
        let slots = table.as_deref();
        let events = self.raft.read(|r| {
            let new = r.state.events.iter().filter(|e| e.seq > cursor.event_seq && e.seq <= frame.event_seq);
            new.cloned().collect()
        });
        *cursor = Cursor { cfg_index: Some(frame.cfg_index), event_seq: frame.event_seq };
        let data = raw(&View { status: &frame.status, slots, events });
        self.line("VIEW", id, &data)
    }

    /// The line that brings a taker from the configuration at `have` to the applied one, and which one that is. Made once
    /// for all that stand at the same.
    pub fn push(&self, have: u64) -> (u64, Bytes) {
        self.raft.read(|r| {
            let cfg = &r.state.cfg;
            let mut deltas = lock(&self.deltas);
            if deltas.0 != cfg.cfg_index {
                *deltas = (cfg.cfg_index, BTreeMap::new());
            }
            if let Some(line) = deltas.1.get(&have) {
                return (cfg.cfg_index, line.clone());
            }
            let line = self.refresh_ip(cfg, have, 0);
            if deltas.1.len() < DELTAS_MAX {
                deltas.1.insert(have, line.clone());
            }
            (cfg.cfg_index, line)
        })
    }

    /// As [`Feed::push`], for one who asked.
    pub fn answer(&self, have: u64, id: u64) -> Bytes {
        self.raft.read(|r| self.refresh_ip(&r.state.cfg, have, id))
    }

    fn refresh_ip(&self, cfg: &Config, have: u64, id: u64) -> Bytes {
        // Deltas are onto exactly what the taker has; one that claims to be ahead gets everything, and judges it itself.
        let base = if have > cfg.cfg_index { 0 } else { have };
        let view = Some(cfg.since(base));
        self.encode(id, &Message::RefreshIp(RefreshIp { have: 0, iplist: report::iplist(cfg), view }))
    }

    /// A line of ours.
    pub fn line(&self, kind: &str, id: u64, data: &RawValue) -> Bytes {
        let envelope = Envelope {
            v: ENVELOPE_V,
            machine: self.me.to_string(),
            cluster_id: self.cluster_id(),
            kind: kind.to_owned(),
            id,
            data,
        };
        let mut line = serde_json::to_vec(&envelope).unwrap_or_default();
        line.push(b'\n');
        Bytes::from(line)
    }

    /// A message of ours as a line.
    pub fn encode(&self, id: u64, message: &Message) -> Bytes {
        Bytes::from(control::encode(self.me.as_str(), self.cluster_id(), id, message))
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        self.raft.cluster_id()
    }
}

/// Serialising our own types into memory cannot fail: no map has a non-string key.
fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_default()
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Caches: whole after a panic, or made anew.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
