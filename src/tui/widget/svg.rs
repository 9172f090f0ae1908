//! Cells as SVG. Lines, blocks and braille are drawn as shapes, so that frames close and dots align in every font.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::tui::snapshot::rows;

/// A cell's width and height, pixels, at [`FONT`]: twice as high as wide, like a terminal's.
const CELL: (f64, f64) = (8.4, 17.0);
/// Font size, pixels.
const FONT: f64 = 14.0;
/// From the top of a cell to the baseline, pixels.
const BASELINE: f64 = 13.0;
/// Space around the picture, pixels.
const PAD: f64 = 12.0;
/// Radius of a dot, pixels.
const DOT: f64 = 1.55;
/// Strokes of light and heavy lines, pixels.
const STROKE: (f64, f64) = (1.1, 2.4);

struct Paper {
    ink: &'static str,
    ground: &'static str,
}

const DARK: Paper = Paper { ink: "#d4d4d8", ground: "#16181d" };
const LIGHT: Paper = Paper { ink: "#24292f", ground: "#ffffff" };

/// Writes a buffer as one SVG document.
pub fn write(buf: &Buffer, light: bool) -> String {
    let paper = if light { LIGHT } else { DARK };
    let (w, h) = (f64::from(buf.area.width) * CELL.0 + 2.0 * PAD, f64::from(buf.area.height) * CELL.1 + 2.0 * PAD);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" viewBox=\"0 0 {w:.0} {h:.0}\" \
         font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\" font-size=\"{FONT}\" \
         xml:space=\"preserve\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{}\"/>\n",
        paper.ground
    );
    for (y, row) in rows(buf).enumerate() {
        let top = PAD + y as f64 * CELL.1;
        line(&mut out, &row, top, &paper);
    }
    out.push_str("</svg>\n");
    out
}

/// How a cell looks.
#[derive(Clone, PartialEq)]
struct Ink {
    fill: String,
    ground: Option<String>,
    bold: bool,
    dim: bool,
    underlined: bool,
}

fn ink(cell: &Cell, paper: &Paper) -> Ink {
    let mut fill = hex(cell.fg).unwrap_or_else(|| paper.ink.to_owned());
    let mut ground = hex(cell.bg);
    if cell.modifier.contains(Modifier::REVERSED) {
        let under = ground.unwrap_or_else(|| paper.ground.to_owned());
        ground = Some(std::mem::replace(&mut fill, under));
    }
    Ink {
        fill,
        ground,
        bold: cell.modifier.contains(Modifier::BOLD),
        dim: cell.modifier.contains(Modifier::DIM),
        underlined: cell.modifier.contains(Modifier::UNDERLINED),
    }
}

fn line(out: &mut String, row: &[(u16, &Cell)], top: f64, paper: &Paper) {
    let mut i = 0;
    while i < row.len() {
        let (x, cell) = row[i];
        let look = ink(cell, paper);
        let end = row[i..].iter().position(|(_, c)| ink(c, paper) != look).map_or(row.len(), |n| i + n);
        let run = &row[i..end];
        let left = PAD + f64::from(x) * CELL.0;
        let right = row.get(end).map_or(f64::from(x) + run.len() as f64, |(x, _)| f64::from(*x)) * CELL.0 + PAD;
        if let Some(ground) = &look.ground {
            let (w, h) = (right - left, CELL.1);
            let _ = writeln!(
                out,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{w:.1}\" height=\"{h}\" fill=\"{ground}\"/>"
            );
        }
        let mut shapes = Shapes::default();
        let mut words: Vec<(u16, &str)> = Vec::new();
        let mut at = 0;
        while let Some((x, cell)) = run.get(at) {
            let left = PAD + f64::from(*x) * CELL.0;
            // A rule or a bar is one shape, however long.
            let alike = run[at..].iter().take_while(|(_, c)| c.symbol() == cell.symbol()).count();
            let cells = if stretches(cell.symbol()) { alike } else { 1 };
            if !shape(&mut shapes, cell.symbol(), left, top, cells) && cell.symbol() != " " {
                words.push((*x, cell.symbol()));
            }
            at += cells;
        }
        let dim = if look.dim { " opacity=\"0.6\"" } else { "" };
        let fill = &look.fill;
        if !shapes.solid.is_empty() {
            let _ = writeln!(out, "<g fill=\"{fill}\" color=\"{fill}\"{dim}>{}</g>", shapes.solid);
        }
        if !shapes.dots.is_empty() {
            let width = 2.0 * DOT;
            let _ = writeln!(
                out,
                "<path d=\"{}\" stroke=\"{fill}\" stroke-width=\"{width}\" stroke-linecap=\"round\"{dim}/>",
                shapes.dots
            );
        }
        text(out, &words, top, &look, dim);
        i = end;
    }
}

