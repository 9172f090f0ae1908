//! The ring as a circle of dots: slot 0 at the top, clockwise; arcs in their owner's colour with its letter outside,
//! thicker where slots are being handed over, a thin inner arc where they are being copied to.

use std::f64::consts::TAU;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::dots::{DOTS_X, DOTS_Y, Dots};
use super::put;
use crate::proto::slot::{SLOTS, Slot};
use crate::tui::heat::Heat;
use crate::tui::slots::{CELL_SLOTS, Copies, NOBODY, SlotTable};
use crate::tui::theme::Look;

/// Inner edge of the band of owners, as a part of the radius.
const BAND: f64 = 0.80;
/// Inner edge of the band where a slot is being handed over.
const BAND_THICK: f64 = 0.68;
/// Inner and outer edge of the arc of nodes that are being copied to.
const COMING: (f64, f64) = (0.60, 0.66);
/// The pointer's ends.
const POINTER: (f64, f64) = (0.42, 0.56);
/// Cells kept around the circle for letters.
const MARGIN: (u16, u16) = (3, 1);
/// An arc shorter than this many dots gets no letter: it would name its neighbour.
const LETTER_DOTS: f64 = 5.0;

/// What the circle shows.
#[derive(Debug, Clone, Copy)]
pub struct Circle<'a> {
    /// The slots.
    pub table: &'a SlotTable,
    /// Which copy.
    pub copies: Copies,
    /// The slot pointed at.
    pub cursor: Slot,
    /// Only this owner stands out, if any.
    pub only: Option<u16>,
    /// Who would get each slot by a plan; drawn instead of what is on its way.
    pub plan: Option<&'a [u16]>,
    /// How busy each cell of the map is; drawn instead of its owner's colour.
    pub heat: Option<&'a Heat>,
}

/// Draws the circle in the middle of the area; returns the area free for words inside it.
pub fn draw(buf: &mut Buffer, area: Rect, look: Look<'_>, circle: Circle<'_>) -> Rect {
    let (w, h) = (area.width.saturating_sub(2 * MARGIN.0), area.height.saturating_sub(2 * MARGIN.1));
    let diameter = (w * DOTS_X).min(h * DOTS_Y);
    if diameter < 16 {
        return Rect { width: 0, height: 0, ..area };
    }
    let mut dots = Dots::new(area);
    let radius = f64::from(diameter) / 2.0;
    let centre = (f64::from(dots.width()) / 2.0, f64::from(dots.height()) / 2.0);
    let place = Place { centre, radius };
    bands(&mut dots, place, look, circle);
    pointer(&mut dots, place, look, circle);
    dots.draw(buf);
    letters(buf, area, place, look, circle);
    let (x, y) = place.cell(area, place.angle(circle.cursor.ix() as f64), 1.0 + 2.5 / radius);
    put(buf, x, y, look.glyph.pointer, look.theme.accent);
    middle(area, radius)
}

/// The largest box of cells inside the pointer's circle.
fn middle(area: Rect, radius: f64) -> Rect {
    let inner = radius * POINTER.0;
    let (w, h) = ((inner * 1.6 / f64::from(DOTS_X)) as u16, (inner * 1.1 / f64::from(DOTS_Y)) as u16);
    let (w, h) = ((w * 2).saturating_sub(1).min(area.width), (h * 2).saturating_sub(1).min(area.height));
    Rect { x: area.x + (area.width - w) / 2, y: area.y + (area.height - h) / 2, width: w, height: h }
}

#[derive(Clone, Copy)]
struct Place {
    centre: (f64, f64),
    radius: f64,
}

impl Place {
    /// Radians clockwise from the top.
    fn angle(self, slot: f64) -> f64 {
        slot / SLOTS as f64 * TAU
    }

    fn dot(self, angle: f64, part: f64) -> (f64, f64) {
        let r = self.radius * part;
        (self.centre.0 + r * angle.sin(), self.centre.1 - r * angle.cos())
    }

    fn cell(self, area: Rect, angle: f64, part: f64) -> (u16, u16) {
        let (x, y) = self.dot(angle, part);
        let x = (x / f64::from(DOTS_X)).floor().clamp(0.0, f64::from(area.width - 1)) as u16;
        let y = (y / f64::from(DOTS_Y)).floor().clamp(0.0, f64::from(area.height - 1)) as u16;
        (area.x + x, area.y + y)
    }
}

