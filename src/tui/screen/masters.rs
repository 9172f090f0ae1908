//! Masters: who they are, who leads, who lags, and every term with the reason for its end.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::proto::status::MasterStatus;
use crate::tui::cluster::Cluster;
use crate::tui::escape::{fit, width, wrap};
use crate::tui::layout;
use crate::tui::model::{Model, Panel};
use crate::tui::number;
use crate::tui::terms::terms;
use crate::tui::theme::Look;
use crate::tui::widget::{self, panel};

/// Draws the screen.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    let Some(cluster) = model.shown() else { return };
    let masters = model.listed_masters();
    let (top, bottom) = layout::masters(area, masters.len());
    list(model, cluster, buf, top, look, &masters);
    timeline(model, cluster, buf, bottom, look);
}

/// How far a master's log is behind the leader's, entries; none for the leader and where nobody leads.
pub fn lag(cluster: &Cluster, m: &MasterStatus) -> Option<u64> {
    let leader = cluster.status.leader.as_ref().filter(|l| **l != m.id)?;
    let leader = cluster.status.masters.iter().find(|x| &x.id == leader)?;
    Some(leader.last_log.saturating_sub(m.last_log))
}

/// When a master was last alive, in words.
fn last_seen(model: &Model, cluster: &Cluster, m: &MasterStatus) -> String {
    if m.alive {
        return "now".to_owned();
    }
    match cluster.masters_seen.get(&m.id) {
        Some(at) => format!("{} ago", number::span(model.shown_now().mono_ms.saturating_sub(*at))),
        None => "not yet".to_owned(),
    }
}

fn list(model: &Model, c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>, masters: &[&MasterStatus]) {
    let t = look.theme;
    let all = c.status.masters.len();
    let alive = c.status.masters.iter().filter(|m| m.alive).count();
    let need = all / 2 + 1;
    let (words, style) = match (alive >= need, all) {
        (true, 1) => ("a single master: when it is away, nothing can be changed".to_owned(), t.dim),
        (true, _) => (format!("{alive} of {all} alive, {need} needed to decide"), t.dim),
        (false, _) => (format!("{alive} of {all} alive, {need} needed: nothing can be changed"), t.bad),
    };
    let title = Line::from(Span::styled("Masters", t.title));
    let note = Line::from(Span::styled(words, style));
    let inner = panel::panel(buf, area, look, model.panel() == Panel::MasterList, title, note);
    let name = masters.iter().map(|m| width(&m.id)).max().unwrap_or(0).clamp(6, 16);
    let addr = masters.iter().map(|m| width(&m.addr)).max().unwrap_or(0).clamp(9, 24);
    // Names and addresses are worth more than room for logs of a billion entries.
    let roomy = usize::from(inner.width) >= name + addr + 58;
    let (log, behind) = if roomy { (9, 6) } else { (7, 4) };
    let head = format!(
        "  {:<name$}  {:<addr$}  {:<13}  {:>log$}  {:>log$}  {:>behind$}  LAST SEEN",
        "MASTER", "ADDR", "ROLE", "LOG", "APPLIED", "LAG"
    );
    widget::text(buf, inner.x, inner.y, inner.width, &head, t.dim, look.glyph.more);
    let at = model.selected_master(masters);
    let first = layout::scroll(at, masters.len(), usize::from(inner.height.saturating_sub(2)));
    let last_row = inner.bottom().saturating_sub(1);
    for (y, (i, m)) in (inner.y + 1..last_row).zip(masters.iter().enumerate().skip(first)) {
        let mark = if i == at { look.glyph.selected } else { ' ' };
        let pad = |s: &str, w: usize| {
            let s = fit(s, w, look.glyph.more).into_owned();
            let blank = " ".repeat(w.saturating_sub(width(&s)));
            format!("{s}{blank}")
        };
        let (sign, role) = match (m.role.as_str(), m.alive) {
            ("leader", true) => (look.glyph.live, t.ok),
            (_, true) => (look.glyph.stale, t.text),
            (_, false) => (look.glyph.lost, t.bad),
        };
        let lag = lag(c, m);
        let lag_style = if lag.is_some_and(|l| l > LAG_NORMAL) { t.warn } else { t.text };
        let lag = lag.map_or_else(|| number::UNKNOWN.to_owned(), number::exact);
        let seen = last_seen(model, c, m);
        let line = Line::from(vec![
            Span::styled(format!("{mark} "), t.accent),
            Span::styled(format!("{}  ", pad(&m.id, name)), if m.alive { t.title } else { t.dim }),
            Span::styled(format!("{}  ", pad(&m.addr, addr)), t.text),
            Span::styled(format!("{}  ", pad(&format!("{sign} {}", m.role), 13)), role),
            Span::styled(format!("{:>log$}  {:>log$}  ", number::exact(m.last_log), number::exact(m.applied)), t.text),
            Span::styled(format!("{lag:>behind$}  "), lag_style),
            Span::styled(seen, if m.alive { t.text } else { t.warn }),
        ]);
        widget::line(buf, inner, y, &line);
        if i == at {
            buf.set_style(Rect { y, height: 1, ..inner }, t.selection);
        }
    }
    if inner.height > 2 {
        let words = match inner.width {
            80.. => "LAG: log entries behind the leader   LAST SEEN: from here   s hands the lead over",
            _ => "LAG: log entries behind   LAST SEEN: from here   s hands the lead over",
        };
        widget::text(buf, inner.x, last_row, inner.width, words, t.dim, look.glyph.more);
    }
}

