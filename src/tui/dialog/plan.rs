//! A plan before anything happens: laid over the ring, slot by slot, with who gives what to whom and what it comes to.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::Dialog;
use super::draw::{TIGHT, inputs, tail};
use crate::proto::operation::{OperationKind, PlanView, PlannedMove, Role};
use crate::proto::slot::{SLOTS, Slot};
use crate::tui::chrome::Caret;
use crate::tui::cluster::Cluster;
use crate::tui::escape::{clean, fit, natural, width, wrap};
use crate::tui::layout;
use crate::tui::model::Model;
use crate::tui::number;
use crate::tui::slots::{Copies, NOBODY, SlotTable};
use crate::tui::theme::Look;
use crate::tui::widget::fields::{self, Field};
use crate::tui::widget::{self, circle, panel, slotmap};

/// Where a plan moves slots: the taker's place for each that moves. New nodes get the places they will have.
pub struct Overlay {
    /// By slot; [`NOBODY`] = stays.
    pub to: Vec<u16>,
    names: Vec<String>,
}

impl Overlay {
    /// The moves of one kind of copy, over this table.
    pub fn of(plan: &PlanView, table: &SlotTable, copies: Copies) -> Self {
        let mut out = Self { to: vec![NOBODY; SLOTS], names: table.names.clone() };
        let role = match copies {
            Copies::Primary => Role::Primary,
            Copies::Backup => Role::Backup,
        };
        for m in plan.moves.iter().filter(|m| m.role == role) {
            let place = out.place(m.to.as_str());
            for (first, last) in &m.runs {
                if first <= last && first.ix() < SLOTS {
                    out.to[first.ix()..=last.ix().min(SLOTS - 1)].fill(place);
                }
            }
        }
        out
    }

    fn place(&mut self, name: &str) -> u16 {
        if let Some(at) = self.names.iter().position(|n| n == name) {
            return at as u16;
        }
        self.names.push(name.to_owned());
        (self.names.len() - 1).min(usize::from(NOBODY) - 1) as u16
    }
}

/// Draws it over the whole body; returns where one types.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, d: &Dialog, plan: &PlanView) -> Caret {
    let c = model.shown()?;
    crate::tui::screen::window(buf, area, area.width, area.height);
    let overlay = Overlay::of(plan, &c.table, model.ring.copies);
    let areas = layout::ring(area, 0, !look.glyph.ascii);
    let side = if areas.circle.height > 0 && area.width >= layout::WIDE {
        let left = Rect { height: area.height, ..areas.circle };
        picture(model, c, buf, left, look, &overlay);
        Rect { x: left.right(), width: area.width - left.width, ..area }
    } else {
        // The map and the shares side by side, the plan below them.
        let map = Rect { width: areas.map.width, height: areas.map.height.min(area.height / 2), ..area };
        slots(model, c, buf, map, look, &overlay);
        let right = Rect { x: map.right(), width: area.width - map.width, ..map };
        let inner = panel::panel(
            buf,
            right,
            look,
            false,
            Line::from(Span::styled("Shares after", look.theme.title)),
            Line::default(),
        );
        for (y, line) in (inner.y..inner.bottom()).zip(shares(c, plan, look, usize::from(inner.height))) {
            widget::line(buf, inner, y, &line);
        }
        Rect { y: map.bottom(), height: area.height - map.height, ..area }
    };
    words(model, c, buf, side, look, d, plan)
}

fn which(model: &Model) -> &'static str {
    match model.ring.copies {
        Copies::Primary => "as it will be served",
        Copies::Backup => "as it will be backed up",
    }
}

fn picture(model: &Model, c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, overlay: &Overlay) {
    let t = look.theme;
    let title = Line::from(vec![Span::styled("Plan  ", t.title), Span::styled(which(model), t.dim)]);
    let note = Line::from(Span::styled("inner arc: who gets it", t.dim));
    let inner = panel::panel(buf, area, look, false, title, note);
    let cursor = Slot(model.ring.cursor);
    let picture = circle::Circle {
        table: &c.table,
        copies: model.ring.copies,
        cursor,
        only: None,
        plan: Some(&overlay.to),
        heat: None,
    };
    let middle = circle::draw(buf, inner, look, picture);
    let moving = overlay.to.iter().filter(|p| **p != NOBODY).count();
    let lines = [
        format!("{moving} of {SLOTS}"),
        "slots move".to_owned(),
        String::new(),
        "nothing has".to_owned(),
        "happened yet".to_owned(),
    ];
    let top = middle.y + middle.height.saturating_sub(lines.len() as u16) / 2;
    for (n, (y, line)) in (top..middle.bottom()).zip(&lines).enumerate() {
        let w = width(line) as u16;
        if w <= middle.width {
            let style = if n == 0 { t.title } else { t.dim };
            widget::text(buf, middle.x + (middle.width - w) / 2, y, w, line, style, look.glyph.more);
        }
    }
}

