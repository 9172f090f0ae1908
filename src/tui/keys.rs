//! The one key table: dispatch, hints and help are all read from it, so none can promise what another does not do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::link::LinkState;
use super::model::{Demo, Model, Panel, Screen, is_open};

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
    /// Even shares out.
    Rebalance,
    /// Give up on a dead node.
    Forget,
    /// Kill the selected process.
    KillProcess,
    /// Stop it in its tracks.
    PauseProcess,
    /// Let it go on.
    ResumeProcess,
    /// End it and start it again.
    RestartProcess,
    /// Command palette.
    Palette,
    /// Logs of a process.
    Logs,
    /// Only events that matter so much.
    Severity,
    /// Stay at the newest event.
    Follow,
    /// Write the events that are listed to a file.
    WriteEvents,
    /// Type a key to look up.
    LookUp,
    /// Read the key again.
    ReadAgain,
    /// Write a key.
    SetKey,
    /// Delete the key that is shown.
    DeleteKey,
    /// The value as text, JSON or hex.
    ValueView,
    /// Recording: hold, or go on.
    PlayPause,
    /// Recording: the view before.
    StepBack,
    /// Recording: the next view.
    StepOn,
    /// Recording: ten seconds back.
    JumpBack,
    /// Recording: ten seconds on.
    JumpOn,
    /// Recording: half as fast.
    Slower,
    /// Recording: twice as fast.
    Faster,
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
    /// Only while a recording is played.
    Replay,
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

use Scope::{Everywhere, On, Replay, Start};
use Screen::{Events, Keys, Masters, Migrations, Overview, Ring};

