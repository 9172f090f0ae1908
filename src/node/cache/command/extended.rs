//! 80-bit extended floats: what `long double` is where Redis commonly runs, and so what INCRBYFLOAT must compute in to give
//! the same digits. Correctly rounded reading, addition, and printing with 17 decimals.
//!
//! A finite number is `mant × 2^exp` with a 64-bit `mant`, whose top bit is set unless the number is subnormal.

use std::cmp::Ordering;

/// The longest text that is read as a number, bytes. As in Redis; bounds the work too.
pub const TEXT_MAX: usize = 5 * 1024 - 1;
/// Exponent of the last bit of the largest numbers, < 2^16384.
const EXP_MAX: i32 = 16384 - 64;
/// Exponent of the last bit of the smallest, subnormal, numbers.
const EXP_MIN: i32 = -16445;
/// Decimals that are printed.
const DECIMALS: usize = 17;
/// Powers of ten beyond which a number is surely infinite (or, negative, surely 0): above 10^4932 or below 10^-4951.
const POWER_MAX: i64 = 5000;

/// A number that is not NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Finite { mant: u64, exp: i32 },
    Infinite,
}

const ZERO: Size = Size::Finite { mant: 0, exp: EXP_MIN };

impl Extended {
    /// 0.
    pub const ZERO: Extended = Extended { negative: false, size: ZERO };

