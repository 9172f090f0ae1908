//! Where words go: data on stdout, words on stderr, colour where it is wanted, nothing foreign unescaped.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::error::{CliError, Exit};
use crate::proto::error::Failure;

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts: one document a line.
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into a pipe.
    Always,
    /// Never.
    Never,
}

impl Color {
    fn on(self, terminal: bool) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                terminal
                    && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                    && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
            }
        }
    }
}

/// A meaning that may be coloured; the words alone must say it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

/// The two streams of a command and how to write on them.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// How data is printed.
    pub format: Format,
    /// No words but errors.
    pub quiet: bool,
    /// More words.
    pub verbose: bool,
    color_out: bool,
    color_err: bool,
}

impl Out {
    /// Looks at both streams once.
    pub fn new(format: Format, color: Color, quiet: bool, verbose: bool) -> Self {
        Self {
            format,
            quiet,
            verbose,
            color_out: color.on(io::stdout().is_terminal()),
            color_err: color.on(io::stderr().is_terminal()),
        }
    }

    /// Whether scripts read.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Bytes on stdout, as they are.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(CliError::Closed),
            Err(e) => Err(CliError::failed("STDOUT", format!("cannot write to stdout: {e}"))),
        }
    }

    /// A line of data.
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// A document of data on one line.
    pub fn document<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| CliError::failed("BUG", e.to_string()))?;
        self.line(&text)
    }

    /// Words on stderr; a closed stderr stops nobody.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Words that matter even to those who want quiet.
    pub fn warn(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{} {text}", self.paint_err(Tone::Warn, "warning:"));
    }

    /// The error a command ends with.
    pub fn failure(&self, exit: Exit, failure: &Failure) {
        let mut err = io::stderr().lock();
        if self.json() {
            #[derive(Serialize)]
            struct Doc<'a> {
                error: Body<'a>,
            }
            #[derive(Serialize)]
            struct Body<'a> {
                code: &'a str,
                message: &'a str,
                hint: &'a str,
            }
            let hint = failure.hint.as_deref().unwrap_or(default_hint(exit));
            let doc = Doc { error: Body { code: &failure.code, message: &failure.message, hint } };
            let _ = writeln!(err, "{}", serde_json::to_string(&doc).unwrap_or_default());
            return;
        }
        let _ = writeln!(err, "{} {}", self.paint_err(Tone::Bad, "error:"), escape_lines(&failure.message));
        let hint = failure.hint.as_deref().unwrap_or(default_hint(exit));
        let _ = writeln!(err, "{} {}", self.paint_err(Tone::Dim, "hint:"), escape_lines(hint));
    }

    /// Colours a word bound for stdout.
    pub fn paint<'a>(&self, tone: Tone, text: &'a str) -> Cow<'a, str> {
        paint(self.color_out, tone, text)
    }

    /// Colours a word bound for stderr.
    pub fn paint_err<'a>(&self, tone: Tone, text: &'a str) -> Cow<'a, str> {
        paint(self.color_err, tone, text)
    }

    /// Whether stdout takes colour.
    pub fn color_out(&self) -> bool {
        self.color_out
    }

    /// Whether stderr takes colour.
    pub fn color_err(&self) -> bool {
        self.color_err
    }
}

/// Every error says what to do next; this is for those that know nothing better.
fn default_hint(exit: Exit) -> &'static str {
    match exit {
        Exit::Usage => "see `cachectl --help`",
        Exit::TimedOut => "look at `cachectl status` and `cachectl logs`",
        _ => "`cachectl logs` and `cachectl status` may say more",
    }
}

fn paint(on: bool, tone: Tone, text: &str) -> Cow<'_, str> {
    if !on || text.is_empty() {
        return Cow::Borrowed(text);
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
}

/// Makes a text from outside harmless on one line of a terminal: controls, line ends, bidirectional and invisible marks are spelt out.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_but(text, &[])
}

/// Like [`escape`], for texts that may have several lines.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_but(text, &['\n', '\t'])
}

/// Bytes from outside as harmless text; what is not UTF-8 is spelt `\xHH`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&escape(chunk.valid()));
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}

fn escape_but<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    if !text.chars().any(|c| hostile(c) && !kept.contains(&c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !hostile(c) || kept.contains(&c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
        }
    }
    Cow::Owned(out)
}

/// Characters that move the cursor, change what others look like, or hide.
fn hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}' | '\u{00ad}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A table whose columns are as wide as their widest cell; two spaces between, no trailing blanks.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
    right: Vec<bool>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Table {
    /// Starts with a head; a title that begins with `>` is aligned right.
    pub fn new(head: &[&str]) -> Self {
        let right = head.iter().map(|h| h.starts_with('>')).collect();
        let cells =
            head.iter().map(|h| Cell { text: h.trim_start_matches('>').to_owned(), tone: Some(Tone::Dim) }).collect();
        Self { rows: vec![cells], right }
    }

    /// Adds a row; the cells are escaped here.
    pub fn row(&mut self, cells: &[(&str, Option<Tone>)]) {
        self.rows.push(cells.iter().map(|(t, tone)| Cell { text: escape(t).into_owned(), tone: *tone }).collect());
    }

    /// The lines, each indented by `indent`.
    pub fn render(&self, out: &Out, indent: &str) -> String {
        use unicode_width::UnicodeWidthStr;
        let columns = self.right.len();
        let width: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().filter_map(|r| r.get(c)).map(|x| x.text.width()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(indent);
            for (c, cell) in row.iter().enumerate().take(columns) {
                let pad = " ".repeat(width[c].saturating_sub(cell.text.width()));
                let painted = match cell.tone {
                    Some(tone) => out.paint(tone, &cell.text),
                    None => Cow::Borrowed(cell.text.as_str()),
                };
                if c > 0 {
                    line.push_str("  ");
                }
                if self.right[c] {
                    line.push_str(&pad);
                    line.push_str(&painted);
                } else {
                    line.push_str(&painted);
                    line.push_str(&pad);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_stays() {
        assert_eq!(escape("plain ä 漢"), "plain ä 漢");
        assert_eq!(escape("\u{1b}[2J\n\u{9b}x\u{202e}y\u{200b}"), "\\x1b[2J\\n\\x9bx\\u{202e}y\\u{200b}");
        assert_eq!(escape_bytes(b"a\xff\x00b"), "a\\xff\\x00b");
        assert_eq!(escape_lines("a\nb\x07"), "a\nb\\x07");
    }

    #[test]
    fn a_table_lines_up() {
        let out = Out::new(Format::Table, Color::Never, false, false);
        let mut t = Table::new(&["NAME", ">KEYS"]);
        t.row(&[("n1", None), ("7", None)]);
        t.row(&[("longer", Some(Tone::Bad)), ("12345", None)]);
        assert_eq!(t.render(&out, ""), "NAME     KEYS\nn1          7\nlonger  12345\n");
    }

    #[test]
    fn colour_never_wins_over_a_terminal() {
        assert!(!Color::Never.on(true));
        assert!(Color::Always.on(false));
        assert!(!Color::Auto.on(false));
    }
}
