//! Migrations: every operation, and of the selected one its steps, who gives what to whom, how fast and how long yet.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::operations::{state_style, title};
use crate::proto::operation::{OperationKind, Role};
use crate::proto::status::{OperationStatus, PairStatus};
use crate::tui::cluster::Cluster;
use crate::tui::escape::{clean, fit, natural, width};
use crate::tui::layout;
use crate::tui::model::{Model, Panel, is_open};
use crate::tui::number;
use crate::tui::theme::Look;
use crate::tui::widget::fields::{self, Field};
use crate::tui::widget::{self, panel};

/// Draws the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let Some(cluster) = model.shown() else { return };
    let ops = model.listed_operations();
    let at = model.selected_operation(&ops);
    let areas = layout::migrations(area, ops.len());
    list(model, buf, areas.list, look, &ops, at);
    let Some(op) = ops.get(at) else {
        let none = panel::panel(buf, areas.detail, look, false, Line::default(), Line::default());
        let words = "An operation shows here from its plan to its end.";
        widget::text(buf, none.x, none.y, none.width, words, look.theme.dim, look.glyph.more);
        panel::panel(buf, areas.pairs, look, false, Line::default(), Line::default());
        panel::panel(buf, areas.donors, look, false, Line::default(), Line::default());
        return;
    };
    detail(buf, areas.detail, look, op);
    pairs(model, cluster, buf, areas.pairs, look, op);
    donors(cluster, buf, areas.donors, look, op);
}

fn list(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, ops: &[&OperationStatus], at: usize) {
    let t = look.theme;
    let open = ops.iter().filter(|o| is_open(o)).count();
    let note = if model.filter.is_empty() {
        Line::from(Span::styled(format!("{open} open, {} ended", ops.len() - open), t.dim))
    } else {
        let shown = clean(&model.filter, model.setup.ascii);
        Line::from(Span::styled(format!("{} contain {}", ops.len(), fit(&shown, 16, look.glyph.more)), t.info))
    };
    let title_line = Line::from(Span::styled("Operations", t.title));
    let inner = panel::panel(buf, area, look, model.panel() == Panel::OperationList, title_line, note);
    if ops.is_empty() {
        let words = if model.filter.is_empty() {
            "Nothing moves and nothing did. + adds a node, - drains one; losing one starts a rebuild."
        } else {
            "No operation contains that. Esc clears the filter."
        };
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
        return;
    }
    let name = ops.iter().map(|o| width(&title(o))).max().unwrap_or(0).clamp(10, 34);
    let head = format!(
        "  {:<name$}  {:<9}  {:>6}  {:>13}  {:>11}  {:>6}",
        "OPERATION", "STATE", "DONE", "SLOTS", "RATE", "ETA"
    );
    let with_reason = usize::from(inner.width) >= width(&head) + 12;
    let head = if with_reason { head + "  REASON" } else { head };
    widget::text(buf, inner.x, inner.y, inner.width, &head, t.dim, look.glyph.more);
    let first = layout::scroll(at, ops.len(), usize::from(inner.height.saturating_sub(1)));
    for (y, (i, o)) in (inner.y + 1..inner.bottom()).zip(ops.iter().enumerate().skip(first)) {
        let mark = if i == at { look.glyph.selected } else { ' ' };
        let (done, total) = (o.slots_done.min(o.slots_total), o.slots_total);
        let running = o.state == "running";
        let rate = if running { format!("{}/s", number::bytes(o.rate_bytes_per_s)) } else { String::new() };
        let eta = if running && o.eta_ms > 0 { number::span(o.eta_ms) } else { String::new() };
        let style = if is_open(o) { t.title } else { t.text };
        let label = fit(&title(o), name, look.glyph.more).into_owned();
        let blank = " ".repeat(name.saturating_sub(width(&label)));
        let slots = format!("{}/{}", number::exact(done), number::exact(total));
        let line = Line::from(vec![
            Span::styled(format!("{mark} "), t.accent),
            Span::styled(format!("{label}{blank}  "), style),
            Span::styled(format!("{:<9}  ", fit(&o.state, 9, look.glyph.more)), state_style(t, &o.state)),
            Span::styled(format!("{:>6}  {slots:>13}", number::percent(done as f64, total as f64)), t.text),
            Span::styled(format!("  {rate:>11}  {eta:>6}  "), t.text),
            Span::styled(o.reason.clone().filter(|_| with_reason).unwrap_or_default(), t.dim),
        ]);
        widget::line(buf, inner, y, &line);
        if i == at {
            buf.set_style(Rect { y, height: 1, ..inner }, t.selection);
        }
    }
}

