//! Writes replies in RESP2 or RESP3 straight into an outgoing buffer.

/// Which protocol a connection speaks (HELLO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proto {
    /// The default.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// Bytes around a byte string at most: its head and its end.
const BULK_FRAME: usize = 32;

/// A reply under construction at the end of `buf`.
pub struct Reply<'a> {
    buf: &'a mut Vec<u8>,
    proto: Proto,
}

impl<'a> Reply<'a> {
    /// Appends to `buf`.
    pub fn new(buf: &'a mut Vec<u8>, proto: Proto) -> Self {
        Self { buf, proto }
    }

    /// The protocol in use.
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// HELLO switches in mid-connection.
    pub fn set_proto(&mut self, proto: Proto) {
        self.proto = proto;
    }

    #[inline]
    fn line(&mut self, tag: u8, n: i64) {
        // Most lengths and counts have up to three digits: each shape is one write.
        let digit = |n: u32| b'0' + n as u8;
        match u32::try_from(n) {
            Ok(n @ 0..10) => self.buf.extend_from_slice(&[tag, digit(n), b'\r', b'\n']),
            Ok(n @ 10..100) => self.buf.extend_from_slice(&[tag, digit(n / 10), digit(n % 10), b'\r', b'\n']),
            Ok(n @ 100..1000) => {
                let tens = n / 10;
                let line = [tag, digit(tens / 10), digit(tens % 10), digit(n % 10), b'\r', b'\n'];
                self.buf.extend_from_slice(&line);
            }
            _ => {
                self.buf.push(tag);
                self.buf.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
                self.buf.extend_from_slice(b"\r\n");
            }
        }
    }

    /// `+OK` and the like. `text` holds no CR or LF.
    pub fn simple(&mut self, text: &str) {
        self.buf.push(b'+');
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.extend_from_slice(b"\r\n");
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.buf.extend_from_slice(b"+OK\r\n");
    }

    /// An error, its code first (`ERR …`). CR and LF become spaces.
    pub fn error(&mut self, text: &str) {
        self.buf.push(b'-');
        self.buf.extend(text.bytes().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An error whose text may hold a client's bytes. CR and LF become spaces; at the end they go.
    pub fn error_bytes(&mut self, text: &[u8]) {
        let end = text.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let text = &text[..end];
        self.buf.push(b'-');
        self.buf.extend(text.iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn int(&mut self, n: i64) {
        self.line(b':', n);
    }

    /// A byte string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.buf.reserve(bytes.len() + BULK_FRAME);
        self.line(b'$', bytes.len() as i64);
        self.buf.extend_from_slice(bytes);
        self.buf.extend_from_slice(b"\r\n");
    }

    /// A value or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(b) => self.bulk(b),
            None => self.null(),
        }
    }

    /// Missing: `$-1` in RESP2, `_` in RESP3.
    pub fn null(&mut self) {
        self.buf.extend_from_slice(match self.proto {
            Proto::Resp2 => b"$-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// A missing array: `*-1` in RESP2, `_` in RESP3.
    pub fn null_array(&mut self) {
        self.buf.extend_from_slice(match self.proto {
            Proto::Resp2 => b"*-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// The head of an array; `n` replies follow.
    pub fn array(&mut self, n: usize) {
        self.line(b'*', n as i64);
    }

    /// The head of a map; `n` pairs follow. In RESP2 an array of 2n.
    pub fn map(&mut self, n: usize) {
        match self.proto {
            Proto::Resp2 => self.line(b'*', 2 * n as i64),
            Proto::Resp3 => self.line(b'%', n as i64),
        }
    }

    /// The head of a set; `n` replies follow. In RESP2 an array.
    pub fn set(&mut self, n: usize) {
        self.line(if self.proto == Proto::Resp2 { b'*' } else { b'~' }, n as i64);
    }

    /// Text with a format (`txt`); a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.proto {
            Proto::Resp2 => self.bulk(text.as_bytes()),
            Proto::Resp3 => {
                self.line(b'=', text.len() as i64 + 4);
                self.buf.extend_from_slice(b"txt:");
                self.buf.extend_from_slice(text.as_bytes());
                self.buf.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Replies made beforehand, whole.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes written so far, to cut back to with [`Reply::truncate`].
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Takes back what was written after `len`.
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_written_as_they_are() {
        for n in (-2..2000).chain([9_999, 65_536, i64::MAX, i64::MIN]) {
            let mut buf = b"before".to_vec();
            Reply::new(&mut buf, Proto::Resp2).int(n);
            assert_eq!(buf, format!("before:{n}\r\n").into_bytes());
        }
        for len in [0, 9, 10, 99, 100, 999, 1000, 70_000] {
            let mut buf = Vec::new();
            Reply::new(&mut buf, Proto::Resp3).bulk(&vec![b'v'; len]);
            assert_eq!(buf, format!("${len}\r\n{}\r\n", "v".repeat(len)).into_bytes());
        }
    }
}
