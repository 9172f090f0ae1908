//! Where the arrow keys, `g`, `G`, pages and Tab lead: selections, cursors and scrolling.

use super::keys;
use super::layout;
use super::model::{Model, Overlay, Panel};
use super::screen;
use super::slots::CELL_SLOTS;
use super::terms::terms;
use crate::proto::slot::SLOTS;

/// To the next panel that has a place on the screen, or the one before.
pub fn focus(model: &mut Model, forward: bool) {
    let panels = layout::visible(model);
    let at = panels.iter().position(|p| *p == model.panel()).unwrap_or(0);
    let by = if forward { 1 } else { panels.len().saturating_sub(1) };
    let next = panels.get((at + by) % panels.len().max(1)).copied();
    model.focus[model.screen.place()] = next;
}

/// How a selection moves.
#[derive(Clone, Copy)]
pub enum Step {
    /// So many rows down, or up.
    By(isize),
    /// To the first.
    First,
    /// To the last.
    Last,
}

impl Step {
    fn from(self, at: usize, len: usize) -> usize {
        let last = len.saturating_sub(1);
        match self {
            Step::By(n) => at.saturating_add_signed(n).min(last),
            Step::First => 0,
            Step::Last => last,
        }
    }
}

/// Moves what has the keys.
pub fn step(model: &mut Model, step: Step) {
    if let Some(Overlay::Help { scroll }) = &mut model.overlay {
        // Drawing stops at the last line; the bound here keeps a held key from counting on.
        *scroll = step.from(usize::from(*scroll), keys::TABLE.len() * 2) as u16;
        return;
    }
    if let Some(Overlay::Logs(logs)) = &mut model.overlay {
        // Counted from the end: up is back.
        logs.back = match step {
            Step::By(n) => logs.back.saturating_add_signed(-n).min(logs.lines.len()),
            Step::First => logs.lines.len(),
            Step::Last => 0,
        };
        return;
    }
    if model.shown().is_none() {
        return;
    }
    match model.panel() {
        Panel::Nodes => {
            let rows = model.rows();
            let at = step.from(model.selected_row(&rows), rows.len());
            model.overview.selected = rows.get(at).map(|n| n.id.clone());
            if let (Some(Overlay::Node { id }), Some(selected)) = (&mut model.overlay, &model.overview.selected) {
                id.clone_from(selected);
            }
        }
        Panel::Operations => {
            let n = model.operations().len();
            model.overview.operations_scroll = step.from(model.overview.operations_scroll, n);
        }
        Panel::Events => {
            let n = model.shown().map_or(0, |c| c.events.len());
            model.overview.events_scroll = step.from(model.overview.events_scroll, n);
        }
        Panel::Owners => {
            let owners = model.owners();
            let at = step.from(model.selected_owner(&owners), owners.len());
            select_owner(model, owners.get(at).copied());
        }
        Panel::OperationList => {
            let ops = model.listed_operations();
            let at = step.from(model.selected_operation(&ops), ops.len());
            let id = ops.get(at).map(|o| o.id);
            if id != model.migrations.selected {
                model.migrations.pairs_scroll = 0;
            }
            model.migrations.selected = id;
        }
        Panel::Pairs => {
            let ops = model.listed_operations();
            let n = ops.get(model.selected_operation(&ops)).map_or(0, |o| o.pairs.len());
            model.migrations.pairs_scroll = step.from(model.migrations.pairs_scroll, n);
        }
        Panel::MasterList => {
            let masters = model.listed_masters();
            let at = step.from(model.selected_master(&masters), masters.len());
            model.masters.selected = masters.get(at).map(|m| m.id.clone());
        }
        Panel::Terms => {
            let n = model.shown().map_or(0, |c| terms(&c.events).len());
            model.masters.terms_scroll = step.from(model.masters.terms_scroll, n);
        }
        Panel::EventLog => {
            // The newest is at the end, and scrolling is counted back from it.
            let n = model.listed_events().len().saturating_sub(1);
            model.events.back = match step {
                Step::By(by) => model.events.back.saturating_add_signed(-by).min(n),
                Step::First => n,
                Step::Last => 0,
            };
        }
        Panel::Value => {
            let n = screen::keys::drawn(model, model.size.0.saturating_sub(4)).map_or(0, |d| d.lines.len());
            model.keys.scroll = step.from(model.keys.scroll, n);
        }
        Panel::Map => match step {
            Step::By(rows) => {
                let by = rows.signum() * (usize::from(layout::MAP_COLUMNS) * CELL_SLOTS) as isize;
                move_cursor(model, by);
            }
            Step::First => point(model, 0),
            Step::Last => point(model, SLOTS as u16 - 1),
        },
    }
}

/// Selects an owner on the Ring.
pub fn select_owner(model: &mut Model, owner: Option<u16>) {
    let name = owner.and_then(|p| model.shown().map(|c| c.table.name(p).to_owned()));
    model.ring.selected = name;
}

/// Left and right: a cell of the map; by one slot when the map is not what moves.
pub fn sideways(model: &mut Model, by: isize) {
    match model.panel() {
        Panel::Map => move_cursor(model, by * CELL_SLOTS as isize),
        _ => move_cursor(model, by),
    }
}

fn move_cursor(model: &mut Model, by: isize) {
    // A ring has no end: past the last slot comes the first.
    let to = (i64::from(model.ring.cursor) + by as i64).rem_euclid(SLOTS as i64);
    point(model, to as u16);
}

/// Puts the Ring's cursor on a slot.
pub fn point(model: &mut Model, slot: u16) {
    model.ring.cursor = slot;
    model.ring.key = None;
}
