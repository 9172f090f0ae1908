//! Keys: one key, where it lives, and what is in it, drawn so that no value can touch the terminal.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::ring;
use crate::proto::slot::Slot;
use crate::proto::status::NodeStatus;
use crate::tui::cluster::Cluster;
use crate::tui::escape::{clean, fit};
use crate::tui::glyph::node_word;
use crate::tui::layout;
use crate::tui::model::{Found, Model, Panel};
use crate::tui::number;
use crate::tui::slots::{NOBODY, SlotTable};
use crate::tui::theme::Look;
use crate::tui::value::{self, Drawn, ValueView};
use crate::tui::widget::fields::{self, Field};
use crate::tui::widget::{self, panel};

/// Draws the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let Some(cluster) = model.shown() else { return };
    let (top, bottom) = layout::keys(area);
    about(model, cluster, buf, top, look);
    contents(model, buf, bottom, look);
}

fn about(model: &Model, c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let t = look.theme;
    let k = &model.keys;
    let mut title = vec![Span::styled("Key", t.title)];
    if !k.key.is_empty() {
        let shown = clean(&k.key, model.setup.ascii);
        title.push(Span::styled(format!("  {}", fit(&shown, 60, look.glyph.more)), t.accent));
    }
    let note = match (k.request.is_some(), k.found.is_some()) {
        (true, _) => Line::from(Span::styled("asking", t.info)),
        (false, true) => {
            let at = number::clock(k.found_at_ms, model.setup.utc_offset_s);
            Line::from(Span::styled(format!("as of {at}   r reads again"), t.dim))
        }
        _ => Line::default(),
    };
    let inner = panel::panel(buf, area, look, false, Line::from(title), note);
    if k.key.is_empty() {
        let lines = [
            ("Enter", "look up a key: where it lives, what is in it, how long it lives"),
            ("e", "set a key, with a time to live if it should go by itself"),
            ("d", "delete the key that is shown"),
            ("v", "show the value as text, as JSON, or in hex"),
        ];
        for (y, (key, words)) in (inner.y..inner.bottom()).zip(lines) {
            let line = Line::from(vec![Span::styled(format!("{key:<6}"), t.accent), Span::styled(words, t.text)]);
            widget::line(buf, inner, y, &line);
        }
        return;
    }
    let slot = Slot::of_key(k.key.as_bytes());
    let b = c.table.brief(slot);
    let label = |s: &'static str| Span::styled(format!("{s:<10}"), t.dim);
    let mut lines = vec![
        Line::from(vec![label("slot"), Span::styled(slot.to_string(), t.title)]),
        holder(c, look, label("primary"), b.primary),
        holder(c, look, label("backup"), b.backup),
    ];
    lines.push(match (&k.error, &k.found) {
        (Some(error), _) => Line::from(vec![label("answer"), Span::styled(error.clone(), t.bad)]),
        (None, Some(found)) => Line::from(vec![label("lives"), Span::styled(lives(found), t.text)]),
        (None, None) => Line::from(vec![label("lives"), Span::styled("asking its primary", t.dim)]),
    });
    let (words, style) = if b.primary == NOBODY {
        ("no node serves this slot now".to_owned(), t.bad)
    } else {
        let (words, style) = ring::forecast(c, b.primary, look);
        (format!("if {} dies: {words}", fit(c.table.name(b.primary), 16, look.glyph.more)), style)
    };
    lines.push(Line::from(Span::styled(fit(&words, usize::from(inner.width), look.glyph.more).into_owned(), style)));
    for (y, line) in (inner.y..inner.bottom()).zip(&lines) {
        widget::line(buf, inner, y, line);
    }
}

/// `a n1  127.0.0.1:7201  ● up`
fn holder(c: &Cluster, look: Look<'_>, label: Span<'static>, place: u16) -> Line<'static> {
    let t = look.theme;
    if place == NOBODY {
        return Line::from(vec![label, Span::styled("none", t.dim)]);
    }
    let name = c.table.name(place);
    let node: Option<&NodeStatus> = c.status.nodes.iter().find(|n| n.id == name);
    let mut spans = vec![
        label,
        Span::styled(format!("{} ", SlotTable::letter(place)), t.owner(usize::from(place))),
        Span::styled(fit(name, 20, look.glyph.more).into_owned(), t.title),
    ];
    if let Some(n) = node {
        spans.push(Span::styled(format!("  {}  ", fit(&n.addr, 40, look.glyph.more)), t.text));
        spans.push(Span::styled(format!("{} {}", look.glyph.node(n.state), node_word(n.state)), t.node(n.state)));
    }
    Line::from(spans)
}

fn lives(found: &Found) -> String {
    match (&found.value, found.ttl_ms) {
        (None, _) => "there is no such key".to_owned(),
        (Some(_), ..0) => "until it is deleted or evicted".to_owned(),
        (Some(_), ms) => format!("{} more", number::span(ms.unsigned_abs())),
    }
}

/// The value as it is drawn at this width.
pub fn drawn(model: &Model, width: u16) -> Option<Drawn> {
    let found = model.keys.found.as_ref()?;
    let value = found.value.as_ref()?;
    let whole = value.len() as u64 == found.size;
    Some(value::lines(value, whole, model.keys.view, usize::from(width), model.setup.ascii))
}

fn contents(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    if area.height == 0 {
        return;
    }
    let t = look.theme;
    let drawn = drawn(model, layout::inside(area, look.glyph.ascii).width);
    let mut title = vec![Span::styled("Value", t.title)];
    let mut note = Line::default();
    if let (Some(d), Some(found)) = (&drawn, &model.keys.found) {
        let auto = if model.keys.view == ValueView::Auto { "" } else { ", chosen with v" };
        title.push(Span::styled(format!("  {}{auto}", d.what), t.dim));
        let have = found.value.as_ref().map_or(0, Vec::len) as u64;
        let size = if have < found.size {
            format!("the first {} of {}", number::bytes(have), number::bytes(found.size))
        } else {
            number::bytes(found.size)
        };
        note = Line::from(Span::styled(size, t.dim));
    }
    let inner = panel::panel(buf, area, look, model.panel() == Panel::Value, Line::from(title), note);
    let Some(d) = drawn else {
        let words = match (&model.keys.found, model.keys.key.is_empty()) {
            (Some(_), _) => "nothing: there is no such key",
            (None, true) => "",
            (None, false) => "not read yet",
        };
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
        return;
    };
    let first = model.keys.scroll.min(d.lines.len().saturating_sub(usize::from(inner.height)));
    for (y, line) in (inner.y..inner.bottom()).zip(d.lines.iter().skip(first)) {
        widget::text(buf, inner.x, y, inner.width, line, t.text, look.glyph.more);
    }
    let below = d.lines.len().saturating_sub(first + usize::from(inner.height));
    if below > 0 && area.height > 2 {
        let row = Rect { y: area.bottom() - 1, height: 1, x: inner.x, width: inner.width };
        if !look.glyph.ascii {
            fields::row(buf, row, row.y, vec![Field::new(0).then(format!(" {below} more lines "), t.dim)]);
        }
    }
}
