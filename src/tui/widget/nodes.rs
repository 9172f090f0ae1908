//! The table of nodes: as many columns as fit, the least important ones go first, what is left widens the strip.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::strip;
use crate::proto::slot::SLOTS;
use crate::proto::status::{HEARTBEAT_GAPS, NodeState, NodeStatus};
use crate::tui::cluster::{Cluster, memory_share};
use crate::tui::escape::{fit, width};
use crate::tui::glyph::node_word;
use crate::tui::model::Model;
use crate::tui::number;
use crate::tui::theme::Look;

/// Cells of the strip at least: two seconds of beats.
const BEATS_MIN: usize = 8;
/// The widest gap between columns.
const GAP_MAX: usize = 3;

/// What the table shows.
pub struct Nodes<'a> {
    /// For ages.
    pub model: &'a Model,
    /// Whose nodes.
    pub cluster: &'a Cluster,
    /// Filtered and sorted.
    pub rows: &'a [&'a NodeStatus],
    /// The first row drawn.
    pub first: usize,
    /// The selected row.
    pub selected: usize,
}

impl Nodes<'_> {
    /// What the busiest of all nodes serves a second, whether the filter lets it through or not.
    fn busiest(&self) -> f64 {
        self.cluster.status.nodes.iter().map(|n| n.ops_per_s).filter(|o| o.is_finite()).fold(0.0, f64::max)
    }
}

/// A column, in the order drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Col {
    Node,
    Addr,
    State,
    Beats,
    Age,
    Slots,
    Share,
    Bar,
    Heat,
    Ops,
    Hit,
    Memory,
    P99,
    Clients,
    Backup,
}

/// Columns of this rank and above come only beside a whole strip.
const EXTRA: u8 = 8;

/// The columns with how dispensable they are: the highest goes first.
const COLUMNS: [(Col, u8); 15] = [
    (Col::Node, 0),
    (Col::Addr, 3),
    (Col::State, 0),
    (Col::Beats, 0),
    (Col::Age, 0),
    (Col::Slots, 1),
    (Col::Backup, 9),
    (Col::Bar, 7),
    (Col::Share, 5),
    (Col::Heat, 8),
    (Col::Ops, 1),
    (Col::Hit, 4),
    (Col::Memory, 2),
    (Col::P99, 2),
    (Col::Clients, 10),
];

impl Col {
    fn title(self) -> &'static str {
        match self {
            Col::Node => "NODE",
            Col::Addr => "ADDR",
            Col::State => "STATE",
            Col::Beats => "BEATS",
            Col::Age => "AGE",
            Col::Slots => "SLOTS",
            Col::Backup => "BACKUP",
            Col::Bar => "SHARE",
            Col::Share | Col::Heat => "",
            Col::Ops => "OPS/S",
            Col::Hit => "HIT%",
            Col::Memory => "MEM%",
            Col::P99 => "P99",
            Col::Clients => "CLIENTS",
        }
    }

    fn right(self) -> bool {
        !matches!(self, Col::Node | Col::Addr | Col::State | Col::Beats | Col::Bar)
    }

    fn width(self, rows: &[&NodeStatus]) -> usize {
        let longest = |of: fn(&NodeStatus) -> &str| rows.iter().map(|n| width(of(n))).max().unwrap_or(0);
        match self {
            Col::Node => longest(|n| &n.id).clamp(4, 16),
            Col::Addr => longest(|n| &n.addr).clamp(9, 21),
            Col::State => 10,
            Col::Beats => BEATS_MIN,
            Col::Age => 5,
            Col::Slots => 5,
            Col::Backup => 6,
            Col::Bar => 8,
            Col::Share => 6,
            Col::Heat => 1,
            Col::Ops => 6,
            Col::Hit => 5,
            Col::Memory => 4,
            Col::P99 => 6,
            Col::Clients => 7,
        }
    }
}

/// The columns that fit, each with its width, and the gap between them.
fn plan(rows: &[&NodeStatus], room: usize) -> (Vec<(Col, usize)>, usize) {
    let mut columns = COLUMNS.to_vec();
    let total = |columns: &[(Col, u8)], gap: usize| {
        columns.iter().map(|(c, _)| c.width(rows)).sum::<usize>() + columns.len().saturating_sub(1) * gap
    };
    // The whole strip is worth more than the extras.
    while total(&columns, 1) + HEARTBEAT_GAPS - BEATS_MIN > room && columns.iter().any(|(_, rank)| *rank >= EXTRA) {
        columns.retain({
            let worst = columns.iter().map(|(_, rank)| *rank).max();
            move |(_, rank)| Some(*rank) != worst
        });
    }
    while columns.len() > 1 && total(&columns, 1) > room {
        let Some(worst) = (0..columns.len()).max_by_key(|i| (columns[*i].1, *i)) else { break };
        let (gone, _) = columns.remove(worst);
        if gone == Col::Share {
            columns.retain(|(c, _)| *c != Col::Bar);
        }
    }
    let mut spare = room.saturating_sub(total(&columns, 1));
    let beats = spare.min(HEARTBEAT_GAPS - BEATS_MIN);
    spare -= beats;
    let gaps = columns.len().saturating_sub(1).max(1);
    let gap = 1 + (spare / gaps).min(GAP_MAX - 1);
    let wide = |c: Col| c.width(rows) + if c == Col::Beats { beats } else { 0 };
    (columns.into_iter().map(|(c, _)| (c, wide(c))).collect(), gap)
}