/// Looks at every dot of the area rather than walking along arcs: no gaps, whatever the size.
fn bands(dots: &mut Dots, place: Place, look: Look<'_>, circle: Circle<'_>) {
    for y in 0..dots.height() {
        for x in 0..dots.width() {
            let (dx, dy) = (f64::from(x) + 0.5 - place.centre.0, place.centre.1 - f64::from(y) - 0.5);
            let part = dx.hypot(dy) / place.radius;
            if !(COMING.0..=1.0).contains(&part) {
                continue;
            }
            let angle = dx.atan2(dy).rem_euclid(TAU);
            let slot = Slot(((angle / TAU * SLOTS as f64) as usize).min(SLOTS - 1) as u16);
            let brief = circle.table.brief(slot);
            let band = if brief.next != NOBODY && circle.plan.is_none() { BAND_THICK } else { BAND };
            let holder = if part >= band {
                // Without colours a blank between runs is what tells them apart.
                if !look.theme.has_colour() && edge(circle, slot, place.radius * part) {
                    continue;
                }
                brief.holder(circle.copies)
            } else if (COMING.0..=COMING.1).contains(&part) {
                let coming = circle.plan.map_or(brief.learner, |p| p.get(slot.ix()).copied().unwrap_or(NOBODY));
                match coming {
                    NOBODY => continue,
                    coming => coming,
                }
            } else {
                continue;
            };
            let style = match (holder, circle.only) {
                // Nobody's arc is drawn as a thin outline: a hole in the ring is the alarm.
                (NOBODY, _) if part < 0.95 => continue,
                (NOBODY, _) => look.theme.bad,
                (_, Some(only)) if only != holder => look.theme.bar_off,
                (_, _) => match circle.heat {
                    Some(heat) => look.theme.heat(heat.warmth(slot.ix() / CELL_SLOTS)),
                    None => look.theme.owner(usize::from(holder)),
                },
            };
            dots.set(i32::from(x), i32::from(y), style);
        }
    }
}

/// Whether a run ends within a dot of this slot.
fn edge(circle: Circle<'_>, slot: Slot, radius: f64) -> bool {
    let dot = (SLOTS as f64 / (TAU * radius) * 0.8).max(1.0) as usize;
    let here = circle.table.brief(slot).holder(circle.copies);
    let next = Slot(((slot.ix() + dot) % SLOTS) as u16);
    circle.table.brief(next).holder(circle.copies) != here
}

fn pointer(dots: &mut Dots, place: Place, look: Look<'_>, circle: Circle<'_>) {
    let angle = place.angle(circle.cursor.ix() as f64 + 0.5);
    let steps = (place.radius * (POINTER.1 - POINTER.0) * 2.0).max(2.0) as u32;
    for i in 0..=steps {
        let part = POINTER.0 + (POINTER.1 - POINTER.0) * f64::from(i) / f64::from(steps);
        let (x, y) = place.dot(angle, part);
        dots.set(x.floor() as i32, y.floor() as i32, look.theme.accent);
    }
}

/// Letters stand outside the middle of their arcs, longest arcs first, never two in neighbouring cells.
fn letters(buf: &mut Buffer, area: Rect, place: Place, look: Look<'_>, circle: Circle<'_>) {
    let mut runs = circle.table.runs(circle.copies);
    runs.sort_by_key(|(first, len, _)| (std::cmp::Reverse(*len), *first));
    let shortest = LETTER_DOTS / (TAU * place.radius) * SLOTS as f64;
    let mut taken: Vec<(u16, u16)> = Vec::new();
    for (first, len, holder) in runs {
        if (len as f64) < shortest {
            break;
        }
        let angle = place.angle(first as f64 + len as f64 / 2.0);
        let (x, y) = place.cell(area, angle, 1.0 + 2.5 / place.radius);
        if taken.iter().any(|(tx, ty)| tx.abs_diff(x) <= 1 && ty.abs_diff(y) == 0) {
            continue;
        }
        taken.push((x, y));
        let style = match (holder, circle.only) {
            (NOBODY, _) => look.theme.bad,
            (_, Some(only)) if only != holder => look.theme.dim,
            (_, _) => look.theme.owner(usize::from(holder)).add_modifier(Modifier::BOLD),
        };
        put(buf, x, y, SlotTable::letter(holder), style);
    }
}
