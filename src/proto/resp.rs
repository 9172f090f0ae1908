//! The command decoder of the Redis protocol: multibulk (RESP2 and RESP3 alike) and inline, resumable over a growing buffer.
//!
//! ```text
//!  read buffer  │ *2␍␊ $3␍␊ GET␍␊ $1␍␊ k␍␊ │ *2␍␊ $3␍␊ SE…     next(buf) → Some(20), args(buf) → ["GET", "k"]
//!               └──── one command ─────┘ └ at ───┘          next(buf[20..]) → None: call again with more bytes
//! ```
//!
//! Nothing is parsed twice but the few bytes of a header line that arrived in part, and nothing is allocated per command:
//! arguments are ranges into the read buffer. Only an inline command with quotes is unescaped into a side buffer.
//! A first byte `{` is JSON and goes elsewhere ([`super::json`]).

use super::args::Args;

/// The longest argument, bytes (Redis: `proto-max-bulk-len`).
pub const PROTO_MAX_BULK: u32 = 512 << 20;
/// The most arguments of one command (Redis up to 6).
pub const PROTO_MAX_ARGS: u32 = 1 << 20;
/// The longest inline command and the longest header line, bytes (Redis: `PROTO_INLINE_MAX_SIZE`).
pub const PROTO_MAX_INLINE: u32 = 64 << 10;
/// The longest command in all, bytes (Redis: `client-query-buffer-limit`); offsets fit an u32 because of it.
pub const PROTO_MAX_COMMAND: u32 = 1 << 30;
/// Room asked for on the strength of a promised length alone, bytes: most values fit, a thousand promises are a gigabyte.
pub const NEED_MAX: usize = 1 << 20;
/// Ranges and unescaped bytes kept for the next command; what one large command took beyond is given back.
const KEEP_RANGES: usize = 4096;
const KEEP_SIDE: usize = 4096;

/// No bulk header read yet.
const NO_BULK: usize = usize::MAX;

/// What one connection may send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest argument, bytes.
    pub bulk_max: u32,
    /// The most arguments of one command.
    pub args_max: u32,
    /// The longest inline command or header line, bytes.
    pub inline_max: u32,
    /// The longest command in all, bytes; at most [`PROTO_MAX_COMMAND`].
    pub command_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_max: PROTO_MAX_BULK,
            args_max: PROTO_MAX_ARGS,
            inline_max: PROTO_MAX_INLINE,
            command_max: PROTO_MAX_COMMAND,
        }
    }
}

/// The peer does not speak the protocol: it gets `-ERR ` and this text (Redis's own), then the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// `*` and no number from -2^63 to the limit.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// `$` and no number from 0 to the limit.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// Another byte where an argument should start.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// An argument that does not end with CR LF where its length says.
    #[error("Protocol error: expected CRLF after bulk")]
    BulkEnd,
    /// A `*` line without an end.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLine,
    /// A `$` line without an end.
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    /// An inline command without an end.
    #[error("Protocol error: too big inline request")]
    InlineLine,
    /// A quote that does not close, or goes on after it closed.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// Arguments that are allowed one by one, but not together.
    #[error("Protocol error: too big command")]
    CommandSize,
}

/// Finds commands in a buffer. One per connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Where the arguments of the command under way are.
    ranges: Vec<(u32, u32)>,
    /// Offset of the first byte not yet understood.
    at: usize,
    /// Arguments still to come; 0 = between commands.
    left: u32,
    /// Length of the argument that starts at `at`, or [`NO_BULK`].
    bulk: usize,
    /// Offset up to which a line that is not a plain header was searched for its end.
    scanned: usize,
    /// The last call gave out a command: the next one starts anew.
    done: bool,
    /// The arguments of an inline command with quotes, unescaped.
    side: Vec<u8>,
    in_side: bool,
}

/// A header line in the shape that every client sends.
enum Head {
    /// Its number, and the offset behind its LF.
    Is(u64, usize),
    /// Fine so far, but not all there.
    Short,
    /// Not a plain number: sign, leading zero, something else.
    Odd,
}

