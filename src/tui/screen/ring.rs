//! Ring: the circle of slots, who owns how much of it, the slot under the cursor, and what a death would do.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::operations;
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::view::Phase;
use crate::tui::cluster::Cluster;
use crate::tui::escape::{clean, fit, width};
use crate::tui::glyph::node_word;
use crate::tui::heat::Heat;
use crate::tui::layout;
use crate::tui::model::{Model, Panel};
use crate::tui::number;
use crate::tui::slots::{Brief, CELL_SLOTS, Copies, NOBODY, SlotTable};
use crate::tui::theme::Look;
use crate::tui::widget::fields::{self, Field};
use crate::tui::widget::{self, circle, panel, slotmap};

/// Draws the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let Some(cluster) = model.shown() else { return };
    let owners = model.owners();
    let areas = layout::ring(area, owners.len(), !look.glyph.ascii);
    let only = (model.panel() == Panel::Owners).then(|| owners.get(model.selected_owner(&owners)).copied()).flatten();
    let heat = model.ring.heat.then(|| Heat::of(cluster));
    let heat = heat.as_ref();
    draw_circle(model, cluster, buf, areas.circle, look, only, heat);
    draw_map(model, cluster, buf, areas.map, look, only, heat);
    draw_owners(model, cluster, buf, areas.owners, look, &owners);
    if areas.operations.height > 0 {
        operations::draw(model, buf, areas.operations, look, false, 0);
    }
    let about = only.unwrap_or_else(|| cluster.table.brief(Slot(model.ring.cursor)).primary);
    draw_detail(model, cluster, buf, areas.detail, look, about, heat);
}

/// Which owner is drawn at a place inside the list.
pub fn owner_at(model: &Model, inner: Rect, at: Position) -> Option<usize> {
    let owners = model.owners();
    let selected = model.selected_owner(&owners);
    let (dx, dy) = (usize::from(at.x - inner.x), usize::from(at.y - inner.y));
    let place = if is_brief(inner, owners.len()) {
        let page = Page::of(inner, selected);
        page.first + dx / (usize::from(inner.width) / page.columns).max(1) * page.height + dy
    } else {
        let height = usize::from(inner.height.saturating_sub(1));
        layout::scroll(selected, owners.len(), height) + dy.checked_sub(1)?
    };
    (place < owners.len()).then_some(place)
}

fn copies_word(model: &Model) -> &'static str {
    match (model.ring.heat, model.ring.copies) {
        (true, _) => "by heat: ops/s",
        (false, Copies::Primary) => "by owner",
        (false, Copies::Backup) => "by backup",
    }
}

fn draw_circle(
    model: &Model,
    c: &Cluster,
    buf: &mut Buffer,
    area: Rect,
    look: Look<'_>,
    only: Option<u16>,
    heat: Option<&Heat>,
) {
    if area.height == 0 {
        return;
    }
    let t = look.theme;
    let title = Line::from(vec![Span::styled("Ring  ", t.title), Span::styled(copies_word(model), t.dim)]);
    let note = Line::from(Span::styled("slot 0 at the top, clockwise", t.dim));
    let inner = panel::panel(buf, area, look, false, title, note);
    let cursor = Slot(model.ring.cursor);
    let copies = model.ring.copies;
    let picture = circle::Circle { table: &c.table, copies, cursor, only, plan: None, heat };
    let middle = circle::draw(buf, inner, look, picture);
    let mut lines = vec![Line::from(Span::styled(format!("slot {cursor}"), t.title))];
    let b = c.table.brief(cursor);
    let with_letter = |what: &'static str, place: u16| {
        Line::from(vec![
            Span::styled(what, t.dim),
            Span::styled(format!("{} ", SlotTable::letter(place)), holder_style(look, place)),
            Span::styled(fit(c.table.name(place), 12, look.glyph.more).into_owned(), t.text),
        ])
    };
    lines.push(with_letter("primary ", b.primary));
    lines.push(with_letter("backup ", b.backup));
    if b.leaving() {
        let word = if b.next != NOBODY { "moving to " } else { "copying to " };
        lines.push(with_letter(word, b.coming()));
    }
    lines.retain(|l| widget::line_width(l) <= usize::from(middle.width));
    lines.truncate(usize::from(middle.height));
    let top = middle.y + middle.height.saturating_sub(lines.len() as u16) / 2;
    for (y, line) in (top..middle.bottom()).zip(lines) {
        let x = middle.x + middle.width.saturating_sub(widget::line_width(&line) as u16) / 2;
        widget::line(buf, Rect { x, width: middle.right().saturating_sub(x), ..middle }, y, &line);
    }
}

