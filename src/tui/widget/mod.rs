//! Small pieces that screens are made of. Each draws into the area it is given and nowhere else.

pub mod circle;
pub mod dots;
pub mod fields;
pub mod nodes;
pub mod panel;
pub mod plot;
pub mod slotmap;
pub mod strip;
pub mod svg;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::escape::{fit, width};

/// Writes a text at a place, cut (with `more`) to `cells` and to the buffer. Returns the cells used.
pub fn text(buf: &mut Buffer, x: u16, y: u16, cells: u16, s: &str, style: Style, more: char) -> u16 {
    if cells == 0 || !contains_row(buf, x, y) {
        return 0;
    }
    let s = fit(s, usize::from(cells), more);
    let (end, _) = buf.set_stringn(x, y, s, usize::from(cells), style);
    end - x
}

/// Writes a styled line in an area's row, cut to the area. Returns the cells used.
pub fn line(buf: &mut Buffer, area: Rect, y: u16, content: &Line<'_>) -> u16 {
    if y >= area.bottom() || area.width == 0 || !contains_row(buf, area.x, y) {
        return 0;
    }
    let (end, _) = buf.set_line(area.x, y, content, area.width);
    end - area.x
}

/// Writes a styled line so that it ends at the area's right edge; returns the first cell used. Nothing if too long.
pub fn line_right(buf: &mut Buffer, area: Rect, y: u16, content: &Line<'_>) -> u16 {
    let w = line_width(content);
    if w == 0 || w > usize::from(area.width) {
        return area.right();
    }
    let x = area.right() - w as u16;
    line(buf, Rect { x, width: w as u16, ..area }, y, content);
    x
}

/// Cells that a line takes.
pub fn line_width(content: &Line<'_>) -> usize {
    content.spans.iter().map(|s| width(&s.content)).sum()
}

/// Puts one sign into one cell, if the cell exists.
pub fn put(buf: &mut Buffer, x: u16, y: u16, c: char, style: Style) {
    if let Some(cell) = buf.cell_mut((x, y)) {
        cell.set_char(c).set_style(style);
    }
}

fn contains_row(buf: &Buffer, x: u16, y: u16) -> bool {
    buf.area.contains(ratatui::layout::Position { x, y })
}
