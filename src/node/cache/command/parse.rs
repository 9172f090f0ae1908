//! Reads numbers and times from arguments as strictly as Redis does.

use super::error::{ErrorReply, NOT_INTEGER, invalid_expire};
use crate::node::cache::store::Now;

/// The digits of `i64::MIN` and its sign: nothing longer is a number.
const INT_LEN_MAX: usize = 20;

/// A 64-bit integer in its one canonical form: no space, no plus, no leading zero, no `-0`.
pub fn int(arg: &[u8]) -> Option<i64> {
    let (negative, digits) = match arg {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    match digits {
        [b'0'] => return if negative { None } else { Some(0) },
        [b'1'..=b'9', ..] if arg.len() <= INT_LEN_MAX => {}
        _ => return None,
    }
    let mut n: u64 = 0;
    for &d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(u64::from(d - b'0'))?;
    }
    if negative { 0i64.checked_sub_unsigned(n) } else { i64::try_from(n).ok() }
}

/// As [`int`], or Redis's error.
pub fn int_arg(arg: &[u8]) -> Result<i64, ErrorReply> {
    int(arg).ok_or(NOT_INTEGER)
}

/// A 32-bit integer, or Redis's error.
pub fn i32_arg(arg: &[u8]) -> Result<i32, ErrorReply> {
    const OUT_OF_RANGE: ErrorReply =
        ErrorReply::text("ERR value is out of range, value must between -2147483648 and 2147483647");
    i32::try_from(int_arg(arg)?).map_err(|_| OUT_OF_RANGE)
}

/// Whether `arg` is this word, in any case.
pub fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// `strtoul` as SCAN reads its cursor: an optional sign, digits, nothing else; empty is 0.
pub fn cursor(arg: &[u8]) -> Option<u64> {
    let (negative, digits) = match arg {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    if digits.is_empty() && !arg.is_empty() {
        return None;
    }
    let mut n: u64 = 0;
    for &d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(u64::from(d - b'0'))?;
    }
    Some(if negative { n.wrapping_neg() } else { n })
}

/// How a TTL was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpireUnit {
    /// In seconds rather than milliseconds.
    pub seconds: bool,
    /// A point in wall time rather than a span from now.
    pub absolute: bool,
}

/// `EX`.
pub const EX: ExpireUnit = ExpireUnit { seconds: true, absolute: false };
/// `PX`.
pub const PX: ExpireUnit = ExpireUnit { seconds: false, absolute: false };
/// `EXAT`.
pub const EXAT: ExpireUnit = ExpireUnit { seconds: true, absolute: true };
/// `PXAT`.
pub const PXAT: ExpireUnit = ExpireUnit { seconds: false, absolute: true };

/// A TTL option of SET, GETEX, SETEX: must be positive. Returns the point in wall time, milliseconds since 1970.
pub fn positive_expire(arg: &[u8], unit: ExpireUnit, now: Now, command: &str) -> Result<i64, ErrorReply> {
    let n = int_arg(arg)?;
    if n <= 0 {
        return Err(invalid_expire(command));
    }
    expire_at(n, unit, now).ok_or_else(|| invalid_expire(command))
}

/// The argument of the EXPIRE family: may be negative. Returns the point in wall time, milliseconds since 1970.
pub fn any_expire(arg: &[u8], unit: ExpireUnit, now: Now, command: &str) -> Result<i64, ErrorReply> {
    expire_at(int_arg(arg)?, unit, now).ok_or_else(|| invalid_expire(command))
}

fn expire_at(n: i64, unit: ExpireUnit, now: Now) -> Option<i64> {
    let ms = if unit.seconds { n.checked_mul(1000)? } else { n };
    if unit.absolute { Some(ms) } else { ms.checked_add_unsigned(now.wall_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        for (text, n) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("18446744073709551616", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            ("00", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("1a", None),
            ("100000000000000000000000", None),
        ] {
            assert_eq!(int(text.as_bytes()), n, "{text:?}");
        }
    }

    #[test]
    fn cursors_are_read_as_strtoul_reads() {
        for (text, n) in [
            ("", Some(0)),
            ("0", Some(0)),
            ("007", Some(7)),
            ("+5", Some(5)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-", None),
            (" 1", None),
            ("x", None),
            ("1x", None),
        ] {
            assert_eq!(cursor(text.as_bytes()), n, "{text:?}");
        }
    }

    #[test]
    fn expire_times_that_overflow_are_refused() {
        let now = Now { mono_ms: 5, wall_ms: 1_700_000_000_000 };
        let at = |text: &str, unit| positive_expire(text.as_bytes(), unit, now, "set").ok();
        assert_eq!(at("10", EX), Some(1_700_000_010_000));
        assert_eq!(at("10", PXAT), Some(10));
        assert_eq!(at("0", EX), None);
        assert_eq!(at("-1", PX), None);
        assert_eq!(at("9223372036854775", EX), None);
        assert_eq!(at("9223372036854775", EXAT), Some(9_223_372_036_854_775_000));
        assert_eq!(at("9223372036854775807", PX), None);
        assert_eq!(any_expire(b"-5", EX, now, "expire").ok(), Some(1_699_999_995_000));
        assert_eq!(any_expire(b"-9223372036854776", EX, now, "expire"), Err(invalid_expire("expire")));
    }
}