fn holder_style(look: Look<'_>, place: u16) -> Style {
    if place == NOBODY { look.theme.bad } else { look.theme.owner(usize::from(place)).add_modifier(Modifier::BOLD) }
}

fn draw_map(
    model: &Model,
    c: &Cluster,
    buf: &mut Buffer,
    area: Rect,
    look: Look<'_>,
    only: Option<u16>,
    heat: Option<&Heat>,
) {
    let t = look.theme;
    let title = Line::from(vec![Span::styled("Slots  ", t.title), Span::styled(copies_word(model), t.dim)]);
    let note = match heat {
        Some(heat) => format!("{} = {}", look.glyph.level(1.0, 1.0), number::rate(heat.full())),
        None => "A-Z leaving  _ none".to_owned(),
    };
    let note = Line::from(Span::styled(note, t.dim));
    let inner = panel::panel(buf, area, look, model.panel() == Panel::Map, title, note);
    if !c.table.known() {
        widget::text(buf, inner.x, inner.y, inner.width, "no slot table came yet", t.dim, look.glyph.more);
        return;
    }
    let (copies, cursor) = (model.ring.copies, Slot(model.ring.cursor));
    let map = slotmap::SlotMap { table: &c.table, copies, cursor, only, plan: None, heat };
    slotmap::draw(buf, inner, look, map);
}

fn draw_owners(model: &Model, c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, owners: &[u16]) {
    let t = look.theme;
    let title = Line::from(Span::styled("Owners", t.title));
    let note = if model.filter.is_empty() {
        Line::from(Span::styled(format!("{}", owners.len()), t.dim))
    } else {
        let shown = clean(&model.filter, model.setup.ascii);
        Line::from(Span::styled(format!("{} contain {}", owners.len(), fit(&shown, 12, look.glyph.more)), t.info))
    };
    let focused = model.panel() == Panel::Owners;
    let inner = panel::panel(buf, area, look, focused, title, note);
    if inner.height == 0 {
        return;
    }
    if is_brief(inner, owners.len()) {
        return brief_owners(model, c, buf, inner, look, owners, focused);
    }
    let columns = Columns::fit(model, c, owners, usize::from(inner.width));
    widget::line(buf, inner, inner.y, &columns.head(look));
    let selected = model.selected_owner(owners);
    let first = layout::scroll(selected, owners.len(), usize::from(inner.height - 1));
    for (y, (i, place)) in (inner.y + 1..inner.bottom()).zip(owners.iter().enumerate().skip(first)) {
        widget::line(buf, inner, y, &columns.row(c, look, *place));
        if focused && i == selected {
            buf.set_style(Rect { y, height: 1, ..inner }, t.selection);
        }
    }
}

/// Columns of an owner where there are more of them than rows: letter, name, sign, slots, share.
const BRIEF_WIDTH: u16 = 20;

/// Whether the list is drawn side by side.
fn is_brief(inner: Rect, owners: usize) -> bool {
    usize::from(inner.height) < owners + 1 && inner.width >= 2 * BRIEF_WIDTH
}

/// How owners stand side by side: column by column, a page of columns at a time.
struct Page {
    columns: usize,
    height: usize,
    first: usize,
}

impl Page {
    /// The page that the selected one is on.
    fn of(area: Rect, selected: usize) -> Self {
        let columns = usize::from(area.width / BRIEF_WIDTH).max(1);
        let height = usize::from(area.height).max(1);
        Self { columns, height, first: selected / (columns * height) * (columns * height) }
    }
}

