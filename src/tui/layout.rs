//! Where everything goes. Pure: the same function places what `view` draws and what a click hits.

use ratatui::layout::Rect;

use super::link::LinkState;
use super::model::{Model, Panel, Screen};

/// Below this many columns a message is all there is.
pub const WIDTH_MIN: u16 = 60;
/// Below this many rows likewise.
pub const HEIGHT_MIN: u16 = 16;
/// From here on panels stand side by side.
pub const WIDE: u16 = 100;
/// From this height on the footer has a line of its own for messages.
const ROOMY: u16 = 28;

/// Cells in a row of the slot map.
pub const MAP_COLUMNS: u16 = 32;
/// Rows of the slot map.
pub const MAP_ROWS: u16 = 8;
/// Columns of the slot map with its labels: number, gap, 4 groups of 8 with gaps.
pub const MAP_WIDTH: u16 = 5 + 1 + MAP_COLUMNS + 3;

/// The frame around every screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shell {
    /// Who, where, how current.
    pub header: Rect,
    /// Tabs and the clock.
    pub tabs: Rect,
    /// Trouble with the link; empty if none.
    pub banner: Rect,
    /// The screen.
    pub body: Rect,
    /// Key hints, or a prompt.
    pub hints: Rect,
    /// Messages; the same line as `hints` on small screens.
    pub message: Rect,
}

fn row(area: Rect, y: u16, height: u16) -> Rect {
    Rect { x: area.x, y: area.y.saturating_add(y), width: area.width, height: height.min(area.height) }
        .intersection(area)
}

/// Whether the area is large enough to draw in.
pub fn fits(area: Rect) -> bool {
    area.width >= WIDTH_MIN && area.height >= HEIGHT_MIN
}

/// How many lines the banner takes.
pub fn banner_lines(model: &Model) -> u16 {
    let trouble = match model.link_state() {
        LinkState::Lost => 2,
        _ => u16::from(model.link.refused.is_some() || model.frozen.is_some()),
    };
    trouble + u16::from(model.replay.is_some())
}

/// The frame.
pub fn shell(area: Rect, banner: u16) -> Shell {
    let footer = if area.height >= ROOMY { 2 } else { 1 };
    let body = area.height.saturating_sub(2 + banner + footer);
    Shell {
        header: row(area, 0, 1),
        tabs: row(area, 1, 1),
        banner: row(area, 2, banner),
        body: row(area, 2 + banner, body),
        hints: row(area, 2 + banner + body, 1),
        message: row(area, area.height.saturating_sub(1), 1),
    }
}

/// The Overview's panels; those that don't fit are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverviewAreas {
    /// The sums.
    pub cluster: Rect,
    /// The table.
    pub nodes: Rect,
    /// Commands a second over time.
    pub throughput: Rect,
    /// Latency over time.
    pub latency: Rect,
    /// Operations.
    pub operations: Rect,
    /// Events.
    pub events: Rect,
}

/// Places the Overview: `rows` nodes to show, `open` lines of operations that are not over.
pub fn overview(body: Rect, rows: usize, open: u16) -> OverviewAreas {
    let mut out = OverviewAreas::default();
    let wide = body.width >= WIDE;
    let cluster = 5.min(body.height);
    out.cluster = row(body, 0, cluster);
    let rest = body.height - cluster;
    // Least heights: below them a panel is left out rather than shown useless.
    let bottom_min = match (rest, wide || open == 0) {
        (0..11, _) => 0,
        (_, true) => 5,
        (_, false) => 5 + open.min(2),
    };
    let charts_min = if wide && rest >= 24 { 6 } else { 0 };
    let want = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(3);
    let nodes = want.clamp(5, (rest.saturating_sub(bottom_min + charts_min)).max(5)).min(rest);
    let spare = rest - nodes - (bottom_min + charts_min).min(rest - nodes);
    let charts = if charts_min > 0 { charts_min + (spare / 2).min(8) } else { 0 };
    let bottom = rest - nodes - charts;
    out.nodes = row(body, cluster, nodes);
    let (left, right) = split(row(body, cluster + nodes, charts));
    (out.throughput, out.latency) = (left, right);
    let bottom = row(body, cluster + nodes + charts, bottom);
    if bottom.height < 3 {
        // Not enough for a frame and a line: the nodes take it.
        out.nodes.height += bottom.height;
    } else if wide {
        // Sentences need more room than bars, most of all when there is no bar.
        let (part, whole) = if open == 0 { (3, 10) } else { (11, 25) };
        (out.operations, out.events) = split_at(bottom, u32::from(bottom.width) * part / whole);
    } else if open == 0 {
        out.events = bottom;
    } else {
        let ops = open.min(2.max(bottom.height.saturating_sub(7))) + 2;
        out.operations = row(bottom, 0, ops.min(bottom.height));
        out.events = row(bottom, ops, bottom.height.saturating_sub(ops));
        if out.events.height < 3 {
            out.operations = bottom;
            out.events = Rect::default();
        }
    }
    out
}

