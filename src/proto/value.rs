//! Replies as owned values (RESP2 and RESP3), and the resumable decoder that clients read them with.
//!
//! The decoder keeps the aggregates under way on a stack of its own, so what it has read may be dropped from the buffer at
//! once, hostile nesting cannot overflow the call stack, and nothing is parsed twice.

use super::reply::{Proto, Reply};

/// How deep arrays may nest: CLUSTER SLOTS needs 4, COMMAND DOCS 8.
pub const DEPTH_MAX: usize = 32;
/// The most values in one reply, nested ones counted: CLUSTER SLOTS of 16384 one-slot runs with replicas stays below.
pub const ITEMS_MAX: u32 = 4 << 20;
/// The longest bulk string, bytes; what a server accepts, it may send back.
pub const BULK_MAX: u64 = super::resp::PROTO_MAX_BULK as u64;
/// The most bytes of strings in one reply.
pub const REPLY_MAX: u64 = 1 << 30;
/// The longest line (simple string, error, number), bytes.
pub const LINE_MAX: usize = 64 << 10;
/// Room made for an aggregate on the strength of its promise alone; the rest grows with what arrives.
const RESERVE_MAX: u32 = 1024;

/// One reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `$-1`, `*-1` or `_`.
    Null,
    /// `+OK`.
    Simple(String),
    /// `-MOVED 1 host:port` or `!…`: its code first.
    Error(String),
    /// `:1`.
    Int(i64),
    /// A byte string.
    Bulk(Vec<u8>),
    /// `*…`.
    Array(Vec<Value>),
    /// `%…`, in the order sent.
    Map(Vec<(Value, Value)>),
    /// `~…`, in the order sent.
    Set(Vec<Value>),
    /// `>…`: belongs to no command.
    Push(Vec<Value>),
    /// `#t`, `#f`.
    Bool(bool),
    /// `,1.5`.
    Double(f64),
    /// `(123…`: digits as they came.
    BigNumber(String),
    /// `=…`: a format (`txt`, `mkd`) and its text.
    Verbatim([u8; 3], Vec<u8>),
}

impl Value {
    /// The first word of an error: `MOVED`, `CLUSTERDOWN`, `ERR`.
    pub fn error_code(&self) -> Option<&str> {
        match self {
            Value::Error(text) => Some(text.split(' ').next().unwrap_or(text)),
            _ => None,
        }
    }

    /// The bytes of any kind of string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bulk(b) | Value::Verbatim(_, b) => Some(b),
            Value::Simple(s) | Value::BigNumber(s) => Some(s.as_bytes()),
            _ => None,
        }
    }

    /// The number, where it is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The parts of an array, set or push.
    pub fn items(&self) -> Option<&[Value]> {
        match self {
            Value::Array(v) | Value::Set(v) | Value::Push(v) => Some(v),
            _ => None,
        }
    }

    /// Appends it as a server would send it. RESP2 has fewer kinds: maps become arrays, booleans numbers, and so on.
    pub fn encode(&self, proto: Proto, out: &mut Vec<u8>) {
        let mut reply = Reply::new(out, proto);
        match self {
            Value::Null => reply.null(),
            Value::Simple(s) => reply.simple(s),
            Value::Error(s) => reply.error(s),
            Value::Int(n) => reply.int(*n),
            Value::Bulk(b) => reply.bulk(b),
            Value::Array(v) => {
                reply.array(v.len());
                v.iter().for_each(|v| v.encode(proto, out));
            }
            Value::Map(pairs) => {
                reply.map(pairs.len());
                for (k, v) in pairs {
                    k.encode(proto, out);
                    v.encode(proto, out);
                }
            }
            Value::Set(v) => {
                reply.set(v.len());
                v.iter().for_each(|v| v.encode(proto, out));
            }
            Value::Push(v) => {
                let tag = if proto == Proto::Resp3 { '>' } else { '*' };
                reply.raw(format!("{tag}{}\r\n", v.len()).as_bytes());
                v.iter().for_each(|v| v.encode(proto, out));
            }
            Value::Bool(b) => match proto {
                Proto::Resp2 => reply.int(i64::from(*b)),
                Proto::Resp3 => reply.raw(if *b { b"#t\r\n" } else { b"#f\r\n" }),
            },
            Value::Double(d) => {
                let text = double_text(*d);
                match proto {
                    Proto::Resp2 => reply.bulk(text.as_bytes()),
                    Proto::Resp3 => reply.raw(format!(",{text}\r\n").as_bytes()),
                }
            }
            Value::BigNumber(s) => match proto {
                Proto::Resp2 => reply.bulk(s.as_bytes()),
                Proto::Resp3 => reply.raw(format!("({s}\r\n").as_bytes()),
            },
            Value::Verbatim(format, text) => match proto {
                Proto::Resp2 => reply.bulk(text),
                Proto::Resp3 => {
                    reply.raw(format!("={}\r\n", text.len() + 4).as_bytes());
                    reply.raw(format);
                    reply.raw(b":");
                    reply.raw(text);
                    reply.raw(b"\r\n");
                }
            },
        }
    }
}

