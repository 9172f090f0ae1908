//! A dialog as a window: what happens, what is to fill in, the command line that does the same, and two buttons.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::{Dialog, Input, Kind, Stage, plan};
use crate::tui::chrome::Caret;
use crate::tui::escape::{clean, fit, width, wrap};
use crate::tui::model::Model;
use crate::tui::screen::window;
use crate::tui::theme::Look;
use crate::tui::widget::{self, panel};

/// Columns of the window.
const WIDTH: u16 = 76;
/// Below this many rows blank lines give way.
pub const TIGHT: u16 = 16;
/// Columns of labels.
const LABEL: usize = 20;

/// Draws it over the screen; returns where one types.
pub fn draw(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, d: &Dialog) -> Caret {
    if let Stage::Plan(p) = &d.stage {
        return plan::draw(model, buf, area, look, d, p);
    }
    let t = look.theme;
    let cells = usize::from(WIDTH.min(area.width).saturating_sub(4));
    let tail = tail(model, look, d, cells, area.height < TIGHT);
    let mut words: Vec<String> = d.words.iter().flat_map(|w| wrapped(&clean(w, model.setup.ascii), cells)).collect();
    let frame = if look.glyph.ascii { 1 } else { 2 };
    let fixed = d.inputs.len() + usize::from(!d.inputs.is_empty()) + tail.len() + frame;
    // On a small screen the buttons stay and the words give way.
    words.truncate(usize::from(area.height).saturating_sub(fixed + 1));
    let height = fixed + words.len() + usize::from(!words.is_empty());
    let rect = window(buf, area, WIDTH, height as u16);
    let title = Line::from(Span::styled(d.title(), t.title));
    let note = Line::from(Span::styled("Tab moves   Esc closes", t.dim));
    let inner = panel::panel(buf, rect, look, true, title, note);
    let mut y = inner.y;
    for line in &words {
        widget::text(buf, inner.x, y, inner.width, line, t.text, look.glyph.more);
        y += 1;
    }
    y += u16::from(!words.is_empty());
    let caret = inputs(model, buf, Rect { y, height: inner.bottom().saturating_sub(y), ..inner }, look, d);
    y += d.inputs.len() as u16 + u16::from(!d.inputs.is_empty());
    for line in &tail {
        widget::line(buf, inner, y, line);
        y += 1;
    }
    caret
}

/// Lines that are broken at blanks, but for those that are indented: commands must stay whole.
fn wrapped(text: &str, cells: usize) -> Vec<String> {
    if text.starts_with("  ") { vec![text.to_owned()] } else { wrap(text, cells) }
}

/// The lines to fill in, one below the other; returns where one types.
pub fn inputs(model: &Model, buf: &mut Buffer, area: Rect, look: Look<'_>, d: &Dialog) -> Caret {
    let t = look.theme;
    let mut caret = None;
    for (i, input) in d.inputs.iter().enumerate() {
        let y = area.y + i as u16;
        if y >= area.bottom() {
            break;
        }
        let here = d.focus == i;
        let mark = if here { look.glyph.selected } else { ' ' };
        let label_style = if here { t.accent } else { t.dim };
        let label = format!("{mark} {:<w$}", input.label, w = LABEL - 2);
        let used = widget::text(buf, area.x, y, area.width, &label, label_style, look.glyph.more);
        let room = area.width.saturating_sub(used);
        let (value, style, at_end) = shown(model, look, input, here, usize::from(room));
        let x = area.x + used;
        let end = x + widget::text(buf, x, y, room, &value, style, look.glyph.more);
        if here && at_end && end < area.right() {
            caret = Some((end, y));
        }
        let note = note(input);
        let room = area.right().saturating_sub(end + 3);
        if !note.is_empty() && width(&note) <= usize::from(room) {
            widget::text(buf, end + 3, y, room, &note, t.dim, look.glyph.more);
        }
    }
    caret
}