/// Reads `digits CR LF` at `at`. No leading zero, at most 10 digits: all that is within the limits.
#[inline(always)]
fn head(buf: &[u8], at: usize) -> Head {
    let rest = buf.get(at..).unwrap_or(&[]);
    // Most lengths have up to three digits; these shapes compile to a few compares without a loop.
    if let &[a @ b'0'..=b'9', b'\r', b'\n', ..] = rest {
        return Head::Is(u64::from(a - b'0'), at + 3);
    }
    if let &[a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] = rest {
        return Head::Is(u64::from(a - b'0') * 10 + u64::from(b - b'0'), at + 4);
    }
    if let &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] = rest {
        return Head::Is(u64::from(a - b'0') * 100 + u64::from(b - b'0') * 10 + u64::from(c - b'0'), at + 5);
    }
    long_head(rest, at)
}

fn long_head(rest: &[u8], at: usize) -> Head {
    let digits = rest.iter().take(11).take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 10 || (digits > 1 && rest[0] == b'0') {
        return if rest.is_empty() { Head::Short } else { Head::Odd };
    }
    match rest[digits..] {
        [b'\r', b'\n', ..] => {
            Head::Is(rest[..digits].iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')), at + digits + 2)
        }
        [] | [b'\r'] => Head::Short,
        _ => Head::Odd,
    }
}

/// A number as Redis's `string2ll` reads it: an optional minus, no plus, no leading zero, no minus zero.
fn strict_i64(text: &[u8]) -> Option<i64> {
    match text {
        b"0" => Some(0),
        [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..] => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Arguments of a command that a [`Glancer`] takes in.
const GLANCE_ARGS: usize = 5;
/// Bytes of an argument from which on it is the decoder's to judge.
const GLANCE_BULK: u64 = 1 << 20;

/// A command in the shape that every client sends, whole and of few arguments.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    /// Bytes of it.
    pub len: usize,
    args: usize,
    ranges: [(u32, u32); GLANCE_ARGS],
}

impl Glance {
    /// Its arguments; `buf` begins where it begins.
    #[inline(always)]
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        Args::new(buf, &self.ranges[..self.args])
    }

    /// Its second word, where it has one.
    #[inline(always)]
    pub fn second<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        let (start, end) = self.ranges[1];
        if self.args > 1 { buf.get(start as usize..end as usize) } else { None }
    }
}

/// Bytes of a beginning that are compared at once: enough for names of up to five letters.
const BEGINNING: usize = 16;

/// Takes commands in at a glance, and remembers how the last one began: the next one mostly begins the same, and then its number of
/// arguments and its name need not be read.
#[derive(Debug)]
pub struct Glancer {
    /// `*2␍␊ $3␍␊ GET␍␊ $`, as a number.
    beginning: u128,
    /// Which of its bytes count.
    mask: u128,
    /// How many those are, and where the name is.
    len: u8,
    name: (u8, u8),
    args: u8,
}

impl Default for Glancer {
    fn default() -> Self {
        // Nothing that is masked by this equals it.
        Self { beginning: 1, mask: 0, len: 0, name: (0, 0), args: 0 }
    }
}

impl Glancer {
    /// The command at the start of `buf`, if it is one that the decoder would give out too. What this does not take in is not
    /// wrong.
    #[inline]
    pub fn glance(&mut self, buf: &[u8]) -> Option<Glance> {
        if let Some(first) = buf.first_chunk::<BEGINNING>()
            && u128::from_le_bytes(*first) & self.mask == self.beginning
        {
            let args = usize::from(self.args);
            let mut found = Glance { len: usize::from(self.len) - 1, args, ranges: [(0, 0); GLANCE_ARGS] };
            found.ranges[0] = (self.name.0.into(), self.name.1.into());
            return found.rest(buf, 1);
        }
        let found = first_glance(buf)?;
        self.remember(buf, &found);
        Some(found)
    }