/// Draws the header and as many rows as fit.
pub fn draw(buf: &mut Buffer, area: Rect, look: Look<'_>, table: &Nodes<'_>) {
    if area.height == 0 || area.width < 12 {
        return;
    }
    let t = look.theme;
    let (columns, gap) = plan(table.rows, usize::from(area.width) - 2);
    let mut head = vec![Span::raw("  ")];
    for (i, (col, w)) in columns.iter().enumerate() {
        let title = match col {
            Col::Beats if *w >= 20 => "HEARTBEATS  last 24",
            Col::Beats if *w >= 10 => "HEARTBEATS",
            Col::Share if !columns.iter().any(|(c, _)| *c == Col::Bar) => "SHARE",
            _ => col.title(),
        };
        head.push(Span::styled(pad(title, *w, col.right()), t.dim));
        if i + 1 < columns.len() {
            head.push(Span::raw(" ".repeat(gap)));
        }
    }
    super::line(buf, area, area.y, &Line::from(head));
    let largest = table.rows.iter().map(|n| n.primary_slots).max().unwrap_or(0);
    let visible = table.rows.iter().enumerate().skip(table.first);
    for (y, (i, node)) in (area.y + 1..area.bottom()).zip(visible) {
        let chosen = i == table.selected;
        let mark = if chosen { look.glyph.selected } else { ' ' };
        let mut spans = vec![Span::styled(format!("{mark} "), t.accent)];
        for (n, (col, w)) in columns.iter().enumerate() {
            spans.extend(cell(table, node, *col, *w, largest, look));
            if n + 1 < columns.len() {
                spans.push(Span::raw(" ".repeat(gap)));
            }
        }
        super::line(buf, area, y, &Line::from(spans));
        if chosen {
            buf.set_style(Rect { y, height: 1, ..area }, t.selection);
        }
    }
}

fn cell(table: &Nodes<'_>, n: &NodeStatus, col: Col, w: usize, largest: u64, look: Look<'_>) -> Vec<Span<'static>> {
    let t = look.theme;
    let gone = matches!(n.state, NodeState::Left | NodeState::Dead);
    let plain = if gone { t.dim } else { t.text };
    let one = |s: String, style: Style| vec![Span::styled(pad(&fit(&s, w, look.glyph.more), w, col.right()), style)];
    match col {
        Col::Node => one(n.id.clone(), if gone { t.dim } else { t.title }),
        Col::Addr => one(n.addr.clone(), plain),
        Col::State => one(format!("{} {}", look.glyph.node(n.state), node_word(n.state)), t.node(n.state)),
        Col::Beats if n.state == NodeState::Left => one(String::new(), plain),
        Col::Beats => {
            let beats = strip::beats(&n.heartbeat_gaps_ms, n.heartbeat_age_ms, w);
            strip::spans(&beats, w, look).into_iter().map(|(s, style)| Span::styled(s, style)).collect()
        }
        Col::Age => {
            let age = table.model.heartbeat_age_ms(table.cluster, n);
            let style = if n.state == NodeState::Suspect { t.warn } else { plain };
            one(age.map_or_else(|| number::UNKNOWN.to_owned(), number::span), style)
        }
        Col::Slots => one(number::exact(n.primary_slots), plain),
        Col::Backup => one(number::exact(n.backup_slots), plain),
        Col::Share => one(number::percent(n.primary_slots as f64, SLOTS as f64), plain),
        Col::Bar => {
            let (on, off) = look.glyph.share(w, n.primary_slots as f64, largest as f64);
            vec![Span::styled(on, t.bar_on), Span::styled(off, t.bar_off)]
        }
        Col::Heat => {
            let level = if n.ops_per_s > 0.0 { look.glyph.level(n.ops_per_s, table.busiest()) } else { ' ' };
            vec![Span::styled(level.to_string(), t.bar_on)]
        }
        Col::Ops => one(number::rate(n.ops_per_s), plain),
        Col::Hit => one(percent(n.hit_ratio), plain),
        Col::Memory => {
            let share = memory_share(n);
            let style = if share >= 0.95 { t.warn } else { plain };
            one(
                if n.memory_limit == 0 {
                    number::UNKNOWN.to_owned()
                } else {
                    format!("{:.0}", (share * 100.0).min(999.0))
                },
                style,
            )
        }
        Col::P99 => one(n.p99_us.map_or_else(|| number::UNKNOWN.to_owned(), number::latency), plain),
        Col::Clients => one(number::count(n.clients as f64), plain),
    }
}

/// A share as `93.4`; its unit stands in the header.
fn percent(share: Option<f64>) -> String {
    match share {
        Some(s) if s.is_finite() => format!("{:.1}", (s * 100.0).clamp(0.0, 100.0)),
        _ => number::UNKNOWN.to_owned(),
    }
}

fn pad(s: &str, w: usize, right: bool) -> String {
    let blank = " ".repeat(w.saturating_sub(width(s)));
    if right { format!("{blank}{s}") } else { format!("{s}{blank}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    #[test]
    fn columns_fit_and_the_important_ones_stay() {
        let view = fixture::busy();
        let rows: Vec<&NodeStatus> = view.status.nodes.iter().collect();
        for room in 40..300 {
            let (columns, gap) = plan(&rows, room);
            let total: usize = columns.iter().map(|(_, w)| w).sum::<usize>() + (columns.len() - 1) * gap;
            assert!(total <= room, "{room}");
            for needed in [Col::Node, Col::State, Col::Beats, Col::Age] {
                assert!(columns.iter().any(|(c, _)| *c == needed), "{room}");
            }
        }
        let at_80: Vec<Col> = plan(&rows, 74).0.into_iter().map(|(c, _)| c).collect();
        for needed in [Col::Addr, Col::Slots, Col::Ops, Col::Memory, Col::P99] {
            assert!(at_80.contains(&needed), "{needed:?} in {at_80:?}");
        }
    }
}
