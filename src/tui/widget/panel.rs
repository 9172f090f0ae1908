//! The frame of a panel: a rounded box, or in ASCII a rule above, both with a title left and a note right.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{line, line_width, put};
use crate::tui::layout::inside;
use crate::tui::theme::Look;

/// Draws the frame and returns the inside. A note that does not fit beside the title is left out.
pub fn panel(buf: &mut Buffer, area: Rect, look: Look<'_>, focused: bool, title: Line<'_>, note: Line<'_>) -> Rect {
    if area.width < 4 || area.height < 2 {
        return Rect { width: 0, height: 0, ..area };
    }
    let style = if focused { look.theme.border_focus } else { look.theme.border };
    let (left, right, top, bottom) = (area.x, area.right() - 1, area.y, area.bottom() - 1);
    let rule = match (look.glyph.ascii, focused) {
        (true, true) => '=',
        (true, false) => '-',
        (false, _) => '─',
    };
    for x in left..=right {
        put(buf, x, top, rule, style);
    }
    if !look.glyph.ascii {
        for x in left..=right {
            put(buf, x, bottom, rule, style);
        }
        for y in top..=bottom {
            put(buf, left, y, '│', style);
            put(buf, right, y, '│', style);
        }
        for (x, y, corner) in [(left, top, '╭'), (right, top, '╮'), (left, bottom, '╰'), (right, bottom, '╯')] {
            put(buf, x, y, corner, style);
        }
    }
    let room = Rect { x: left + 2, y: top, width: area.width - 4, height: 1 };
    let used = if title.spans.is_empty() { 0 } else { padded(buf, room, &title) };
    let wanted = line_width(&note);
    if wanted > 0 && used + wanted + 3 <= usize::from(room.width) {
        let x = room.right() - wanted as u16 - 2;
        padded(buf, Rect { x, width: wanted as u16 + 2, ..room }, &note);
    }
    inside(area, look.glyph.ascii)
}

/// A text on a rule: a blank before and after it. Returns the cells used.
fn padded(buf: &mut Buffer, room: Rect, content: &Line<'_>) -> usize {
    if room.width < 3 {
        return 0;
    }
    put(buf, room.x, room.y, ' ', ratatui::style::Style::new());
    let area = Rect { x: room.x + 1, width: room.width - 2, ..room };
    let used = line(buf, area, room.y, content);
    put(buf, area.x + used, room.y, ' ', ratatui::style::Style::new());
    usize::from(used) + 2
}
