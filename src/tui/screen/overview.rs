//! Overview: how the cluster is, who its nodes are, what moves and what happened.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::operations;
use crate::proto::slot::SLOTS;
use crate::proto::status::{Health, NodeState, NodeStatus};
use crate::tui::cluster::{Cluster, memory_used};
use crate::tui::escape::{clean, fit, wrap};
use crate::tui::glyph::{health_word, node_word};
use crate::tui::history::{Series, total_ops};
use crate::tui::layout::{self, inside};
use crate::tui::model::{Model, Panel, Sort};
use crate::tui::number;
use crate::tui::theme::Look;
use crate::tui::widget::fields::{self, Field};
use crate::tui::widget::{self, nodes, panel, plot};

/// Draws the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let Some(cluster) = model.shown() else { return };
    let rows = model.rows();
    let areas = layout::overview(area, rows.len(), layout::open_lines(model));
    sums(model, cluster, buf, areas.cluster, look);
    node_table(model, cluster, buf, areas.nodes, look, &rows);
    charts(model, cluster, buf, areas, look);
    let focus = model.panel();
    operations::draw(model, buf, areas.operations, look, focus == Panel::Operations, model.overview.operations_scroll);
    events(model, cluster, buf, areas.events, look, focus == Panel::Events);
}

/// The first row of nodes that is drawn.
pub fn first_row(model: &Model, rows: &[&NodeStatus]) -> usize {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    let shell = layout::shell(area, layout::banner_lines(model));
    let areas = layout::overview(shell.body, rows.len(), layout::open_lines(model));
    let height = inside(areas.nodes, model.setup.ascii).height.saturating_sub(1);
    layout::scroll(model.selected_row(rows), rows.len(), usize::from(height))
}

/// What is wrong, worst first, in the words of an operator.
pub fn verdict(model: &Model, cluster: &Cluster) -> Vec<String> {
    let s = &cluster.status;
    let name = |id: &str| fit(id, 16, model.glyphs().more).into_owned();
    let mut out = Vec::new();
    if s.slots.orphan > 0 {
        out.push(format!("{} slots not served", number::exact(s.slots.orphan)));
    }
    for n in s.nodes.iter().filter(|n| n.state == NodeState::Dead) {
        out.push(format!("{} dead", name(&n.id)));
    }
    if s.leader.is_none() {
        out.push("no master leads".to_owned());
    }
    for n in s.nodes.iter().filter(|n| n.state == NodeState::Suspect) {
        let age = model.heartbeat_age_ms(cluster, n).map(number::span).unwrap_or_default();
        out.push(format!("{} suspect {age}", name(&n.id)).trim_end().to_owned());
    }
    for m in s.masters.iter().filter(|m| !m.alive) {
        out.push(format!("{} away", name(&m.id)));
    }
    if s.slots.solo > 0 {
        out.push(format!("{} slots without backup", number::exact(s.slots.solo)));
    }
    out
}

fn sums(model: &Model, cluster: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let t = look.theme;
    let health = cluster.status.state;
    let mut words = format!("{} {}", look.glyph.health(health), health_word(health));
    let room = usize::from(area.width).saturating_sub(16);
    if health != Health::Ok {
        for (i, reason) in verdict(model, cluster).into_iter().enumerate() {
            let next = format!("{}{reason}", if i == 0 { ": " } else { ", " });
            if words.len() + next.len() > room {
                words.push_str(if look.glyph.ascii { ", .." } else { ", …" });
                break;
            }
            words.push_str(&next);
        }
    }
    let title = Line::from(Span::styled("Cluster", t.title));
    let inner = panel::panel(buf, area, look, false, title, Line::from(Span::styled(words, t.health(health))));
    let rows = [
        membership(cluster, look, inner.width),
        traffic(model, cluster, look, inner.width),
        latency(model, cluster, look),
    ];
    for (y, fields) in (inner.y..inner.bottom()).zip(rows) {
        fields::row(buf, inner, y, fields);
    }
}

