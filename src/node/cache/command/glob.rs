//! Glob patterns of KEYS, SCAN MATCH, CONFIG GET and COMMAND LIST: `*`, `?`, `[a-z]`, `[^a]`, `\x`, byte by byte.
//!
//! One star is retried at a time (a later star makes earlier ones moot), so the work is at most pattern × text: a hostile
//! pattern can't stall a shard.

/// Whether `text` matches.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_by(pattern, text, false)
}

/// Whether `text` matches, ASCII letters of either case alike.
pub fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    matches_by(pattern, text, true)
}

fn matches_by(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    // A lone star matches everything; other patterns made of stars only don't match the empty text. So it is in Redis.
    if pattern == b"*" {
        return true;
    }
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            while pattern.get(p) == Some(&b'*') {
                p += 1;
            }
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
        }
        let step = if t < text.len() { one(&pattern[p..], text[t], nocase) } else { None };
        match step {
            Some(used) => {
                p += used;
                t += 1;
            }
            None if t == text.len() && pattern[p..].iter().all(|&b| b == b'*') => return true,
            None => match retry {
                // No later start can succeed once the text has run out.
                Some((after_star, from)) if t < text.len() && from + 1 < text.len() => {
                    retry = Some((after_star, from + 1));
                    (p, t) = (after_star, from + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Matches the pattern's first element (not a star) against one byte; how many bytes of the pattern that element is.
fn one(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    let same = |a: u8| if nocase { a.eq_ignore_ascii_case(&byte) } else { a == byte };
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ..] => class(pattern, byte, nocase),
        [b'\\', escaped, ..] => same(escaped).then_some(2),
        [literal, ..] => same(literal).then_some(1),
    }
}

/// A `[…]` class. One without its `]` ends with the pattern.
fn class(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    // Ranges compare as signed bytes, because that is what `char` is where Redis commonly runs.
    let fold = |b: u8| i32::from(if nocase { b.to_ascii_lowercase() } else { b } as i8);
    let negated = pattern.get(1) == Some(&b'^');
    let mut i = if negated { 2 } else { 1 };
    let mut hit = false;
    let used = loop {
        match pattern[i..] {
            [] => break pattern.len(),
            [b'\\', escaped, ..] => {
                hit |= escaped == byte;
                i += 2;
            }
            [b']', ..] => break i + 1,
            [from, b'-', to, ..] => {
                let (from, to) = (fold(from), fold(to));
                hit |= (from.min(to)..=from.max(to)).contains(&fold(byte));
                i += 3;
            }
            [literal, ..] => {
                hit |= fold(literal) == fold(byte);
                i += 1;
            }
        }
    };
    (hit != negated).then_some(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_redis_does() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("**", "", false),
            ("", "", true),
            ("", "a", false),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "a", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("*b*", "abc", true),
            ("*b*d", "abcd", true),
            ("*b*d", "abc", false),
            ("*ab", "aab", true),
            ("a*b*c", "axxbyybzzc", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("[", "[", false),
            ("[^", "x", true),
            ("[a", "a", true),
            ("[]", "]", false),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("?", "", false),
            ("*?", "a", true),
            ("[a-", "-", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} on {text}");
        }
        assert!(matches_nocase(b"MAX*y", b"maxmemorY"));
        assert!(matches_nocase(b"[A-C]", b"b"));
        assert!(matches(b"[a-\xff]", b"a"));
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let text = vec![b'a'; 20_000];
        let mut pattern = b"*a".repeat(500);
        pattern.push(b'b');
        // Exponential retries would not return within a lifetime.
        assert!(!matches(&pattern, &text));
    }
}