fn double_text(d: f64) -> String {
    match d {
        _ if d.is_nan() => "nan".into(),
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        _ => d.to_string(),
    }
}

/// The peer does not speak the protocol, or says more than a reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// No reply starts so.
    #[error("a reply starts with byte '{}'", .0.escape_ascii())]
    Tag(u8),
    /// A number that is none, or out of bounds.
    #[error("a bad number in a reply")]
    Number,
    /// A line or string that does not end with CR LF where it should.
    #[error("a reply without its CRLF")]
    LineEnd,
    /// Above [`LINE_MAX`], [`BULK_MAX`], [`REPLY_MAX`] or [`ITEMS_MAX`].
    #[error("a reply above the limits")]
    TooBig,
    /// Above [`DEPTH_MAX`].
    #[error("a reply nested too deeply")]
    TooDeep,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Array,
    Map,
    Set,
    Push,
    /// `|`: hints before a value; read and dropped.
    Attribute,
}

/// An aggregate under way.
#[derive(Debug)]
struct Open {
    kind: Kind,
    left: u32,
    items: Vec<Value>,
}

/// Reads replies. One per connection.
#[derive(Debug)]
pub struct ReplyDecoder {
    open: Vec<Open>,
    items_left: u32,
    bytes_left: u64,
    /// Bytes at the start of the buffer that hold no line end.
    scanned: usize,
    /// See [`ReplyDecoder::need`].
    need: usize,
}

impl Default for ReplyDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyDecoder {
    /// A decoder before its first byte.
    pub fn new() -> Self {
        Self { open: Vec::new(), items_left: ITEMS_MAX, bytes_left: REPLY_MAX, scanned: 0, need: 1 }
    }

    /// Reads on. The first `n` bytes of `buf` are used up, whether or not a reply came of them: the next call's buffer starts
    /// behind them. Without a reply, more bytes are needed. After an error the connection is of no more use.
    pub fn next(&mut self, buf: &[u8]) -> Result<(usize, Option<Value>), ReplyError> {
        let mut at = 0;
        while let Some((used, value)) = self.element(&buf[at..])? {
            at += used;
            if let Some(value) = value.and_then(|v| self.close(v)) {
                (self.items_left, self.bytes_left) = (ITEMS_MAX, REPLY_MAX);
                return Ok((at, Some(value)));
            }
        }
        Ok((at, None))
    }

    /// How many more bytes than were left over are needed at least.
    pub fn need(&self) -> usize {
        self.need
    }

    /// Whether a reply has begun and not ended, as far as the bytes used up tell.
    pub fn in_reply(&self) -> bool {
        !self.open.is_empty()
    }

    /// Puts a value where it belongs; returns it when it is a whole reply.
    fn close(&mut self, mut value: Value) -> Option<Value> {
        while let Some(top) = self.open.last_mut() {
            top.items.push(value);
            top.left -= 1;
            if top.left > 0 {
                return None;
            }
            let Open { kind, items, .. } = self.open.pop()?;
            value = finish(kind, items)?;
        }
        Some(value)
    }

