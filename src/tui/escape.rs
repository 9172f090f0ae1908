//! Text from outside made safe to draw: no byte of it can steer the terminal, hide, or reorder what stands beside it.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// The longest text taken in, in characters: more than any screen shows in one line, so a hostile peer can't fill memory.
pub const TEXT_MAX: usize = 512;

/// Replaces everything that is not plainly visible by its escape: C0 and C1 controls, DEL, bidirectional overrides,
/// zero-width and other format characters, line separators, private use. In `ascii` all that is not ASCII goes too,
/// but for a few signs that have an obvious spelling. Cut after [`TEXT_MAX`] characters.
pub fn clean(text: &str, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_MAX));
    for (n, c) in text.chars().enumerate() {
        if n == TEXT_MAX {
            out.push_str("...");
            break;
        }
        match c {
            ' '..='~' => out.push(c),
            _ if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if ascii => match spelled(c) {
                Some(s) => out.push_str(s),
                None => out.extend(c.escape_unicode()),
            },
            _ if hidden(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

/// Whether a character takes no cell, reorders its neighbours or has no agreed look.
fn hidden(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fff0}'..='\u{fffb}' | '\u{feff}' | '\u{ad}' | '\u{3164}' | '\u{ffa0}' | '\u{115f}' | '\u{1160}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}')
        || UnicodeWidthChar::width(c).unwrap_or(0) == 0
}

/// How the signs that our own texts use are spelled in ASCII.
fn spelled(c: char) -> Option<&'static str> {
    Some(match c {
        '→' => "->",
        '←' => "<-",
        '…' => "...",
        '·' | '•' => "-",
        '–' | '—' => "-",
        '▸' => ">",
        '≤' => "<=",
        '≥' => ">=",
        '×' => "x",
        '‘' | '’' => "'",
        '“' | '”' => "\"",
        _ => return None,
    })
}

/// Cells that a text takes; never less than what a terminal uses for it.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| UnicodeWidthChar::width(c).unwrap_or(0)).sum()
}

/// Cuts a text to `cells`, the last of them `more` if something was cut off.
pub fn fit<'a>(text: &'a str, cells: usize, more: char) -> Cow<'a, str> {
    if width(text) <= cells {
        return Cow::Borrowed(text);
    }
    if cells == 0 {
        return Cow::Borrowed("");
    }
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        let w = UnicodeWidthChar::width(c).unwrap_or(0);
        if used + w > cells - 1 {
            break;
        }
        used += w;
        out.push(c);
    }
    out.push(more);
    Cow::Owned(out)
}

/// Breaks a text into lines of at most `cells`, at blanks where it can.
pub fn wrap(text: &str, cells: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let w = width(word);
        if used > 0 && used + 1 + w > cells {
            lines.push(String::new());
            used = 0;
        }
        let Some(line) = lines.last_mut() else { break };
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += w;
    }
    lines
}

/// Compares names as people count: `n2` before `n10`.
pub fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (n, m) = (digits(a), digits(b));
                // Longer after its leading zeros is greater; so a number of any length compares without overflow.
                let (p, q) = (strip_zeros(&a[..n]), strip_zeros(&b[..m]));
                match p.len().cmp(&q.len()).then_with(|| p.cmp(q)).then_with(|| n.cmp(&m)) {
                    Ordering::Equal => (a, b) = (&a[n..], &b[m..]),
                    other => return other,
                }
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (Some(x), Some(y)) => return x.cmp(y),
        }
    }
}

fn digits(s: &[u8]) -> usize {
    s.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn strip_zeros(s: &[u8]) -> &[u8] {
    let zeros = s.iter().take_while(|b| **b == b'0').count();
    &s[zeros.min(s.len().saturating_sub(1))..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    #[test]
    fn nothing_that_steers_a_terminal_survives() {
        for (bad, safe) in [
            ("a\x1b[2Jb", "a\\x1b[2Jb"),
            ("\x1b]52;c;AAAA\x07", "\\x1b]52;c;AAAA\\x07"),
            ("x\u{9b}31m", "x\\x9b31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{2066}b", "a\\u{2066}b"),
            ("a\u{200d}b", "a\\u{200d}b"),
            ("a\r\n\tb", "a\\x0d\\x0a\\x09b"),
            ("e\u{301}", "e\\u{301}"),
            ("\u{e0041}", "\\u{e0041}"),
            ("\u{2028}", "\\u{2028}"),
            ("\u{7f}", "\\x7f"),
        ] {
            assert_eq!(clean(bad, false), safe);
            assert!(clean(bad, true).bytes().all(|b| (0x20..0x7f).contains(&b)));
        }
        assert_eq!(clean("käse 日本 →", false), "käse 日本 →");
        assert_eq!(clean("n1→n2 ü", true), "n1->n2 \\u{fc}");
    }

    #[test]
    fn a_long_text_is_bounded() {
        let text = clean(&"x".repeat(100_000), false);
        assert_eq!(text.chars().count(), TEXT_MAX + 3);
    }

    #[test]
    fn cutting_counts_cells_not_characters() {
        assert_eq!(fit("hello", 5, '…'), "hello");
        assert_eq!(fit("hello", 4, '…'), "hel…");
        assert_eq!(fit("日本語", 4, '…'), "日…");
        assert_eq!(fit("日本語", 1, '…'), "…");
        assert_eq!(fit("日本語", 0, '…'), "");
    }

    #[test]
    fn lines_break_at_blanks() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one", 7), ["one"]);
        assert_eq!(wrap("", 7), [""]);
        assert_eq!(wrap("incomprehensible is long", 4), ["incomprehensible", "is", "long"]);
        assert_eq!(wrap("a b", 0), ["a", "b"]);
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["n10", "n2", "n1", "m1", "n", "n02", "n99999999999999999999999", "n1-a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["m1", "n", "n1", "n1-a", "n2", "n02", "n10", "n99999999999999999999999"]);
        assert_eq!(natural("a00", "a0"), Ordering::Greater);
    }
}
