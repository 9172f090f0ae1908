//! The list of operations, as both screens show it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::proto::status::OperationStatus;
use crate::tui::escape::{fit, width, wrap};
use crate::tui::model::Model;
use crate::tui::number;
use crate::tui::theme::{Look, Theme};
use crate::tui::widget::{self, panel};

/// Draws the panel.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, focused: bool, scroll: usize) {
    let t = look.theme;
    let operations = model.operations();
    let count = |state: &str| operations.iter().filter(|o| o.state == state).count();
    let counts: Vec<String> = ["running", "paused", "planned", "failed"]
        .iter()
        .map(|s| (count(s), s))
        .filter(|(n, _)| *n > 0)
        .map(|(n, s)| format!("{n} {s}"))
        .collect();
    let note = if counts.is_empty() { "none open".to_owned() } else { counts.join("  ") };
    let title = Line::from(Span::styled("Operations", t.title));
    let inner = panel::panel(buf, area, look, focused, title, Line::from(Span::styled(note, t.dim)));
    if operations.is_empty() {
        let words = "Nothing moves. Adding, removing or losing a node starts an operation.";
        for (y, line) in (inner.y..inner.bottom()).zip(wrap(words, usize::from(inner.width))) {
            widget::text(buf, inner.x, y, inner.width, &line, t.dim, look.glyph.more);
        }
        return;
    }
    let scroll = scroll.min(operations.len().saturating_sub(1));
    let mut y = inner.y;
    for o in operations.into_iter().skip(scroll) {
        let lines = lines(o);
        if y >= inner.bottom() {
            break;
        }
        let room = Rect { y, height: (inner.bottom() - y).min(lines), ..inner };
        one(buf, room, look, o);
        y += room.height;
    }
}

/// What is counted, where there is room to say it.
const UNIT: &str = " slots";

/// Lines that an operation takes.
pub fn lines(o: &OperationStatus) -> u16 {
    if matches!(o.state.as_str(), "running" | "paused") { 2 } else { 1 }
}

fn one(buf: &mut Buffer, area: Rect, look: Look<'_>, o: &OperationStatus) {
    let t = look.theme;
    let state = state_style(t, &o.state);
    let open = matches!(o.state.as_str(), "running" | "paused");
    let (done, total) = (o.slots_done.min(o.slots_total), o.slots_total);
    let mut right = vec![Span::styled(o.state.clone(), state)];
    if open {
        right.push(Span::styled(format!("  {}", number::percent(done as f64, total as f64)), t.title));
        let counts = format!("  {}/{}", number::exact(done), number::exact(total));
        let room = usize::from(area.width).saturating_sub(width(&title(o)) + 1 + width(&o.state) + 2 + 6);
        if room >= width(&counts) + UNIT.len() {
            right.push(Span::styled(counts + UNIT, t.text));
        } else if room >= width(&counts) {
            right.push(Span::styled(counts, t.text));
        }
    } else if let Some(reason) = &o.reason {
        right.push(Span::styled(format!("  {}", fit(reason, 30, look.glyph.more)), t.dim));
    } else if total > 0 {
        right.push(Span::styled(format!("  {} slots", number::exact(total)), t.dim));
    }
    let right = Line::from(right);
    let right_at = widget::line_right(buf, area, area.y, &right);
    let name = Rect { width: right_at.saturating_sub(area.x + 1), ..area };
    let left = title(o);
    let style = if open { t.title } else { t.text };
    widget::text(buf, name.x, name.y, name.width, &left, style, look.glyph.more);
    if open && area.height > 1 {
        progress(buf, Rect { y: area.y + 1, height: 1, ..area }, look, o, done as f64, total as f64);
    }
}

fn progress(buf: &mut Buffer, area: Rect, look: Look<'_>, o: &OperationStatus, done: f64, total: f64) {
    let t = look.theme;
    let mut words = match (&o.reason, o.state.as_str()) {
        (Some(reason), _) => fit(reason, 40, look.glyph.more).into_owned(),
        (None, "paused") => "paused".to_owned(),
        (None, _) => {
            let mut words = format!("{}/s", number::bytes(o.rate_bytes_per_s));
            if o.bytes_left > 0 {
                words += &format!("  {} left", number::bytes(o.bytes_left));
            }
            if o.eta_ms > 0 {
                words += &format!("  eta {}", number::span(o.eta_ms));
            }
            words
        }
    };
    if words.len() + 10 > usize::from(area.width) {
        words = format!("{}/s", number::bytes(o.rate_bytes_per_s));
    }
    let x = widget::line_right(buf, area, area.y, &Line::from(Span::styled(words, t.text)));
    let cells = usize::from(x.saturating_sub(area.x + 2));
    let (on, off) = look.glyph.bar(cells, done, total);
    widget::line(buf, area, area.y, &Line::from(vec![Span::styled(on, t.bar_on), Span::styled(off, t.bar_off)]));
}

/// `#17 scale-out n6`.
pub fn title(o: &OperationStatus) -> String {
    match o.nodes.len() {
        0 => format!("#{} {}", o.id, o.kind),
        n if n <= 3 => format!("#{} {} {}", o.id, o.kind, o.nodes.join(" ")),
        n => format!("#{} {} {} and {} more", o.id, o.kind, o.nodes[..2].join(" "), n - 2),
    }
}

/// An operation as one line for the clipboard.
pub fn in_words(o: &OperationStatus) -> String {
    format!("{} {} {}/{} slots", title(o), o.state, o.slots_done, o.slots_total)
}

pub fn state_style(t: &Theme, state: &str) -> Style {
    match state {
        "running" => t.info,
        "failed" => t.bad,
        "paused" => t.warn,
        "done" => t.ok,
        _ => t.dim,
    }
}
