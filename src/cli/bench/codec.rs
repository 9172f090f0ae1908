//! What goes over the wire: commands from templates, and replies skimmed without building them. RESP, or memcached's text
//! protocol, so that one generator measures all.

use super::keys::{DIGITS, digits};

/// Which protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Redis's.
    #[default]
    Resp,
    /// memcached's, in text.
    Memcached,
}

/// Read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// GET
    Get,
    /// SET
    Set,
}

/// A reply, as far as a benchmark cares.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Done.
    Ok,
    /// There is no such key.
    Nil,
    /// The value.
    Value(&'a [u8]),
    /// Refused; the text, its code first.
    Error(&'a [u8]),
}

/// What the bytes at hand begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Skimmed<'a> {
    /// A whole reply and its length.
    Whole(Reply<'a>, usize),
    /// The beginning of one; so many bytes are known to be needed in all.
    Part(usize),
    /// Nothing that answers GET or SET.
    Broken,
}

/// The longest line a server may answer with, bytes; errors are shorter.
const LINE_MAX: usize = 64 << 10;
/// The longest value that is taken, bytes: Redis's limit.
const VALUE_MAX: usize = 512 << 20;

/// Commands of one run, as templates.
#[derive(Debug, Clone)]
pub struct Codec {
    protocol: Protocol,
    get: Vec<u8>,
    set: Vec<u8>,
    prefix: String,
}

impl Codec {
    /// For keys of this prefix.
    pub fn new(protocol: Protocol, prefix: &str) -> Self {
        let len = prefix.len() + DIGITS;
        let (get, set) = match protocol {
            Protocol::Resp => {
                (format!("*2\r\n$3\r\nGET\r\n${len}\r\n{prefix}"), format!("*3\r\n$3\r\nSET\r\n${len}\r\n{prefix}"))
            }
            Protocol::Memcached => (format!("get {prefix}"), format!("set {prefix}")),
        };
        Self { protocol, get: get.into_bytes(), set: set.into_bytes(), prefix: prefix.to_owned() }
    }

    /// The key of a number.
    pub fn key(&self, id: u64) -> Vec<u8> {
        let mut d = [0; DIGITS];
        digits(id, &mut d);
        [self.prefix.as_bytes(), &d].concat()
    }

    /// Appends a GET.
    pub fn get(&self, out: &mut Vec<u8>, id: u64) {
        out.extend_from_slice(&self.get);
        push_digits(out, id);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends a SET of `len` bytes; `value` appends exactly so many.
    pub fn set(&self, out: &mut Vec<u8>, id: u64, len: usize, value: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.set);
        push_digits(out, id);
        let mut n = itoa::Buffer::new();
        out.extend_from_slice(match self.protocol {
            Protocol::Resp => b"\r\n$",
            Protocol::Memcached => b" 0 0 ",
        });
        out.extend_from_slice(n.format(len).as_bytes());
        out.extend_from_slice(b"\r\n");
        value(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends ASKING, which goes before a command that a slot's next owner is to serve already.
    pub fn asking(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
    }

    /// Looks at the first reply in `buf`.
    pub fn skim<'a>(&self, buf: &'a [u8]) -> Skimmed<'a> {
        match self.protocol {
            Protocol::Resp => skim_resp(buf),
            Protocol::Memcached => skim_memcached(buf),
        }
    }
}

fn push_digits(out: &mut Vec<u8>, id: u64) {
    let mut d = [0; DIGITS];
    digits(id, &mut d);
    out.extend_from_slice(&d);
}

/// The first line without its end, and where the next begins.
fn line(buf: &[u8]) -> Result<Option<(&[u8], usize)>, ()> {
    match memchr::memchr(b'\n', buf) {
        Some(at) if at > 0 && buf[at - 1] == b'\r' => Ok(Some((&buf[..at - 1], at + 1))),
        Some(_) => Err(()),
        None if buf.len() > LINE_MAX => Err(()),
        None => Ok(None),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    digits.iter().try_fold(0usize, |n, b| b.is_ascii_digit().then(|| n * 10 + usize::from(b - b'0')))
}

fn skim_resp(buf: &[u8]) -> Skimmed<'_> {
    let (head, start) = match line(buf) {
        Ok(Some(found)) => found,
        Ok(None) => return Skimmed::Part(buf.len() + 1),
        Err(()) => return Skimmed::Broken,
    };
    match head.split_first() {
        Some((b'+' | b':', _)) => Skimmed::Whole(Reply::Ok, start),
        Some((b'-', text)) => Skimmed::Whole(Reply::Error(text), start),
        Some((b'$', b"-1")) | Some((b'_', b"")) => Skimmed::Whole(Reply::Nil, start),
        Some((b'$', len)) => match number(len).filter(|n| *n <= VALUE_MAX) {
            Some(len) => body(buf, start, len, b"\r\n"),
            None => Skimmed::Broken,
        },
        _ => Skimmed::Broken,
    }
}

/// A value of `len` bytes at `start` with `end` behind it.
fn body<'a>(buf: &'a [u8], start: usize, len: usize, end: &[u8]) -> Skimmed<'a> {
    let all = start + len + end.len();
    if buf.len() < all {
        return Skimmed::Part(all);
    }
    let (value, rest) = buf[start..all].split_at(len);
    if rest == end { Skimmed::Whole(Reply::Value(value), all) } else { Skimmed::Broken }
}