fn slots(model: &Model, c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, overlay: &Overlay) {
    let t = look.theme;
    let title = Line::from(vec![Span::styled("Plan  ", t.title), Span::styled(which(model), t.dim)]);
    let note = Line::from(Span::styled("A-Z moves", t.dim));
    let inner = panel::panel(buf, area, look, false, title, note);
    let cursor = Slot(model.ring.cursor);
    let map = slotmap::SlotMap {
        table: &c.table,
        copies: model.ring.copies,
        cursor,
        only: None,
        plan: Some(&overlay.to),
        heat: None,
    };
    slotmap::draw(buf, inner, look, map);
}

/// `n1  5462 → 4097`: primaries of each node now and after.
fn shares(c: &Cluster, plan: &PlanView, look: Look<'_>, rows: usize) -> Vec<Line<'static>> {
    let t = look.theme;
    let mut all: Vec<(String, i64, i64)> = Vec::new();
    let mut add = |name: &str, now: i64, change: i64| match all.iter_mut().find(|(n, ..)| n == name) {
        Some((_, before, after)) => {
            *before += now;
            *after += now + change;
        }
        None => all.push((name.to_owned(), now, now + change)),
    };
    for (place, h) in c.table.holdings.iter().enumerate().filter(|(_, h)| h.primary > 0) {
        add(c.table.name(place as u16), i64::from(h.primary), 0);
    }
    for m in plan.moves.iter().filter(|m| m.role == Role::Primary) {
        let n = i64::try_from(m.slots).unwrap_or(0).min(SLOTS as i64);
        if let Some(from) = &m.from {
            add(from.as_str(), 0, -n);
        }
        add(m.to.as_str(), 0, n);
    }
    // Who gains first, then who loses, then who keeps.
    all.sort_by(|a, b| (b.2 - b.1).signum().cmp(&(a.2 - a.1).signum()).then_with(|| natural(&a.0, &b.0)));
    let name = all.iter().map(|(n, ..)| width(n)).max().unwrap_or(0).clamp(2, 10);
    let more = all.len().saturating_sub(rows);
    let shown = if more > 0 { rows.saturating_sub(1) } else { rows };
    let mut out: Vec<Line<'static>> = all
        .iter()
        .take(shown)
        .map(|(who, before, after)| {
            let style = c.table.place_of(who).map_or(t.info, |p| t.owner(usize::from(p)));
            let who = fit(who, name, look.glyph.more).into_owned();
            let blank = " ".repeat(name.saturating_sub(width(&who)));
            let change = match after - before {
                0 => String::new(),
                d => format!("{d:+}"),
            };
            Line::from(vec![
                Span::styled(format!("{who}{blank} "), style),
                Span::styled(format!("{before:>5} {} {after:>5}", look.glyph.arrow), t.text),
                Span::styled(format!(" {change:>6}"), t.dim),
            ])
        })
        .collect();
    if more > 0 {
        out.push(Line::from(Span::styled(format!("and {} more nodes", more + 1), t.dim)));
    }
    out
}

/// The moves, what they come to, what to type, the buttons.
fn words(
    model: &Model,
    c: &Cluster,
    buf: &mut Buffer,
    area: Rect,
    look: Look<'_>,
    d: &Dialog,
    plan: &PlanView,
) -> Caret {
    let t = look.theme;
    let names: Vec<&str> = plan.wish.nodes.iter().take(6).map(|n| n.as_str()).collect();
    let head = format!("{}  {} {}", d.title(), plan.wish.kind.as_str(), names.join(" "));
    let note = Line::from(Span::styled(format!("planned at epoch {}", number::exact(plan.epoch)), t.dim));
    let inner = panel::panel(buf, area, look, true, Line::from(Span::styled(head, t.title)), note);
    let cells = usize::from(inner.width);
    let tight = area.height < TIGHT;
    let tail = tail(model, look, d, cells, tight);
    let gap = usize::from(!d.inputs.is_empty() && !tight);
    let below = tail.len() + d.inputs.len() + gap;
    let time = plan.estimate_ms.map_or_else(|| "time unknown".to_owned(), |ms| format!("about {}", number::span(ms)));
    let facts = vec![
        Field::new(0).then("moves ", t.dim).then(number::exact(plan.slots_total), t.title),
        Field::new(1).then("copies ", t.dim).then(number::bytes(plan.bytes), t.title),
        Field::new(1).then(time, t.title),
        Field::new(4).then(if plan.wish.force { "without draining" } else { "" }, t.warn),
        Field::new(4).then(if plan.wish.accept_data_loss { "data loss accepted" } else { "" }, t.bad),
    ];
    fields::row(buf, inner, inner.y, facts);
    let mut lines: Vec<Line<'static>> = Vec::new();
    for w in &plan.warnings {
        for line in wrap(&format!("{} {w}", look.glyph.alert), cells) {
            lines.push(Line::from(Span::styled(fit(&line, cells, look.glyph.more).into_owned(), t.warn)));
        }
    }
    let room = usize::from(inner.height).saturating_sub(1 + below);
    lines.truncate(room.saturating_sub(2));
    let table = moves(model, c, plan, look, cells, d.scroll, room.saturating_sub(lines.len() + usize::from(!tight)));
    lines.extend(table);
    // What room is left says who ends with how much, where it does not stand beside the map.
    let wide = area.y == 0 || area.width < model.size.0;
    let left = room.saturating_sub(lines.len() + 3);
    if wide && left >= 3 {
        lines.push(Line::default());
        lines.push(Line::from(Span::styled("primaries now and after", t.dim)));
        lines.extend(shares(c, plan, look, left));
    }
    for (y, line) in (inner.y + 1..).zip(lines.iter().take(room)) {
        widget::line(buf, inner, y, line);
    }
    let mut y = inner.bottom().saturating_sub(below as u16);
    let caret = inputs(model, buf, Rect { y, height: inner.bottom().saturating_sub(y), ..inner }, look, d);
    y += (d.inputs.len() + gap) as u16;
    for line in &tail {
        widget::line(buf, inner, y, line);
        y += 1;
    }
    caret
}

/// The table of moves: backups first, as scale operations deal with them first.
fn moves(
    model: &Model,
    c: &Cluster,
    plan: &PlanView,
    look: Look<'_>,
    cells: usize,
    scroll: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let t = look.theme;
    let mut all: Vec<_> = plan.moves.iter().collect();
    all.sort_by(|a, b| {
        b.role.cmp(&a.role).then_with(|| b.slots.cmp(&a.slots)).then_with(|| natural(a.to.as_str(), b.to.as_str()))
    });
    if all.is_empty() {
        let words = match plan.wish.kind {
            OperationKind::ScaleIn => "it holds nothing: it can go at once",
            _ => "nothing moves: shares are even already",
        };
        return vec![Line::from(Span::styled(words, t.dim))];
    }
    let most = all.iter().map(|m| m.slots).max().unwrap_or(0);
    let name = |n: Option<&str>| clean(n.unwrap_or("nobody"), model.setup.ascii);
    let label = |m: &PlannedMove| {
        let from = name(m.from.as_ref().map(|n| n.as_str()));
        let to = name(Some(m.to.as_str()));
        format!("{}{}{}", fit(&from, 10, look.glyph.more), look.glyph.arrow, fit(&to, 10, look.glyph.more))
    };
    let wide = all.iter().map(|m| width(&label(m))).max().unwrap_or(0);
    let fits = rows.max(1);
    let first = scroll.min(all.len().saturating_sub(fits));
    let more = all.len() - first > fits;
    let mut out: Vec<Line<'static>> = all
        .iter()
        .skip(first)
        .take(if more { fits.saturating_sub(1) } else { fits })
        .map(|m| {
            let role = match m.role {
                Role::Primary => "primary",
                Role::Backup => "backup",
            };
            let text = label(m);
            let blank = " ".repeat(wide.saturating_sub(width(&text)));
            let words = format!(" {:>6} slots  {:>9}", number::exact(m.slots), number::bytes(m.bytes));
            let room = cells.saturating_sub(wide + 9 + width(&words)).min(24);
            let (on, off) = look.glyph.share(room, m.slots as f64, most as f64);
            let style = c.table.place_of(m.to.as_str()).map_or(t.info, |p| t.owner(usize::from(p)));
            Line::from(vec![
                Span::styled(format!("{role:<8} "), t.dim),
                Span::styled(format!("{text}{blank}"), t.title),
                Span::styled(words, t.text),
                Span::raw(if room > 0 { " " } else { "" }),
                Span::styled(on, style),
                Span::styled(off, t.bar_off),
            ])
        })
        .collect();
    if more {
        let hidden = all.len() - first - out.len();
        out.push(Line::from(Span::styled(format!("and {hidden} more moves: PgDn"), t.dim)));
    }
    out
}
