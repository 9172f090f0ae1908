//! All that the screen knows, in one value: what the masters said, how the link is, and what the person looks at.

use std::collections::VecDeque;

use super::cluster::{Cluster, clean_status, memory_share};
use super::dialog::Dialog;
use super::escape::{clean, natural};
use super::event::Now;
use super::glyph::{self, Glyphs};
use super::jobs::Job;
use super::layout;
use super::link::{Link, LinkState};
use super::replay::Played;
use super::slots::NOBODY;
pub use super::state::*;
use super::theme::{Theme, ThemeName};
use crate::proto::event::{Event, Severity};
use crate::proto::operation::OperationState;
use crate::proto::slot::Slot;
use crate::proto::status::{MasterStatus, NodeState, NodeStatus, OperationStatus, WatchView};

/// The longest text typed into a prompt, characters: keys of 512 MB are not typed by hand.
pub const INPUT_MAX: usize = 256;
/// How long a message stays, milliseconds: long enough to read two lines.
pub const TOAST_MS: u64 = 5_000;
/// Messages kept for the Events screen: what was done from here, for as long as anyone asks.
const NOTES_MAX: usize = 200;
/// The `kind` of such a message among the cluster's events.
pub const NOTE_KIND: &str = "this screen";

/// What was decided before the first frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// The masters' addresses; empty shows the start screen.
    pub masters: Vec<String>,
    /// The cluster's name until a view tells it.
    pub cluster: Option<String>,
    /// The person asked for `--read-only`.
    pub read_only: bool,
    /// Nothing outside ASCII.
    pub ascii: bool,
    /// Which theme; already resolved.
    pub theme: ThemeName,
    /// A demo cluster can be started from here.
    pub can_start_demo: bool,
    /// The cluster's processes are on this machine and can be reached from here.
    pub local: bool,
    /// How a command line that means this cluster begins.
    pub program: String,
    /// Tests only: F12 panics, to see that the terminal is given back.
    pub panic_key: bool,
    /// Seconds that local time is ahead of UTC.
    pub utc_offset_s: i32,
}

/// A picture held still.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    /// What it shows.
    pub cluster: Box<Cluster>,
    /// When it was taken.
    pub at: Now,
}

/// All that the screen knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What was decided before the first frame.
    pub setup: Setup,
    /// The time.
    pub now: Now,
    /// Columns and rows.
    pub size: (u16, u16),
    /// Colours.
    pub theme: Theme,
    /// The link.
    pub link: Link,
    /// What the masters say now.
    pub live: Option<Box<Cluster>>,
    /// What is shown instead, while frozen.
    pub frozen: Option<Frozen>,
    /// Which screen.
    pub screen: Screen,
    /// The panel that has the keys, by screen; the first one unless chosen.
    pub focus: [Option<Panel>; 6],
    /// A window over it.
    pub overlay: Option<Overlay>,
    /// A line being typed.
    pub prompt: Option<Prompt>,
    /// Shows only rows that contain this.
    pub filter: String,
    /// A question before something changes.
    pub dialog: Option<Dialog>,
    /// What was begun from here and is not over.
    pub jobs: Vec<Job>,
    /// Where the recording is that is played, if one is.
    pub replay: Option<Played>,
    /// A message.
    pub toast: Option<Toast>,
    /// Overview.
    pub overview: OverviewState,
    /// Ring.
    pub ring: RingState,
    /// Migrations.
    pub migrations: MigrationsState,
    /// Masters.
    pub masters: MastersState,
    /// Events.
    pub events: EventsState,
    /// Keys.
    pub keys: KeysState,
    /// What was said from here, oldest first.
    pub notes: VecDeque<Event>,
    /// Commands typed before, oldest first.
    pub history: Vec<String>,
    /// The number of the last request; answers carry it back.
    pub last_request: u64,
    /// The start screen's demo.
    pub demo: Demo,
}

impl Model {
    /// Before anything happened.
    pub fn new(setup: Setup) -> Self {
        Self {
            theme: Theme::of(setup.theme),
            link: Link::new(&setup.masters, setup.ascii),
            setup,
            now: Now::default(),
            size: (80, 24),
            live: None,
            frozen: None,
            screen: Screen::default(),
            focus: [None; 6],
            overlay: None,
            prompt: None,
            filter: String::new(),
            dialog: None,
            jobs: Vec::new(),
            replay: None,
            toast: None,
            overview: OverviewState::default(),
            ring: RingState::default(),
            migrations: MigrationsState::default(),
            masters: MastersState::default(),
            events: EventsState::default(),
            keys: KeysState::default(),
            notes: VecDeque::new(),
            history: Vec::new(),
            last_request: 0,
            demo: Demo::default(),
        }
    }