    fn remember(&mut self, buf: &[u8], found: &Glance) {
        let (start, end) = found.ranges[0];
        // CR, LF and `$` follow the name.
        let len = end as usize + 3;
        if let Some(first) = buf.first_chunk::<BEGINNING>()
            && found.args > 1
            && len <= BEGINNING
        {
            self.mask = u128::MAX >> (8 * (BEGINNING - len));
            self.beginning = u128::from_le_bytes(*first) & self.mask;
            (self.len, self.name, self.args) = (len as u8, (start as u8, end as u8), found.args as u8);
        }
    }
}

#[inline]
fn first_glance(buf: &[u8]) -> Option<Glance> {
    let &[b'*', n @ b'1'..=b'5', b'\r', b'\n', ..] = buf else { return None };
    Glance { len: 4, args: usize::from(n - b'0'), ranges: [(0, 0); GLANCE_ARGS] }.rest(buf, 0)
}

impl Glance {
    /// Goes on where its bytes end so far, with this argument.
    #[inline(always)]
    fn rest(mut self, buf: &[u8], from: usize) -> Option<Self> {
        for range in self.ranges.get_mut(from..self.args)? {
            if buf.get(self.len) != Some(&b'$') {
                return None;
            }
            let Head::Is(len @ ..GLANCE_BULK, start) = head(buf, self.len + 1) else { return None };
            let end = start + len as usize;
            if buf.get(end..end + 2)? != b"\r\n" {
                return None;
            }
            *range = (start as u32, end as u32);
            self.len = end + 2;
        }
        Some(self)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Decoder {
    /// A decoder before its first byte.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits { command_max: limits.command_max.min(PROTO_MAX_COMMAND), ..limits },
            ranges: Vec::with_capacity(8),
            at: 0,
            left: 0,
            bulk: NO_BULK,
            scanned: 0,
            done: false,
            side: Vec::new(),
            in_side: false,
        }
    }