    /// One header, or one value without parts. `None`: not all there. Inner `None`: an aggregate opened, or hints ended.
    fn element(&mut self, buf: &[u8]) -> Result<Option<(usize, Option<Value>)>, ReplyError> {
        self.need = 1;
        let Some(&tag) = buf.first() else { return Ok(None) };
        if !b"+-:$*%~>#,(=!_|".contains(&tag) {
            return Err(ReplyError::Tag(tag));
        }
        let Some(line_end) = self.line_end(buf)? else { return Ok(None) };
        let line = &buf[1..line_end];
        let used = line_end + 2;
        let text = || String::from_utf8_lossy(line).into_owned();
        let value = match tag {
            b'+' => Value::Simple(text()),
            b'-' => Value::Error(text()),
            b'(' if is_integer(line) => Value::BigNumber(text()),
            b':' => Value::Int(number(line)?),
            b'_' if line.is_empty() => Value::Null,
            b'#' if line == b"t" => Value::Bool(true),
            b'#' if line == b"f" => Value::Bool(false),
            b',' => Value::Double(double(line)?),
            b'(' | b'_' | b'#' => return Err(ReplyError::Number),
            b'$' | b'=' | b'!' => {
                let len = number(line)?;
                if len == -1 && tag == b'$' {
                    return self.count(0).map(|()| Some((used, Some(Value::Null))));
                }
                return self.string(buf, tag, used, len);
            }
            _ => {
                let n = number(line)?;
                if n == -1 && tag == b'*' {
                    return self.count(0).map(|()| Some((used, Some(Value::Null))));
                }
                return self.aggregate(tag, n).map(|v| Some((used, v)));
            }
        };
        self.count(line.len() as u64)?;
        Ok(Some((used, Some(value))))
    }

    /// The offset of the CR LF that ends the line at the start of `buf`.
    fn line_end(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        let window = &buf[..buf.len().min(LINE_MAX)];
        let from = self.scanned.min(window.len());
        let Some(lf) = memchr::memchr(b'\n', &window[from..]).map(|i| from + i) else {
            self.scanned = window.len();
            return if buf.len() >= LINE_MAX { Err(ReplyError::TooBig) } else { Ok(None) };
        };
        self.scanned = 0;
        match lf.checked_sub(1) {
            Some(cr) if buf[cr] == b'\r' => Ok(Some(cr)),
            _ => Err(ReplyError::LineEnd),
        }
    }

    /// Counts one value of so many bytes against the limits.
    fn count(&mut self, bytes: u64) -> Result<(), ReplyError> {
        self.items_left = self.items_left.checked_sub(1).ok_or(ReplyError::TooBig)?;
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(ReplyError::TooBig)?;
        Ok(())
    }

    fn string(
        &mut self,
        buf: &[u8],
        tag: u8,
        start: usize,
        len: i64,
    ) -> Result<Option<(usize, Option<Value>)>, ReplyError> {
        let len = u64::try_from(len).map_err(|_| ReplyError::Number)?;
        if len > BULK_MAX.min(self.bytes_left) {
            return Err(ReplyError::TooBig);
        }
        let end = start + len as usize;
        let Some(tail) = buf.get(end..end + 2) else {
            // The header is read again, which costs less than a state for it.
            self.need = end + 2 - buf.len();
            return Ok(None);
        };
        if tail != b"\r\n" {
            return Err(ReplyError::LineEnd);
        }
        self.count(len)?;
        let bytes = &buf[start..end];
        let value = match tag {
            b'!' => Value::Error(String::from_utf8_lossy(bytes).into_owned()),
            b'=' => match bytes {
                [a, b, c, b':', text @ ..] => Value::Verbatim([*a, *b, *c], text.to_vec()),
                _ => return Err(ReplyError::LineEnd),
            },
            _ => Value::Bulk(bytes.to_vec()),
        };
        Ok(Some((end + 2, Some(value))))
    }

