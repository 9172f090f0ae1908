//! A picture of a screen without a terminal: as text, as ANSI, as SVG. For documents, bug reports and tests.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

use super::event::{LinkEvent, Msg, Now};
use super::model::{Model, Screen, Setup};
use super::screen;
use super::theme::ThemeName;
use super::update::update;
use crate::proto::status::WatchView;

/// Columns and rows at most: more than any screen has.
const SIZE_MAX: (u16, u16) = (400, 200);

/// How the picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Signs only.
    Text,
    /// With colours, for a terminal.
    Ansi,
    /// For a browser.
    Svg,
}

impl std::str::FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s {
            "text" => Format::Text,
            "ansi" => Format::Ansi,
            "svg" => Format::Svg,
            _ => return Err("formats are text, ansi and svg".to_owned()),
        })
    }
}

impl std::str::FromStr for Screen {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let names = Screen::ALL.map(|s| s.title().to_lowercase());
        let found = Screen::ALL.into_iter().zip(&names).find(|(_, name)| *name == s);
        found.map(|(screen, _)| screen).ok_or_else(|| format!("screens are {}", names.join(", ")))
    }
}

/// A screen drawn from one view, `size` in columns and rows.
pub fn snapshot(
    view: &WatchView,
    screen: Screen,
    size: (u16, u16),
    format: Format,
    theme: ThemeName,
    ascii: bool,
) -> String {
    let at = view.events.iter().map(|e| e.at_ms).max().unwrap_or(0);
    let events = [(Now { mono_ms: 0, wall_ms: at }, LinkEvent::View(Box::new(view.clone())))];
    snapshot_of(events, screen, size, format, theme, ascii)
}

/// A screen drawn after all that a link said, each with its time: as [`snapshot`], but with a past in the charts.
pub fn snapshot_of(
    events: impl IntoIterator<Item = (Now, LinkEvent)>,
    screen: Screen,
    size: (u16, u16),
    format: Format,
    theme: ThemeName,
    ascii: bool,
) -> String {
    let theme = theme.resolve(false, None);
    // A link to nowhere in particular: what the events name is learnt from them.
    let masters = vec![String::new()];
    let mut model = Model::new(Setup { masters, theme, ascii, read_only: true, ..Setup::default() });
    model.link.masters.clear();
    for (now, event) in events {
        update(&mut model, Msg::Tick(now));
        update(&mut model, Msg::Link(event));
    }
    model.screen = screen;
    model.size = (size.0.clamp(1, SIZE_MAX.0), size.1.clamp(1, SIZE_MAX.1));
    match format {
        Format::Text => to_text(&picture(&model)),
        Format::Ansi => to_ansi(&picture(&model)),
        Format::Svg => super::widget::svg::write(&picture(&model), theme == ThemeName::Light),
    }
}

/// The cells of a model's screen.
pub fn picture(model: &Model) -> Buffer {
    let mut buf = Buffer::empty(Rect::new(0, 0, model.size.0, model.size.1));
    let area = buf.area;
    screen::draw(model, &mut buf, area);
    buf
}

/// The cells of each row that start a sign, with their column.
pub(crate) fn rows(buf: &Buffer) -> impl Iterator<Item = Vec<(u16, &Cell)>> {
    buf.content.chunks(usize::from(buf.area.width.max(1))).map(|row| {
        let mut covered = 0;
        let mut out = Vec::with_capacity(row.len());
        for (x, cell) in row.iter().enumerate() {
            if covered > 0 {
                covered -= 1;
                continue;
            }
            covered = cell.symbol().width().saturating_sub(1);
            out.push((x as u16, cell));
        }
        out
    })
}

/// Signs only, blanks at line ends cut.
pub fn to_text(buf: &Buffer) -> String {
    let mut out = String::new();
    for row in rows(buf) {
        let line: String = row.iter().map(|(_, c)| c.symbol()).collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// With SGR sequences, one run of equal style at a time.
pub fn to_ansi(buf: &Buffer) -> String {
    let mut out = String::new();
    for row in rows(buf) {
        let mut before = None;
        for (_, cell) in row {
            let style = (cell.fg, cell.bg, cell.modifier);
            if before != Some(style) {
                out.push_str("\x1b[0");
                sgr(&mut out, cell);
                out.push('m');
                before = Some(style);
            }
            out.push_str(cell.symbol());
        }
        out.push_str("\x1b[0m\n");
    }
    out
}

fn sgr(out: &mut String, cell: &Cell) {
    let modifiers = [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::UNDERLINED, 4), (Modifier::REVERSED, 7)];
    for (modifier, code) in modifiers {
        if cell.modifier.contains(modifier) {
            let _ = write!(out, ";{code}");
        }
    }
    for (color, code) in [(cell.fg, 38), (cell.bg, 48)] {
        if let Color::Indexed(n) = color {
            let _ = write!(out, ";{code};5;{n}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    fn take(format: Format) -> String {
        snapshot(&fixture::busy(), Screen::Overview, (120, 36), format, ThemeName::Dark, false)
    }

    #[test]
    fn all_formats_show_the_same_words() {
        let text = take(Format::Text);
        assert_eq!(text.lines().count(), 36);
        assert!(text.contains("n4 suspect"));
        let ansi = take(Format::Ansi);
        let mut plain = String::new();
        let mut in_escape = false;
        for c in ansi.chars() {
            match (in_escape, c) {
                (false, '\x1b') => in_escape = true,
                (true, 'm') => in_escape = false,
                (true, _) => {}
                (false, c) => plain.push(c),
            }
        }
        let trimmed: Vec<&str> = plain.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, text.lines().collect::<Vec<_>>());
    }

    #[test]
    fn an_svg_is_well_formed_whatever_the_names() {
        let svg = snapshot(&fixture::hostile(), Screen::Overview, (120, 36), Format::Svg, ThemeName::Dark, false);
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains('\x1b') && !svg.contains('\u{202e}'));
        let opened = svg.matches("<text").count();
        assert_eq!(opened, svg.matches("</text>").count());
        for (i, _) in svg.match_indices('&') {
            let entity = &svg[i..svg.len().min(i + 6)];
            assert!(["&amp;", "&lt;", "&gt;", "&quot;", "&#"].iter().any(|e| entity.starts_with(e)), "{entity}");
        }
    }

    #[test]
    fn names_of_screens_and_formats_are_those_of_the_flags() {
        assert_eq!("ring".parse::<Screen>(), Ok(Screen::Ring));
        assert!("nothing".parse::<Screen>().unwrap_err().contains("overview, ring"));
        assert_eq!("svg".parse::<Format>(), Ok(Format::Svg));
    }
}