    /// Looks for one command at the start of `buf`.
    ///
    /// `Some(n)`: it is there, [`Decoder::args`] has it, and the next call's buffer starts `n` bytes later. `None`: more bytes
    /// are needed; the next call brings the same bytes and more, less what [`Decoder::discard`] allowed to drop. Blank lines
    /// and empty arrays are skipped, so a command has a name. After an error the connection is of no more use.
    pub fn next(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.done {
            self.start_anew();
        }
        if self.left == 0 && !self.command_start(buf)? {
            return Ok(None);
        }
        // Inline commands are complete by now: nothing is left.
        let mut at = self.at;
        let mut bulk = self.bulk;
        while self.left > 0 {
            if bulk == NO_BULK {
                let Some((len, next)) = self.bulk_head(buf, at)? else {
                    self.at = at;
                    self.bulk = NO_BULK;
                    return Ok(None);
                };
                if len > u64::from(self.limits.bulk_max) {
                    return Err(ProtocolError::BulkLength);
                }
                bulk = len as usize;
                at = next;
                if at + bulk > self.limits.command_max as usize {
                    return Err(ProtocolError::CommandSize);
                }
            }
            let end = at + bulk;
            match buf.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::BulkEnd),
                None => {
                    self.at = at;
                    self.bulk = bulk;
                    return Ok(None);
                }
            }
            self.ranges.push((at as u32, end as u32));
            at = end + 2;
            bulk = NO_BULK;
            self.left -= 1;
        }
        self.at = at;
        self.bulk = NO_BULK;
        self.done = true;
        Ok(Some(at))
    }

    /// Nothing of a command was seen since the last one: the next may be taken in otherwise ([`Glancer`]).
    pub fn is_between(&self) -> bool {
        self.done || (self.at, self.left, self.scanned) == (0, 0, 0)
    }

    /// The command that the last call of [`Decoder::next`] found; `buf` starts where it started then.
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        Args::new(if self.in_side { &self.side } else { buf }, &self.ranges)
    }

    /// After `None`: what a read buffer that holds `have` bytes should make room for. At least 1; for a big argument all that
    /// is missing of it, but never more than has arrived or [`NEED_MAX`]: a promise alone must not take memory.
    pub fn need(&self, have: usize) -> usize {
        if self.done || self.bulk == NO_BULK {
            return 1;
        }
        (self.at + self.bulk + 2).saturating_sub(have).clamp(1, NEED_MAX.max(have))
    }

    /// After `None`: so many bytes at the front hold no command (blank lines) and must now be dropped from it.
    pub fn discard(&mut self) -> usize {
        if self.left > 0 || self.done {
            return 0;
        }
        self.scanned = self.scanned.saturating_sub(self.at);
        std::mem::take(&mut self.at)
    }

    #[inline]
    fn start_anew(&mut self) {
        self.ranges.clear();
        self.at = 0;
        self.scanned = 0;
        self.done = false;
        self.in_side = false;
        if self.ranges.capacity() > KEEP_RANGES {
            self.ranges.shrink_to(KEEP_RANGES);
        }
        if self.side.capacity() > KEEP_SIDE {
            self.side = Vec::new();
        }
    }

    /// Reads the first line of a command, past blanks. True: arguments follow, or an inline command is complete.
    #[inline]
    fn command_start(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        loop {
            match buf.get(self.at) {
                None => return Ok(false),
                Some(b'*') => match head(buf, self.at + 1) {
                    Head::Is(0, next) => self.at = next,
                    Head::Is(n, next) if n <= u64::from(self.limits.args_max) => {
                        (self.left, self.at) = (n as u32, next);
                        return Ok(true);
                    }
                    Head::Is(..) => return Err(ProtocolError::MultibulkLength),
                    Head::Short => return Ok(false),
                    Head::Odd => {
                        let errors = (ProtocolError::MultibulkLine, ProtocolError::MultibulkLength);
                        match self.odd_head(buf, self.at, errors)? {
                            None => return Ok(false),
                            Some((n, next)) if n <= 0 => self.at = next,
                            Some(_) => return Err(ProtocolError::MultibulkLength),
                        }
                    }
                },
                Some(_) => match self.inline(buf)? {
                    None => return Ok(false),
                    Some(next) => {
                        self.at = next;
                        if !self.ranges.is_empty() {
                            return Ok(true);
                        }
                    }
                },
            }
        }
    }

    /// The number of a `$` line and the offset behind it.
    #[inline(always)]
    fn bulk_head(&mut self, buf: &[u8], at: usize) -> Result<Option<(u64, usize)>, ProtocolError> {
        match buf.get(at) {
            None => Ok(None),
            Some(b'$') => match head(buf, at + 1) {
                Head::Is(n, next) => Ok(Some((n, next))),
                Head::Short => Ok(None),
                Head::Odd => match self.odd_head(buf, at, (ProtocolError::BulkLine, ProtocolError::BulkLength))? {
                    None => Ok(None),
                    // Every length within the limits is a plain number.
                    Some(_) => Err(ProtocolError::BulkLength),
                },
            },
            Some(&other) => Err(ProtocolError::ExpectedBulk(other)),
        }
    }

    /// A header line (its tag at `tag`) that is not a plain number: waits for its end as Redis does, within the limit, then
    /// judges it. Counted from the tag, so that the verdict does not depend on how the line was cut.
    #[cold]
    fn odd_head(
        &mut self,
        buf: &[u8],
        tag: usize,
        (too_long, invalid): (ProtocolError, ProtocolError),
    ) -> Result<Option<(i64, usize)>, ProtocolError> {
        let Some(cr) = self.find(buf, tag, b'\r') else {
            let too_big = buf.len() - tag > self.limits.inline_max as usize;
            return if too_big { Err(too_long) } else { Ok(None) };
        };
        match buf.get(cr + 1) {
            None => Ok(None),
            Some(b'\n') => strict_i64(&buf[tag + 1..cr]).map(|n| Some((n, cr + 2))).ok_or(invalid),
            Some(_) => Err(invalid),
        }
    }

    /// The offset of `byte` in the line that starts at `start`, if it is among the first `inline_max` bytes of it.
    fn find(&mut self, buf: &[u8], start: usize, byte: u8) -> Option<usize> {
        let from = self.scanned.max(start);
        let to = buf.len().min(start + self.limits.inline_max as usize);
        let found = memchr::memchr(byte, buf.get(from..to)?).map(|i| from + i);
        self.scanned = found.unwrap_or(to);
        found
    }

    /// An inline command at `at`: `None` while its line has no end, else the offset behind it.
    #[cold]
    fn inline(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let start = self.at;
        let Some(lf) = self.find(buf, start, b'\n') else {
            let too_big = buf.len() - start >= self.limits.inline_max as usize;
            return if too_big { Err(ProtocolError::InlineLine) } else { Ok(None) };
        };
        let line = &buf[start..lf];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if memchr::memchr2(b'"', b'\'', line).is_some() {
            self.side.clear();
            self.in_side = true;
            split_quoted(line, &mut self.side, &mut self.ranges)?;
        } else {
            split_plain(line, start, &mut self.ranges);
        }
        Ok(Some(lf + 1))
    }
}

