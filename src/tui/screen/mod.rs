//! The screens. `draw` is the whole picture: pure, from the model to cells.

pub mod events;
pub mod help;
pub mod keys;
pub mod logs;
pub mod masters;
pub mod migrations;
pub mod node;
pub mod operations;
pub mod overview;
pub mod ring;
pub mod start;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::chrome::{self, Caret};
use super::layout;
use super::link::LinkState;
use super::model::{Model, Overlay, Panel, Screen};
use super::slots::NOBODY;
use super::theme::Look;
use super::widget;
use crate::proto::slot::Slot;

/// Draws everything into an area; returns where the terminal's cursor belongs, if anywhere.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect) -> Caret {
    let area = area.intersection(buf.area);
    let look = Look { theme: &model.theme, glyph: model.glyphs() };
    if !layout::fits(area) {
        too_small(buf, area, look);
        return None;
    }
    let shell = layout::shell(area, layout::banner_lines(model));
    let caret = chrome::draw(model, buf, &shell, look);
    match (model.shown().is_some(), model.screen) {
        (false, _) => start::draw(model, buf, shell.body, look),
        (true, Screen::Overview) => overview::draw(model, buf, shell.body, look),
        (true, Screen::Ring) => ring::draw(model, buf, shell.body, look),
        (true, Screen::Migrations) => migrations::draw(model, buf, shell.body, look),
        (true, Screen::Masters) => masters::draw(model, buf, shell.body, look),
        (true, Screen::Events) => events::draw(model, buf, shell.body, look),
        (true, Screen::Keys) => keys::draw(model, buf, shell.body, look),
    }
    if model.link_state() == LinkState::Lost {
        fade(buf, shell.body, look);
    }
    match &model.overlay {
        Some(Overlay::Help { scroll }) => help::draw(model, buf, shell.body, look, *scroll),
        Some(Overlay::Node { id }) => node::draw(model, buf, shell.body, look, id),
        Some(Overlay::Logs(logs)) => logs::draw(buf, shell.body, look, logs),
        None => {}
    }
    chrome::candidates(model, buf, shell.body, look);
    match &model.dialog {
        Some(d) => super::dialog::draw::draw(model, buf, shell.body, look, d).or(caret),
        None => caret,
    }
}

/// Old data is drawn without its colours: they would claim that it is true now.
fn fade(buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let mut faded = look.theme.dim;
    faded.sub_modifier = Modifier::BOLD | Modifier::UNDERLINED;
    if !look.theme.has_colour() {
        faded = faded.add_modifier(Modifier::DIM);
    }
    buf.set_style(area, faded);
}

fn too_small(buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let lines = [
        "Too small".to_owned(),
        format!("{}x{} needs {}x{}", area.width, area.height, layout::WIDTH_MIN, layout::HEIGHT_MIN),
        "q quits".to_owned(),
    ];
    let top = area.y + area.height.saturating_sub(lines.len() as u16) / 2;
    for (y, line) in (top..area.bottom()).zip(&lines) {
        let x = area.x + area.width.saturating_sub(line.len() as u16) / 2;
        widget::text(buf, x, y, area.right().saturating_sub(x), line, Style::new(), look.glyph.more);
    }
}

/// Columns beside a window that would show nothing of use.
const SLIVER: u16 = 12;

/// A cleared window in the middle of an area.
pub fn window(buf: &mut Buffer, area: Rect, width: u16, height: u16) -> Rect {
    // Rather the whole width than a sliver of what is below at both sides.
    let width = if width + SLIVER > area.width { area.width } else { width };
    let (w, h) = (width, height.min(area.height));
    let rect = Rect { x: area.x + (area.width - w) / 2, y: area.y + (area.height - h) / 2, width: w, height: h };
    for position in rect.positions() {
        if let Some(cell) = buf.cell_mut(position) {
            cell.reset();
        }
    }
    // A wide character cut in half by the window's edge would push the frame aside.
    for y in rect.y..rect.bottom() {
        if rect.x > area.x
            && let Some(cell) = buf.cell_mut((rect.x - 1, y))
            && super::escape::width(cell.symbol()) > 1
        {
            cell.set_char(' ');
        }
    }
    rect
}

/// What `y` puts on the clipboard: plain words of the selected row or slot.
pub fn copied(model: &Model) -> Option<String> {
    if let Some(Overlay::Node { id }) = &model.overlay {
        return node::copied(model, id);
    }
    let cluster = model.shown()?;
    match model.panel() {
        Panel::Nodes => {
            let rows = model.rows();
            let row = rows.get(model.selected_row(&rows))?;
            Some(format!("{} {} {}", row.id, row.addr, super::glyph::node_word(row.state)))
        }
        Panel::Operations => {
            let operations = model.operations();
            operations.get(model.overview.operations_scroll).or(operations.last()).map(|o| operations::in_words(o))
        }
        Panel::Events => {
            let back = model.overview.events_scroll;
            let event = cluster.events.iter().rev().nth(back).or(cluster.events.front())?;
            Some(format!("{} {}", event.at_ms, event.text))
        }
        Panel::OperationList | Panel::Pairs => {
            let ops = model.listed_operations();
            ops.get(model.selected_operation(&ops)).map(|o| operations::in_words(o))
        }
        Panel::MasterList | Panel::Terms => {
            let masters = model.listed_masters();
            masters.get(model.selected_master(&masters)).map(|m| masters::in_words(m))
        }
        Panel::EventLog => events::copied(model),
        Panel::Value => {
            let value = model.keys.found.as_ref()?.value.as_ref()?;
            // Only text: bytes on a clipboard are of no use to anyone.
            std::str::from_utf8(value).ok().map(str::to_owned)
        }
        Panel::Map => Some(ring::slot_in_words(cluster, Slot(model.ring.cursor))),
        Panel::Owners => {
            let owners = model.owners();
            let place = *owners.get(model.selected_owner(&owners))?;
            let holding = cluster.table.holdings.get(usize::from(place)).filter(|_| place != NOBODY)?;
            let name = cluster.table.name(place);
            Some(format!("{name} primary {} backup {}", holding.primary, holding.backup))
        }
    }
}