/// Every sign gets its own place: a font that is wider than thought shifts nothing.
fn text(out: &mut String, words: &[(u16, &str)], top: f64, look: &Ink, dim: &str) {
    if words.is_empty() {
        return;
    }
    let mut places = String::new();
    let mut signs = String::new();
    for (x, sign) in words {
        let _ = write!(places, "{:.1} ", PAD + f64::from(*x) * CELL.0);
        // One place per character: only the first of a cluster counts.
        for c in sign.chars() {
            match c {
                '&' => signs.push_str("&amp;"),
                '<' => signs.push_str("&lt;"),
                '>' => signs.push_str("&gt;"),
                c => signs.push(c),
            }
        }
    }
    let bold = if look.bold { " font-weight=\"bold\"" } else { "" };
    let under = if look.underlined { " text-decoration=\"underline\"" } else { "" };
    let (y, fill) = (top + BASELINE, &look.fill);
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{y:.1}\" fill=\"{fill}\"{bold}{under}{dim}>{signs}</text>",
        places.trim_end()
    );
}

/// What is drawn in one colour.
#[derive(Default)]
struct Shapes {
    /// Elements.
    solid: String,
    /// Dots, as strokes without a length: the shortest way to write thousands.
    dots: String,
}

/// Whether several of a sign side by side look like one that is wider.
fn stretches(sign: &str) -> bool {
    matches!(sign.chars().next(), Some('─' | '━' | '▁'..='█'))
}

/// Draws a sign that is geometry rather than writing, `cells` of it as one if it stretches; false if it is writing.
fn shape(out: &mut Shapes, sign: &str, x: f64, y: f64, cells: usize) -> bool {
    let Some(c) = sign.chars().next() else { return false };
    let ((w, h), (thin, thick)) = (CELL, STROKE);
    let (mx, my) = (x + w / 2.0, y + h / 2.0);
    let long = w * cells as f64 + 0.1;
    let mut rect = |x: f64, y: f64, w: f64, h: f64| {
        let _ = write!(out.solid, "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{w:.2}\" height=\"{h:.2}\"/>");
    };
    match c {
        '─' => rect(x, my - thin / 2.0, long, thin),
        '━' => rect(x, my - thick / 2.0, long, thick),
        '┅' => (0..3).for_each(|i| rect(x + w * f64::from(i) / 3.0, my - thick / 2.0, w / 5.0, thick)),
        '│' => rect(mx - thin / 2.0, y, thin, h + 0.1),
        '╭' | '╮' | '╰' | '╯' => {
            let side = if matches!(c, '╭' | '╰') { x + w } else { x };
            let end = if matches!(c, '╭' | '╮') { y + h } else { y };
            let _ = write!(
                out.solid,
                "<path d=\"M{side:.2} {my:.2}Q{mx:.2} {my:.2} {mx:.2} {end:.2}\" fill=\"none\" \
                 stroke=\"currentColor\" stroke-width=\"{thin}\"/>"
            );
            return true;
        }
        '▁'..='█' => {
            let part = f64::from(c as u32 - '▁' as u32 + 1) / 8.0 * h;
            rect(x, y + h - part, long, part);
        }
        '\u{2800}'..='\u{28ff}' => {
            let bits = c as u32 - 0x2800;
            // Dot numbers of the braille block: column by column, the lowest row last.
            const PLACE: [(f64, f64); 8] =
                [(0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (0.0, 3.0), (1.0, 3.0)];
            for (_, (dx, dy)) in PLACE.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1) {
                let (cx, cy) = (x + w * (0.25 + 0.5 * dx), y + h * (0.125 + 0.25 * dy));
                let _ = write!(out.dots, "M{cx:.1} {cy:.1}h0");
            }
        }
        _ => return false,
    }
    true
}

/// A colour of the 256 as `#rrggbb`; none for the terminal's own.
fn hex(color: Color) -> Option<String> {
    /// The first sixteen have no fixed values; these are common ones.
    const BASIC: [u32; 16] = [
        0x000000, 0xcd3131, 0x0dbc79, 0xe5e510, 0x2472c8, 0xbc3fbc, 0x11a8cd, 0xe5e5e5, 0x666666, 0xf14c4c, 0x23d18b,
        0xf5f543, 0x3b8eea, 0xd670d6, 0x29b8db, 0xffffff,
    ];
    let rgb = match color {
        Color::Indexed(n @ 0..16) => BASIC[usize::from(n)],
        Color::Indexed(n @ 16..232) => {
            let level = |v: u8| if v == 0 { 0 } else { 55 + 40 * u32::from(v) };
            let n = n - 16;
            level(n / 36) << 16 | level(n / 6 % 6) << 8 | level(n % 6)
        }
        Color::Indexed(n) => (8 + 10 * u32::from(n - 232)) * 0x01_01_01,
        _ => return None,
    };
    Some(format!("#{rgb:06x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_is_that_of_xterm() {
        for (n, text) in [(16, "#000000"), (75, "#5fafff"), (203, "#ff5f5f"), (231, "#ffffff"), (232, "#080808")] {
            assert_eq!(hex(Color::Indexed(n)).as_deref(), Some(text));
        }
        assert_eq!(hex(Color::Reset), None);
    }
}