/// What C's `isspace` skips before a word.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// What ends a word (Redis: `sdssplitargs`; narrower than what is skipped before it).
fn ends_word(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

fn split_plain(line: &[u8], base: usize, ranges: &mut Vec<(u32, u32)>) {
    let mut at = 0;
    while let Some(start) = line[at..].iter().position(|&b| !is_space(b)).map(|i| at + i) {
        at = line[start..].iter().position(|&b| ends_word(b)).map_or(line.len(), |i| start + i);
        ranges.push(((base + start) as u32, (base + at) as u32));
    }
}

/// Splits as Redis does: `"…"` with `\n \r \t \b \a \xHH`, `'…'` with `\'`; a closing quote ends the word.
fn split_quoted(line: &[u8], side: &mut Vec<u8>, ranges: &mut Vec<(u32, u32)>) -> Result<(), ProtocolError> {
    let hex = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut rest = line;
    loop {
        rest = &rest[rest.iter().position(|&b| !is_space(b)).unwrap_or(rest.len())..];
        if rest.is_empty() {
            return Ok(());
        }
        let start = side.len() as u32;
        let mut quote = None;
        loop {
            let (byte, taken) = match (quote, rest) {
                (None, []) => break,
                (None, &[b, ..]) if ends_word(b) => break,
                (None, &[q @ (b'"' | b'\''), ..]) => {
                    quote = Some(q);
                    rest = &rest[1..];
                    continue;
                }
                (Some(_), []) => return Err(ProtocolError::Quotes),
                (Some(q), &[b, ..]) if b == q => {
                    if rest.get(1).is_some_and(|&b| !is_space(b)) {
                        return Err(ProtocolError::Quotes);
                    }
                    rest = &rest[1..];
                    break;
                }
                (Some(b'"'), &[b'\\', b'x', h, l, ..]) if hex(h).is_some() && hex(l).is_some() => {
                    (hex(h).unwrap_or(0) << 4 | hex(l).unwrap_or(0), 4)
                }
                (Some(b'"'), &[b'\\', b, ..]) => {
                    let byte = match b {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 0x08,
                        b'a' => 0x07,
                        other => other,
                    };
                    (byte, 2)
                }
                (Some(b'\''), &[b'\\', b'\'', ..]) => (b'\'', 2),
                (_, &[b, ..]) => (b, 1),
            };
            side.push(byte);
            rest = &rest[taken..];
        }
        ranges.push((start, side.len() as u32));
    }
}

/// Writes a command as clients do.
pub fn encode_command(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + args.iter().map(|a| a.len() + 16).sum::<usize>());
    encode_command_into(&mut out, args);
    out
}

/// Appends a command to `out`.
pub fn encode_command_into(out: &mut Vec<u8>, args: &[&[u8]]) {
    let mut number = itoa::Buffer::new();
    let mut line = |out: &mut Vec<u8>, tag: u8, n: usize| {
        out.push(tag);
        out.extend_from_slice(number.format(n).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    line(out, b'*', args.len());
    for a in args {
        line(out, b'$', a.len());
        out.extend_from_slice(a);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
#[path = "resp_tests.rs"]
mod tests;
