//! The one key table: dispatch, hints and help are all read from it, so none can promise what another does not do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::link::LinkState;
use super::model::{Demo, Model, Panel, Screen};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave.
    Quit,
    /// Keys of this screen.
    Help,
    /// Type a filter.
    Filter,
    /// Next order.
    Sort,
    /// The other way round.
    Reverse,
    /// Hold the picture still, or let it go.
    Freeze,
    /// Next theme.
    Theme,
    /// Copy what the cursor is on.
    Copy,
    /// One step back.
    Back,
    /// Next panel.
    NextPanel,
    /// Panel before.
    PreviousPanel,
    /// Go to a screen.
    Go(Screen),
    /// Move.
    Up,
    /// Move.
    Down,
    /// Move.
    Left,
    /// Move.
    Right,
    /// To the start.
    First,
    /// To the end.
    Last,
    /// A page.
    PageUp,
    /// A page.
    PageDown,
    /// Look closer.
    Inspect,
    /// Draw everything anew.
    Repaint,
    /// Stop as a job.
    Suspend,
    /// Point at a key's slot.
    WhichKey,
    /// Primaries or backups.
    Copies,
    /// Start a local demo.
    StartDemo,
    /// Add nodes.
    ScaleOut,
    /// Drain and remove a node.
    ScaleIn,
    /// Hand leadership over.
    SwitchMaster,
    /// Pause an operation.
    Pause,
    /// Cancel an operation.
    Cancel,
    /// Command palette.
    Palette,
    /// Logs of a process.
    Logs,
}

/// Where a key means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On every screen.
    Everywhere,
    /// On one.
    On(Screen),
    /// Only while no cluster is known.
    Start,
}

/// A key without its decoration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chord {
    code: KeyCode,
    ctrl: bool,
}

const fn c(c: char) -> Chord {
    Chord { code: KeyCode::Char(c), ctrl: false }
}

const fn k(code: KeyCode) -> Chord {
    Chord { code, ctrl: false }
}

const fn ctrl(c: char) -> Chord {
    Chord { code: KeyCode::Char(c), ctrl: true }
}

/// One line of the table.
#[derive(Debug)]
pub struct Binding {
    /// Any of these.
    pub chords: &'static [Chord],
    /// How help and hints write them.
    pub shown: &'static str,
    /// Does this.
    pub action: Action,
    /// Here.
    pub scope: Scope,
    /// Two or three words for the footer; empty = not in the footer.
    pub hint: &'static str,
    /// A line for help.
    pub help: &'static str,
}

const fn bind(
    chords: &'static [Chord],
    shown: &'static str,
    action: Action,
    scope: Scope,
    hint: &'static str,
    help: &'static str,
) -> Binding {
    Binding { chords, shown, action, scope, hint, help }
}

use Scope::{Everywhere, On, Start};
use Screen::{Overview, Ring};

