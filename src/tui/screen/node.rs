//! `Enter`: everything about one node, in a window.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{ring, window};
use crate::proto::slot::SLOTS;
use crate::proto::status::NodeStatus;
use crate::tui::cluster::{Cluster, memory_used};
use crate::tui::escape::fit;
use crate::tui::glyph::node_word;
use crate::tui::model::Model;
use crate::tui::number;
use crate::tui::theme::Look;
use crate::tui::widget::{self, panel, strip};

/// Columns of the window.
const WIDTH: u16 = 72;
/// Beats in the strip: all that the leader keeps.
const BEATS: usize = 24;

/// Draws the window over the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, id: &str) {
    let t = look.theme;
    let found = model.shown().and_then(|c| Some((c, c.status.nodes.iter().find(|n| n.id == id)?)));
    let Some((cluster, node)) = found else {
        let rect = window(buf, area, WIDTH, 3);
        let title = Line::from(Span::styled(format!("Node {}", fit(id, 40, look.glyph.more)), t.title));
        let inner = panel::panel(buf, rect, look, true, title, Line::default());
        let words = "no longer a member; Esc closes";
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
        return;
    };
    let facts = facts(model, cluster, node, look);
    let rect = window(buf, area, WIDTH, facts.len() as u16 + 2);
    let title = Line::from(vec![
        Span::styled(format!("Node {} ", fit(&node.id, 30, look.glyph.more)), t.title),
        Span::styled(format!("{} {}", look.glyph.node(node.state), node_word(node.state)), t.node(node.state)),
    ]);
    let note = Line::from(Span::styled("Up/Down next node   y copy   Esc closes", t.dim));
    let inner = panel::panel(buf, rect, look, true, title, note);
    for (y, (label, value)) in (inner.y..inner.bottom()).zip(facts) {
        widget::text(buf, inner.x, y, 12.min(inner.width), label, t.dim, look.glyph.more);
        let room = Rect { x: inner.x + 13, width: inner.width.saturating_sub(13), ..inner };
        widget::line(buf, room, y, &value);
    }
}

fn facts(model: &Model, cluster: &Cluster, n: &NodeStatus, look: Look<'_>) -> Vec<(&'static str, Line<'static>)> {
    let t = look.theme;
    let say = |s: String| Line::from(Span::styled(s, t.text));
    let age = model.heartbeat_age_ms(cluster, n);
    let mut beats: Vec<Span<'static>> =
        strip::spans(&strip::beats(&n.heartbeat_gaps_ms, n.heartbeat_age_ms, BEATS), BEATS, look)
            .into_iter()
            .map(|(s, style)| Span::styled(s, style))
            .collect();
    let last = match age {
        Some(age) => format!("last {} ago", number::span(age)),
        None if cluster.status.leader.is_none() => "age unknown: no leader".to_owned(),
        None => "the leader hears none".to_owned(),
    };
    beats.push(Span::styled(format!("  {last}"), t.text));
    let used = memory_used(n);
    let (on, off) = look.glyph.bar(20, used as f64, n.memory_limit as f64);
    let memory = Line::from(vec![
        Span::styled(on, t.bar_on),
        Span::styled(off, t.bar_off),
        Span::styled(format!("  {} of {}", number::bytes(used), number::bytes(n.memory_limit)), t.text),
    ]);
    let ms = |us: Option<u64>| us.map_or_else(|| number::UNKNOWN.to_owned(), number::latency);
    let hit = n.hit_ratio.map_or_else(|| number::UNKNOWN.to_owned(), |h| number::percent(h, 1.0));
    let zone = if n.zone.is_empty() { "none".to_owned() } else { n.zone.clone() };
    let counts = |slots: u64, keys: u64, bytes: u64| {
        format!("{:<6} slots  {:<7} keys  {}", number::exact(slots), number::count(keys as f64), number::bytes(bytes))
    };
    let share = number::percent(n.primary_slots as f64, SLOTS as f64);
    let mut out = vec![
        ("address", say(n.addr.clone())),
        ("incarnation", say(n.incarnation.clone())),
        ("zone, weight", say(format!("{zone}, {}", number::rate(n.weight)))),
        ("heartbeats", Line::from(beats)),
        ("primary of", say(format!("{}  {share}", counts(n.primary_slots, n.primary_keys, n.primary_bytes)))),
        ("backup of", say(counts(n.backup_slots, n.backup_keys, n.backup_bytes))),
        ("memory", memory),
        (
            "traffic",
            say(format!(
                "{} ops/s   hit ratio {hit}   {} clients",
                number::rate(n.ops_per_s),
                number::count(n.clients as f64)
            )),
        ),
        ("hot slots", say(hot_slots(n))),
        ("latency", say(format!("p50 {}   p99 {}", ms(n.p50_us), ms(n.p99_us)))),
        (
            "since start",
            say(format!(
                "{} evicted   {} expired   {} errors",
                number::count(n.evicted as f64),
                number::count(n.expired as f64),
                number::count(n.errors as f64)
            )),
        ),
    ];
    if let Some(place) = cluster.table.place_of(&n.id) {
        let (words, style): (String, Style) = ring::forecast(cluster, place, look);
        out.push(("if it dies", Line::from(Span::styled(words, style))));
    }
    out
}

/// `1649 30%, 12 8%`: the slots that are asked for far more than the others.
fn hot_slots(n: &NodeStatus) -> String {
    if n.hot_slots.is_empty() {
        return "none stands out".to_owned();
    }
    let named = n.hot_slots.iter().map(|h| format!("{} {}", h.slot, number::percent(h.share, 1.0)));
    format!("{} of its commands", named.collect::<Vec<_>>().join(", "))
}

/// The node as lines for the clipboard.
pub fn copied(model: &Model, id: &str) -> Option<String> {
    let n = model.shown()?.status.nodes.iter().find(|n| n.id == id)?;
    Some(format!(
        "{} {} {} incarnation {} primary {} backup {}",
        n.id,
        n.addr,
        node_word(n.state),
        n.incarnation,
        n.primary_slots,
        n.backup_slots
    ))
}
