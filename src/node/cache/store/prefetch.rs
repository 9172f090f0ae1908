//! Asks the CPU for memory ahead of its use. Unlike a load, the request is over at once: work goes on while the line is on its way.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the line that holds a value's first byte.
#[inline(always)]
pub fn one<T: ?Sized>(value: &T) {
    hint(std::ptr::from_ref(value).cast());
}

/// Asks for the first lines of some bytes.
#[inline(always)]
pub fn lines(bytes: &[u8], max: usize) {
    bytes.chunks(LINE).take(max).for_each(|line| hint(line.as_ptr()));
}

/// Asks for the lines of a few bytes that may lie across two.
#[inline(always)]
pub fn ends(bytes: &[u8]) {
    if let [first, .., last] = bytes {
        one(first);
        one(last);
    }
}

/// The bytes from the next line on.
#[inline(always)]
pub fn beyond_line(bytes: &[u8]) -> &[u8] {
    bytes.get(LINE - bytes.as_ptr().addr() % LINE..).unwrap_or_default()
}

#[inline(always)]
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn hint(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing as far as the program can tell and faults on no address; SSE is part of x86_64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Elsewhere there is no stable way to ask.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
fn hint(_at: *const u8) {}
