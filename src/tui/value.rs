//! A value as lines that are safe to draw: as text, as JSON, or as bytes in hex. Whatever a client stored in it.

use serde::de::IgnoredAny;

use super::escape::{clean, width};

/// Lines made of one value: more than anyone scrolls through.
const LINES_MAX: usize = 5_000;
/// Bytes in one line of hex.
const HEX_ROW: usize = 16;
/// Deeper JSON is indented no further.
const INDENT_MAX: usize = 40;

/// How a value is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValueView {
    /// As JSON if it is JSON, as text if it is text, else in hex.
    #[default]
    Auto,
    /// As text, what is none of it escaped.
    Text,
    /// Indented, if it is JSON.
    Json,
    /// Offsets, bytes, and what of them is ASCII.
    Hex,
}

impl ValueView {
    /// What `v` switches to.
    pub fn next(self) -> Self {
        match self {
            ValueView::Auto => ValueView::Text,
            ValueView::Text => ValueView::Json,
            ValueView::Json => ValueView::Hex,
            ValueView::Hex => ValueView::Auto,
        }
    }
}

/// What [`lines`] made of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// `text`, `JSON` or `hex`; with the reason where it is not what was asked for.
    pub what: &'static str,
    /// At most [`LINES_MAX`].
    pub lines: Vec<String>,
}

/// The lines of a value, each at most `cells` wide. `whole` is false when only the value's beginning is here.
pub fn lines(value: &[u8], whole: bool, view: ValueView, cells: usize, ascii: bool) -> Drawn {
    let cells = cells.max(8);
    let is_json = || whole && matches!(value.first(), Some(b'{' | b'[')) && parses(value);
    let is_text = || {
        let text = match std::str::from_utf8(value) {
            Ok(_) => true,
            // The end of a beginning may be half a character.
            Err(e) => !whole && e.error_len().is_none(),
        };
        text && !value.iter().any(|b| *b < b' ' && !matches!(b, b'\n' | b'\t' | b'\r'))
    };
    match view {
        ValueView::Auto if is_json() => Drawn { what: "JSON", lines: json(value, cells, ascii) },
        ValueView::Auto if is_text() => Drawn { what: "text", lines: text(value, cells, ascii) },
        ValueView::Auto | ValueView::Hex => Drawn { what: "hex", lines: hex(value, cells) },
        ValueView::Json if whole && parses(value) => Drawn { what: "JSON", lines: json(value, cells, ascii) },
        ValueView::Json => Drawn { what: "text (not JSON)", lines: text(value, cells, ascii) },
        ValueView::Text => Drawn { what: "text", lines: text(value, cells, ascii) },
    }
}

fn parses(value: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(value).is_ok()
}