    /// Reads all of `text` as `strtold` does: decimal or hexadecimal, `inf`. None for anything else, for NaN, and for what
    /// overflows or vanishes.
    pub fn parse(text: &[u8]) -> Option<Extended> {
        if text.is_empty() || text.len() > TEXT_MAX {
            return None;
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            all => (false, all),
        };
        let size = if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            Size::Infinite
        } else if let [b'0', b'x' | b'X', digits @ ..] = rest {
            hexadecimal(digits)?
        } else {
            decimal(rest)?
        };
        Some(Extended { negative, size })
    }

    /// The sum, rounded to nearest, ties to even; none for ∞ − ∞.
    pub fn plus(self, other: Extended) -> Option<Extended> {
        let (mut a, mut b) = match (self.size, other.size) {
            (Size::Infinite, Size::Infinite) if self.negative != other.negative => return None,
            (Size::Infinite, _) => return Some(self),
            (_, Size::Infinite) => return Some(other),
            (Size::Finite { mant, exp }, Size::Finite { mant: m, exp: e }) => {
                ((mant, exp, self.negative), (m, e, other.negative))
            }
        };
        match (a.0, b.0) {
            (0, 0) => return Some(Extended { negative: self.negative && other.negative, size: ZERO }),
            (0, _) => return Some(other),
            (_, 0) => return Some(self),
            _ => {}
        }
        if a.1 < b.1 {
            std::mem::swap(&mut a, &mut b);
        }
        // `a` gets 63 bits below its last one; what of `b` falls below those counts only as "a little more".
        let shift = (a.1 - b.1) as u32;
        let big = u128::from(a.0) << 63;
        let all = u128::from(b.0) << 63;
        let (small, lost) = match shift {
            0..=127 => (all >> shift, all & ((1u128 << shift) - 1) != 0),
            _ => (0, true),
        };
        let exp = a.1 - 63;
        if a.2 == b.2 {
            return Some(Extended { negative: a.2, size: round(big + small, lost, exp) });
        }
        Some(match big.cmp(&small) {
            Ordering::Equal if !lost => Extended::ZERO,
            Ordering::Less => Extended { negative: b.2, size: round(small - big, lost, exp) },
            // a − (b and a little more) = (a − b − 1) and a little more.
            _ => Extended { negative: a.2, size: round(big - small - u128::from(lost), lost, exp) },
        })
    }

    /// Whether it is no infinity.
    pub fn is_finite(self) -> bool {
        self.size != Size::Infinite
    }

    /// Rounded to 17 decimals, without trailing zeros and without an exponent; `-0` is `0`.
    pub fn to_text(self) -> String {
        let Size::Finite { mant, exp } = self.size else {
            return if self.negative { "-inf".into() } else { "inf".into() };
        };
        let mut text = if exp >= 0 {
            let mut n = Big::from(mant);
            n.shift_left(exp as u32);
            n.to_decimal()
        } else {
            fraction(mant, exp.unsigned_abs())
        };
        if self.negative && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// `mant / 2^shift` to 17 decimals, ties to even, zeros trimmed.
fn fraction(mant: u64, shift: u32) -> String {
    // 64 bits times 10^17 (57 bits) fit.
    let n = u128::from(mant) * 10u128.pow(DECIMALS as u32);
    let scaled = match shift {
        0..=127 => {
            let (q, rest, half) = (n >> shift, n & ((1 << shift) - 1), 1u128 << (shift - 1));
            q + u128::from(rest > half || (rest == half && q & 1 == 1))
        }
        // Below half of the last decimal.
        _ => 0,
    };
    let digits = format!("{scaled:0width$}", width = DECIMALS + 1);
    let (whole, decimals) = digits.split_at(digits.len() - DECIMALS);
    let decimals = decimals.trim_end_matches('0');
    if decimals.is_empty() { whole.to_owned() } else { format!("{whole}.{decimals}") }
}

/// Rounds `n × 2^exp`, and a little more if `lost`, to 64 bits, ties to even.
fn round(n: u128, lost: bool, exp: i32) -> Size {
    if n == 0 {
        return ZERO;
    }
    let bits = 128 - n.leading_zeros() as i32;
    // As many bits must go as are too many, or as lie below the smallest exponent.
    let drop = (bits - 64).max(EXP_MIN - exp);
    if drop <= 0 {
        // Exact; normal form has the top bit set if the exponent allows.
        let up = (64 - bits).min(exp - EXP_MIN).max(0);
        return finite((n as u64) << up, exp - up);
    }
    let (q, rest, half) = match drop {
        1..=127 => (n >> drop, n & ((1 << drop) - 1), 1u128 << (drop - 1)),
        _ => return ZERO,
    };
    let up = rest > half || (rest == half && (lost || q & 1 == 1));
    let q = q + u128::from(up);
    if q >> 64 != 0 { finite((q >> 1) as u64, exp + drop + 1) } else { finite(q as u64, exp + drop) }
}

fn finite(mant: u64, exp: i32) -> Size {
    if mant == 0 {
        ZERO
    } else if exp > EXP_MAX {
        Size::Infinite
    } else {
        Size::Finite { mant, exp }
    }
}

/// A result that left the range of exponents is an error of the text.
fn in_range(size: Size, zero: bool) -> Option<Size> {
    match size {
        Size::Infinite => None,
        Size::Finite { mant: 0, .. } if !zero => None,
        fine => Some(fine),
    }
}

/// `digits[.digits][<mark>[±]digits]`: the digits before and after the point, and the exponent.
fn pieces(text: &[u8], mark: u8, is_digit: fn(&u8) -> bool) -> Option<(&[u8], &[u8], i64)> {
    let whole_len = text.iter().take_while(|b| is_digit(b)).count();
    let (whole, rest) = text.split_at(whole_len);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => rest.split_at(rest.iter().take_while(|b| is_digit(b)).count()),
        rest => (&[][..], rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let exp = match rest {
        [] => 0,
        [m, rest @ ..] if m.eq_ignore_ascii_case(&mark) => {
            let (negative, digits) = match rest {
                [b'-', rest @ ..] => (true, rest),
                [b'+', rest @ ..] => (false, rest),
                all => (false, all),
            };
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            // Far beyond every exponent that matters, and far from overflow.
            let n = digits.iter().fold(0i64, |n, d| (n * 10 + i64::from(d - b'0')).min(1 << 40));
            if negative { -n } else { n }
        }
        _ => return None,
    };
    Some((whole, fraction, exp))
}

fn decimal(text: &[u8]) -> Option<Size> {
    let (whole, fraction, exp) = pieces(text, b'e', u8::is_ascii_digit)?;
    let digits: Vec<u8> = whole.iter().chain(fraction).copied().skip_while(|&d| d == b'0').collect();
    if digits.is_empty() {
        return Some(ZERO);
    }
    let power = exp - fraction.len() as i64;
    // The first digit stands for 10^(power + digits - 1).
    let lead = power + digits.len() as i64 - 1;
    if lead.abs() > POWER_MAX {
        return None;
    }
    let mut n = Big::from_decimal(&digits);
    if power >= 0 {
        n.times_power_of_ten(power as u32);
        let (top, lost, shift) = n.top_bits();
        return in_range(round(top, lost, shift), false);
    }
    let mut d = Big::from(1);
    d.times_power_of_ten(power.unsigned_abs() as u32);
    let (quotient, lost, exp) = n.divide_to_bits(d);
    in_range(round(quotient, lost, exp), false)
}

fn hexadecimal(text: &[u8]) -> Option<Size> {
    let (whole, fraction, exp) = pieces(text, b'p', u8::is_ascii_hexdigit)?;
    let mut exp = exp - 4 * fraction.len() as i64;
    let (mut n, mut lost) = (0u128, false);
    for d in whole.iter().chain(fraction) {
        let d = (*d as char).to_digit(16)?;
        if n >> 120 == 0 {
            n = n << 4 | u128::from(d);
        } else {
            exp += 4;
            lost |= d != 0;
        }
    }
    let exp = exp.clamp(-(1 << 20), 1 << 20) as i32;
    in_range(round(n, lost, exp), n == 0)
}

/// An unsigned integer of any size: 32-bit limbs, least first, no zero on top.
struct Big(Vec<u32>);

impl Big {
    fn from(n: u64) -> Self {
        let mut big = Big(vec![n as u32, (n >> 32) as u32]);
        big.trim();
        big
    }

    fn from_decimal(digits: &[u8]) -> Self {
        let mut big = Big(Vec::with_capacity(digits.len() / 9 + 1));
        for chunk in digits.chunks(9) {
            let n = chunk.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
            big.times_plus(10u32.pow(chunk.len() as u32), n);
        }
        big
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn times_plus(&mut self, factor: u32, plus: u32) {
        let mut carry = u64::from(plus);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    fn times_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / 9 {
            self.times_plus(1_000_000_000, 0);
        }
        self.times_plus(10u32.pow(power % 9), 0);
    }

    fn bits(&self) -> u32 {
        self.0.last().map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }

    fn shift_left(&mut self, by: u32) {
        if self.0.is_empty() {
            return;
        }
        let odd = by % 32;
        if odd != 0 {
            let mut carry = 0;
            for limb in &mut self.0 {
                let wide = u64::from(*limb) << odd | carry;
                *limb = wide as u32;
                carry = wide >> 32;
            }
            if carry != 0 {
                self.0.push(carry as u32);
            }
        }
        self.0.splice(0..0, std::iter::repeat_n(0, (by / 32) as usize));
    }

    /// The top bits (at least 65, if there are so many), whether any below is set, and the exponent of their last.
    fn top_bits(&self) -> (u128, bool, i32) {
        let low = self.0.len().saturating_sub(4);
        let top = self.0[low..].iter().rev().fold(0u128, |n, &limb| n << 32 | u128::from(limb));
        (top, self.0[..low].iter().any(|&limb| limb != 0), low as i32 * 32)
    }

    /// `self / divisor`: 66 bits or more of the quotient, whether there is a remainder, and the exponent of the last bit.
    fn divide_to_bits(mut self, mut divisor: Big) -> (u128, bool, i32) {
        const BITS: i32 = 66;
        // Scaled so that the quotient has 66 or 67 bits; then one bit a step.
        let exp = self.bits() as i32 - divisor.bits() as i32 - BITS;
        if exp < 0 {
            self.shift_left(exp.unsigned_abs());
        } else {
            divisor.shift_left(exp as u32);
        }
        let steps = BITS + 1;
        divisor.shift_left(steps as u32);
        let mut quotient = 0u128;
        for _ in 0..=steps {
            quotient <<= 1;
            if self.compare(&divisor) != Ordering::Less {
                self.subtract(&divisor);
                quotient |= 1;
            }
            divisor.halve();
        }
        (quotient, !self.0.is_empty(), exp)
    }

    fn compare(&self, other: &Big) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// `other` is not larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = false;
        for (i, limb) in self.0.iter_mut().enumerate() {
            let (d, b1) = limb.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (d, b2) = d.overflowing_sub(u32::from(borrow));
            *limb = d;
            borrow = b1 || b2;
        }
        self.trim();
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.0.iter_mut().rev() {
            let low = *limb & 1;
            *limb = *limb >> 1 | carry << 31;
            carry = low;
        }
        self.trim();
    }

    fn to_decimal(&self) -> String {
        let mut limbs = self.0.clone();
        let mut chunks = Vec::new();
        while !limbs.is_empty() {
            let mut rest = 0u64;
            for limb in limbs.iter_mut().rev() {
                let wide = rest << 32 | u64::from(*limb);
                *limb = (wide / 1_000_000_000) as u32;
                rest = wide % 1_000_000_000;
            }
            while limbs.last() == Some(&0) {
                limbs.pop();
            }
            chunks.push(rest);
        }
        let Some(first) = chunks.pop() else {
            return "0".into();
        };
        let mut text = first.to_string();
        chunks.iter().rev().for_each(|c| text.push_str(&format!("{c:09}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        Extended::parse(text.as_bytes()).map(Extended::to_text)
    }

    fn sum(a: &str, b: &str) -> String {
        let of = |t: &str| Extended::parse(t.as_bytes()).unwrap();
        of(a).plus(of(b)).unwrap().to_text()
    }

    #[test]
    fn reads_what_strtold_reads() {
        for (text, want) in [
            ("0", Some("0")),
            ("-0", Some("0")),
            ("1", Some("1")),
            ("+1.50", Some("1.5")),
            (".5", Some("0.5")),
            ("5.", Some("5")),
            ("1e3", Some("1000")),
            ("1E-3", Some("0.001")),
            ("0.1", Some("0.1")),
            ("3.0e5", Some("300000")),
            ("0x10", Some("16")),
            ("0x1p-1", Some("0.5")),
            ("0x.8", Some("0.5")),
            ("18446744073709551615", Some("18446744073709551615")),
            ("18446744073709551617", Some("18446744073709551616")),
            ("1e-18", Some("0")),
            ("4.9e-18", Some("0")),
            ("5.1e-18", Some("0.00000000000000001")),
            ("inf", Some("inf")),
            ("-Infinity", Some("-inf")),
            ("", None),
            (".", None),
            ("-", None),
            ("1e", None),
            ("0x", None),
            ("1 ", None),
            (" 1", None),
            ("nan", None),
            ("1e5000", None),
            ("1e99999999999999999999", None),
            ("1e-5000", None),
            ("0e99999999999999999999", Some("0")),
            ("1_0", None),
        ] {
            assert_eq!(read(text).as_deref(), want, "{text:?}");
        }
        // The largest has 4,933 digits; twice as much is infinite.
        assert_eq!(read("1.18973149535723176e4932").map(|t| t.len()), Some(4933));
        assert_eq!(read("1.18973149535723177e4932"), None);
        assert!(Extended::parse(b"3.6e-4951").is_some());
        assert!(Extended::parse(b"1.8e-4951").is_none());
    }

    #[test]
    fn adds_like_the_processor() {
        for (a, b, want) in [
            ("10.5", "0.1", "10.6"),
            ("3", "1.1", "4.1"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("1", "-1", "0"),
            ("-0", "-0", "0"),
            ("1", "1e-30", "1"),
            ("-1", "1e-30", "-1"),
            ("9223372036854775807", "0.5", "9223372036854775807.5"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551615", "0.5", "18446744073709551616"),
            ("18446744073709551614", "0.5", "18446744073709551614"),
            // A tie is broken by whatever lies below it.
            ("18446744073709551614", "0.500000001", "18446744073709551615"),
            ("1e40", "-1e40", "0"),
            ("0", "-7", "-7"),
        ] {
            assert_eq!(sum(a, b), want, "{a} + {b}");
            assert_eq!(sum(b, a), want, "{b} + {a}");
        }
        let inf = Extended::parse(b"inf").unwrap();
        let max = Extended::parse(b"1.18973149535723176e4932").unwrap();
        assert!(!max.plus(max).unwrap().is_finite());
        assert_eq!(inf.plus(Extended::parse(b"-inf").unwrap()), None);
        assert_eq!(inf.plus(Extended::ZERO), Some(inf));
    }
}