fn note(input: &Input) -> String {
    match &input.kind {
        Kind::Typed(word) => format!("to unlock: {word}"),
        _ => input.note.to_owned(),
    }
}

/// An input's value as drawn, and whether it is typed at its end.
fn shown(model: &Model, look: Look<'_>, input: &Input, here: bool, room: usize) -> (String, Style, bool) {
    let t = look.theme;
    let style = if here { t.title } else { t.text };
    let text = clean(&input.text, model.setup.ascii);
    match &input.kind {
        Kind::Toggle => ((if input.on() { "[x]" } else { "[ ]" }).to_owned(), style, false),
        Kind::Choice(of) if of.is_empty() => ("none".to_owned(), t.dim, false),
        Kind::Choice(of) if of.len() == 1 => (text, style, false),
        Kind::Choice(of) => {
            let at = of.iter().position(|o| *o == input.text).map_or(0, |i| i + 1);
            (format!("< {} >  {at} of {}", fit(&text, 24, look.glyph.more), of.len()), style, false)
        }
        Kind::Count => (format!("< {text} >"), style, false),
        Kind::Text | Kind::Typed(_) => {
            // A long text shows its end: that is where one types.
            let mut tail = text.as_str();
            while width(tail) + 1 > room.min(48) {
                let Some(c) = tail.chars().next() else { break };
                tail = &tail[c.len_utf8()..];
            }
            let done = matches!(&input.kind, Kind::Typed(word) if *word == input.text);
            (tail.to_owned(), if done { t.ok } else { style }, true)
        }
    }
}

/// What stands below: trouble, the twin, the buttons.
pub fn tail(model: &Model, look: Look<'_>, d: &Dialog, cells: usize, tight: bool) -> Vec<Line<'static>> {
    let t = look.theme;
    let mut out = Vec::new();
    if let Some(error) = &d.error {
        for line in
            wrap(&format!("{} {}", look.glyph.alert, clean(error, model.setup.ascii)), cells).into_iter().take(3)
        {
            out.push(Line::from(Span::styled(fit(&line, cells, look.glyph.more).into_owned(), t.warn)));
        }
        if !tight {
            out.push(Line::default());
        }
    }
    if d.can {
        let twin = clean(&d.twin(&model.setup.program, model.setup.local), model.setup.ascii);
        let label = "same as  ";
        let room = cells.saturating_sub(label.len());
        out.push(Line::from(vec![
            Span::styled(label, t.dim),
            Span::styled(fit(&twin, room, look.glyph.more).into_owned(), t.info),
        ]));
        if !tight {
            out.push(Line::default());
        }
    }
    out.push(buttons(look, d, cells));
    out
}

fn buttons(look: Look<'_>, d: &Dialog, cells: usize) -> Line<'static> {
    let t = look.theme;
    let button = |word: &str, here: bool, on: bool| {
        let style = match (here, on) {
            (true, _) => t.selection.patch(t.accent).add_modifier(Modifier::REVERSED),
            (false, true) => t.text,
            (false, false) => t.dim,
        };
        Span::styled(if here { format!("[ {word} ]") } else { format!("  {word}  ") }, style)
    };
    if !d.can {
        return Line::from(button("Close", true, true));
    }
    let locked = d.locked();
    let mut spans = vec![
        button("Cancel", d.focus == d.cancel(), true),
        Span::raw("   "),
        button(d.verb(), d.focus == d.go(), locked.is_none()),
    ];
    let note = match (&locked, d.focus < d.inputs.len()) {
        (Some(why), _) => why.clone(),
        (None, true) if d.stage == Stage::Form => "Enter shows the plan; nothing happens yet".to_owned(),
        (None, true) => "Enter goes on to the button".to_owned(),
        (None, false) => "y copies the command".to_owned(),
    };
    let used: usize = spans.iter().map(|s| width(&s.content)).sum();
    if used + 3 + width(&note) <= cells {
        spans.push(Span::styled(format!("   {note}"), t.dim));
    }
    Line::from(spans)
}