fn split(area: Rect) -> (Rect, Rect) {
    split_at(area, u32::from(area.width) / 2)
}

fn split_at(area: Rect, left: u32) -> (Rect, Rect) {
    if area.height == 0 {
        return Default::default();
    }
    let left = u16::try_from(left).unwrap_or(area.width).min(area.width);
    (Rect { width: left, ..area }, Rect { x: area.x + left, width: area.width - left, ..area })
}

/// The Ring's panels; those that don't fit are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingAreas {
    /// The circle.
    pub circle: Rect,
    /// The slot map.
    pub map: Rect,
    /// Who owns how much.
    pub owners: Rect,
    /// Operations.
    pub operations: Rect,
    /// The slot under the cursor, and what a death would do.
    pub detail: Rect,
}

/// Lines of detail with their frame.
const DETAIL: u16 = 5;
/// The map with its frame and padding.
const MAP_BOX: (u16, u16) = (MAP_WIDTH + 4, MAP_ROWS + 2);
/// The narrowest circle that still is one, columns with frame.
const CIRCLE_MIN: u16 = 30;

/// Places the Ring: `owners` rows in the list; without `circle` (ASCII) the map takes its place.
pub fn ring(body: Rect, owners: usize, circle: bool) -> RingAreas {
    let mut out = RingAreas::default();
    let detail = DETAIL.min(body.height.saturating_sub(MAP_BOX.1));
    let top = row(body, 0, body.height - detail);
    out.detail = row(body, top.height, detail);
    let want = u16::try_from(owners).unwrap_or(u16::MAX).saturating_add(3);
    if circle && body.width >= MAP_BOX.0 + CIRCLE_MIN && top.height >= MAP_BOX.1 + 4 {
        // A cell is twice as high as wide, so a circle is twice as many columns as rows; letters stand around it.
        let ideal = (top.height - 2).saturating_mul(2) + 8;
        let width = ideal.clamp(CIRCLE_MIN, body.width - MAP_BOX.0);
        let right = Rect { x: body.x + width, width: body.width - width, ..top };
        out.circle = Rect { width, ..top };
        let above = right.height - MAP_BOX.1;
        // A list of operations only where both it and the owners have room.
        let list = if above >= want.saturating_add(4) { want } else { above };
        out.owners = row(right, 0, list);
        out.map = row(right, list, MAP_BOX.1);
        out.operations = row(right, list + MAP_BOX.1, above - list);
        return out;
    }
    let map = Rect { width: MAP_BOX.0.min(top.width), height: MAP_BOX.1.min(top.height), ..top };
    out.map = map;
    out.owners = Rect { x: map.right(), width: top.width - map.width, ..map };
    let below = row(top, map.height, top.height - map.height);
    if below.height >= 3 {
        out.operations = below;
        // A long list of owners goes on beside the operations.
        if want > map.height && top.width > map.width + 10 {
            out.owners.height = want.min(top.height);
            out.operations.width = map.width;
        }
    } else {
        out.detail = Rect { y: below.y, height: below.height + detail, ..out.detail };
    }
    out
}

/// The panels of Migrations; those that don't fit are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MigrationsAreas {
    /// All operations.
    pub list: Rect,
    /// The selected one: how far, how fast, in which step.
    pub detail: Rect,
    /// Who gives what to whom.
    pub pairs: Rect,
    /// Who gives and who takes how much.
    pub donors: Rect,
}