    fn aggregate(&mut self, tag: u8, n: i64) -> Result<Option<Value>, ReplyError> {
        let (kind, each) = match tag {
            b'%' => (Kind::Map, 2),
            b'|' => (Kind::Attribute, 2),
            b'~' => (Kind::Set, 1),
            b'>' => (Kind::Push, 1),
            _ => (Kind::Array, 1),
        };
        let n = u32::try_from(n).map_err(|_| ReplyError::Number)?;
        let left = n.checked_mul(each).ok_or(ReplyError::TooBig)?;
        self.count(0)?;
        if left > self.items_left {
            return Err(ReplyError::TooBig);
        }
        if left == 0 {
            return Ok(finish(kind, Vec::new()));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(ReplyError::TooDeep);
        }
        self.open.push(Open { kind, left, items: Vec::with_capacity(left.min(RESERVE_MAX) as usize) });
        Ok(None)
    }
}

fn finish(kind: Kind, items: Vec<Value>) -> Option<Value> {
    Some(match kind {
        Kind::Array => Value::Array(items),
        Kind::Set => Value::Set(items),
        Kind::Push => Value::Push(items),
        Kind::Attribute => return None,
        Kind::Map => {
            let mut pairs = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(k), Some(v)) = (items.next(), items.next()) {
                pairs.push((k, v));
            }
            Value::Map(pairs)
        }
    })
}

fn number(line: &[u8]) -> Result<i64, ReplyError> {
    std::str::from_utf8(line).ok().and_then(|s| s.parse().ok()).ok_or(ReplyError::Number)
}

fn double(line: &[u8]) -> Result<f64, ReplyError> {
    std::str::from_utf8(line).ok().and_then(|s| s.parse().ok()).ok_or(ReplyError::Number)
}

