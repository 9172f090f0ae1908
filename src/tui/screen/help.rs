//! `?`: the keys of this screen, read from the key table, and what its signs mean.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::window;
use crate::proto::status::NodeState;
use crate::tui::chrome;
use crate::tui::glyph::node_word;
use crate::tui::keys::{self, Action, Binding, Scope};
use crate::tui::model::{Model, Screen};
use crate::tui::theme::Look;
use crate::tui::widget::{self, panel};

/// Columns of the window: a key, its words and a reason fit in 80.
const WIDTH: u16 = 78;

/// Draws the window over the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, scroll: u16) {
    let lines = content(model, look);
    let frame = if look.glyph.ascii { 1 } else { 2 };
    let rect = window(buf, area, WIDTH, lines.len() as u16 + frame);
    let t = look.theme;
    let title = format!("Help: {}", if model.at_start() { "Start" } else { model.screen.title() });
    let hidden = lines.len().saturating_sub(usize::from(rect.height.saturating_sub(frame)));
    let scroll = usize::from(scroll).min(hidden);
    let note = if hidden > scroll {
        format!("{} more below: Down   Esc closes", hidden - scroll)
    } else {
        "Esc closes".to_owned()
    };
    let title = Line::from(Span::styled(title, t.title));
    let inner = panel::panel(buf, rect, look, true, title, Line::from(Span::styled(note, t.dim)));
    for (y, line) in (inner.y..inner.bottom()).zip(lines.iter().skip(scroll)) {
        widget::line(buf, inner, y, line);
    }
}

/// What newcomers ask, and the keys that answer it from the Overview on.
const QUESTIONS: &[(&str, &[Action], &str)] = &[
    ("which node is hottest?", &[Action::Sort, Action::Sort], "the first row"),
    ("where does a key live?", &[Action::Go(Screen::Keys), Action::LookUp], "type it, Enter"),
    (
        "add a node; is it done?",
        &[Action::ScaleOut, Action::Inspect, Action::NextPanel, Action::Inspect],
        "Events tell its end",
    ),
    ("why did the master change?", &[Action::Go(Screen::Masters)], "how each term ended"),
    ("what happens if n2 dies?", &[Action::Down, Action::Inspect], "\"if it dies\""),
];

fn questions(model: &Model, look: Look<'_>) -> Vec<Line<'static>> {
    let t = look.theme;
    let mut out = vec![Line::from(Span::styled("Questions, and the keys that answer them", t.title))];
    for (question, actions, words) in QUESTIONS {
        if actions.iter().any(|a| keys::disabled(model, *a).is_some()) {
            continue;
        }
        let keys: Vec<&str> = actions.iter().map(|a| keys::first_key(*a)).collect();
        out.push(Line::from(vec![
            Span::styled(format!("  {question:<27} "), t.text),
            Span::styled(format!("{:<18} ", keys.join(" ")), t.accent),
            Span::styled(*words, t.text),
        ]));
    }
    out
}

fn content(model: &Model, look: Look<'_>) -> Vec<Line<'static>> {
    let t = look.theme;
    let mut out =
        if model.screen == Screen::Overview && !model.at_start() { questions(model, look) } else { Vec::new() };
    let mut group = |title: &'static str, bindings: Vec<&'static Binding>| {
        if bindings.is_empty() {
            return;
        }
        if !out.is_empty() {
            out.push(Line::default());
        }
        out.push(Line::from(Span::styled(title, t.title)));
        for b in bindings {
            let off = keys::disabled(model, b.action).filter(|_| !model.at_start());
            let (key, word) = if off.is_some() { (t.dim, t.dim) } else { (t.accent, t.text) };
            out.push(Line::from(vec![Span::styled(format!("  {:<8} ", b.shown), key), Span::styled(b.help, word)]));
            if let Some(why) = off {
                out.push(Line::from(Span::styled(format!("           {why}"), t.dim)));
            }
        }
    };
    let listed = |b: &&'static Binding| !b.help.is_empty();
    let (on, off): (Vec<_>, Vec<_>) =
        keys::here(model).filter(listed).partition(|b| keys::disabled(model, b.action).is_none());
    let (everywhere, special): (Vec<_>, Vec<_>) = on.into_iter().partition(|b| b.scope == Scope::Everywhere);
    // A key that means something else on this screen is not listed twice.
    let everywhere = everywhere.into_iter().filter(|b| !chrome::shadowed(model, b)).collect();
    group("This screen", special);
    group("Everywhere", everywhere);
    if !model.at_start() {
        group("Not now, and why", off);
        out.push(Line::default());
        out.extend(legend(model, look));
    }
    out
}

fn legend(model: &Model, look: Look<'_>) -> Vec<Line<'static>> {
    let t = look.theme;
    let g = look.glyph;
    let mut out = vec![Line::from(Span::styled("Signs", t.title))];
    let states = [
        NodeState::Up,
        NodeState::Suspect,
        NodeState::Dead,
        NodeState::Joining,
        NodeState::Draining,
        NodeState::Standby,
        NodeState::Left,
    ];
    let mut line = vec![Span::raw("  ")];
    for s in states {
        line.push(Span::styled(format!("{} ", g.node(s)), t.node(s)));
        line.push(Span::styled(format!("{}  ", node_word(s)), t.text));
    }
    out.push(Line::from(line));
    let say = |s: String| Line::from(Span::styled(s, t.text));
    match model.screen {
        Screen::Overview => {
            out.push(Line::from(vec![
                Span::styled(format!("  {0}{0}{1}{2}", g.levels[5], g.levels[3], g.levels[1]), t.ok),
                Span::styled(g.missed.to_string(), t.bad),
                Span::styled("  heartbeats, one cell each, as the leader received them: high is", t.text),
            ]));
            out.push(say("         on time (every 250 ms), low is late, a dot is one that did not come".to_owned()));
            out.push(say(format!(
                "  {}{}{}    before ops/s: how busy beside the busiest node",
                g.levels[1], g.levels[4], g.levels[7]
            )));
            out.push(say("  p50 and p99 are those of the slowest node".to_owned()));
        }
        Screen::Ring => {
            out.push(say("  a b c    an owner's slots; on the map one letter is 64 slots".to_owned()));
            out.push(say("  A B C    some of them are about to leave: handed over, or copied elsewhere".to_owned()));
            out.push(say("  _        nobody holds them        !   some of the 64 are not served".to_owned()));
            out.push(say("  heat: the higher the busier (square root), beside the busiest; what a node".to_owned()));
            out.push(
                say("        serves, evenly over its slots but for those that its sample shows as hot".to_owned()),
            );
            if !g.ascii {
                out.push(say("  thick arc: being handed over   inner arc: being copied to that owner".to_owned()));
            }
        }
        Screen::Migrations => {
            out.push(say("  a slot moves in two roles: its backup is one move, its primary another".to_owned()));
            out.push(say("  bars carry the colour of who gets the slots; the longest giver fills its line".to_owned()));
        }
        Screen::Masters => {
            out.push(say("  a term is one leader's time; it ends by an order, or when a majority".to_owned()));
            out.push(say("  no longer hears that leader. Cache nodes serve on in between".to_owned()));
        }
        Screen::Events => {
            out.push(say("  \"this screen\" marks what was done from here".to_owned()));
            out.push(say("  not seen: numbers missing in the stream   dropped: too old to be kept".to_owned()));
        }
        Screen::Keys => {
            out.push(say("  what is not plainly visible in a value is drawn as its escape: \\x1b".to_owned()));
        }
    }
    out
}