/// The table. The footer shows hints in this order until it is full; of two lines for one key the narrower scope wins.
pub const TABLE: &[Binding] = &[
    bind(&[c('?'), k(KeyCode::F(1))], "?", Action::Help, Everywhere, "help", "the keys of this screen, and its signs"),
    bind(&[c('u')], "u", Action::StartDemo, Start, "start a local demo", "start a demo cluster on this machine"),
    bind(&[c('/')], "/", Action::Filter, Everywhere, "filter", "show only rows that contain what you type"),
    bind(&[c('o')], "o", Action::Sort, On(Overview), "sort", "sort nodes: node, state, age, slots, ops/s, memory, p99"),
    bind(&[c('w')], "w", Action::WhichKey, On(Ring), "which key?", "type a key: points at its slot and who holds it"),
    bind(&[c('v')], "v", Action::Copies, On(Ring), "owner/backup", "show who serves a slot, or who is its backup"),
    bind(&[c(' ')], "Space", Action::Freeze, Everywhere, "freeze", "hold the picture still; again: back to live"),
    bind(&[k(KeyCode::Tab)], "Tab", Action::NextPanel, Everywhere, "panel", "next panel; Shift-Tab: the one before"),
    bind(&[k(KeyCode::BackTab)], "Shift-Tab", Action::PreviousPanel, Everywhere, "", ""),
    bind(&[k(KeyCode::Enter)], "Enter", Action::Inspect, Everywhere, "inspect", "everything about the selected node"),
    bind(&[c('y')], "y", Action::Copy, Everywhere, "copy", "copy the row or slot to the clipboard (OSC 52)"),
    bind(&[c('T')], "T", Action::Theme, Everywhere, "theme", "next theme: dark, light, cvd, mono"),
    bind(&[c('q'), ctrl('c')], "q", Action::Quit, Everywhere, "quit", "leave; the cluster keeps running (also Ctrl-C)"),
    bind(&[c('1')], "1", Action::Go(Overview), Everywhere, "", "Overview: how the cluster is"),
    bind(&[c('2')], "2", Action::Go(Ring), Everywhere, "", "Ring: who holds which slot"),
    bind(&[k(KeyCode::Up), c('k')], "Up k", Action::Up, Everywhere, "", "up"),
    bind(&[k(KeyCode::Down), c('j')], "Down j", Action::Down, Everywhere, "", "down"),
    bind(&[k(KeyCode::Left), c('h')], "Left h", Action::Left, On(Ring), "", "one cell of the map back (64 slots)"),
    bind(&[k(KeyCode::Right), c('l')], "Right l", Action::Right, On(Ring), "", "one cell of the map on (64 slots)"),
    bind(&[c('g'), k(KeyCode::Home)], "g Home", Action::First, Everywhere, "", "to the start"),
    bind(&[c('G'), k(KeyCode::End)], "G End", Action::Last, Everywhere, "", "to the end"),
    bind(&[k(KeyCode::PageUp), ctrl('u')], "PgUp", Action::PageUp, Everywhere, "", "a page up (also Ctrl-U)"),
    bind(&[k(KeyCode::PageDown), ctrl('d')], "PgDn", Action::PageDown, Everywhere, "", "a page down (also Ctrl-D)"),
    bind(&[c('O')], "O", Action::Reverse, On(Overview), "", "sort the other way round"),
    bind(&[k(KeyCode::Esc)], "Esc", Action::Back, Everywhere, "", "back: closes what is open, clears the filter"),
    bind(&[ctrl('l')], "Ctrl-L", Action::Repaint, Everywhere, "", "draw everything anew"),
    bind(&[ctrl('z')], "Ctrl-Z", Action::Suspend, Everywhere, "", "suspend; `fg` brings it back"),
    bind(&[c('+')], "+", Action::ScaleOut, Everywhere, "scale out", "add cache nodes"),
    bind(&[c('-')], "-", Action::ScaleIn, Everywhere, "scale in", "drain a node and remove it"),
    bind(&[c('s')], "s", Action::SwitchMaster, Everywhere, "switch master", "hand leadership to another master"),
    bind(&[c('p')], "p", Action::Pause, Everywhere, "", "pause or resume an operation"),
    bind(&[c('x')], "x", Action::Cancel, Everywhere, "", "cancel an operation"),
    bind(&[c(':')], ":", Action::Palette, Everywhere, "", "command palette"),
    bind(&[c('l')], "l", Action::Logs, On(Overview), "", "logs of the selected process"),
];

/// The line of the table that a key means here.
pub fn lookup(model: &Model, key: &KeyEvent) -> Option<&'static Binding> {
    let chord = Chord { code: key.code, ctrl: key.modifiers.contains(KeyModifiers::CONTROL) };
    let hits = || TABLE.iter().filter(|b| b.chords.contains(&chord) && in_scope(model, b.scope));
    hits().find(|b| b.scope != Everywhere).or_else(|| hits().next())
}

fn in_scope(model: &Model, scope: Scope) -> bool {
    match scope {
        Everywhere => true,
        On(screen) => !model.at_start() && model.screen == screen,
        Start => model.at_start(),
    }
}