/// The table. The footer shows hints in this order until it is full; of two lines for one key the narrower scope wins.
pub const TABLE: &[Binding] = &[
    bind(&[c('?'), k(KeyCode::F(1))], "?", Action::Help, Everywhere, "help", "the keys of this screen, and its signs"),
    bind(&[c(':')], ":", Action::Palette, Everywhere, "command", "type a command: Tab completes, Up finds old ones"),
    bind(&[c('u')], "u", Action::StartDemo, Start, "start a local demo", "start a demo cluster on this machine"),
    bind(&[c(' ')], "Space", Action::PlayPause, Replay, "pause", "hold the recording, or go on"),
    bind(&[c(',')], ",", Action::StepBack, Replay, "back", "one view back"),
    bind(&[c('.')], ".", Action::StepOn, Replay, "step", "one view on"),
    bind(&[c('[')], "[", Action::JumpBack, Replay, "-10s", "ten seconds back"),
    bind(&[c(']')], "]", Action::JumpOn, Replay, "+10s", "ten seconds on"),
    bind(&[c('<')], "<", Action::Slower, Replay, "slower", "half as fast"),
    bind(&[c('>')], ">", Action::Faster, Replay, "faster", "twice as fast"),
    bind(
        &[k(KeyCode::Enter)],
        "Enter",
        Action::LookUp,
        On(Keys),
        "look up",
        "type a key: where it lives and what is in it",
    ),
    bind(&[c('e')], "e", Action::SetKey, On(Keys), "set", "write a key, with a time to live if you like"),
    bind(&[c('d'), k(KeyCode::Delete)], "d", Action::DeleteKey, On(Keys), "delete", "delete the key that is shown"),
    bind(&[c('v')], "v", Action::ValueView, On(Keys), "text/JSON/hex", "show the value as text, as JSON, or in hex"),
    bind(&[c('r')], "r", Action::ReadAgain, On(Keys), "read again", "read the key again"),
    bind(&[c('v')], "v", Action::Severity, On(Events), "severity", "all events, warnings and errors, or errors only"),
    bind(&[c('f')], "f", Action::Follow, On(Events), "follow", "go to the newest event and stay there"),
    bind(&[c('w')], "w", Action::WriteEvents, On(Events), "write", "write what is listed to a file, as lines of JSON"),
    bind(&[c('w')], "w", Action::WhichKey, On(Ring), "which key?", "type a key: points at its slot and who holds it"),
    bind(
        &[c('v')],
        "v",
        Action::Copies,
        On(Ring),
        "owner/backup/heat",
        "who serves a slot, who is its backup, how busy",
    ),
    bind(&[c('/')], "/", Action::Filter, Everywhere, "filter", "show only rows that contain what you type"),
    bind(&[c('o')], "o", Action::Sort, On(Overview), "sort", "sort nodes: node, state, ops/s, memory, p99, slots, age"),
    bind(&[k(KeyCode::Enter)], "Enter", Action::Inspect, Everywhere, "inspect", "everything about the selected node"),
    bind(&[c(' ')], "Space", Action::Freeze, Everywhere, "freeze", "hold the picture still; again: back to live"),
    bind(&[c('+')], "+", Action::ScaleOut, Everywhere, "scale out", "add cache nodes: first the plan, then a question"),
    bind(&[c('-')], "-", Action::ScaleIn, Everywhere, "scale in", "drain a node and remove it: first the plan"),
    bind(&[c('s')], "s", Action::SwitchMaster, Everywhere, "switch master", "hand leadership to another master"),
    bind(&[c('p')], "p", Action::Pause, Everywhere, "pause", "pause an operation, or let it go on"),
    bind(&[c('x')], "x", Action::Cancel, Everywhere, "cancel", "end an operation; what is committed stays"),
    bind(&[k(KeyCode::Tab)], "Tab", Action::NextPanel, Everywhere, "panel", "next panel; Shift-Tab: the one before"),
    bind(&[k(KeyCode::BackTab)], "Shift-Tab", Action::PreviousPanel, Everywhere, "", ""),
    bind(&[c('l')], "l", Action::Logs, Everywhere, "logs", "the log of the selected process"),
    bind(&[c('y')], "y", Action::Copy, Everywhere, "copy", "copy the row or slot to the clipboard (OSC 52)"),
    bind(&[c('T')], "T", Action::Theme, Everywhere, "theme", "next theme: dark, light, cvd, mono"),
    bind(&[c('q'), ctrl('c')], "q", Action::Quit, Everywhere, "quit", "leave; the cluster keeps running (also Ctrl-C)"),
    bind(&[c('1')], "1", Action::Go(Overview), Everywhere, "", "Overview: how the cluster is"),
    bind(&[c('2')], "2", Action::Go(Ring), Everywhere, "", "Ring: who holds which slot; what if a node dies"),
    bind(&[c('3')], "3", Action::Go(Migrations), Everywhere, "", "Migrations: what moves, how far, how long yet"),
    bind(&[c('4')], "4", Action::Go(Masters), Everywhere, "", "Masters: who leads, who led, and why it changed"),
    bind(&[c('5')], "5", Action::Go(Events), Everywhere, "", "Events: what happened, and who asked for it"),
    bind(&[c('6')], "6", Action::Go(Keys), Everywhere, "", "Keys: where a key lives and what is in it"),
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
    bind(&[c('b')], "b", Action::Rebalance, Everywhere, "", "even shares out: first the plan"),
    bind(&[c('F')], "F", Action::Forget, Everywhere, "", "give up on a dead node, and on what it alone held"),
    bind(&[c('K')], "K", Action::KillProcess, Everywhere, "", "kill the selected process (local clusters)"),
    bind(&[c('P')], "P", Action::PauseProcess, Everywhere, "", "stop it in its tracks (local clusters)"),
    bind(&[c('C')], "C", Action::ResumeProcess, Everywhere, "", "let it go on (local clusters)"),
    bind(&[c('R')], "R", Action::RestartProcess, Everywhere, "", "end it and start it again (local clusters)"),
    bind(&[ctrl('l')], "Ctrl-L", Action::Repaint, Everywhere, "", "draw everything anew"),
    bind(&[ctrl('z')], "Ctrl-Z", Action::Suspend, Everywhere, "", "suspend; `fg` brings it back"),
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
        Replay => model.replay.is_some(),
    }
}

/// The key of an action, the shortest way to say it.
pub fn first_key(action: Action) -> &'static str {
    let shown = TABLE.iter().find(|b| b.action == action).map_or("", |b| b.shown);
    shown.split(' ').next().unwrap_or(shown)
}

/// The lines that mean something here: those of this screen first.
pub fn here(model: &Model) -> impl Iterator<Item = &'static Binding> {
    TABLE.iter().filter(move |b| in_scope(model, b.scope))
}

/// Whether an action changes the cluster rather than the picture.
pub fn changes_cluster(action: Action) -> bool {
    matches!(
        action,
        Action::ScaleOut
            | Action::ScaleIn
            | Action::SwitchMaster
            | Action::Pause
            | Action::Cancel
            | Action::Rebalance
            | Action::Forget
    ) || touches_process(action)
        || matches!(action, Action::SetKey | Action::DeleteKey)
}

