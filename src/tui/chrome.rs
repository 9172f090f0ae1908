//! What frames every screen: header, tabs, the banner of a lost link, key hints, prompts and messages.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::escape::{clean, fit, width};
use super::jobs;
use super::keys::{self, Action, Scope};
use super::layout::Shell;
use super::link::LinkState;
use super::model::{Model, PromptKind, Screen, Tone};
use super::number;
use super::palette;
use super::theme::Look;
use super::widget::{self, fields};
use crate::proto::slot::Slot;

/// Where the terminal's cursor goes, if a prompt is open.
pub type Caret = Option<(u16, u16)>;

/// Draws the frame around the body.
pub fn draw(model: &Model, buf: &mut Buffer, shell: &Shell, look: Look<'_>) -> Caret {
    header(model, buf, shell.header, look);
    tabs(model, buf, shell.tabs, look);
    banner(model, buf, shell.banner, look);
    footer(model, buf, shell, look)
}

fn header(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let t = look.theme;
    let area = padded(area);
    let right = (0..3).map(|brief| link_line(model, look, brief));
    let cluster = model.cluster_name();
    let path = |with_screen: bool| {
        let mut spans = vec![Span::styled("cachectl", t.accent)];
        let mut step = |s: &str, style: Style| {
            if !s.is_empty() {
                spans.push(Span::styled(format!(" {} ", look.glyph.crumb), t.dim));
                spans.push(Span::styled(fit(s, 24, look.glyph.more).into_owned(), style));
            }
        };
        step(&cluster, t.title);
        if with_screen && !model.at_start() {
            step(&model.screen.title().to_lowercase(), t.text);
        }
        Line::from(spans)
    };
    for right in right {
        for left in [path(true), path(false)] {
            if widget::line_width(&left) + 2 + widget::line_width(&right) <= usize::from(area.width) {
                widget::line(buf, area, area.y, &left);
                widget::line_right(buf, area, area.y, &right);
                return;
            }
        }
    }
    widget::line(buf, area, area.y, &path(false));
}

/// `master m1 127.0.0.1:7101 ● LIVE 0.2s   term 7   epoch 42`, briefer where there is less room.
fn link_line(model: &Model, look: Look<'_>, brief: usize) -> Line<'static> {
    let t = look.theme;
    if model.at_start() {
        return Line::from(Span::styled("no cluster", t.dim));
    }
    let state = model.link_state();
    let (sign, word, style) = match state {
        LinkState::Connecting => (look.glyph.stale, "CONNECTING", t.info),
        LinkState::Live => (look.glyph.live, "LIVE", t.ok),
        LinkState::Stale => (look.glyph.stale, "STALE", t.warn),
        LinkState::Lost => (look.glyph.lost, "LOST", t.bad),
    };
    let mut spans = Vec::new();
    let status = model.live.as_ref().map(|c| &c.status);
    match status.and_then(|s| s.leader.as_ref()) {
        Some(leader) => {
            if brief == 0 {
                spans.push(Span::styled("master ", t.dim));
            }
            spans.push(Span::styled(fit(leader, 16, look.glyph.more).into_owned(), t.title));
            let addr = status.and_then(|s| s.masters.iter().find(|m| &m.id == leader)).map(|m| m.addr.clone());
            if let Some(addr) = addr.filter(|_| brief < 2) {
                spans.push(Span::styled(format!(" {}", fit(&addr, 32, look.glyph.more)), t.text));
            }
            spans.push(Span::raw(" "));
        }
        None if status.is_some() => spans.push(Span::styled("no leader ", t.warn)),
        None => {}
    }
    spans.push(Span::styled(format!("{sign} {word}"), style));
    if let Some(age) = model.link.age_ms(model.now.mono_ms) {
        spans.push(Span::styled(format!(" {}", number::span(age)), style));
    }
    if let Some(s) = status {
        let (gap, term, epoch) = if brief == 0 { ("   ", "term ", "epoch ") } else { ("  ", "t", "e") };
        spans.push(Span::styled(format!("{gap}{term}"), t.dim));
        spans.push(Span::styled(number::exact(s.term), t.text));
        spans.push(Span::styled(format!("{}{epoch}", if brief == 0 { gap } else { " " }), t.dim));
        spans.push(Span::styled(number::exact(s.epoch), t.text));
        if state == LinkState::Lost {
            spans.push(Span::styled(" STALE", t.bad));
        }
    }
    Line::from(spans)
}

fn padded(area: Rect) -> Rect {
    Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area }
}

