//! Durations and sizes as people write them: `500ms 10s 5m` (bare = seconds), `256mb` (binary multiples; bare = bytes).

use std::time::Duration;

/// Parses a duration: numbers with `us ms s m h d`, also in sequence (`1m30s`); a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "a duration looks like 500ms, 10s, 5m or 1h (a bare number is seconds)";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(HELP.into());
    }
    let mut total = 0f64;
    let mut last_scale = f64::INFINITY;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or(HELP)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = match unit.to_ascii_lowercase().as_str() {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            "" if after.is_empty() && last_scale.is_infinite() => 1.0,
            _ => return Err(HELP.into()),
        };
        // Units fall from left to right, so that `1s1m` is a typing error and not 61 s.
        if scale >= last_scale {
            return Err(HELP.into());
        }
        last_scale = scale;
        total += number * scale;
        rest = after;
    }
    Duration::try_from_secs_f64(total).map_err(|_| format!("{text} is too long a time"))
}

/// Parses a size in bytes: `b k kb m mb g gb t tb` and `kib mib …`, all binary (`1kb` = 1024); a bare number is bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const HELP: &str = "a size looks like 64mb, 1gb or 1048576 (mb = MiB)";
    let (number, unit) = leading_number(text.trim()).ok_or(HELP)?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(HELP.into()),
    };
    let bytes = number * (1u64 << shift) as f64;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(format!("{text} is too large a size")) }
}

/// Bytes for people: at most four digits and a binary unit.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for u in UNITS {
        value /= 1024.0;
        unit = u;
        if value < 1023.95 {
            break;
        }
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A count for people: `42`, `9.1k`, `42.4k`, `1.2M`.
pub fn show_count(n: f64) -> String {
    match n {
        n if !n.is_finite() || n < 0.0 => "-".into(),
        n if n < 9.95 && n.fract() != 0.0 => format!("{n:.1}"),
        n if n < 999.5 => format!("{n:.0}"),
        n if n < 999_950.0 => format!("{:.1}k", n / 1e3),
        n if n < 999_950_000.0 => format!("{:.1}M", n / 1e6),
        n => format!("{:.1}G", n / 1e9),
    }
}

/// A time span for people, from milliseconds: `80ms`, `1.6s`, `12s`, `5m03s`, `2h05m`.
pub fn show_ms(ms: u64) -> String {
    let s = ms / 1000;
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 => format!("{}.{}s", s, ms % 1000 / 100),
        10_000..60_000 => format!("{s}s"),
        60_000..3_600_000 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

/// The decimal number a text begins with, and what follows; no sign, no exponent.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("30", 30_000),
            ("0", 0),
            ("1.5s", 1_500),
            ("0.25", 250),
            ("1m30s", 90_000),
            ("2S", 2_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1s", "10 parsecs", "1s1m", "1..2s", "1s5", "5x", "1e3", "inf", "999999999999999999999d"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("256mb", 256 << 20),
            ("256MiB", 256 << 20),
            ("1g", 1 << 30),
            ("64k", 64 << 10),
            ("100", 100),
            ("1.5kb", 1536),
            ("7b", 7),
            ("2 gb", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "mb", "-1mb", "1xb", "1e9", "99999999999tb"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_for_people_stay_short() {
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(1536), "1.5 KiB");
        assert_eq!(show_size(256 << 20), "256 MiB");
        assert_eq!(show_size(u64::MAX), "16 EiB");
        assert_eq!(show_count(0.0), "0");
        assert_eq!(show_count(42_400.0), "42.4k");
        assert_eq!(show_count(f64::NAN), "-");
        assert_eq!(show_ms(80), "80ms");
        assert_eq!(show_ms(1_630), "1.6s");
        assert_eq!(show_ms(303_000), "5m03s");
    }
}
