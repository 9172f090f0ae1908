//! A grid of dots, eight to a cell (Unicode braille), each cell in the style that most of its dots asked for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::put;

/// Dots across a cell.
pub const DOTS_X: u16 = 2;
/// Dots down a cell.
pub const DOTS_Y: u16 = 4;
/// The empty braille pattern; the eight dots are its low bits.
const BLANK: u32 = 0x2800;
/// The bit of the dot at column, row (the order is historic: the lowest row came late).
const BIT: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// Dots over an area.
#[derive(Debug)]
pub struct Dots {
    area: Rect,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Default)]
struct Cell {
    bits: u32,
    votes: Vec<(Style, u8)>,
}

impl Dots {
    /// No dots yet.
    pub fn new(area: Rect) -> Self {
        Self { area, cells: vec![Cell::default(); usize::from(area.width) * usize::from(area.height)] }
    }

    /// Dots across.
    pub fn width(&self) -> u16 {
        self.area.width.saturating_mul(DOTS_X)
    }

    /// Dots down.
    pub fn height(&self) -> u16 {
        self.area.height.saturating_mul(DOTS_Y)
    }

    /// Sets a dot, counted from the top left; outside the area nothing happens.
    pub fn set(&mut self, x: i32, y: i32, style: Style) {
        if x < 0 || y < 0 || x >= i32::from(self.width()) || y >= i32::from(self.height()) {
            return;
        }
        let (x, y) = (x as usize, y as usize);
        let at = (y / 4) * usize::from(self.area.width) + x / 2;
        let cell = &mut self.cells[at];
        cell.bits |= BIT[x % 2][y % 4];
        match cell.votes.iter_mut().find(|(s, _)| *s == style) {
            Some((_, n)) => *n = n.saturating_add(1),
            None => cell.votes.push((style, 1)),
        }
    }

    /// Draws what was set; cells without a dot stay as they are.
    pub fn draw(&self, buf: &mut Buffer) {
        for (i, cell) in self.cells.iter().enumerate().filter(|(_, c)| c.bits != 0) {
            let x = self.area.x + (i % usize::from(self.area.width)) as u16;
            let y = self.area.y + (i / usize::from(self.area.width)) as u16;
            // Of equal votes the first wins, so that a picture does not flicker between equals.
            let style = cell.votes.iter().rev().max_by_key(|(_, n)| *n).map_or(Style::new(), |(s, _)| *s);
            put(buf, x, y, char::from_u32(BLANK | cell.bits).unwrap_or(' '), style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::style::Color;

    #[test]
    fn eight_dots_fill_a_cell() {
        let area = Rect::new(1, 1, 1, 1);
        let mut d = Dots::new(area);
        for x in -3..9 {
            for y in -3..9 {
                d.set(x, y, Style::new().fg(if y < 3 { Color::Red } else { Color::Blue }));
            }
        }
        let mut buf = Buffer::empty(Rect::new(0, 0, 3, 3));
        d.draw(&mut buf);
        assert_eq!(buf[(1, 1)].symbol(), "⣿");
        assert_eq!(buf[(1, 1)].fg, Color::Red, "the majority decides");
        assert_eq!(buf.content.iter().filter(|c| c.symbol() != " ").count(), 1);
    }
}