/// Places Migrations: `operations` in the list.
pub fn migrations(body: Rect, operations: usize) -> MigrationsAreas {
    /// Lines of an operation's facts with their frame.
    const FACTS: u16 = 6;
    let want = u16::try_from(operations.max(1)).unwrap_or(u16::MAX).saturating_add(3);
    let list = want.clamp(5, (body.height / 3).max(5)).min(body.height);
    let rest = body.height - list;
    let detail = if rest < FACTS { 0 } else { FACTS };
    let below = row(body, list + detail, rest - detail);
    let (pairs, donors) = if below.height < 4 {
        (Rect::default(), Rect::default())
    } else {
        split_at(below, u32::from(below.width) * if below.width >= WIDE { 60 } else { 62 } / 100)
    };
    let list = if below.height < 4 { list + below.height } else { list };
    MigrationsAreas { list: row(body, 0, list), detail: row(body, list, detail), pairs, donors }
}

/// Places Masters: the table above, its height for `masters` rows, the timeline below.
pub fn masters(body: Rect, masters: usize) -> (Rect, Rect) {
    let want = u16::try_from(masters.max(1)).unwrap_or(u16::MAX).saturating_add(4);
    let top = want.min(body.height.saturating_sub(5)).max(5).min(body.height);
    (row(body, 0, top), row(body, top, body.height - top))
}

/// Places Keys: what is known of the key above, its value below.
pub fn keys(body: Rect) -> (Rect, Rect) {
    /// Lines about a key with their frame.
    const FACTS: u16 = 7;
    let top = FACTS.min(body.height);
    (row(body, 0, top), row(body, top, body.height - top))
}

/// What the mouse is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// A tab.
    Tab(Screen),
    /// A row of the nodes, counted from the first one drawn.
    Node(u16),
    /// A cell of the slot map.
    Cell(u16),
    /// An owner, by its place in the list.
    Owner(usize),
    /// A row of the list of this screen, counted from the first one drawn.
    Row(u16),
}

/// The inside of a panel. In ASCII a panel is a rule with a title, so its last row is inside.
pub fn inside(area: Rect, ascii: bool) -> Rect {
    let bottom = if ascii { 0 } else { 1 };
    if area.width < 4 || area.height < 2 + bottom {
        return Rect { width: 0, height: 0, ..area };
    }
    Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 1 - bottom }
}

/// Column of a map cell within the map's inside.
pub fn map_column(column: u16) -> u16 {
    6 + column + column / 8
}

/// What is at a place on the screen.
pub fn hit(model: &Model, x: u16, y: u16) -> Option<Hit> {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    if !fits(area) || model.shown().is_none() || model.overlay.is_some() || model.dialog.is_some() {
        return None;
    }
    let shell = shell(area, banner_lines(model));
    let at = ratatui::layout::Position { x, y };
    if shell.tabs.contains(at) {
        return super::chrome::tab_at(model, x - shell.tabs.x).map(Hit::Tab);
    }
    let ascii = model.setup.ascii;
    match model.screen {
        Screen::Overview => {
            let areas = overview(shell.body, model.rows().len(), open_lines(model));
            let inner = inside(areas.nodes, ascii);
            inner.contains(at).then(|| y.checked_sub(inner.y + 1)).flatten().map(Hit::Node)
        }
        Screen::Ring => {
            let areas = ring(shell.body, model.owners().len(), !ascii);
            let inner = inside(areas.map, ascii);
            if inner.contains(at) {
                let column = (0..MAP_COLUMNS).find(|c| map_column(*c) == x - inner.x)?;
                let line = (y - inner.y).min(MAP_ROWS - 1);
                return Some(Hit::Cell(line * MAP_COLUMNS + column));
            }
            let inner = inside(areas.owners, ascii);
            inner.contains(at).then(|| super::screen::ring::owner_at(model, inner, at)).flatten().map(Hit::Owner)
        }
        Screen::Migrations => {
            let list = inside(migrations(shell.body, model.listed_operations().len()).list, ascii);
            list.contains(at).then(|| y.checked_sub(list.y + 1)).flatten().map(Hit::Row)
        }
        Screen::Masters => {
            let list = inside(masters(shell.body, model.listed_masters().len()).0, ascii);
            list.contains(at).then(|| y.checked_sub(list.y + 1)).flatten().map(Hit::Row)
        }
        Screen::Events | Screen::Keys => None,
    }
}

