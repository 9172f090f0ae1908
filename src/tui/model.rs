//! All that the screen knows, in one value: what the masters said, how the link is, and what the person looks at.

use super::cluster::{Cluster, clean_status, memory_share};
use super::escape::{clean, natural};
use super::event::Now;
use super::glyph::{self, Glyphs};
use super::layout;
use super::link::{Link, LinkState};
use super::slots::Copies;
use super::theme::{Theme, ThemeName};
use crate::proto::status::{NodeState, NodeStatus, OperationStatus, WatchView};

/// The longest text typed into a prompt, characters: keys of 512 MB are not typed by hand.
pub const INPUT_MAX: usize = 256;
/// How long a message stays, milliseconds: long enough to read two lines.
pub const TOAST_MS: u64 = 5_000;

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
    /// Seconds that local time is ahead of UTC.
    pub utc_offset_s: i32,
}

/// The screens there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Screen {
    /// How the cluster is.
    #[default]
    Overview,
    /// Who holds which slot.
    Ring,
}

impl Screen {
    /// In the order of their keys.
    pub const ALL: [Screen; 2] = [Screen::Overview, Screen::Ring];

    /// Its name, as the tab shows it.
    pub fn title(self) -> &'static str {
        match self {
            Screen::Overview => "Overview",
            Screen::Ring => "Ring",
        }
    }
}

/// The part of a screen that the arrow keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// Overview: the nodes.
    Nodes,
    /// Both: operations.
    Operations,
    /// Overview: events.
    Events,
    /// Ring: the slot map.
    Map,
    /// Ring: the owners.
    Owners,
}

impl Screen {
    /// Its panels in the order of `Tab`.
    pub fn panels(self) -> &'static [Panel] {
        match self {
            Screen::Overview => &[Panel::Nodes, Panel::Operations, Panel::Events],
            Screen::Ring => &[Panel::Map, Panel::Owners],
        }
    }
}

/// What rows of nodes are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// By name, as people count.
    #[default]
    Node,
    /// Trouble first.
    State,
    /// Longest without a heartbeat first.
    Age,
    /// Most primaries first.
    Slots,
    /// Busiest first.
    Ops,
    /// Fullest first.
    Memory,
    /// Slowest first.
    P99,
}

impl Sort {
    /// What `o` switches to.
    pub fn next(self) -> Self {
        match self {
            Sort::Node => Sort::State,
            Sort::State => Sort::Age,
            Sort::Age => Sort::Slots,
            Sort::Slots => Sort::Ops,
            Sort::Ops => Sort::Memory,
            Sort::Memory => Sort::P99,
            Sort::P99 => Sort::Node,
        }
    }

    /// As the title says it.
    pub fn word(self) -> &'static str {
        match self {
            Sort::Node => "node",
            Sort::State => "state",
            Sort::Age => "age",
            Sort::Slots => "slots",
            Sort::Ops => "ops/s",
            Sort::Memory => "memory",
            Sort::P99 => "p99",
        }
    }
}

/// What a line of input is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptKind {
    /// Which rows to show.
    Filter,
    /// Which key's slot to point at.
    WhichKey,
}

/// A line being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What for.
    pub kind: PromptKind,
    /// So far.
    pub text: String,
    /// What `Esc` goes back to.
    pub before: String,
}

/// A window over the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// The keys of this screen; scrolled down by so many lines.
    Help {
        /// Lines scrolled off the top.
        scroll: u16,
    },
    /// Everything about one node.
    Node {
        /// Which.
        id: String,
    },
}

/// How a message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It worked.
    Done,
    /// It did not, and this is why.
    Alert,
}

/// A message that goes away by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toast {
    /// In words.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
    /// When it goes, monotonic milliseconds.
    pub until_ms: u64,
}

/// A picture held still.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    /// What it shows.
    pub cluster: Box<Cluster>,
    /// When it was taken.
    pub at: Now,
}

/// How a demo cluster's start is going.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Demo {
    /// Nobody asked.
    #[default]
    Idle,
    /// On its way; the last steps.
    Starting(Vec<String>),
    /// It failed, and why.
    Failed(String),
}

/// Where the person is on the Overview.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OverviewState {
    /// The panel that has the keys; the first one unless chosen.
    pub focus: Option<Panel>,
    /// The selected node, by name, so that it stays selected when rows move.
    pub selected: Option<String>,
    /// Order of rows.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// Operations scrolled down by.
    pub operations_scroll: usize,
    /// Events scrolled back by.
    pub events_scroll: usize,
}

/// Where the person is on the Ring.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RingState {
    /// The panel that has the keys; the first one unless chosen.
    pub focus: Option<Panel>,
    /// The slot under the cursor.
    pub cursor: u16,
    /// Which copy is drawn.
    pub copies: Copies,
    /// The key that was asked for, cleaned, if the cursor still points at its slot.
    pub key: Option<String>,
    /// The selected owner, by name.
    pub selected: Option<String>,
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
    /// A window over it.
    pub overlay: Option<Overlay>,
    /// A line being typed.
    pub prompt: Option<Prompt>,
    /// Shows only rows that contain this.
    pub filter: String,
    /// A message.
    pub toast: Option<Toast>,
    /// Overview.
    pub overview: OverviewState,
    /// Ring.
    pub ring: RingState,
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
            overlay: None,
            prompt: None,
            filter: String::new(),
            toast: None,
            overview: OverviewState::default(),
            ring: RingState::default(),
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
        let wanted = match self.screen {
            Screen::Overview => self.overview.focus,
            Screen::Ring => self.ring.focus,
        };
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
            let rank = match o.state.as_str() {
                "running" => 0,
                "paused" => 1,
                "planned" => 2,
                _ => 3,
            };
            // Open ones in the order they will run, finished ones latest first.
            (rank, if rank < 3 { o.id } else { u64::MAX - o.id })
        });
        ops
    }

    /// Shows a message for a while.
    pub fn say(&mut self, tone: Tone, text: impl Into<String>) {
        let text = clean(&text.into(), self.setup.ascii);
        self.toast = Some(Toast { text, tone, until_ms: self.now.mono_ms.saturating_add(TOAST_MS) });
    }

    fn forget_cluster(&mut self) {
        (self.live, self.frozen, self.overlay) = (None, None, None);
        self.ring.selected = None;
        self.overview.selected = None;
    }

    /// Takes a view in, unless it is older than what is shown.
    pub fn absorb(&mut self, mut view: WatchView) {
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
                return;
            }
        }
        self.link.refused = None;
        self.link.last_view_ms = Some(self.now.mono_ms);
        self.link.no_leader = status.leader.is_none();
        self.link.know(status.masters.iter().map(|m| (m.id.as_str(), m.addr.as_str())));
        let now_ms = self.now.mono_ms;
        let cluster = self.live.get_or_insert_with(|| Box::new(Cluster::new(status.clone())));
        cluster.renew(now_ms, status, slots, events, ascii);
    }
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
