//! Points in time as text, for people and for sorting log lines.

use std::time::{SystemTime, UNIX_EPOCH};

/// As servers stamp their log lines: `2026-01-31T12:34:56.123456Z`. Always as long, so that texts sort as times do.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar: years are counted from
/// March, so that the leap day is a year's last and months before it follow one formula.
fn civil(days: i64) -> (i64, i64, i64) {
    /// Days from 0000-03-01 to 1970-01-01, and in 400 years.
    const SHIFT: i64 = 719_468;
    const ERA: i64 = 146_097;
    let z = days + SHIFT;
    let era = z.div_euclid(ERA);
    let day_of_era = z.rem_euclid(ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_are_counted_right() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
        // 2000 is a leap year, 2100 is not.
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(47_540), (2100, 2, 28));
        assert_eq!(civil(47_541), (2100, 3, 1));
        let t = UNIX_EPOCH + Duration::from_micros(1_767_225_599_000_001);
        assert_eq!(rfc3339(t), "2025-12-31T23:59:59.000001Z");
    }
}