/// The tabs' words: short ones where the long ones would meet what stands at the right.
fn tab_texts(model: &Model) -> [String; 6] {
    let texts = |short: bool| {
        Screen::ALL.map(|screen| {
            let title = if short { screen.short() } else { screen.title() };
            let count = match screen {
                Screen::Migrations if model.open_operations() > 0 => format!("({})", model.open_operations()),
                Screen::Events if model.unread() > 0 => format!("(!{})", model.unread().min(999)),
                _ => String::new(),
            };
            let n = screen.place() + 1;
            if screen == model.screen { format!("[{n} {title}{count}]") } else { format!(" {n} {title}{count} ") }
        })
    };
    let long = texts(false);
    let room = usize::from(model.size.0).saturating_sub(width(&rights(model)) + 12 + 4);
    if long.iter().map(|t| width(t)).sum::<usize>() <= room { long } else { texts(true) }
}

/// What may be changed from here, in as few words as there is room for.
fn rights_in(model: &Model, room: usize) -> String {
    let brief = match rights(model).as_str() {
        "read-only: no master" => "ro: no master",
        _ => "",
    };
    [rights(model).as_str(), brief].into_iter().find(|w| width(w) <= room).unwrap_or_default().to_owned()
}

/// What may be changed from here.
fn rights(model: &Model) -> String {
    if model.replay.is_some() {
        "recording".to_owned()
    } else if model.setup.read_only {
        "read-only".to_owned()
    } else if model.link_state() == LinkState::Lost {
        "read-only: no master".to_owned()
    } else {
        "read-write".to_owned()
    }
}

fn tabs(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let t = look.theme;
    let area = padded(area);
    let mut x = area.x;
    if !model.at_start() {
        for (screen, words) in Screen::ALL.into_iter().zip(tab_texts(model)) {
            let style = match screen {
                _ if screen == model.screen => t.accent,
                Screen::Events if model.unread() > 0 => t.warn,
                _ => t.text,
            };
            x += widget::text(buf, x, area.y, area.right().saturating_sub(x), &words, style, look.glyph.more);
        }
    }
    let clock = number::clock(model.now.wall_ms, model.setup.utc_offset_s);
    // What would run into the tabs is left out: first the words, then the clock.
    let free = usize::from(area.right().saturating_sub(x));
    if free <= width(&clock) {
        return;
    }
    let rights =
        if model.at_start() { String::new() } else { rights_in(model, free.saturating_sub(width(&clock) + 4)) };
    let style = if rights == "read-write" { t.dim } else { t.info };
    let gap = if rights.is_empty() { "" } else { "   " };
    let right = vec![Span::styled(rights, style), Span::raw(gap), Span::styled(clock, t.text)];
    widget::line_right(buf, area, area.y, &Line::from(right));
}

/// Which tab is at a column of the tabs' row.
pub fn tab_at(model: &Model, column: u16) -> Option<Screen> {
    let mut x = 1;
    for (screen, words) in Screen::ALL.into_iter().zip(tab_texts(model)) {
        let w = width(&words) as u16;
        if (x..x + w).contains(&column) {
            return Some(screen);
        }
        x += w;
    }
    None
}

fn banner(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    if area.height == 0 {
        return;
    }
    let t = look.theme;
    let mut area = area;
    if model.replay.is_some() {
        let bar = Rect { y: area.bottom() - 1, height: 1, ..area };
        time_bar(model, buf, padded(bar), look);
        area.height -= 1;
        if area.height == 0 {
            return;
        }
    }
    let wide = padded(area);
    let now = model.now.mono_ms;
    if model.link_state() == LinkState::Lost {
        let age = model.link.age_ms(now).unwrap_or(0);
        let link = &model.link;
        let (who, why) = match link.last_failed.as_ref().and_then(|a| Some((a, link.failed.get(a)?))) {
            Some((addr, failed)) => (link.title(addr), failed.why.clone()),
            None => (link.connected.as_ref().map(|a| link.title(a)).unwrap_or_default(), "no view comes".to_owned()),
        };
        buf.set_style(Rect { height: 1, ..area }, t.banner);
        let text = format!("! MASTER LOST {who} ({why}). Data below is {} old.", number::span(age));
        // The age must be read even where the reason is long.
        let text = if width(&text) <= usize::from(wide.width) {
            text
        } else {
            format!("! MASTER LOST {who}. Data below is {} old.", number::span(age))
        };
        widget::text(buf, wide.x, area.y, wide.width, &text, t.banner, look.glyph.more);
        if area.height > 1 {
            let indented = Rect { x: wide.x + 2, width: wide.width.saturating_sub(2), ..wide };
            fields::row(buf, indented, area.y + 1, tries(model, look));
        }
    } else if let Some(refused) = &model.link.refused {
        let text = format!("! {refused}");
        widget::text(buf, wide.x, area.y, wide.width, &text, t.warn, look.glyph.more);
    } else if let Some(frozen) = &model.frozen {
        let at = number::clock(frozen.at.wall_ms, model.setup.utc_offset_s);
        let text = format!("FROZEN at {at}; the cluster goes on. Space goes back to live");
        widget::text(buf, wide.x, area.y, wide.width, &text, t.info.add_modifier(Modifier::BOLD), look.glyph.more);
    }
}