/// The owners side by side, without a header: `a n1  * 3185 19.4%`.
fn brief_owners(
    model: &Model,
    c: &Cluster,
    buf: &mut Buffer,
    area: Rect,
    look: Look<'_>,
    owners: &[u16],
    focused: bool,
) {
    let t = look.theme;
    let selected = model.selected_owner(owners);
    let Page { columns, height, first } = Page::of(area, selected);
    for (n, place) in owners.iter().skip(first).take(columns * height).enumerate() {
        let (column, row) = ((n / height) as u16, (n % height) as u16);
        let cell = Rect {
            x: area.x + column * (area.width / columns as u16),
            y: area.y + row,
            width: BRIEF_WIDTH - 1,
            height: 1,
        };
        let h = c.table.holdings.get(usize::from(*place)).copied().unwrap_or_default();
        let state = c.status.nodes.iter().find(|n| n.id == c.table.name(*place)).map(|n| n.state);
        let (sign, style) = state.map_or((' ', t.dim), |s| (look.glyph.node(s), t.node(s)));
        let name = fit(c.table.name(*place), 3, look.glyph.more).into_owned();
        let blank = " ".repeat(3usize.saturating_sub(width(&name)));
        let share =
            if model.ring.heat { ops_of(c, *place) } else { number::percent(f64::from(h.primary), SLOTS as f64) };
        let line = Line::from(vec![
            Span::styled(format!("{} ", SlotTable::letter(*place)), holder_style(look, *place)),
            Span::styled(format!("{name}{blank} "), t.text),
            Span::styled(format!("{sign} "), style),
            Span::styled(format!("{:>4} {share:>6}", h.primary), t.text),
        ]);
        widget::line(buf, cell, cell.y, &line);
        if focused && first + n == selected {
            buf.set_style(cell, t.selection);
        }
    }
}

/// What the owner at a place serves a second.
fn ops_of(c: &Cluster, place: u16) -> String {
    let node = c.status.nodes.iter().find(|n| n.id == c.table.name(place));
    node.map_or_else(|| number::UNKNOWN.to_owned(), |n| number::rate(n.ops_per_s))
}

/// Columns of letter, slots and share, with their gaps.
const LEAST: usize = 2 + 1 + 5 + 1 + 6;

/// What the list of owners has room for.
struct Columns {
    name: usize,
    slots: bool,
    state: bool,
    ops: bool,
    bar: usize,
    backup: bool,
    runs: bool,
    coming: bool,
    largest: u32,
}

impl Columns {
    fn fit(model: &Model, c: &Cluster, owners: &[u16], room: usize) -> Self {
        let longest = owners.iter().map(|p| width(c.table.name(*p))).max().unwrap_or(0);
        let largest = c.table.holdings.iter().map(|h| h.primary).max().unwrap_or(0);
        let coming = c.table.holdings.iter().any(|h| h.coming > 0);
        let mut out = Self {
            name: longest.clamp(4, 12),
            slots: true,
            state: false,
            ops: false,
            bar: 0,
            backup: false,
            runs: false,
            coming: false,
            largest,
        };
        if room < LEAST + out.name {
            // Letter, name and share are what the list is for.
            out.slots = false;
            out.name = room.saturating_sub(2 + 1 + 6).min(out.name);
        }
        let mut spare = room.saturating_sub(LEAST + out.name);
        let mut take = |cells: usize| {
            let ok = spare >= cells;
            spare -= if ok { cells } else { 0 };
            ok
        };
        out.state = take(12);
        out.ops = model.ring.heat && take(8);
        out.backup = take(8);
        out.coming = coming && take(8);
        out.runs = take(6);
        out.bar = if take(7) { 6 } else { 0 };
        out
    }