/// Lines that the operations which are not over take.
pub fn open_lines(model: &Model) -> u16 {
    let lines = model.shown().map_or(0, |c| {
        let open = c.status.operations.iter().filter(|o| super::model::is_open(o));
        open.map(super::screen::operations::lines).sum()
    });
    lines.min(MAP_ROWS)
}

/// The panels of the current screen that have a place on it.
pub fn visible(model: &Model) -> Vec<Panel> {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    if !fits(area) || model.shown().is_none() {
        return model.screen.panels().to_vec();
    }
    let shell = shell(area, banner_lines(model));
    let overview = || overview(shell.body, model.rows().len(), open_lines(model));
    let ring = || ring(shell.body, model.owners().len(), !model.setup.ascii);
    let area_of = |panel: &Panel| match panel {
        Panel::Nodes => overview().nodes,
        Panel::Operations => overview().operations,
        Panel::Events => overview().events,
        Panel::Map => ring().map,
        Panel::Owners => ring().owners,
        Panel::OperationList => migrations(shell.body, model.listed_operations().len()).list,
        Panel::Pairs => migrations(shell.body, model.listed_operations().len()).pairs,
        Panel::MasterList => masters(shell.body, model.listed_masters().len()).0,
        Panel::Terms => masters(shell.body, model.listed_masters().len()).1,
        Panel::EventLog => shell.body,
        Panel::Value => keys(shell.body).1,
    };
    model.screen.panels().iter().copied().filter(|p| area_of(p).height > 0).collect()
}

/// The first row to draw so that `selected` of `rows` is among `height`.
pub fn scroll(selected: usize, rows: usize, height: usize) -> usize {
    if rows <= height || height == 0 { 0 } else { selected.saturating_sub(height - 1).min(rows - height) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disjoint(body: Rect, parts: &[Rect]) {
        for (i, a) in parts.iter().enumerate() {
            assert_eq!(a.intersection(body).area(), a.area(), "{a:?} leaves {body:?}");
            for b in &parts[i + 1..] {
                assert_eq!(a.intersection(*b).area(), 0, "{a:?} and {b:?} overlap");
            }
        }
    }

    #[test]
    fn panels_never_overlap_or_leave_the_body() {
        for w in (WIDTH_MIN..300).step_by(7) {
            for h in HEIGHT_MIN..100 {
                for n in [0, 1, 3, 6, 40, 1000] {
                    let s = shell(Rect::new(0, 0, w, h), (n % 3) as u16);
                    disjoint(Rect::new(0, 0, w, h), &[s.header, s.tabs, s.banner, s.body, s.hints]);
                    for open in [0, 1, 2, 3, 8] {
                        let o = overview(s.body, n, open);
                        disjoint(s.body, &[o.cluster, o.nodes, o.throughput, o.latency, o.operations, o.events]);
                        assert!(o.nodes.height >= 5);
                    }
                    for circle in [false, true] {
                        let r = ring(s.body, n, circle);
                        disjoint(s.body, &[r.circle, r.map, r.owners, r.operations, r.detail]);
                        let g = migrations(s.body, n);
                        disjoint(s.body, &[g.list, g.detail, g.pairs, g.donors]);
                        disjoint(s.body, &[masters(s.body, n).0, masters(s.body, n).1]);
                        disjoint(s.body, &[keys(s.body).0, keys(s.body).1]);
                        assert!(r.map.height == MAP_ROWS + 2 || h < HEIGHT_MIN + 3, "{w}x{h}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_selected_row_is_always_drawn() {
        for rows in 0..40 {
            for height in 1..20 {
                for selected in 0..rows {
                    let first = scroll(selected, rows, height);
                    assert!(first <= selected && selected < first + height);
                }
            }
        }
    }
}