/// One step of an operation.
struct Step {
    what: &'static str,
    done: u64,
    total: u64,
}

/// The steps in the order that the masters take them: backups first, except where a death left slots without primaries.
fn steps(o: &OperationStatus) -> Vec<Step> {
    let sum = |role: Role| {
        let of = o.pairs.iter().filter(|p| p.role == role);
        of.fold((0u64, 0u64), |(d, t), p| (d.saturating_add(p.slots_done), t.saturating_add(p.slots_total)))
    };
    let roles = match OperationKind::parse(&o.kind) {
        Some(OperationKind::Rebuild) => [(Role::Primary, "primaries"), (Role::Backup, "backups")],
        _ => [(Role::Backup, "backups"), (Role::Primary, "primaries")],
    };
    let of = |(role, what)| {
        let (done, total) = sum(role);
        Step { what, done: done.min(total), total }
    };
    roles.into_iter().map(of).filter(|s| s.total > 0).collect()
}

fn detail(buf: &mut Buffer, area: Rect, look: Look<'_>, o: &OperationStatus) {
    let t = look.theme;
    let head = Line::from(Span::styled(title(o), t.title));
    let note = Line::from(Span::styled(o.state.clone(), state_style(t, &o.state)));
    let inner = panel::panel(buf, area, look, false, head, note);
    if inner.height == 0 {
        return;
    }
    let (done, total) = (o.slots_done.min(o.slots_total), o.slots_total);
    let words = format!(
        "  {:>6}  {}/{} slot moves",
        number::percent(done as f64, total as f64),
        number::exact(done),
        number::exact(total)
    );
    let cells = usize::from(inner.width).saturating_sub(width(&words));
    let (on, off) = look.glyph.bar(cells, done as f64, total as f64);
    let gauge = vec![Span::styled(on, t.bar_on), Span::styled(off, t.bar_off), Span::styled(words, t.title)];
    widget::line(buf, inner, inner.y, &Line::from(gauge));
    let plain = |rank, label: &'static str, value: String| Field::new(rank).then(label, t.dim).then(value, t.text);
    let mut facts = Vec::new();
    if o.state == "running" {
        facts.push(plain(0, "rate ", format!("{}/s", number::bytes(o.rate_bytes_per_s))));
        let eta = if o.eta_ms > 0 { number::span(o.eta_ms) } else { number::UNKNOWN.to_owned() };
        facts.push(plain(0, "eta ", eta));
    }
    if is_open(o) {
        facts.push(plain(1, "left ", number::bytes(o.bytes_left)));
    }
    facts.push(plain(2, "copied ", number::bytes(o.bytes_done)));
    facts.push(plain(3, "keys ", number::count(o.keys_done as f64)));
    let retries = if o.retries > 0 { t.warn } else { t.text };
    facts.push(Field::new(1).then("retries ", t.dim).then(number::exact(o.retries), retries));
    if inner.height > 1 {
        fields::row(buf, inner, inner.y + 1, facts);
    }
    if inner.height > 2 {
        fields::row(buf, Rect { ..inner }, inner.y + 2, step_fields(look, o));
    }
    if inner.height > 3 {
        let (words, style) = match (&o.reason, o.state.as_str()) {
            (Some(reason), "failed") => (format!("{} {reason}", look.glyph.lost), t.bad),
            (Some(reason), _) => (reason.clone(), t.warn),
            (None, "running") => ("what is committed stays, whatever happens to the rest".to_owned(), t.dim),
            (None, "planned") => ("it begins when those before it are over".to_owned(), t.dim),
            (None, "paused") => ("p lets it go on; what is committed stays".to_owned(), t.dim),
            (None, _) => (String::new(), t.dim),
        };
        widget::text(buf, inner.x, inner.y + 3, inner.width, &words, style, look.glyph.more);
    }
}