fn membership<'a>(cluster: &Cluster, look: Look<'_>, width: u16) -> Vec<Field<'a>> {
    let t = look.theme;
    let s = &cluster.status;
    let count = |state| s.nodes.iter().filter(|n| n.state == state).count();
    let members = s.nodes.len() - count(NodeState::Left);
    let up = count(NodeState::Up);
    let up_style = if up == members { t.ok } else { t.warn };
    let mut nodes = Field::new(0).then("nodes ", t.dim).then(format!("{up}/{members} up"), up_style);
    for state in [NodeState::Dead, NodeState::Suspect, NodeState::Joining, NodeState::Draining, NodeState::Standby] {
        let n = count(state);
        if n > 0 {
            nodes = nodes.then(format!("  {n} {}", node_word(state)), t.node(state));
        }
    }
    let slots = &s.slots;
    let all = slots.serving >= slots.total && slots.total > 0;
    let serving = format!("{}/{}", number::exact(slots.serving), number::exact(slots.total));
    let serving = if width >= layout::WIDE - 4 { format!("{serving} serving") } else { serving };
    let to_move: u64 = s
        .operations
        .iter()
        .filter(|o| matches!(o.state.as_str(), "running" | "paused" | "planned"))
        .fold(0u64, |sum, o| sum.saturating_add(o.slots_total.saturating_sub(o.slots_done)));
    let moving = if to_move == 0 {
        Field::new(8)
    } else {
        let share = number::percent(to_move as f64, SLOTS as f64);
        Field::new(3).then("to move ", t.dim).then(format!("{} ({share})", number::exact(to_move)), t.info)
    };
    let backups = if cluster.table.has_backups() || slots.solo > 0 { "1" } else { "0" };
    let alarm = |n: u64, style: Style| if n == 0 { t.text } else { style };
    vec![
        nodes,
        Field::new(0).then("slots ", t.dim).then(serving, if all { t.ok } else { t.bad }),
        moving,
        if cluster.table.known() { Field::new(7).then("backups ", t.dim).then(backups, t.text) } else { Field::new(8) },
        Field::new(1).then("solo ", t.dim).then(number::exact(slots.solo), alarm(slots.solo, t.warn)),
        Field::new(1).then("lost ", t.dim).then(number::exact(slots.lost_total), alarm(slots.lost_total, t.bad)),
    ]
}

fn traffic<'a>(model: &Model, cluster: &Cluster, look: Look<'_>, width: u16) -> Vec<Field<'a>> {
    let t = look.theme;
    let nodes = &cluster.status.nodes;
    let cells = if width >= 100 { 20 } else { 12 };
    let history = cluster.history.series(Series::Ops, model.shown_now().mono_ms);
    let bar = |part: f64, whole: f64, cells: usize, field: Field<'a>| {
        let (on, off) = look.glyph.bar(cells, part, whole);
        field.then(" ", t.text).then(on, t.bar_on).then(off, t.bar_off)
    };
    let hit = hit_ratio(nodes);
    let hit_words = hit.map_or_else(|| number::UNKNOWN.to_owned(), |h| number::percent(h, 1.0));
    let used = nodes.iter().fold(0u64, |sum, n| sum.saturating_add(memory_used(n)));
    let limit = nodes.iter().fold(0u64, |sum, n| sum.saturating_add(n.memory_limit));
    let memory = format!("{} of {}", number::bytes(used), number::bytes(limit));
    let hit_field = Field::new(1).then("hit ratio ", t.dim).then(hit_words, t.text);
    let memory_field = Field::new(2).then("mem ", t.dim).then(memory, t.text);
    let (hit_cells, memory_cells) = if width >= 100 { (16, 16) } else { (0, 8) };
    vec![
        Field::new(0)
            .then("ops/s ", t.dim)
            .then(format!("{:<6}", number::rate(total_ops(nodes))), t.title)
            .then(plot::spark(&history, cells, look), t.bar_on),
        match hit {
            Some(h) if hit_cells > 0 => bar(h, 1.0, hit_cells, hit_field),
            _ => hit_field,
        },
        bar(used as f64, limit as f64, memory_cells, memory_field),
    ]
}

