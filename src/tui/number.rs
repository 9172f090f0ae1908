//! Numbers as people read them: at most six cells, a unit always, and something sensible for NaN and `u64::MAX`.

/// What is drawn where no number is known.
pub const UNKNOWN: &str = "-";

/// A count or a rate: `7`, `950`, `9.1k`, `42.4k`, `118M`, `18E`.
pub fn count(n: f64) -> String {
    if !n.is_finite() {
        return UNKNOWN.to_owned();
    }
    scaled(n, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// A rate: like [`count`], but small ones keep a digit after the point: `0.4`.
pub fn rate(n: f64) -> String {
    if n.is_finite() && n > 0.0 && n < 9.95 && n.fract() != 0.0 { format!("{n:.1}") } else { count(n) }
}

/// Bytes, binary units: `0 B`, `31.2 MiB`, `16 EiB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

fn scaled(n: f64, step: f64, units: &[&str]) -> String {
    let mut n = n;
    let mut unit = 0;
    // 999.5 would print as "1000": it belongs to the next unit.
    while n.abs() >= step - 0.5 && unit + 1 < units.len() {
        n /= step;
        unit += 1;
    }
    let number = if unit == 0 || n.abs() >= 99.95 { format!("{n:.0}") } else { format!("{n:.1}") };
    let number = if number == "-0" { "0".to_owned() } else { number };
    format!("{number}{}", units[unit])
}

/// An age or a time left, from milliseconds: `0.2s`, `41s`, `3m12s`, `2h05m`, `12d`.
pub fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..=9 => format!("{}.{}s", s, ms % 1000 / 100),
        10..=59 => format!("{s}s"),
        60..=3599 => format!("{}m{:02}s", s / 60, s % 60),
        3600..=86_399 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        86_400..=86_399_999 => format!("{}d", s / 86_400),
        _ => ">999d".to_owned(),
    }
}

/// A latency from microseconds: `0.09ms`, `1.9ms`, `120ms`, `4.2s`; always in one unit where rows are compared.
pub fn latency(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    match us {
        0..=994 => format!("{ms:.2}ms"),
        995..=99_949 => format!("{ms:.1}ms"),
        99_950..=999_499 => format!("{ms:.0}ms"),
        _ => span(us / 1000),
    }
}

/// A part of a whole as `17.0%`; unknown when the whole is 0 or not a number.
pub fn percent(part: f64, whole: f64) -> String {
    let p = part / whole * 100.0;
    if p.is_finite() { format!("{:.1}%", p.clamp(-99.9, 999.9)) } else { UNKNOWN.to_owned() }
}

/// A number in plain digits, as people compare and copy it; beyond nine of them like [`count`].
pub fn exact(n: u64) -> String {
    if n < 1_000_000_000 { n.to_string() } else { count(n as f64) }
}

/// A time of day `14:02:11` from milliseconds since 1970 and the offset of local time from UTC in seconds.
pub fn clock(ms: u64, utc_offset_s: i32) -> String {
    let s = (i128::from(ms / 1000) + i128::from(utc_offset_s)).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_short_and_sane() {
        for (n, text) in [
            (0.0, "0"),
            (-0.2, "0"),
            (950.4, "950"),
            (999.6, "1.0k"),
            (9_100.0, "9.1k"),
            (42_449.0, "42.4k"),
            (118_200_000.0, "118M"),
            (u64::MAX as f64, "18.4E"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(count(n), text);
        }
        assert_eq!(rate(0.42), "0.4");
        assert_eq!(rate(9.97), "10");
        assert!(count(f64::MAX).ends_with('E'));
    }

    #[test]
    fn bytes_use_binary_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(32_715_571), "31.2 MiB");
        assert_eq!(bytes(256 << 20), "256 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn times_name_their_unit() {
        for (ms, text) in [
            (0, "0.0s"),
            (1_640, "1.6s"),
            (41_000, "41s"),
            (192_000, "3m12s"),
            (7_500_000, "2h05m"),
            (12 * 86_400_000, "12d"),
            (u64::MAX, ">999d"),
        ] {
            assert_eq!(span(ms), text);
        }
        for (us, text) in [(85, "0.09ms"), (214, "0.21ms"), (1_900, "1.9ms"), (120_000, "120ms"), (4_200_000, "4.2s")] {
            assert_eq!(latency(us), text);
        }
        assert_eq!(latency(u64::MAX), ">999d");
        assert_eq!(clock(1_700_000_000_000, 3600), "23:13:20");
        assert_eq!(clock(0, -1), "23:59:59");
        assert_eq!(clock(u64::MAX, i32::MIN).len(), 8);
    }

    #[test]
    fn parts_of_nothing_are_unknown() {
        assert_eq!(percent(1.0, 0.0), "-");
        assert_eq!(percent(f64::NAN, 4.0), "-");
        assert_eq!(percent(2786.0, 16384.0), "17.0%");
    }
}