fn skim_memcached(buf: &[u8]) -> Skimmed<'_> {
    let (head, start) = match line(buf) {
        Ok(Some(found)) => found,
        Ok(None) => return Skimmed::Part(buf.len() + 1),
        Err(()) => return Skimmed::Broken,
    };
    match head {
        b"STORED" => Skimmed::Whole(Reply::Ok, start),
        b"END" => Skimmed::Whole(Reply::Nil, start),
        _ if head.starts_with(b"VALUE ") => {
            let len = head.rsplit(|b| *b == b' ').next().and_then(number).filter(|n| *n <= VALUE_MAX);
            len.map_or(Skimmed::Broken, |len| body(buf, start, len, b"\r\nEND\r\n"))
        }
        b"ERROR" | b"NOT_STORED" => Skimmed::Whole(Reply::Error(head), start),
        _ if head.starts_with(b"SERVER_ERROR") || head.starts_with(b"CLIENT_ERROR") => {
            Skimmed::Whole(Reply::Error(head), start)
        }
        _ => Skimmed::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_are_what_servers_read() {
        let c = Codec::new(Protocol::Resp, "key:");
        assert_eq!(text(|o| c.get(o, 42)), "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n");
        let set = text(|o| c.set(o, 7, 3, |o| o.extend_from_slice(b"abc")));
        assert_eq!(set, "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000007\r\n$3\r\nabc\r\n");
        assert_eq!(c.key(7), b"key:000000000007");
        let c = Codec::new(Protocol::Memcached, "key:");
        assert_eq!(text(|o| c.get(o, 42)), "get key:000000000042\r\n");
        let set = text(|o| c.set(o, 7, 3, |o| o.extend_from_slice(b"abc")));
        assert_eq!(set, "set key:000000000007 0 0 3\r\nabc\r\n");
    }

    #[test]
    fn replies_are_whole_however_they_are_cut() {
        let resp: &[(&[u8], Reply<'_>)] = &[
            (b"+OK\r\n", Reply::Ok),
            (b"$-1\r\n", Reply::Nil),
            (b"_\r\n", Reply::Nil),
            (b"$0\r\n\r\n", Reply::Value(b"")),
            (b"$4\r\na\r\nb\r\n", Reply::Value(b"a\r\nb")),
            (b"-MOVED 5 h:1\r\n", Reply::Error(b"MOVED 5 h:1")),
        ];
        let memcached: &[(&[u8], Reply<'_>)] = &[
            (b"STORED\r\n", Reply::Ok),
            (b"END\r\n", Reply::Nil),
            (b"VALUE k 0 3\r\nEND\r\nEND\r\n", Reply::Value(b"END")),
            (b"SERVER_ERROR out of memory\r\n", Reply::Error(b"SERVER_ERROR out of memory")),
        ];
        for (protocol, cases) in [(Protocol::Resp, resp), (Protocol::Memcached, memcached)] {
            let c = Codec::new(protocol, "key:");
            for (bytes, want) in cases {
                for cut in 0..bytes.len() {
                    match c.skim(&bytes[..cut]) {
                        Skimmed::Part(need) => assert!(need > cut && need <= bytes.len(), "{bytes:?} {cut} {need}"),
                        other => panic!("{bytes:?} at {cut}: {other:?}"),
                    }
                }
                let more = [*bytes, b"+next"].concat();
                match c.skim(&more) {
                    Skimmed::Whole(reply, len) => assert_eq!((&reply, len), (want, bytes.len())),
                    other => panic!("{bytes:?}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_answers_no_command_is_broken() {
        let c = Codec::new(Protocol::Resp, "key:");
        for bad in
            [&b"*1\r\n+a\r\n"[..], b"hello\r\n", b"$x\r\n", b"$99999999999\r\n", b"$1\r\nab\r\n", b"+a\n", b"\r\n"]
        {
            assert_eq!(c.skim(bad), Skimmed::Broken, "{bad:?}");
        }
        assert_eq!(Codec::new(Protocol::Memcached, "").skim(b"+OK\r\n"), Skimmed::Broken);
        assert_eq!(c.skim(&[b'+'; LINE_MAX + 1]), Skimmed::Broken);
    }
}
