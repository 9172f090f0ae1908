//! A row of facts that gives up the least important ones before it cuts any.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{line, line_width};

/// The widest gap between two facts, cells: wider ones tear a row apart.
const GAP_MAX: u16 = 4;

/// One fact: `nodes 4/6 up`.
#[derive(Debug, Clone, Default)]
pub struct Field<'a> {
    spans: Line<'a>,
    rank: u8,
}

impl<'a> Field<'a> {
    /// An empty fact; the lower its rank, the longer it stays.
    pub fn new(rank: u8) -> Self {
        Self { spans: Line::default(), rank }
    }

    /// Adds a piece.
    pub fn then(mut self, text: impl Into<std::borrow::Cow<'a, str>>, style: Style) -> Self {
        self.spans.push_span(Span::styled(text, style));
        self
    }
}

/// Draws as many facts as fit, with at least two cells between them. Returns the cells used.
pub fn row(buf: &mut Buffer, area: Rect, y: u16, mut fields: Vec<Field<'_>>) -> u16 {
    fields.retain(|f| line_width(&f.spans) > 0);
    let width = |fields: &[Field<'_>]| {
        let text: usize = fields.iter().map(|f| line_width(&f.spans)).sum();
        text + fields.len().saturating_sub(1) * 2
    };
    while fields.len() > 1 && width(&fields) > usize::from(area.width) {
        // The last one of the worst rank goes first.
        let Some(worst) = (0..fields.len()).rev().max_by_key(|i| (fields[*i].rank, *i)) else { break };
        fields.remove(worst);
    }
    let spare = usize::from(area.width).saturating_sub(width(&fields));
    let gap = 2 + u16::try_from(spare / fields.len().max(1)).unwrap_or(0).min(GAP_MAX - 2);
    let mut x = area.x;
    for f in &fields {
        let room = Rect { x, width: area.right().saturating_sub(x), ..area };
        x = x.saturating_add(line(buf, room, y, &f.spans)).saturating_add(gap);
    }
    x.saturating_sub(gap).saturating_sub(area.x)
}