    /// The signs to draw with.
    pub fn glyphs(&self) -> &'static Glyphs {
        if self.setup.ascii { &glyph::ASCII } else { &glyph::UNICODE }
    }

    /// The cluster that is drawn: the frozen one, else the live one.
    pub fn shown(&self) -> Option<&Cluster> {
        self.frozen.as_ref().map(|f| &*f.cluster).or(self.live.as_deref())
    }

    /// The time that ages are drawn for: it stands still while frozen.
    pub fn shown_now(&self) -> Now {
        self.frozen.as_ref().map_or(self.now, |f| f.at)
    }

    /// How far the picture can be trusted.
    pub fn link_state(&self) -> LinkState {
        self.link.state(self.now.mono_ms)
    }

    /// The cluster's name, cleaned.
    pub fn cluster_name(&self) -> String {
        match (&self.live, &self.setup.cluster) {
            (Some(c), _) => c.status.cluster.clone(),
            (None, Some(name)) => clean(name, self.setup.ascii),
            (None, None) => String::new(),
        }
    }

    /// The panel that the arrow keys move in.
    pub fn panel(&self) -> Panel {
        let wanted = self.focus[self.screen.place()];
        // A panel that has no place on a small screen can't have the keys.
        let visible = layout::visible(self);
        let first = self.screen.panels()[0];
        wanted.filter(|p| visible.contains(p)).unwrap_or(first)
    }

    /// Whether no cluster is known, so that the start screen shows.
    pub fn at_start(&self) -> bool {
        self.link.masters.is_empty() && self.live.is_none()
    }

    /// Milliseconds since a node's last heartbeat: what the leader said, plus the time since it said so.
    pub fn heartbeat_age_ms(&self, cluster: &Cluster, node: &NodeStatus) -> Option<u64> {
        let since = self.shown_now().mono_ms.saturating_sub(cluster.received_ms);
        node.heartbeat_age_ms.map(|age| age.saturating_add(since))
    }

    /// The nodes that the filter lets through, in the order asked for.
    pub fn rows(&self) -> Vec<&NodeStatus> {
        let Some(cluster) = self.shown() else { return Vec::new() };
        let needle = self.filter.to_lowercase();
        let mut rows: Vec<&NodeStatus> = cluster.status.nodes.iter().filter(|n| matches(n, &needle)).collect();
        let desc = |a: f64, b: f64| b.total_cmp(&a);
        rows.sort_by(|a, b| {
            let by = match self.overview.sort {
                Sort::Node => std::cmp::Ordering::Equal,
                Sort::State => trouble(b.state).cmp(&trouble(a.state)),
                Sort::Age => b.heartbeat_age_ms.cmp(&a.heartbeat_age_ms),
                Sort::Slots => b.primary_slots.cmp(&a.primary_slots),
                Sort::Ops => desc(a.ops_per_s, b.ops_per_s),
                Sort::Memory => desc(memory_share(a), memory_share(b)),
                Sort::P99 => b.p99_us.cmp(&a.p99_us),
            };
            let by = by.then_with(|| natural(&a.id, &b.id));
            if self.overview.reverse { by.reverse() } else { by }
        });
        rows
    }

    /// The place of the selected node among [`Model::rows`].
    pub fn selected_row(&self, rows: &[&NodeStatus]) -> usize {
        let selected = self.overview.selected.as_deref();
        rows.iter().position(|n| Some(n.id.as_str()) == selected).unwrap_or(0)
    }

    /// The owners on the Ring's list: places in the slot table, members in order first, then others that hold slots.
    pub fn owners(&self) -> Vec<u16> {
        let Some(c) = self.shown() else { return Vec::new() };
        let needle = self.filter.to_lowercase();
        let holds = |p: &u16| c.table.holdings[usize::from(*p)] != Default::default();
        let present = |p: &u16| c.status.nodes.iter().any(|n| n.id == c.table.name(*p) && n.state != NodeState::Left);
        let mut owners: Vec<u16> = (0..c.table.names.len() as u16)
            .filter(|p| present(p) || holds(p))
            .filter(|p| needle.is_empty() || c.table.name(*p).to_lowercase().contains(&needle))
            .collect();
        owners.sort_by(|a, b| natural(c.table.name(*a), c.table.name(*b)));
        owners
    }

    /// The place of the selected owner among [`Model::owners`].
    pub fn selected_owner(&self, owners: &[u16]) -> usize {
        let Some(c) = self.shown() else { return 0 };
        let selected = self.ring.selected.as_deref();
        owners.iter().position(|p| Some(c.table.name(*p)) == selected).unwrap_or(0)
    }

    /// Operations that are not over, then those that are, newest first.
    pub fn operations(&self) -> Vec<&OperationStatus> {
        let Some(c) = self.shown() else { return Vec::new() };
        let mut ops: Vec<&OperationStatus> = c.status.operations.iter().collect();
        ops.sort_by_key(|o| {
            let rank = match OperationState::parse(&o.state) {
                Some(OperationState::Running) => 0,
                Some(OperationState::Paused) => 1,
                Some(OperationState::Planned) => 2,
                _ => 3,
            };
            // Open ones in the order they will run, finished ones latest first.
            (rank, if rank < 3 { o.id } else { u64::MAX - o.id })
        });
        ops
    }

    /// The operations that the Migrations screen lists: those that the filter lets through.
    pub fn listed_operations(&self) -> Vec<&OperationStatus> {
        let needle = self.filter.to_lowercase();
        let mut ops = self.operations();
        ops.retain(|o| {
            let id = format!("#{}", o.id);
            let fields = [id.as_str(), &o.kind, &o.state].into_iter().chain(o.nodes.iter().map(String::as_str));
            needle.is_empty() || fields.into_iter().any(|f| f.to_lowercase().contains(&needle))
        });
        ops
    }

    /// The place of the selected operation among [`Model::listed_operations`].
    pub fn selected_operation(&self, ops: &[&OperationStatus]) -> usize {
        ops.iter().position(|o| Some(o.id) == self.migrations.selected).unwrap_or(0)
    }

    /// The operation that keys mean here: the selected one on Migrations, elsewhere the first that is open.
    pub fn meant_operation(&self) -> Option<&OperationStatus> {
        if self.screen == Screen::Migrations {
            let ops = self.listed_operations();
            return ops.get(self.selected_operation(&ops)).copied();
        }
        self.operations().into_iter().find(|o| is_open(o))
    }

    /// The node or master that keys mean here.
    pub fn selected_process(&self) -> Option<String> {
        if let Some(Overlay::Node { id }) = &self.overlay {
            return Some(id.clone());
        }
        match self.screen {
            Screen::Masters => {
                let masters = self.listed_masters();
                masters.get(self.selected_master(&masters)).map(|m| m.id.clone())
            }
            Screen::Ring if self.panel() == Panel::Owners => {
                let owners = self.owners();
                let place = owners.get(self.selected_owner(&owners))?;
                self.shown().map(|c| c.table.name(*place).to_owned())
            }
            Screen::Ring => {
                let c = self.shown()?;
                let place = c.table.brief(Slot(self.ring.cursor)).primary;
                (place != NOBODY).then(|| c.table.name(place).to_owned())
            }
            _ => {
                let rows = self.rows();
                rows.get(self.selected_row(&rows)).map(|n| n.id.clone())
            }
        }
    }

    /// The masters that the filter lets through, by name.
    pub fn listed_masters(&self) -> Vec<&MasterStatus> {
        let Some(c) = self.shown() else { return Vec::new() };
        let needle = self.filter.to_lowercase();
        let mut masters: Vec<&MasterStatus> = c
            .status
            .masters
            .iter()
            .filter(|m| [&m.id, &m.addr, &m.role].iter().any(|f| f.to_lowercase().contains(&needle)))
            .collect();
        masters.sort_by(|a, b| natural(&a.id, &b.id));
        masters
    }

    /// The place of the selected master among [`Model::listed_masters`]; the leader's unless one was chosen.
    pub fn selected_master(&self, masters: &[&MasterStatus]) -> usize {
        let leader = self.shown().and_then(|c| c.status.leader.as_deref());
        let wanted = self.masters.selected.as_deref().or(leader);
        masters.iter().position(|m| Some(m.id.as_str()) == wanted).unwrap_or(0)
    }

    /// The cluster's events and what was said from here, oldest first, without those that are filtered out.
    pub fn listed_events(&self) -> Vec<&Event> {
        let Some(c) = self.shown() else { return self.notes.iter().collect() };
        let needle = self.filter.to_lowercase();
        let has = |f: &str| f.to_lowercase().contains(&needle);
        let wanted = |e: &&Event| {
            e.severity >= self.events.least
                && (needle.is_empty()
                    || has(&e.text)
                    || has(&e.kind)
                    || has(&e.subject)
                    || e.by.as_deref().is_some_and(has))
        };
        let mut out = Vec::with_capacity(c.events.len() + self.notes.len());
        let mut notes = self.notes.iter().peekable();
        for e in &c.events {
            // The cluster's own order is by number; its clock only says where ours go between them.
            while let Some(n) = notes.next_if(|n| n.at_ms < e.at_ms) {
                out.push(n);
            }
            out.push(e);
        }
        out.extend(notes);
        out.retain(wanted);
        out
    }

    /// Events that matter and were not looked at on their screen.
    pub fn unread(&self) -> usize {
        let Some(c) = &self.live else { return 0 };
        c.events.iter().rev().take_while(|e| e.seq > self.events.read).filter(|e| e.severity > Severity::Info).count()
    }

    /// Operations that are not over.
    pub fn open_operations(&self) -> usize {
        self.shown().map_or(0, |c| c.status.operations.iter().filter(|o| is_open(o)).count())
    }

    /// A number for a request, so that its answer is known.
    pub fn next_request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// Shows a message for a while, and keeps it among the events.
    pub fn tell(&mut self, tone: Tone, text: impl Into<String>) {
        let text = text.into();
        let severity = if tone == Tone::Done { Severity::Info } else { Severity::Warn };
        self.notes.push_back(Event {
            seq: 0,
            at_ms: self.now.wall_ms,
            index: 0,
            severity,
            kind: NOTE_KIND.to_owned(),
            subject: String::new(),
            text: clean(&text, self.setup.ascii),
            by: None,
        });
        while self.notes.len() > NOTES_MAX {
            self.notes.pop_front();
        }
        self.say(tone, text);
    }

    /// Shows a message for a while.
    pub fn say(&mut self, tone: Tone, text: impl Into<String>) {
        let text = clean(&text.into(), self.setup.ascii);
        self.toast = Some(Toast { text, tone, until_ms: self.now.mono_ms.saturating_add(TOAST_MS) });
    }

    /// Forgets all that was shown of a cluster.
    pub fn forget_cluster(&mut self) {
        (self.live, self.frozen, self.overlay, self.dialog) = (None, None, None, None);
        self.jobs.clear();
        self.ring.selected = None;
        self.overview.selected = None;
        self.migrations = MigrationsState::default();
        self.masters = MastersState::default();
        self.events.read = 0;
        self.keys.found = None;
    }

    /// Takes a view in, unless it is older than what is shown.
    /// Returns whether it was taken in.
    pub fn absorb(&mut self, mut view: WatchView) -> bool {
        let ascii = self.setup.ascii;
        let slots = view.slots.take();
        let events = std::mem::take(&mut view.events);
        let status = clean_status(view.status, ascii);
        if self.live.as_ref().is_some_and(|c| c.status.cluster_id != status.cluster_id) {
            // A cluster that was purged and started anew answers at the same addresses: nothing of the old one holds.
            self.forget_cluster();
            self.say(Tone::Alert, format!("another cluster answers here now: {}", status.cluster));
        }
        if let Some(c) = &self.live {
            let (have, got) = ((c.status.term, c.status.epoch), (status.term, status.epoch));
            if got < have {
                self.link.refused = Some(format!("a master that is behind answers: term {}, epoch {}", got.0, got.1));
                return false;
            }
        }
        self.link.refused = None;
        self.link.last_view_ms = Some(self.now.mono_ms);
        self.link.no_leader = status.leader.is_none();
        self.link.know(status.masters.iter().map(|m| (m.id.as_str(), m.addr.as_str())));
        let now_ms = self.now.mono_ms;
        let cluster = self.live.get_or_insert_with(|| Box::new(Cluster::new(status.clone())));
        cluster.renew(now_ms, status, slots, events, ascii);
        true
    }
}

/// Whether something of an operation is still to do.
pub fn is_open(o: &OperationStatus) -> bool {
    OperationState::parse(&o.state).is_some_and(OperationState::is_open)
}

fn matches(n: &NodeStatus, needle: &str) -> bool {
    needle.is_empty()
        || [n.id.as_str(), &n.addr, &n.zone, glyph::node_word(n.state)]
            .iter()
            .any(|field| field.to_lowercase().contains(needle))
}

fn trouble(state: NodeState) -> u8 {
    match state {
        NodeState::Dead => 6,
        NodeState::Suspect => 5,
        NodeState::Draining => 4,
        NodeState::Joining => 3,
        NodeState::Up => 2,
        NodeState::Standby => 1,
        NodeState::Left => 0,
    }
}