/// Who is tried, with what result, and when next. The one that failed last stands in the line above.
fn tries(model: &Model, look: Look<'_>) -> Vec<fields::Field<'static>> {
    let t = look.theme;
    let link = &model.link;
    let mut out = Vec::new();
    for m in link.masters.iter().filter(|m| link.last_failed.as_ref() != Some(&m.addr)) {
        let port = m.addr.rsplit_once(':').map_or(m.addr.as_str(), |(_, port)| port);
        let name =
            m.id.as_ref().map_or_else(|| m.addr.clone(), |id| format!("{} :{port}", fit(id, 12, look.glyph.more)));
        let (says, style) = if link.connected.as_ref() == Some(&m.addr) {
            if link.no_leader {
                ("not leader, election running".to_owned(), t.info)
            } else {
                ("connected".to_owned(), t.ok)
            }
        } else {
            match link.failed.get(&m.addr) {
                Some(f) => (fit(&f.why, 24, look.glyph.more).into_owned(), t.text),
                None => ("trying".to_owned(), t.text),
            }
        };
        out.push(fields::Field::new(2).then(format!("{name} "), t.title).then(says, style));
    }
    if let Some(next) = link.next_try_in_ms(model.now.mono_ms).filter(|_| link.connected.is_none()) {
        let text = if next == 0 { "trying now".to_owned() } else { format!("next try {}", number::span(next)) };
        out.push(fields::Field::new(1).then(text, t.text));
    }
    for words in jobs::unknown(model) {
        out.push(fields::Field::new(0).then(words, t.warn));
    }
    out.push(fields::Field::new(9).then("cache nodes keep serving; only changes are blocked", t.dim));
    out
}

fn footer(model: &Model, buf: &mut Buffer, shell: &Shell, look: Look<'_>) -> Caret {
    let hints_line = padded(shell.hints);
    let same_line = shell.hints.y == shell.message.y;
    let mut caret = None;
    if let Some(prompt) = &model.prompt {
        caret = prompt_line(model, buf, hints_line, look, prompt.kind, &prompt.text);
    } else if model.dialog.is_some() {
        let keys =
            [("Tab", "moves"), ("Enter", "presses"), ("Left Right", "choose"), ("Esc", "closes: nothing happens")];
        let of = |(key, word): &(&'static str, &'static str)| {
            fields::Field::new(1).then(*key, look.theme.accent).then(format!(" {word}"), look.theme.text)
        };
        fields::row(buf, hints_line, hints_line.y, keys.iter().map(of).collect());
    } else if !(same_line && model.toast.is_some()) {
        hints(model, buf, hints_line, look);
    }
    if let Some(toast) = model.toast.as_ref().filter(|_| !same_line || model.prompt.is_none()) {
        let area = padded(shell.message);
        let (sign, style) = match toast.tone {
            Tone::Done => (look.glyph.done, look.theme.ok),
            Tone::Alert => (look.glyph.alert, look.theme.warn),
        };
        let text = format!("{sign} {}", toast.text);
        widget::text(buf, area.x, area.y, area.width, &text, style, look.glyph.more);
    }
    caret
}

fn prompt_line(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, kind: PromptKind, typed: &str) -> Caret {
    let t = look.theme;
    let shown = clean(typed, model.setup.ascii);
    let (label, note) = match kind {
        PromptKind::Filter => ("filter: ", "Enter keep  Esc undo".to_owned()),
        PromptKind::Command => (":", "Tab completes  Up older  Enter runs".to_owned()),
        PromptKind::WriteTo => ("write to: ", "a new file; Enter writes".to_owned()),
        PromptKind::LookUp if typed.is_empty() => ("key: ", "type a key to look up".to_owned()),
        PromptKind::LookUp => ("key: ", format!("slot {}   Enter looks it up", Slot::of_key(typed.as_bytes()))),
        PromptKind::WhichKey if typed.is_empty() => ("key: ", "type a key to find its slot".to_owned()),
        PromptKind::WhichKey => ("key: ", format!("slot {}", Slot::of_key(typed.as_bytes()))),
    };
    let used = widget::text(buf, area.x, area.y, area.width, label, t.accent, look.glyph.more);
    let room = area.width.saturating_sub(used + width(&note) as u16 + 3);
    // A long text shows its end: that is where one types.
    let mut tail = shown.as_str();
    while width(tail) > usize::from(room) {
        let Some(c) = tail.chars().next() else { break };
        tail = &tail[c.len_utf8()..];
    }
    let x = area.x + used;
    let end = x + widget::text(buf, x, area.y, room, tail, t.text, look.glyph.more);
    widget::line_right(buf, area, area.y, &Line::from(Span::styled(note, t.dim)));
    (end < area.right()).then_some((end, area.y))
}

/// What the command being typed may go on with, in a window at the bottom of the body.
pub fn candidates(model: &Model, buf: &mut Buffer, body: Rect, look: Look<'_>) {
    let Some(prompt) = model.prompt.as_ref().filter(|p| p.kind == PromptKind::Command) else { return };
    let t = look.theme;
    let found = palette::candidates(model, &prompt.text);
    let rows = found.len().min(palette::CANDIDATES_MAX);
    let height = (rows as u16 + 2).min(body.height);
    let area = Rect { y: body.bottom() - height, height, ..body };
    super::screen::window(buf, area, area.width, height);
    let note = if found.len() > rows { format!("{} more", found.len() - rows) } else { String::new() };
    let title = Line::from(Span::styled("Commands", t.title));
    let inner = widget::panel::panel(buf, area, look, true, title, Line::from(Span::styled(note, t.dim)));
    if found.is_empty() {
        let words = "nothing more is known to follow: Enter runs it";
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
    }
    for (y, (word, help)) in (inner.y..inner.bottom()).zip(found.iter().take(rows)) {
        let word = fit(word, 24, look.glyph.more).into_owned();
        let blank = " ".repeat(13usize.saturating_sub(width(&word)) + 1);
        let line = Line::from(vec![Span::styled(word, t.accent), Span::raw(blank), Span::styled(*help, t.text)]);
        widget::line(buf, inner, y, &line);
    }
}

/// The time bar of a recording: where it is, how fast it goes.
fn time_bar(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let Some(p) = &model.replay else { return };
    let t = look.theme;
    let offset = model.setup.utc_offset_s;
    let sign = match (p.paused, look.glyph.ascii) {
        (true, _) => "||",
        (false, true) => "> ",
        (false, false) => "▶ ",
    };
    let left = vec![
        Span::styled(format!("{sign} "), t.accent),
        Span::styled(format!("{}x  ", p.speed), t.title),
        Span::styled(format!("{} ", number::clock(p.begin_ms, offset)), t.dim),
    ];
    let words = format!(" {}   view {} of {}", number::clock(p.end_ms, offset), p.views.0, p.views.1);
    let line = Line::from(left);
    let used = widget::line(buf, area, area.y, &line);
    let room = usize::from(area.width).saturating_sub(usize::from(used) + width(&words));
    let (on, off) = look.glyph.share(
        room.saturating_sub(1),
        p.at_ms.saturating_sub(p.begin_ms) as f64,
        p.end_ms.saturating_sub(p.begin_ms).max(1) as f64,
    );
    let rest = Rect { x: area.x + used, width: area.width.saturating_sub(used), ..area };
    let bar = vec![
        Span::styled(on, t.bar_on),
        Span::styled(look.glyph.pointer.to_string(), t.accent),
        Span::styled(off, t.bar_off),
        Span::styled(words, t.text),
    ];
    widget::line(buf, rest, area.y, &Line::from(bar));
}

/// What the start screen's footer offers: the rest needs a cluster.
const START_KEYS: [Action; 4] = [Action::Help, Action::StartDemo, Action::Theme, Action::Quit];

/// Whether its key means something narrower here.
pub fn shadowed(model: &Model, b: &keys::Binding) -> bool {
    b.scope == Scope::Everywhere
        && keys::here(model).any(|o| o.scope != Scope::Everywhere && b.chords.iter().all(|c| o.chords.contains(c)))
}

fn hints(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let t = look.theme;
    let mut fields = Vec::new();
    for b in keys::here(model).filter(|b| !b.hint.is_empty()) {
        let off = keys::disabled(model, b.action).is_some();
        if shadowed(model, b) {
            continue;
        }
        if model.at_start() && (off || !START_KEYS.contains(&b.action)) {
            continue;
        }
        let (key, word) = if off { (t.dim, t.dim) } else { (t.accent, t.text) };
        // Help and quit stay to the last; keys of this screen before those of all; what is disabled goes first.
        let rank = match (b.action, off, b.scope) {
            (Action::Help | Action::Quit, ..) => 0,
            (_, true, _) => 9,
            (_, false, Scope::Everywhere) => 2,
            (_, false, _) => 1,
        };
        fields.push(fields::Field::new(rank).then(b.shown, key).then(format!(" {}", b.hint), word));
    }
    fields::row(buf, area, area.y, fields);
}
