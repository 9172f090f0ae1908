//! `l`: the end of a process's log, in a window that follows it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::window;
use crate::tui::escape::fit;
use crate::tui::model::Logs;
use crate::tui::theme::Look;
use crate::tui::widget::{self, panel};

/// Draws the window over the screen.
pub fn draw(buf: &mut Buffer, area: Rect, look: Look<'_>, logs: &Logs) {
    let t = look.theme;
    let rect = window(buf, area, area.width, area.height);
    let title = Line::from(Span::styled(format!("Log of {}", fit(&logs.who, 30, look.glyph.more)), t.title));
    let height = usize::from(rect.height.saturating_sub(if look.glyph.ascii { 1 } else { 2 }));
    let back = logs.back.min(logs.lines.len().saturating_sub(height));
    let note = match (logs.lines.is_empty() && logs.request.is_some(), back) {
        (true, _) => "reading".to_owned(),
        (false, 0) => "following   Up scrolls   Esc closes".to_owned(),
        (false, n) => format!("{n} newer lines: G follows   Esc closes"),
    };
    let inner = panel::panel(buf, rect, look, true, title, Line::from(Span::styled(note, t.dim)));
    if let Some(error) = &logs.error {
        widget::text(buf, inner.x, inner.y, inner.width, error, t.warn, look.glyph.more);
        return;
    }
    let end = logs.lines.len() - back;
    let shown = &logs.lines[end.saturating_sub(height)..end];
    for (y, line) in (inner.y..inner.bottom()).zip(shown) {
        let style = if line.contains("ERROR") {
            t.bad
        } else if line.contains("WARN") {
            t.warn
        } else {
            t.text
        };
        widget::text(buf, inner.x, y, inner.width, line, style, look.glyph.more);
    }
}