fn latency<'a>(model: &Model, cluster: &Cluster, look: Look<'_>) -> Vec<Field<'a>> {
    let t = look.theme;
    let nodes = &cluster.status.nodes;
    let ms = |us: Option<u64>| us.map_or_else(|| number::UNKNOWN.to_owned(), number::latency);
    let p50 = nodes.iter().filter_map(|n| n.p50_us).max();
    let p99 = nodes.iter().filter_map(|n| n.p99_us).max();
    let history = cluster.history.series(Series::P99, model.shown_now().mono_ms);
    let rates = cluster.history.rates();
    let rate = |r: Option<f64>| r.map_or_else(|| number::UNKNOWN.to_owned(), number::rate);
    let clients = nodes.iter().fold(0u64, |sum, n| sum.saturating_add(n.clients));
    let errors = if rates.errors.is_some_and(|e| e > 0.0) { t.warn } else { t.text };
    vec![
        Field::new(0).then("p50 ", t.dim).then(ms(p50), t.text),
        Field::new(0)
            .then("p99 ", t.dim)
            .then(format!("{} ", ms(p99)), t.text)
            .then(plot::spark(&history, 12, look), t.series[1]),
        Field::new(3).then("evicted/s ", t.dim).then(rate(rates.evicted), t.text),
        Field::new(4).then("expired/s ", t.dim).then(rate(rates.expired), t.text),
        Field::new(1).then("errors/s ", t.dim).then(rate(rates.errors), errors),
        Field::new(2).then("clients ", t.dim).then(number::count(clients as f64), t.text),
    ]
}

/// The cluster's hit ratio, each node weighing as much as its traffic; the plain mean when there is none.
fn hit_ratio(nodes: &[NodeStatus]) -> Option<f64> {
    let known: Vec<(f64, f64)> = nodes
        .iter()
        .filter_map(|n| n.hit_ratio.map(|h| (h, n.ops_per_s)))
        .filter(|(h, _)| h.is_finite())
        .map(|(h, w)| (h.clamp(0.0, 1.0), if w.is_finite() { w.max(0.0) } else { 0.0 }))
        .collect();
    if known.is_empty() {
        return None;
    }
    let weight: f64 = known.iter().map(|(_, w)| w).sum();
    if weight > 0.0 {
        Some(known.iter().map(|(h, w)| h * (w / weight)).sum())
    } else {
        Some(known.iter().map(|(h, _)| h).sum::<f64>() / known.len() as f64)
    }
}

fn node_table(model: &Model, cluster: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, rows: &[&NodeStatus]) {
    let t = look.theme;
    // Names rise; everything else begins with the most.
    let falling = (model.overview.sort == Sort::Node) == model.overview.reverse;
    let arrow = if falling { look.glyph.sort_down } else { look.glyph.sort_up };
    let title = Line::from(vec![
        Span::styled("Nodes", t.title),
        Span::styled(format!("  sort: {} {arrow}", model.overview.sort.word()), t.dim),
    ]);
    let height = usize::from(inside(area, look.glyph.ascii).height.saturating_sub(1));
    let selected = model.selected_row(rows);
    let first = layout::scroll(selected, rows.len(), height);
    let counted = if rows.len() > height {
        let last = (first + height).min(rows.len());
        format!("{}-{last} of {} by arrows", first + 1, rows.len())
    } else {
        format!("{} of {}", rows.len(), cluster.status.nodes.len())
    };
    let note = if model.filter.is_empty() {
        Line::from(Span::styled(format!("{counted}   / to filter"), t.dim))
    } else {
        let shown = clean(&model.filter, model.setup.ascii);
        let shown = fit(&shown, 20, look.glyph.more).into_owned();
        Line::from(vec![
            Span::styled(format!("{counted} contain "), t.dim),
            Span::styled(shown, t.accent),
            Span::styled("   Esc shows all", t.dim),
        ])
    };
    let inner = panel::panel(buf, area, look, model.panel() == Panel::Nodes, title, note);
    if rows.is_empty() {
        let words = if cluster.status.nodes.is_empty() {
            "No cache node has joined yet.  cachectl add  starts one"
        } else {
            "No node contains that."
        };
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
        return;
    }
    let table = nodes::Nodes { model, cluster, rows, first, selected };
    nodes::draw(buf, inner, look, &table);
}