    fn head(&self, look: Look<'_>) -> Line<'static> {
        let mut s = format!("  {:<name$} ", "NODE", name = self.name);
        if self.state {
            s += &format!("{:<11} ", "STATE");
        }
        if self.slots {
            s += &format!("{:>5} ", "SLOTS");
        }
        s += &format!("{:>6}", "SHARE");
        if self.bar > 0 {
            s += &" ".repeat(self.bar + 1);
        }
        if self.ops {
            s += &format!("{:>8}", "OPS/S");
        }
        if self.backup {
            s += &format!("{:>8}", "BACKUP");
        }
        if self.coming {
            s += &format!("{:>8}", "COMING");
        }
        if self.runs {
            s += &format!("{:>6}", "RUNS");
        }
        Line::from(Span::styled(s, look.theme.dim))
    }

    fn row(&self, c: &Cluster, look: Look<'_>, place: u16) -> Line<'static> {
        let t = look.theme;
        let h = c.table.holdings.get(usize::from(place)).copied().unwrap_or_default();
        let name = fit(c.table.name(place), self.name, look.glyph.more).into_owned();
        let blank = " ".repeat(self.name.saturating_sub(width(&name)));
        let mut spans = vec![
            Span::styled(format!("{} ", SlotTable::letter(place)), holder_style(look, place)),
            Span::styled(format!("{name}{blank} "), t.text),
        ];
        if self.state {
            let state = c.status.nodes.iter().find(|n| n.id == c.table.name(place)).map(|n| n.state);
            match state {
                Some(s) => {
                    let words = format!("{} {}", look.glyph.node(s), node_word(s));
                    spans.push(Span::styled(format!("{words:<11} "), t.node(s)));
                }
                None => spans.push(Span::styled(format!("{:<11} ", "gone"), t.dim)),
            }
        }
        let share = number::percent(f64::from(h.primary), SLOTS as f64);
        let slots = if self.slots { format!("{:>5} ", h.primary) } else { String::new() };
        spans.push(Span::styled(format!("{slots}{share:>6}"), t.text));
        if self.bar > 0 {
            let (on, off) = look.glyph.share(self.bar, f64::from(h.primary), f64::from(self.largest));
            spans.extend([Span::raw(" "), Span::styled(on, holder_style(look, place)), Span::styled(off, t.bar_off)]);
        }
        if self.ops {
            spans.push(Span::styled(format!("{:>8}", ops_of(c, place)), t.text));
        }
        if self.backup {
            spans.push(Span::styled(format!("{:>8}", h.backup), t.text));
        }
        if self.coming {
            let (words, style) = if h.coming > 0 { (format!("+{}", h.coming), t.info) } else { (String::new(), t.dim) };
            spans.push(Span::styled(format!("{words:>8}"), style));
        }
        if self.runs {
            spans.push(Span::styled(format!("{:>6}", h.runs), t.dim));
        }
        Line::from(spans)
    }
}

fn draw_detail(
    model: &Model,
    c: &Cluster,
    buf: &mut Buffer,
    area: Rect,
    look: Look<'_>,
    about: u16,
    heat: Option<&Heat>,
) {
    let t = look.theme;
    let slot = Slot(model.ring.cursor);
    let title = match &model.ring.key {
        Some(key) => Line::from(vec![
            Span::styled("Key ", t.title),
            Span::styled(fit(&clean(key, model.setup.ascii), 40, look.glyph.more).into_owned(), t.accent),
            Span::styled(format!(" {} slot {slot}", look.glyph.arrow), t.title),
        ]),
        None => Line::from(Span::styled(format!("Slot {slot}"), t.title)),
    };
    let note = Line::from(Span::styled("w which key?   v owner/backup/heat", t.dim));
    let inner = panel::panel(buf, area, look, false, title, note);
    let b = c.table.brief(slot);
    let mut facts = vec![holder("primary ", c, look, b.primary, 0), holder("backup ", c, look, b.backup, 0)];
    let (phase, style) = phase(c, look, slot, b);
    facts.push(Field::new(1).then(phase, style));
    if let Some(heat) = heat {
        let rate = match heat.slot(slot) {
            r if r > 0.0 && r < 0.05 => "under 0.1".to_owned(),
            r => format!("about {}", number::rate(r)),
        };
        facts.push(Field::new(0).then("ops/s ", t.dim).then(rate, t.text));
    }
    if let Some(d) = c.table.detail(slot) {
        facts.push(Field::new(2).then("pterm ", t.dim).then(number::exact(d.pterm), t.text));
        facts.push(Field::new(4).then("cver ", t.dim).then(number::exact(d.cver), t.text));
    }
    let (first, last) = c.table.run(slot, model.ring.copies);
    let run = Field::new(3).then("run ", t.dim).then(format!("{first}-{last}"), t.text);
    let cell = slot.ix() / CELL_SLOTS * CELL_SLOTS;
    let cell = Field::new(5).then("cell ", t.dim).then(format!("{cell}-{}", cell + CELL_SLOTS - 1), t.text);
    facts.extend([run, cell]);
    fields::row(buf, inner, inner.y, facts);
    if about != NOBODY && inner.height > 1 {
        let (words, style) = forecast(c, about, look);
        let name = fit(c.table.name(about), 16, look.glyph.more);
        let words = format!("if {name} dies: {words}");
        widget::text(buf, inner.x, inner.y + 1, inner.width, &words, style, look.glyph.more);
    }
    if inner.height > 2 {
        let f = c.table.if_dies(about);
        let words = if about == NOBODY {
            "no living node holds this slot: its last holder must come back, or it is handed out empty".to_owned()
        } else if f.bare > 0 {
            format!("and {} slots of others lose their backup until it is rebuilt", f.bare)
        } else {
            String::new()
        };
        widget::text(buf, inner.x, inner.y + 2, inner.width, &words, t.dim, look.glyph.more);
    }
}

fn holder<'a>(label: &'static str, c: &Cluster, look: Look<'_>, place: u16, rank: u8) -> Field<'a> {
    let name = fit(c.table.name(place), 16, look.glyph.more).into_owned();
    Field::new(rank).then(label, look.theme.dim).then(name, holder_style(look, place))
}

/// What a slot is doing, in words.
fn phase(c: &Cluster, look: Look<'_>, slot: Slot, b: Brief) -> (String, Style) {
    let t = look.theme;
    let name = |place: u16| fit(c.table.name(place), 16, look.glyph.more).into_owned();
    match b.phase {
        Phase::Orphan => {
            let last = c.table.detail(slot).and_then(|d| d.last_holder.as_ref());
            let last = last.map_or_else(String::new, |r| format!(", last held by {}", r.id));
            (format!("not served{last}"), t.bad)
        }
        Phase::Handover => (format!("being handed to {}", name(b.coming())), t.info),
        Phase::Serving if b.learner != NOBODY => (format!("serving, being copied to {}", name(b.learner)), t.info),
        Phase::Serving if b.backup == NOBODY && c.table.has_backups() => ("serving without backup".to_owned(), t.warn),
        Phase::Serving => ("serving".to_owned(), t.ok),
    }
}

/// `its 5462 slots go to n2 2731, n3 2731`: what the masters' rule makes of a death now.
pub fn forecast(c: &Cluster, place: u16, look: Look<'_>) -> (String, Style) {
    let t = look.theme;
    let f = c.table.if_dies(place);
    let held = c.table.holdings.get(usize::from(place)).map_or(0, |h| h.primary);
    if held == 0 {
        return ("it serves no slot".to_owned(), t.text);
    }
    /// Heirs named before the rest are counted.
    const HEIRS: usize = 6;
    let mut heirs: Vec<String> =
        f.to.iter()
            .take(HEIRS)
            .map(|(who, n)| format!("{} {n}", fit(c.table.name(*who), 16, look.glyph.more)))
            .collect();
    if f.to.len() > HEIRS {
        heirs.push(format!("and {} more", f.to.len() - HEIRS));
    }
    match (f.lost, heirs.is_empty()) {
        (0, _) => (format!("its {held} slots go to {}", heirs.join(", ")), t.text),
        (lost, true) => (format!("its {lost} slots are lost: they have no other copy"), t.bad),
        (lost, false) => (format!("its {held} slots go to {}; {lost} have no other copy", heirs.join(", ")), t.bad),
    }
}

/// A slot as one line for the clipboard.
pub fn slot_in_words(c: &Cluster, slot: Slot) -> String {
    let b = c.table.brief(slot);
    let pterm = c.table.detail(slot).map_or(0, |d| d.pterm);
    format!("slot {slot} primary {} backup {} pterm {pterm}", c.table.name(b.primary), c.table.name(b.backup))
}