fn step_fields<'a>(look: Look<'_>, o: &OperationStatus) -> Vec<Field<'a>> {
    let t = look.theme;
    let open = is_open(o);
    let mut out =
        vec![Field::new(9).then("steps", t.dim), Field::new(8).then(format!("{} planned", look.glyph.done), t.ok)];
    let mut current = o.state != "planned";
    for (n, s) in steps(o).iter().enumerate() {
        let complete = s.done >= s.total;
        let share = number::percent(s.done as f64, s.total as f64);
        let (sign, style) = match (complete, current && open) {
            (true, _) => (look.glyph.done, t.ok),
            (false, true) => (look.glyph.selected, t.info),
            (false, false) => (look.glyph.missed, t.dim),
        };
        let words = if complete { format!("{} {}", s.total, s.what) } else { format!("{} {share}", s.what) };
        out.push(Field::new(n as u8).then(format!("{sign} {words}"), style));
        current &= complete;
    }
    let last = match OperationKind::parse(&o.kind) {
        Some(OperationKind::ScaleIn) => "its process ends",
        _ => "done",
    };
    let (sign, style) = match o.state.as_str() {
        "done" => (look.glyph.done, t.ok),
        "failed" | "cancelled" => (look.glyph.lost, t.warn),
        _ => (look.glyph.missed, t.dim),
    };
    let last = if matches!(o.state.as_str(), "failed" | "cancelled") { o.state.clone() } else { last.to_owned() };
    out.push(Field::new(7).then(format!("{sign} {last}"), style));
    out
}

/// `n1→n6`, each name cut so that both fit.
fn ends(p: &PairStatus, look: Look<'_>, cells: usize) -> String {
    let each = cells.saturating_sub(width(look.glyph.arrow)) / 2;
    let from = p.from.as_deref().unwrap_or("nobody");
    format!("{}{}{}", fit(from, each, look.glyph.more), look.glyph.arrow, fit(&p.to, each, look.glyph.more))
}

fn pairs(model: &Model, c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, o: &OperationStatus) {
    if area.height == 0 {
        return;
    }
    let t = look.theme;
    let left = o.pairs.iter().filter(|p| p.slots_done < p.slots_total).count();
    let note = if o.pairs.is_empty() { String::new() } else { format!("{} pairs, {left} not done", o.pairs.len()) };
    let head = Line::from(vec![Span::styled("Who gives to whom", t.title)]);
    let note = Line::from(Span::styled(note, t.dim));
    let inner = panel::panel(buf, area, look, model.panel() == Panel::Pairs, head, note);
    if o.pairs.is_empty() {
        let words = if is_open(o) { "its moves are not known yet" } else { "its moves are no longer on record" };
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
        return;
    }
    let mut all: Vec<&PairStatus> = o.pairs.iter().collect();
    // What is under way first, then what is left, then what is done; each by name.
    all.sort_by(|a, b| {
        let rank = |p: &PairStatus| (p.slots_done >= p.slots_total, p.slots_running == 0);
        let names = |p: &PairStatus| (p.from.clone().unwrap_or_default(), p.to.clone());
        let ((af, at), (bf, bt)) = (names(a), names(b));
        rank(a).cmp(&rank(b)).then_with(|| natural(&af, &bf)).then_with(|| natural(&at, &bt)).then(a.role.cmp(&b.role))
    });
    let name = all.iter().map(|p| width(&ends(p, look, 24))).max().unwrap_or(0);
    let height = usize::from(inner.height);
    let first = model.migrations.pairs_scroll.min(all.len().saturating_sub(height));
    for (y, p) in (inner.y..inner.bottom()).zip(all.iter().skip(first)) {
        let done = p.slots_done.min(p.slots_total);
        let role = match p.role {
            Role::Primary => "primary",
            Role::Backup => "backup",
        };
        let label = ends(p, look, 24);
        let blank = " ".repeat(name.saturating_sub(width(&label)));
        let now = if p.slots_running > 0 { format!("{} now", number::exact(p.slots_running)) } else { String::new() };
        let percent = number::percent(done as f64, p.slots_total as f64);
        let mut words =
            format!(" {percent:>6} {:>11}", format!("{}/{}", number::exact(done), number::exact(p.slots_total)));
        if inner.width >= 56 {
            words += &format!(" {now:>8}");
        }
        let used = name + 1 + 8 + width(&words);
        let cells = usize::from(inner.width).saturating_sub(used).min(40);
        let (on, off) = look.glyph.bar(cells, done as f64, p.slots_total as f64);
        let style = place_style(c, look, &p.to);
        let line = Line::from(vec![
            Span::styled(format!("{label}{blank} "), t.title),
            Span::styled(format!("{role:<8}"), t.dim),
            Span::styled(on, style),
            Span::styled(off, t.bar_off),
            Span::styled(words, t.text),
        ]);
        widget::line(buf, inner, y, &line);
    }
}

