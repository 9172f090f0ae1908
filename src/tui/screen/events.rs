//! Events: everything that happened as far as it is kept, with what was done from this screen between it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::proto::event::{Event, Severity};
use crate::tui::escape::{clean, fit, width, wrap};
use crate::tui::layout;
use crate::tui::model::{Model, NOTE_KIND, Panel};
use crate::tui::number;
use crate::tui::theme::Look;
use crate::tui::widget::{self, panel};

/// Lines of one event at most; the rest is cut.
const LINES_MAX: usize = 3;

/// Draws the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let Some(c) = model.shown() else { return };
    let t = look.theme;
    let events = model.listed_events();
    let back = model.events.back.min(events.len().saturating_sub(1));
    let mut title = vec![Span::styled("Events  ", t.title)];
    title.push(Span::styled(
        match model.events.least {
            Severity::Info => "all",
            Severity::Warn => "warnings and errors",
            Severity::Error => "errors",
        },
        if model.events.least == Severity::Info { t.dim } else { t.info },
    ));
    if !model.filter.is_empty() {
        let shown = clean(&model.filter, model.setup.ascii);
        title.push(Span::styled(format!("  with {}", fit(&shown, 20, look.glyph.more)), t.info));
    }
    let mut note = Vec::new();
    if c.events_missed > 0 {
        note.push(Span::styled(format!("{} not seen  ", number::exact(c.events_missed)), t.warn));
    }
    if c.events_dropped > 0 {
        note.push(Span::styled(format!("{} dropped  ", number::exact(c.events_dropped)), t.dim));
    }
    note.push(Span::styled(format!("{} kept  ", c.events.len()), t.dim));
    note.push(if back == 0 {
        Span::styled("following", t.ok)
    } else {
        Span::styled(format!("{back} newer: f follows"), t.info)
    });
    let focused = model.panel() == Panel::EventLog;
    let inner = panel::panel(buf, area, look, focused, Line::from(title), Line::from(note));
    if events.is_empty() {
        let words = if c.events.is_empty() {
            "Nothing has happened yet."
        } else {
            "No event is like that. Esc clears the filter, v shows more."
        };
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
        return;
    }
    // From the newest one shown upwards, so that the last line is always whole.
    let mut blocks: Vec<Vec<Line<'static>>> = Vec::new();
    let mut used = 0;
    for e in events.iter().rev().skip(back) {
        let lines = event_lines(model, look, e, usize::from(inner.width));
        if used + lines.len() > usize::from(inner.height) {
            break;
        }
        used += lines.len();
        blocks.push(lines);
    }
    for (y, line) in (inner.y..).zip(blocks.iter().rev().flatten()) {
        widget::line(buf, inner, y, line);
    }
}

fn event_lines(model: &Model, look: Look<'_>, e: &Event, cells: usize) -> Vec<Line<'static>> {
    let t = look.theme;
    let style = t.severity(e.severity);
    let time = number::clock(e.at_ms, model.setup.utc_offset_s);
    let kind = if cells >= usize::from(layout::WIDE) - 4 { 18 } else { 0 };
    let head = width(&time) + 3 + if kind > 0 { kind + 1 } else { 0 };
    let by = e.by.as_ref().map(|by| format!("  by {by}")).unwrap_or_default();
    let room = cells.saturating_sub(head).max(8);
    let mut words = wrap(&format!("{}{by}", e.text), room);
    if words.len() > LINES_MAX {
        let rest = words.split_off(LINES_MAX - 1).join(" ");
        words.push(rest);
    }
    words
        .into_iter()
        .enumerate()
        .map(|(i, text)| {
            let text = fit(&text, room, look.glyph.more).into_owned();
            if i > 0 {
                return Line::from(vec![Span::raw(" ".repeat(head)), Span::styled(text, style)]);
            }
            let mut spans = vec![
                Span::styled(time.clone(), t.dim),
                Span::styled(format!(" {} ", look.glyph.severity(e.severity)), style),
            ];
            if kind > 0 {
                let word = fit(&e.kind, kind, look.glyph.more).into_owned();
                let blank = " ".repeat(kind.saturating_sub(width(&word)) + 1);
                let own = if e.kind == NOTE_KIND { t.accent } else { t.dim };
                spans.push(Span::styled(format!("{word}{blank}"), own));
            }
            spans.push(Span::styled(text, style));
            Line::from(spans)
        })
        .collect()
}

/// The events that are listed as lines of JSON, for `jq`.
pub fn as_lines(model: &Model) -> String {
    let mut out = String::new();
    for e in model.listed_events() {
        if let Ok(line) = serde_json::to_string(e) {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

/// The event at the end of what is shown, for the clipboard.
pub fn copied(model: &Model) -> Option<String> {
    let events = model.listed_events();
    let at = events.len().checked_sub(1 + model.events.back.min(events.len().saturating_sub(1)))?;
    let e = events.get(at)?;
    Some(format!("{} {} {}", number::clock(e.at_ms, model.setup.utc_offset_s), e.kind, e.text))
}