/// Entries that a follower may be behind without anybody wondering: what one batch in flight holds.
const LAG_NORMAL: u64 = 64;

fn timeline(model: &Model, c: &Cluster, buf: &mut Buffer, area: Rect, look: Look<'_>) {
    if area.height == 0 {
        return;
    }
    let t = look.theme;
    let terms = terms(&c.events);
    let note =
        if c.events_dropped > 0 || c.events_missed > 0 { "older ones are no longer known" } else { "newest first" };
    let title = Line::from(Span::styled("Who led when, and why it ended", t.title));
    let note = Line::from(Span::styled(note, t.dim));
    let inner = panel::panel(buf, area, look, model.panel() == Panel::Terms, title, note);
    if terms.is_empty() {
        let words = "no election is among the events that reached this screen";
        widget::text(buf, inner.x, inner.y, inner.width, words, t.dim, look.glyph.more);
        return;
    }
    let now = model.shown_now().wall_ms;
    let height = usize::from(inner.height.saturating_sub(1));
    let first = model.masters.terms_scroll.min(terms.len().saturating_sub(height));
    let head = format!("{:>6}  {:<8}  {:<8}  {:>6}  END", "TERM", "LEADER", "SINCE", "LASTED");
    widget::text(buf, inner.x, inner.y, inner.width, &head, t.dim, look.glyph.more);
    let mut y = inner.y + 1;
    for term in terms.iter().skip(first) {
        let number = term.number.map_or_else(|| number::UNKNOWN.to_owned(), number::exact);
        let lasted = term.to_ms.unwrap_or(now).saturating_sub(term.from_ms);
        let (why, style) = match (&term.why, &c.status.leader) {
            (Some(why), _) => (why.clone(), t.text),
            (None, Some(leader)) if *leader == term.leader => (format!("{} leads now", look.glyph.live), t.ok),
            (None, _) => ("no leader is known now".to_owned(), t.warn),
        };
        let leader = fit(&term.leader, 8, look.glyph.more).into_owned();
        let blank = " ".repeat(8usize.saturating_sub(width(&leader)));
        let since = number::clock(term.from_ms, model.setup.utc_offset_s);
        let facts = Line::from(vec![
            Span::styled(format!("{number:>6}  "), t.title),
            Span::styled(format!("{leader}{blank}  "), t.title),
            Span::styled(format!("{since:<8}  {:>6}  ", number::span(lasted)), t.text),
        ]);
        if y >= inner.bottom() {
            break;
        }
        let used = widget::line(buf, inner, y, &facts);
        // A reason is what one came for: it is never cut, it goes on below.
        for words in wrap(&why, usize::from(inner.width.saturating_sub(used))) {
            if y < inner.bottom() {
                widget::text(buf, inner.x + used, y, inner.width - used, &words, style, look.glyph.more);
            }
            y += 1;
        }
    }
}

/// A master as one line for the clipboard.
pub fn in_words(m: &MasterStatus) -> String {
    format!("{} {} {} log {} applied {}", m.id, m.addr, m.role, m.last_log, m.applied)
}
