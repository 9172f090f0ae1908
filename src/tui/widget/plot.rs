//! A chart over time: values rise from a zero line, the newest at the right; holes stay holes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::dots::Dots;
use super::{put, text};
use crate::tui::escape::width;
use crate::tui::theme::Look;

/// One line of a chart.
#[derive(Debug)]
pub struct Line<'a> {
    /// Oldest first.
    pub values: &'a [Option<f64>],
    /// How it is drawn.
    pub style: Style,
    /// Everything below it is filled.
    pub filled: bool,
    /// Every third dot left out, so that it differs without colour.
    pub dotted: bool,
}

/// Cells kept for the numbers at the left.
const LABELS: u16 = 7;

/// Draws lines over one scale from 0 to a round number above the highest; `label` writes that number.
pub fn plot(buf: &mut Buffer, area: Rect, look: Look<'_>, lines: &[Line<'_>], label: impl Fn(f64) -> String) {
    if area.height < 3 || area.width < LABELS + 8 {
        return;
    }
    let empty = lines.iter().all(|l| l.values.iter().all(Option::is_none));
    let highest = lines.iter().flat_map(|l| l.values.iter().flatten()).copied().fold(0.0, f64::max);
    let top = ceiling(highest);
    let chart = Rect { x: area.x + LABELS, width: area.width - LABELS, height: area.height - 1, ..area };
    let mut marks = vec![(0, top), (chart.height - 1, 0.0)];
    if chart.height >= 5 && chart.height % 2 == 1 {
        marks.push((chart.height / 2, top / 2.0));
    }
    for (dy, value) in marks.into_iter().filter(|_| !empty) {
        let s = if value == 0.0 { "0".to_owned() } else { label(value) };
        let x = area.x + LABELS - 1 - (width(&s) as u16).min(LABELS - 1);
        text(buf, x, area.y + dy, LABELS - 1, &s, look.theme.dim, look.glyph.more);
    }
    let axis = area.bottom() - 1;
    text(buf, chart.x, axis, 3, "-2m", look.theme.dim, look.glyph.more);
    if chart.width >= 24 {
        text(buf, chart.x + chart.width / 2 - 1, axis, 3, "-1m", look.theme.dim, look.glyph.more);
    }
    text(buf, chart.right() - 3, axis, 3, "now", look.theme.dim, look.glyph.more);
    if empty {
        let s = "no traffic measured yet";
        let x = chart.x + chart.width.saturating_sub(s.len() as u16) / 2;
        text(buf, x, chart.y + chart.height / 2, chart.right() - x, s, look.theme.dim, look.glyph.more);
    } else if look.glyph.ascii {
        in_ascii(buf, chart, lines, top);
    } else {
        in_dots(buf, chart, lines, top);
    }
}