fn is_integer(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Feeds `bytes` in pieces of the given lengths, the rest at the end.
    fn drive(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> (Vec<Value>, Option<ReplyError>) {
        let mut decoder = ReplyDecoder::new();
        let (mut out, mut buf, mut rest) = (Vec::new(), Vec::new(), bytes);
        let mut cuts = cuts.into_iter();
        loop {
            match decoder.next(&buf) {
                Err(e) => return (out, Some(e)),
                Ok((n, value)) => {
                    buf.drain(..n);
                    if let Some(value) = value {
                        out.push(value);
                        continue;
                    }
                }
            }
            assert!(decoder.need() >= 1);
            if rest.is_empty() {
                return (out, None);
            }
            let n = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
            buf.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let line = "[ -~ü]{0,12}";
        let leaf = prop_oneof![
            Just(Value::Null),
            line.prop_map(Value::Simple),
            line.prop_map(Value::Error),
            any::<i64>().prop_map(Value::Int),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bulk),
            any::<bool>().prop_map(Value::Bool),
            prop_oneof![-1e12..1e12, Just(f64::INFINITY), Just(f64::NEG_INFINITY)].prop_map(Value::Double),
            "-?[0-9]{1,40}".prop_map(Value::BigNumber),
            (any::<[u8; 3]>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(f, t)| Value::Verbatim(f, t)),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Set),
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Push),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same_however_it_is_cut(
            values in prop::collection::vec(values(), 0..5),
            cuts in prop::collection::vec(1usize..20, 0..200),
        ) {
            let mut bytes = Vec::new();
            values.iter().for_each(|v| v.encode(Proto::Resp3, &mut bytes));
            prop_assert_eq!(drive(&bytes, cuts), (values.clone(), None));
            prop_assert_eq!(drive(&bytes, std::iter::repeat(1)), (values, None));
        }

        #[test]
        fn in_resp2_what_is_encoded_is_still_one_reply_each(values in prop::collection::vec(values(), 0..5)) {
            let mut bytes = Vec::new();
            values.iter().for_each(|v| v.encode(Proto::Resp2, &mut bytes));
            let (got, error) = drive(&bytes, []);
            prop_assert_eq!((got.len(), error), (values.len(), None));
        }
    }

    #[test]
    fn every_kind_is_known() {
        let table: &[(&str, Value)] = &[
            ("$-1\r\n", Value::Null),
            ("*-1\r\n", Value::Null),
            ("_\r\n", Value::Null),
            ("$0\r\n\r\n", Value::Bulk(vec![])),
            ("*0\r\n", Value::Array(vec![])),
            ("%0\r\n", Value::Map(vec![])),
            (",nan\r\n", Value::Double(f64::NAN)),
            (",1e3\r\n", Value::Double(1000.0)),
            ("!5\r\nERR x\r\n", Value::Error("ERR x".into())),
            ("=5\r\ntxt:a\r\n", Value::Verbatim(*b"txt", b"a".to_vec())),
            ("|1\r\n+ttl\r\n:3\r\n+OK\r\n", Value::Simple("OK".into())),
            ("*1\r\n|1\r\n+a\r\n*1\r\n:1\r\n:2\r\n", Value::Array(vec![Value::Int(2)])),
        ];
        for (text, value) in table {
            let (got, error) = drive(text.as_bytes(), std::iter::repeat(1));
            // NaN equals nothing, itself included: compare as printed.
            assert_eq!((format!("{got:?}"), error), (format!("[{value:?}]"), None), "{text:?}");
        }
    }

    #[test]
    fn limits_hold() {
        let deep = |n: usize| "*1\r\n".repeat(n) + ":1\r\n";
        assert_eq!(drive(deep(DEPTH_MAX).as_bytes(), []).1, None);
        assert_eq!(drive(deep(DEPTH_MAX + 1).as_bytes(), []).1, Some(ReplyError::TooDeep));
        let table = [
            ("x", ReplyError::Tag(b'x')),
            ("*4194305\r\n", ReplyError::TooBig),
            ("%2147483648\r\n", ReplyError::TooBig),
            ("*2\r\n*4194303\r\n", ReplyError::TooBig),
            ("$536870913\r\n", ReplyError::TooBig),
            ("$-2\r\n", ReplyError::Number),
            ("*-2\r\n", ReplyError::Number),
            ("*99999999999999999999\r\n", ReplyError::Number),
            (":1.5\r\n", ReplyError::Number),
            ("#x\r\n", ReplyError::Number),
            ("(12a\r\n", ReplyError::Number),
            ("+OK\n", ReplyError::LineEnd),
            ("$1\r\nabc", ReplyError::LineEnd),
            ("=2\r\nab\r\n", ReplyError::LineEnd),
        ];
        for (text, error) in table {
            let (got, e) = drive(text.as_bytes(), []);
            assert_eq!((got.len(), e), (0, Some(error)), "{text:?}");
        }
        let endless = vec![b'+'; LINE_MAX];
        assert_eq!(drive(&endless, std::iter::repeat(1000)).1, Some(ReplyError::TooBig));
    }

    #[test]
    fn promises_take_no_memory() {
        let mut d = ReplyDecoder::new();
        assert_eq!(d.next(b"*4194303\r\n"), Ok((10, None)));
        assert!(d.in_reply());
        assert!(d.open[0].items.capacity() <= RESERVE_MAX as usize);
        assert_eq!(d.next(b"$536870912\r\nab"), Ok((0, None)));
        assert_eq!(d.need(), (512 << 20) + 2 - 2);
    }

    #[test]
    fn mutations_neither_panic_nor_depend_on_the_cut() {
        let seedling = b"*3\r\n$3\r\nabc\r\n%1\r\n+k\r\n:12\r\n~2\r\n,1.5\r\n#t\r\n=7\r\ntxt:abc\r\n|1\r\n+a\r\n_\r\n>1\r\n(123\r\n";
        for seed in 0..5_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bytes = seedling.to_vec();
            for _ in 0..rng.random_range(1..6) {
                let i = rng.random_range(0..bytes.len());
                match rng.random_range(0..4) {
                    0 => bytes[i] ^= 1 << rng.random_range(0..8),
                    1 => bytes[i] = b"*%$\r\n0-9|"[rng.random_range(0..9)],
                    2 => drop(bytes.remove(i)),
                    _ => bytes.insert(i, rng.random()),
                }
            }
            let cuts: Vec<usize> = (0..bytes.len()).map(|_| rng.random_range(1..8)).collect();
            let (one, many) = (drive(&bytes, []), drive(&bytes, cuts));
            assert_eq!(format!("{one:?}"), format!("{many:?}"), "seed {seed}");
        }
    }
}
