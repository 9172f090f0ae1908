//! The slot map: 16384 slots in 8 rows of 32 cells, a letter for the owner of each, a capital for what is on the move.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::{put, text};
use crate::proto::slot::Slot;
use crate::tui::heat::Heat;
use crate::tui::layout::{MAP_COLUMNS, MAP_ROWS, map_column};
use crate::tui::slots::{CELL_SLOTS, Copies, NOBODY, SlotTable};
use crate::tui::theme::Look;

/// What the map shows.
#[derive(Debug, Clone, Copy)]
pub struct SlotMap<'a> {
    /// The slots.
    pub table: &'a SlotTable,
    /// Which copy.
    pub copies: Copies,
    /// The slot under the cursor.
    pub cursor: Slot,
    /// Only this owner stands out, if any.
    pub only: Option<u16>,
    /// Who would get each slot by a plan; what would go is drawn as leaving.
    pub plan: Option<&'a [u16]>,
    /// How busy each cell is; drawn as height instead of its owner's letter.
    pub heat: Option<&'a Heat>,
}

/// Draws as many rows as fit.
pub fn draw(buf: &mut Buffer, area: Rect, look: Look<'_>, map: SlotMap<'_>) {
    let cursor = map.cursor.ix() / CELL_SLOTS;
    for row in 0..MAP_ROWS.min(area.height) {
        let y = area.y + row;
        let first = usize::from(row * MAP_COLUMNS) * CELL_SLOTS;
        text(buf, area.x, y, 5.min(area.width), &format!("{first:>5}"), look.theme.dim, look.glyph.more);
        for column in 0..MAP_COLUMNS {
            let x = area.x + map_column(column);
            if x >= area.right() {
                break;
            }
            let at = usize::from(row * MAP_COLUMNS + column);
            let mut cell = map.table.cell(at, map.copies);
            if let Some(plan) = map.plan {
                cell.leaving = plan.iter().skip(at * CELL_SLOTS).take(CELL_SLOTS).any(|p| *p != NOBODY);
            }
            let letter = match map.heat {
                Some(heat) if cell.holder != NOBODY => look.glyph.level(heat.height(at), 1.0),
                _ => SlotTable::letter(cell.holder),
            };
            let letter = match (cell.orphan && cell.holder != NOBODY, cell.leaving) {
                // One slot in the cell that nobody serves is worth more than who has the rest.
                (true, _) => '!',
                (false, true) => letter.to_ascii_uppercase(),
                (false, false) => letter,
            };
            let mut style = match (cell.orphan || cell.holder == NOBODY, map.only) {
                (true, _) => look.theme.bad,
                (false, Some(only)) if only != cell.holder => look.theme.dim,
                (false, _) => match map.heat {
                    Some(heat) => look.theme.heat(heat.warmth(at)),
                    None => look.theme.owner(usize::from(cell.holder)),
                },
            };
            if cell.leaving || map.only == Some(cell.holder) {
                style = style.add_modifier(Modifier::BOLD);
            }
            if at == cursor {
                style = style.patch(Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD));
            }
            put(buf, x, y, letter, style);
        }
    }
}