/// The lines that mean something here: those of this screen first.
pub fn here(model: &Model) -> impl Iterator<Item = &'static Binding> {
    TABLE.iter().filter(move |b| in_scope(model, b.scope))
}

/// Whether an action changes the cluster rather than the picture.
pub fn changes_cluster(action: Action) -> bool {
    matches!(action, Action::ScaleOut | Action::ScaleIn | Action::SwitchMaster | Action::Pause | Action::Cancel)
}

/// Why an action can't be done now; none if it can.
pub fn disabled(model: &Model, action: Action) -> Option<String> {
    if changes_cluster(action) {
        if model.at_start() {
            return Some("no cluster is known here yet".to_owned());
        }
        if model.setup.read_only {
            return Some("read-only: this screen was started with --read-only".to_owned());
        }
        if model.link_state() == LinkState::Lost {
            return Some("no master: nothing can be changed until one answers".to_owned());
        }
    }
    let no_data = model.shown().is_none();
    match action {
        Action::ScaleOut => Some("read-only: scaling out comes with the Migrations screen".to_owned()),
        Action::ScaleIn => Some("read-only: draining comes with the Migrations screen".to_owned()),
        Action::Pause => Some("read-only: pausing an operation comes with the Migrations screen".to_owned()),
        Action::Cancel => Some("read-only: cancelling an operation comes with the Migrations screen".to_owned()),
        Action::SwitchMaster => Some("read-only: switching comes with the Masters screen".to_owned()),
        Action::Palette => Some("the command palette comes with the actions".to_owned()),
        Action::Logs => Some("logs come with the Events screen".to_owned()),
        Action::StartDemo if !model.setup.can_start_demo => Some("no demo can be started from here".to_owned()),
        Action::StartDemo if matches!(model.demo, Demo::Starting(_)) => Some("it is starting already".to_owned()),
        Action::Freeze | Action::Copy | Action::Inspect | Action::Filter | Action::WhichKey if no_data => {
            Some("nothing to show yet".to_owned())
        }
        Action::Inspect if matches!(model.panel(), Panel::Operations | Panel::Events) => {
            Some("only nodes can be inspected: Tab goes to them".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::model::Setup;

    fn press(code: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(code), KeyModifiers::NONE)
    }

    #[test]
    fn no_key_means_two_things_in_one_place() {
        for (i, a) in TABLE.iter().enumerate() {
            for b in &TABLE[i + 1..] {
                let both = a.chords.iter().any(|x| b.chords.contains(x));
                assert!(!both || a.scope != b.scope, "{} and {} share a key", a.shown, b.shown);
            }
        }
    }

    #[test]
    fn a_narrow_scope_wins() {
        let mut m = Model::new(Setup { masters: vec!["a:1".into()], ..Setup::default() });
        assert_eq!(lookup(&m, &press('l')).unwrap().action, Action::Logs);
        m.screen = Ring;
        assert_eq!(lookup(&m, &press('l')).unwrap().action, Action::Right);
        assert_eq!(lookup(&m, &press('u')).map(|b| b.action), None, "only at the start");
        assert_eq!(lookup(&m, &press('o')).map(|b| b.action), None, "only on the Overview");
    }

    #[test]
    fn every_screen_can_be_reached_and_left() {
        for s in Screen::ALL {
            assert!(TABLE.iter().any(|b| b.action == Action::Go(s)));
        }
        let m = Model::new(Setup::default());
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(lookup(&m, &key).unwrap().action, Action::Quit);
        assert_eq!(lookup(&m, &press('q')).unwrap().action, Action::Quit);
    }

    #[test]
    fn what_is_disabled_says_why() {
        let m = Model::new(Setup { masters: vec!["a:1".into()], ..Setup::default() });
        for b in TABLE.iter().filter(|b| changes_cluster(b.action)) {
            assert!(disabled(&m, b.action).unwrap().starts_with("read-only: "), "{}", b.shown);
        }
        let start = Model::new(Setup::default());
        assert!(disabled(&start, Action::StartDemo).is_some());
        assert_eq!(disabled(&start, Action::Quit), None);
    }
}