fn in_dots(buf: &mut Buffer, chart: Rect, lines: &[Line<'_>], top: f64) {
    let mut dots = Dots::new(chart);
    let (w, h) = (usize::from(dots.width()), i32::from(dots.height()));
    for l in lines {
        let mut before: Option<i32> = None;
        for x in 0..w {
            let Some(value) = sample(l.values, x, w) else {
                before = None;
                continue;
            };
            let y = h - 1 - ((value / top).clamp(0.0, 1.0) * f64::from(h - 1)).round() as i32;
            let (from, to) = if l.filled { (y, h - 1) } else { span(before, y) };
            for y in from..=to {
                if !l.dotted || x % 3 < 2 {
                    dots.set(x as i32, y, l.style);
                }
            }
            before = Some(y);
        }
    }
    dots.draw(buf);
}

/// From the point before to this one, so that a jump is a line and not two islands.
fn span(before: Option<i32>, y: i32) -> (i32, i32) {
    match before {
        Some(b) if b < y => (b + 1, y),
        Some(b) if b > y => (y, b - 1),
        _ => (y, y),
    }
}

fn in_ascii(buf: &mut Buffer, chart: Rect, lines: &[Line<'_>], top: f64) {
    for l in lines {
        for dx in 0..chart.width {
            let Some(value) = sample(l.values, usize::from(dx), usize::from(chart.width)) else { continue };
            let up = ((value / top).clamp(0.0, 1.0) * f64::from(chart.height - 1)).round() as u16;
            let y = chart.bottom() - 1 - up;
            if l.filled {
                for y in y..chart.bottom() {
                    put(buf, chart.x + dx, y, if y == chart.bottom() - 1 - up { '*' } else { ':' }, l.style);
                }
            } else {
                put(buf, chart.x + dx, y, if l.dotted { '.' } else { '*' }, l.style);
            }
        }
    }
}

/// The value at column `x` of `w`: the highest where several share a column, so that no peak is lost.
fn sample(values: &[Option<f64>], x: usize, w: usize) -> Option<f64> {
    let n = values.len();
    let from = x * n / w.max(1);
    let to = ((x + 1) * n / w.max(1)).max(from + 1).min(n);
    values.get(from..to)?.iter().flatten().copied().fold(None, |m, v| Some(m.map_or(v, |m: f64| m.max(v))))
}

/// The next of 1, 2, 5, 10, 20, 50 … above a value.
fn ceiling(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let scale = 10f64.powf(value.log10().floor());
    let digit = value / scale;
    let round = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].into_iter().find(|d| digit <= *d).unwrap_or(10.0);
    let top = round * scale;
    if top.is_finite() && top > 0.0 { top } else { value }
}

/// The least part of the highest value that counts as movement: less is noise and stays flat.
const MOVEMENT: f64 = 0.2;

/// The last `cells` values as one row of eight heights; holes are blank. It shows how values move, not how high they
/// are (that is written beside it): the base is not 0 unless they come near it.
pub fn spark(values: &[Option<f64>], cells: usize, look: Look<'_>) -> String {
    let tail = &values[values.len().saturating_sub(cells)..];
    let known = || tail.iter().flatten().copied();
    let max = known().fold(0.0, f64::max);
    let span = (max - known().fold(max, f64::min)).max(max * MOVEMENT);
    let base = (max - 2.0 * span).max(0.0);
    let mut out = " ".repeat(cells.saturating_sub(tail.len()));
    out.extend(tail.iter().map(|v| v.map_or(' ', |v| look.glyph.level(v - base, max - base))));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::glyph::UNICODE;
    use crate::tui::theme::{Theme, ThemeName};

    #[test]
    fn scales_end_on_round_numbers() {
        for (v, top) in [(0.0, 1.0), (9_100.0, 10_000.0), (42_400.0, 50_000.0), (1.9, 2.0), (0.07, 0.08)] {
            assert!((ceiling(v) - top).abs() < top * 1e-9, "{v}");
        }
        for v in [f64::NAN, f64::INFINITY, -1.0, f64::MAX, f64::MIN_POSITIVE, 5e-324] {
            assert!(ceiling(v) > 0.0 && ceiling(v).is_finite(), "{v}");
        }
    }

    #[test]
    fn peaks_survive_narrow_charts() {
        let mut values = vec![Some(1.0); 120];
        values[61] = Some(9.0);
        values[0] = None;
        let drawn: Vec<_> = (0..40).map(|x| sample(&values, x, 40)).collect();
        assert!(drawn.contains(&Some(9.0)));
        assert_eq!(sample(&values, 0, 240), None, "a hole stays one on a wide chart");
        assert_eq!(sample(&[], 0, 10), None);
    }

    #[test]
    fn a_spark_is_as_wide_as_asked() {
        let theme = Theme::of(ThemeName::Dark);
        let look = Look { theme: &theme, glyph: &UNICODE };
        assert_eq!(spark(&[None, Some(0.0), Some(4.0), Some(8.0)], 6, look), "   ▁▅█");
        assert_eq!(spark(&[Some(f64::MAX); 9], 3, look), "███");
        assert_eq!(spark(&[Some(100.0), Some(98.0), Some(80.0), Some(60.0)], 4, look), "██▆▅");
    }
}