fn place_style(c: &Cluster, look: Look<'_>, name: &str) -> Style {
    c.table.place_of(name).map_or(look.theme.bar_on, |p| look.theme.owner(usize::from(p)))
}

/// What one node gives or takes in all.
struct Side {
    name: String,
    done: u64,
    total: u64,
}

fn side(o: &OperationStatus, of: impl Fn(&PairStatus) -> Option<String>) -> Vec<Side> {
    let mut out: Vec<Side> = Vec::new();
    for p in &o.pairs {
        let Some(name) = of(p) else { continue };
        let done = p.slots_done.min(p.slots_total);
        match out.iter_mut().find(|s| s.name == name) {
            Some(s) => (s.done, s.total) = (s.done.saturating_add(done), s.total.saturating_add(p.slots_total)),
            None => out.push(Side { name, done, total: p.slots_total }),
        }
    }
    out.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| natural(&a.name, &b.name)));
    out
}

fn donors(c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, o: &OperationStatus) {
    if area.height == 0 {
        return;
    }
    let t = look.theme;
    let head = Line::from(Span::styled("Givers and takers", t.title));
    let inner = panel::panel(buf, area, look, false, head, Line::default());
    let givers = side(o, |p| p.from.clone());
    let takers = side(o, |p| Some(p.to.clone()));
    let name = givers.iter().chain(&takers).map(|s| width(&s.name)).max().unwrap_or(0).clamp(2, 10);
    let mut lines: Vec<Line<'static>> = Vec::new();
    // Both groups have their say in a small panel: half the room each, what one leaves the other takes.
    let room = usize::from(inner.height).saturating_sub(2);
    let takers_room = takers.len().min(room.saturating_sub(givers.len()).max(room / 2));
    let givers_room = givers.len().min(room.saturating_sub(takers_room));
    for (label, sides, rows) in [("give", &givers, givers_room), ("take", &takers, takers_room)] {
        if sides.is_empty() {
            continue;
        }
        let more = if sides.len() > rows { format!("  and {} more", sides.len() - rows) } else { String::new() };
        lines.push(Line::from(Span::styled(format!("{label}{more}"), t.dim)));
        let most = sides.iter().map(|s| s.total).max().unwrap_or(0);
        for s in sides.iter().take(rows) {
            let who = fit(&s.name, name, look.glyph.more).into_owned();
            let blank = " ".repeat(name.saturating_sub(width(&who)));
            let words = format!(" {:>11}", format!("{}/{}", number::exact(s.done), number::exact(s.total)));
            let cells = usize::from(inner.width).saturating_sub(name + 1 + 12);
            // The bar is as long as its part of the largest; what is done of it is filled.
            let (whole, _) = look.glyph.share(cells, s.total as f64, most as f64);
            let (on, off) = look.glyph.bar(width(&whole).max(1), s.done as f64, s.total as f64);
            let gap = " ".repeat(cells.saturating_sub(width(&on) + width(&off)));
            lines.push(Line::from(vec![
                Span::styled(format!("{who}{blank} "), t.title),
                Span::styled(on, place_style(c, look, &s.name)),
                Span::styled(off, t.bar_off),
                Span::styled(format!("{gap}{words}"), t.text),
            ]));
        }
    }
    for (y, line) in (inner.y..inner.bottom()).zip(&lines) {
        widget::line(buf, inner, y, line);
    }
}