/// Whether an action reaches a process rather than the masters.
fn touches_process(action: Action) -> bool {
    use Action::{KillProcess, PauseProcess, RestartProcess, ResumeProcess};
    matches!(action, KillProcess | PauseProcess | ResumeProcess | RestartProcess)
}

/// Why nothing at all may be changed from here; none if it may.
pub fn blocked_here(model: &Model) -> Option<String> {
    if model.replay.is_some() {
        return Some("this is a recording: what it shows is over".to_owned());
    }
    if model.at_start() {
        return Some("no cluster is known here yet".to_owned());
    }
    if model.setup.read_only {
        return Some("read-only: this screen was started with --read-only".to_owned());
    }
    None
}

/// Why the masters can't be told anything now; none if they can.
pub fn blocked(model: &Model) -> Option<String> {
    blocked_here(model).or_else(|| {
        (model.link_state() == LinkState::Lost)
            .then(|| "no master: nothing can be changed until one answers".to_owned())
    })
}

/// Why an action can't be done now; none if it can.
pub fn disabled(model: &Model, action: Action) -> Option<String> {
    if changes_cluster(action) {
        let by_masters = !touches_process(action) && !matches!(action, Action::SetKey | Action::DeleteKey);
        if let Some(why) = if by_masters { blocked(model) } else { blocked_here(model) } {
            return Some(why);
        }
        if model.live.is_none() {
            return Some("no master said yet what the cluster is like".to_owned());
        }
        if model.frozen.is_some() {
            return Some("the picture is frozen: Space goes back to live first".to_owned());
        }
    }
    let no_data = model.shown().is_none();
    match action {
        Action::Pause | Action::Cancel => match model.meant_operation() {
            None => Some("no operation is open".to_owned()),
            Some(o) if !is_open(o) => Some(format!("op #{} is over: {}", o.id, o.state)),
            Some(_) => None,
        },
        Action::SwitchMaster if model.live.as_ref().is_some_and(|c| c.status.masters.len() < 2) => {
            Some("a single master: there is nobody to hand over to".to_owned())
        }
        a if touches_process(a) && !model.setup.local => {
            Some("its process is not on this machine: only local clusters' processes can be reached".to_owned())
        }
        Action::Logs if model.replay.is_some() => Some("this is a recording: logs are not in it".to_owned()),
        Action::Logs if !model.setup.local => {
            Some("its log is where its process runs: this is not a local cluster".to_owned())
        }
        Action::LookUp | Action::ReadAgain if model.replay.is_some() => {
            Some("this is a recording: keys are not in it".to_owned())
        }
        Action::ReadAgain | Action::DeleteKey if model.keys.key.is_empty() => {
            Some("no key is shown: Enter looks one up".to_owned())
        }
        Action::ValueView if model.keys.found.as_ref().is_none_or(|f| f.value.is_none()) => {
            Some("no value is shown".to_owned())
        }
        Action::StartDemo if !model.setup.can_start_demo => Some("no demo can be started from here".to_owned()),
        Action::StartDemo if matches!(model.demo, Demo::Starting(_)) => Some("it is starting already".to_owned()),
        Action::Freeze | Action::Copy | Action::Inspect | Action::Filter | Action::WhichKey | Action::LookUp
            if no_data =>
        {
            Some("nothing to show yet".to_owned())
        }
        Action::Inspect
            if !matches!(model.panel(), Panel::Nodes | Panel::Map | Panel::Owners) && model.overlay.is_none() =>
        {
            Some("only nodes can be inspected, on Overview and Ring".to_owned())
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
        assert_eq!(lookup(&m, &press('[')).map(|b| b.action), None, "only in a recording");
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
        let masters = vec!["a:1".into()];
        let m = Model::new(Setup { masters: masters.clone(), read_only: true, ..Setup::default() });
        for b in TABLE.iter().filter(|b| changes_cluster(b.action)) {
            assert!(disabled(&m, b.action).unwrap().starts_with("read-only: "), "{}", b.shown);
        }
        let m = Model::new(Setup { masters, ..Setup::default() });
        for b in TABLE.iter().filter(|b| changes_cluster(b.action)) {
            assert!(disabled(&m, b.action).is_some(), "{}: nothing is known yet", b.shown);
        }
        let start = Model::new(Setup::default());
        assert!(disabled(&start, Action::StartDemo).is_some());
        assert_eq!(disabled(&start, Action::Quit), None);
    }
}