fn text(value: &[u8], cells: usize, ascii: bool) -> Vec<String> {
    let mut out = Vec::new();
    for line in value.split(|b| *b == b'\n') {
        if out.len() >= LINES_MAX {
            break;
        }
        let mut current = String::new();
        let mut used = 0;
        let mut piece = |piece: &str, out: &mut Vec<String>| {
            let w = width(piece);
            if used + w > cells && used > 0 {
                out.push(std::mem::take(&mut current));
                used = 0;
            }
            current.push_str(piece);
            used += w;
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        for chunk in line.utf8_chunks() {
            for c in chunk.valid().chars() {
                if out.len() >= LINES_MAX {
                    break;
                }
                match c {
                    '\t' => piece("    ", &mut out),
                    c => piece(&clean(c.encode_utf8(&mut [0; 4]), ascii), &mut out),
                }
            }
            for b in chunk.invalid() {
                piece(&format!("\\x{b:02x}"), &mut out);
            }
        }
        out.push(current);
    }
    out.truncate(LINES_MAX);
    out
}

/// Indents JSON that is known to parse, without reading it into numbers and maps: digits and order stay as they are.
fn json(value: &[u8], cells: usize, ascii: bool) -> Vec<String> {
    let mut out = Vec::new();
    let mut depth = 0usize;
    let (mut in_string, mut escaped) = (false, false);
    let mut bytes = value.iter().copied().peekable();
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * depth.min(INDENT_MAX)));
    };
    while let Some(b) = bytes.next() {
        if in_string {
            out.push(b);
            in_string = escaped || b != b'"';
            escaped = !escaped && b == b'\\';
            continue;
        }
        match b {
            b'"' => {
                in_string = true;
                out.push(b);
            }
            b'{' | b'[' => {
                out.push(b);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                if let Some(close) = bytes.next_if(|c| matches!(c, b'}' | b']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(b);
            }
            b',' => {
                out.push(b);
                newline(&mut out, depth);
            }
            b':' => out.extend(b": "),
            b if b.is_ascii_whitespace() => {}
            b => out.push(b),
        }
    }
    text(&out, cells, ascii)
}

fn hex(value: &[u8], cells: usize) -> Vec<String> {
    // Offset, two gaps, three cells a byte and one for its sign.
    let row = if cells >= 8 + 2 + 4 * HEX_ROW + 2 { HEX_ROW } else { HEX_ROW / 2 };
    let mut out = Vec::new();
    for (i, bytes) in value.chunks(row).take(LINES_MAX).enumerate() {
        let mut line = format!("{:08x}  ", i * row);
        for b in bytes {
            line += &format!("{b:02x} ");
        }
        line += &"   ".repeat(row - bytes.len());
        line.push(' ');
        line.extend(bytes.iter().map(|b| if (b' '..=b'~').contains(b) { char::from(*b) } else { '.' }));
        out.push(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &[u8], view: ValueView) -> Drawn {
        lines(value, true, view, 80, false)
    }

    #[test]
    fn a_value_is_drawn_as_what_it_is() {
        assert_eq!(
            of(b"hello\nworld", ValueView::Auto),
            Drawn { what: "text", lines: vec!["hello".into(), "world".into()] }
        );
        let d = of(br#"{"a":[1,2e400,{}],"b":"x:{,\"}"}"#, ValueView::Auto);
        assert_eq!(d.what, "JSON");
        assert_eq!(
            d.lines,
            ["{", "  \"a\": [", "    1,", "    2e400,", "    {}", "  ],", "  \"b\": \"x:{,\\\"}\"", "}"]
        );
        let d = of(b"\x00\x01abc\xff", ValueView::Auto);
        assert_eq!(d.what, "hex");
        assert!(d.lines[0].starts_with("00000000  00 01 61 62 63 ff ") && d.lines[0].ends_with("..abc."));
        assert_eq!(of(b"12", ValueView::Json).what, "JSON");
        assert_eq!(of(b"{oops", ValueView::Json).what, "text (not JSON)");
        assert_eq!(lines("ä".as_bytes().split_last().unwrap().1, false, ValueView::Auto, 80, false).what, "text");
    }

    #[test]
    fn nothing_in_a_value_steers_the_terminal() {
        for value in [&b"\x1b]52;c;AA\x07\x9b2J\xe2\x80\xae\r\x08"[..], "{\"\u{202e}\u{200b}\":1}".as_bytes()] {
            for view in [ValueView::Auto, ValueView::Text, ValueView::Json, ValueView::Hex] {
                for ascii in [false, true] {
                    for line in lines(value, true, view, 40, ascii).lines {
                        assert_eq!(clean(&line, ascii), line);
                    }
                }
            }
        }
    }

    #[test]
    fn long_values_are_bounded_and_broken_into_lines() {
        let d = of("日".repeat(100).as_bytes(), ValueView::Text);
        assert!(d.lines.iter().all(|l| width(l) <= 80) && d.lines.len() == 3);
        assert_eq!(of(&b"\n".repeat(100_000), ValueView::Text).lines.len(), LINES_MAX);
        assert_eq!(of(&vec![0; 1 << 20], ValueView::Hex).lines.len(), LINES_MAX);
        assert_eq!(of(b"", ValueView::Text).lines, [""]);
    }
}
