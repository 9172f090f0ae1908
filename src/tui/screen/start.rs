//! Before there is anything to show: no cluster known, a demo that starts, or masters that don't answer yet.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::tui::escape::{fit, width};
use crate::tui::link::KnownMaster;
use crate::tui::model::{Demo, Model};
use crate::tui::number;
use crate::tui::theme::Look;
use crate::tui::widget;

/// How long masters may be silent before the screen says what to do about it, milliseconds.
const PATIENCE_MS: u64 = 3_000;

/// Draws the block of words in the middle.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let lines = if model.at_start() { no_cluster(model, look) } else { connecting(model, look) };
    let wide = (lines.iter().map(widget::line_width).max().unwrap_or(0) as u16).min(area.width.saturating_sub(2));
    let left = area.x + area.width.saturating_sub(wide) / 2;
    let top = area.y + area.height.saturating_sub(lines.len() as u16) / 2;
    let room = Rect { x: left, width: area.right().saturating_sub(left), ..area };
    for (y, line) in (top..area.bottom()).zip(&lines) {
        widget::line(buf, room, y, line);
    }
}

fn plain(s: impl Into<String>, style: Style) -> Line<'static> {
    Line::from(Span::styled(s.into(), style))
}

fn no_cluster(model: &Model, look: Look<'_>) -> Vec<Line<'static>> {
    let t = look.theme;
    let key = |k: &'static str, what: &'static str, on: bool| {
        let (a, b) = if on { (t.accent, t.text) } else { (t.dim, t.dim) };
        Line::from(vec![Span::styled(format!("   {k}   "), a), Span::styled(what, b)])
    };
    let mut out = vec![plain("No cluster is known here.", t.title), Line::default()];
    match &model.demo {
        Demo::Starting(steps) => {
            out.push(plain("Starting a demo cluster: 3 masters and 3 cache nodes on this machine", t.info));
            out.push(Line::default());
            for (i, step) in steps.iter().enumerate() {
                let current = i + 1 == steps.len();
                let sign = if current { look.glyph.stale } else { look.glyph.done };
                let style = if current { t.text } else { t.dim };
                out.push(plain(format!("   {sign} {step}"), style));
            }
            return out;
        }
        Demo::Failed(why) => {
            out.push(plain(format!("{} The demo did not start: {why}", look.glyph.lost), t.bad));
            out.push(Line::default());
        }
        Demo::Idle => {}
    }
    out.extend([
        key("u", "start a local demo: 3 masters and 3 cache nodes on this machine", model.setup.can_start_demo),
        key("q", "quit", true),
        Line::default(),
        plain("The same from a shell:", t.dim),
        plain("   cachectl up --tui                          start a local cluster", t.dim),
        plain("   cachectl tui --masters-addr HOST:PORT,...  watch one elsewhere", t.dim),
    ]);
    out
}

fn connecting(model: &Model, look: Look<'_>) -> Vec<Line<'static>> {
    let t = look.theme;
    let name = model.cluster_name();
    let name = if name.is_empty() { "the cluster".to_owned() } else { name };
    let mut out = vec![plain(format!("Connecting to {name}"), t.title), Line::default()];
    let link = &model.link;
    let id_width = link.masters.iter().filter_map(|m| m.id.as_ref()).map(|id| width(id) + 1).max().unwrap_or(0);
    let addr_width = link.masters.iter().map(|m| width(&m.addr)).max().unwrap_or(0).min(30);
    for KnownMaster { id, addr } in &link.masters {
        let (sign, style, says) = if link.connected.as_ref() == Some(addr) {
            let says = if link.no_leader { "connected; no master leads yet" } else { "connected; waiting for a view" };
            (look.glyph.live, t.ok, says.to_owned())
        } else {
            match link.failed.get(addr) {
                Some(f) => {
                    let why = fit(&f.why, 30, look.glyph.more);
                    let times = if f.times > 1 { format!(", {} times", f.times) } else { String::new() };
                    (look.glyph.lost, t.warn, format!("{why}{times}"))
                }
                None => (look.glyph.stale, t.info, "trying".to_owned()),
            }
        };
        out.push(Line::from(vec![
            Span::styled(format!("   {sign} "), style),
            Span::styled(format!("{:<idw$}", id.as_deref().unwrap_or(""), idw = id_width), t.title),
            Span::styled(format!("{:<addr_width$}  ", fit(addr, addr_width, look.glyph.more)), t.text),
            Span::styled(says, t.dim),
        ]));
    }
    if let Some(wait) = link.next_try_in_ms(model.now.mono_ms).filter(|_| link.connected.is_none()) {
        let next = if wait == 0 { "trying now".to_owned() } else { format!("next try {}", number::span(wait)) };
        out.extend([Line::default(), plain(format!("     {next}"), t.text)]);
    }
    if let Some(refused) = &link.refused {
        out.push(plain(format!("   ! {refused}"), t.warn));
    }
    if link.connected.is_none() && !link.failed.is_empty() && model.now.mono_ms > PATIENCE_MS {
        out.extend([
            Line::default(),
            plain("Nothing answers yet. It is tried for as long as this screen is open.", t.text),
            plain("Is the cluster running?", t.dim),
            plain("     cachectl ls    lists the local clusters", t.dim),
            plain("     cachectl up    starts one, or what is missing of it", t.dim),
        ]);
    }
    out
}
