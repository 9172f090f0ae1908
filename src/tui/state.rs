//! Where the person is: which screen, which row, what is typed, what lies over it. No data of the cluster is in here.

use super::slots::Copies;
use super::value::ValueView;
use crate::proto::event::Severity;

/// The screens there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Screen {
    /// How the cluster is.
    #[default]
    Overview,
    /// Who holds which slot.
    Ring,
    /// What moves.
    Migrations,
    /// Who leads, and who did.
    Masters,
    /// What happened.
    Events,
    /// One key: where it lives and what is in it.
    Keys,
}

impl Screen {
    /// In the order of their keys.
    pub const ALL: [Screen; 6] =
        [Screen::Overview, Screen::Ring, Screen::Migrations, Screen::Masters, Screen::Events, Screen::Keys];

    /// Its name, as the tab shows it.
    pub fn title(self) -> &'static str {
        match self {
            Screen::Overview => "Overview",
            Screen::Ring => "Ring",
            Screen::Migrations => "Migrations",
            Screen::Masters => "Masters",
            Screen::Events => "Events",
            Screen::Keys => "Keys",
        }
    }

    /// Its name where there is little room.
    pub fn short(self) -> &'static str {
        match self {
            Screen::Overview => "Ovw",
            Screen::Migrations => "Migr",
            Screen::Masters => "Mast",
            Screen::Events => "Evt",
            Screen::Ring | Screen::Keys => self.title(),
        }
    }

    /// Its place in [`Screen::ALL`].
    pub fn place(self) -> usize {
        self as usize
    }

    /// Its panels in the order of `Tab`.
    pub fn panels(self) -> &'static [Panel] {
        match self {
            Screen::Overview => &[Panel::Nodes, Panel::Operations, Panel::Events],
            Screen::Ring => &[Panel::Map, Panel::Owners],
            Screen::Migrations => &[Panel::OperationList, Panel::Pairs],
            Screen::Masters => &[Panel::MasterList, Panel::Terms],
            Screen::Events => &[Panel::EventLog],
            Screen::Keys => &[Panel::Value],
        }
    }
}

/// The part of a screen that the arrow keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// Overview: the nodes.
    Nodes,
    /// Overview: operations in brief.
    Operations,
    /// Overview: the latest events.
    Events,
    /// Ring: the slot map.
    Map,
    /// Ring: the owners.
    Owners,
    /// Migrations: all operations.
    OperationList,
    /// Migrations: what the selected one moves between whom.
    Pairs,
    /// Masters: the masters.
    MasterList,
    /// Masters: who led when.
    Terms,
    /// Events: all of them.
    EventLog,
    /// Keys: what is in the key.
    Value,
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
            Sort::State => Sort::Ops,
            Sort::Ops => Sort::Memory,
            Sort::Memory => Sort::P99,
            Sort::P99 => Sort::Slots,
            Sort::Slots => Sort::Age,
            Sort::Age => Sort::Node,
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
    /// A command of the palette.
    Command,
    /// Which key to look up.
    LookUp,
    /// Which file to write events to.
    WriteTo,
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
    /// How far back in the history of commands it is; 0 = a new one.
    pub back: usize,
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
    /// The log of one process.
    Logs(Logs),
}

/// The log of one process, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logs {
    /// Whose.
    pub who: String,
    /// The last lines, cleaned.
    pub lines: Vec<String>,
    /// Lines scrolled back from the end; 0 follows.
    pub back: usize,
    /// The request that reads it anew.
    pub request: Option<u64>,
    /// When it was last asked for, monotonic milliseconds.
    pub asked_ms: u64,
    /// Why it can't be read.
    pub error: Option<String>,
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
    /// The slot under the cursor.
    pub cursor: u16,
    /// Which copy is drawn.
    pub copies: Copies,
    /// Owners are drawn by how busy they are.
    pub heat: bool,
    /// The key that was asked for, cleaned, if the cursor still points at its slot.
    pub key: Option<String>,
    /// The selected owner, by name.
    pub selected: Option<String>,
}

/// Where the person is on the Migrations screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigrationsState {
    /// The selected operation; none = the first one.
    pub selected: Option<u64>,
    /// Pairs scrolled down by.
    pub pairs_scroll: usize,
}

/// Where the person is on the Masters screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MastersState {
    /// The selected master; none = the leader.
    pub selected: Option<String>,
    /// Terms scrolled down by.
    pub terms_scroll: usize,
}

/// Where the person is on the Events screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsState {
    /// Only events that matter at least so much.
    pub least: Severity,
    /// Newer events hidden below the last one drawn; 0 follows.
    pub back: usize,
    /// The newest one seen on this screen, by number.
    pub read: u64,
}

impl Default for EventsState {
    fn default() -> Self {
        Self { least: Severity::Info, back: 0, read: 0 }
    }
}

/// Where the person is on the Keys screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeysState {
    /// The key as it was typed; empty = none yet.
    pub key: String,
    /// How its value is drawn.
    pub view: ValueView,
    /// What a node said of it.
    pub found: Option<Found>,
    /// When that was, wall clock, milliseconds.
    pub found_at_ms: u64,
    /// The request that is under way.
    pub request: Option<u64>,
    /// Why the last one failed.
    pub error: Option<String>,
    /// Lines of the value scrolled down by.
    pub scroll: usize,
}

/// What a node said of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value, or as much of its beginning as is looked at; none = there is no such key.
    pub value: Option<Vec<u8>>,
    /// The whole value's length, bytes.
    pub size: u64,
    /// Time left, milliseconds; -1 = for ever.
    pub ttl_ms: i64,
    /// Which node answered.
    pub addr: String,
}