fn charts(model: &Model, cluster: &Cluster, buf: &mut Buffer, areas: layout::OverviewAreas, look: Look<'_>) {
    if areas.throughput.height == 0 {
        return;
    }
    let t = look.theme;
    let now = model.shown_now().mono_ms;
    let head =
        |title: &'static str| Line::from(vec![Span::styled(title, t.title), Span::styled("  last 2 min", t.dim)]);
    let unit = Line::from(Span::styled("ops/s", t.dim));
    let inner = panel::panel(buf, areas.throughput, look, false, head("Throughput"), unit);
    let ops = cluster.history.series(Series::Ops, now);
    let line = plot::Line { values: &ops, style: t.series[0], filled: true, dotted: false };
    plot::plot(buf, inner, look, &[line], number::count);

    let [a, b] = look.glyph.series;
    let key = Line::from(vec![
        Span::styled(format!("p50 {a}"), t.series[0]),
        Span::styled(format!("  p99 {b}"), t.series[1]),
        Span::styled("  slowest node", t.dim),
    ]);
    let inner = panel::panel(buf, areas.latency, look, false, head("Latency"), key);
    let (p50, p99) = (cluster.history.series(Series::P50, now), cluster.history.series(Series::P99, now));
    let lines = [
        plot::Line { values: &p50, style: t.series[0], filled: false, dotted: false },
        plot::Line { values: &p99, style: t.series[1], filled: false, dotted: true },
    ];
    plot::plot(buf, inner, look, &lines, |us| number::latency(us.max(0.0) as u64));
}

/// Lines of one event at most; a longer one is cut.
const EVENT_LINES: usize = 2;

fn events(model: &Model, cluster: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, focused: bool) {
    let t = look.theme;
    let back = model.overview.events_scroll.min(cluster.events.len().saturating_sub(1));
    let mut note = Vec::new();
    if cluster.events_missed > 0 {
        note.push(Span::styled(format!("{} not seen   ", number::exact(cluster.events_missed)), t.warn));
    }
    if back > 0 {
        note.push(Span::styled(format!("{back} newer above   "), t.info));
    }
    note.push(Span::styled(format!("{}, newest first", cluster.events.len()), t.dim));
    let title = Line::from(Span::styled("Events", t.title));
    let inner = panel::panel(buf, area, look, focused, title, Line::from(note));
    // Where there is room for it a long sentence goes on in the next line.
    let lines_max = if inner.height >= 6 { EVENT_LINES } else { 1 };
    let mut y = inner.y;
    for warning in &cluster.status.warnings {
        let head = Line::from(Span::styled(format!("{} ", look.glyph.alert), t.warn));
        y += sentence(
            buf,
            Rect { y, height: inner.bottom().saturating_sub(y), ..inner },
            look,
            &head,
            warning,
            lines_max,
        );
    }
    if cluster.events.is_empty() {
        widget::text(buf, inner.x, y, inner.width, "Nothing has happened yet.", t.dim, look.glyph.more);
        return;
    }
    for e in cluster.events.iter().rev().skip(back) {
        let style = t.severity(e.severity);
        let head = Line::from(vec![
            Span::styled(number::clock(e.at_ms, model.setup.utc_offset_s), t.dim),
            Span::styled(format!(" {} ", look.glyph.severity(e.severity)), style),
        ]);
        let by = e.by.as_ref().map(|by| format!("  by {by}")).unwrap_or_default();
        let room = Rect { y, height: inner.bottom().saturating_sub(y), ..inner };
        if room.height == 0 {
            break;
        }
        y += sentence(buf, room, look, &head, &format!("{}{by}", e.text), lines_max);
    }
}

/// A sentence behind its head, in the style of the head's end, over `lines_max` lines at most. Returns the lines used.
fn sentence(buf: &mut Buffer, area: Rect, look: Look<'_>, head: &Line<'_>, words: &str, lines_max: usize) -> u16 {
    if area.height == 0 {
        return 0;
    }
    let style = head.spans.last().map_or(look.theme.text, |s| s.style);
    let used = widget::line(buf, area, area.y, head);
    let room = area.width.saturating_sub(used);
    let mut lines = wrap(words, usize::from(room));
    if lines.len() > lines_max {
        let rest = lines.split_off(lines_max.saturating_sub(1)).join(" ");
        lines.push(rest);
    }
    lines.truncate(usize::from(area.height));
    for (y, line) in (area.y..).zip(&lines) {
        widget::text(buf, area.x + used, y, room, line, style, look.glyph.more);
    }
    lines.len() as u16
}
