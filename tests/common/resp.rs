//! A RESP2/RESP3 connection of the tests' own: if it shared the server's codec, both could be wrong together.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A server that says nothing for this long is taken for hung: twice the longest a command may be parked or unconfirmed.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Deepest nesting and longest length that a reply may have here; beyond it the server is wrong.
const DEPTH_MAX: usize = 16;
const LENGTH_MAX: i64 = 64 << 20;

/// One reply.
#[derive(Clone, PartialEq)]
pub enum Reply {
    /// `+`
    Simple(String),
    /// `-` and `!`
    Error(String),
    /// `:`
    Int(i64),
    /// `$` and `=`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1`, `_`
    Nil,
    /// `*`
    Array(Vec<Reply>),
    /// `%`
    Map(Vec<(Reply, Reply)>),
    /// `~`
    Set(Vec<Reply>),
    /// `>`
    Push(Vec<Reply>),
    /// `#`
    Bool(bool),
    /// `,`
    Double(f64),
}

/// Bytes as text, shortened: a failing test shows replies, and nobody reads a list of numbers.
const SHOWN_MAX: usize = 200;

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(s) => write!(f, "+{s}"),
            Reply::Error(s) => write!(f, "-{s}"),
            Reply::Int(i) => write!(f, ":{i}"),
            Reply::Bulk(b) if b.len() <= SHOWN_MAX => write!(f, "{:?}", String::from_utf8_lossy(b)),
            Reply::Bulk(b) => write!(f, "{:?}… ({} bytes)", String::from_utf8_lossy(&b[..SHOWN_MAX]), b.len()),
            Reply::Nil => write!(f, "nil"),
            Reply::Array(e) => f.debug_list().entries(e).finish(),
            Reply::Set(e) => f.debug_set().entries(e).finish(),
            Reply::Push(e) => f.debug_tuple("push").field(e).finish(),
            Reply::Map(e) => f.debug_map().entries(e.iter().map(|(k, v)| (k, v))).finish(),
            Reply::Bool(b) => write!(f, "{b}"),
            Reply::Double(d) => write!(f, "{d}"),
        }
    }
}

impl Reply {
    /// The text of a simple or bulk string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Reply::Simple(s) => Some(s),
            Reply::Bulk(b) => std::str::from_utf8(b).ok(),
            _ => None,
        }
    }

    /// The elements of an array or set.
    #[track_caller]
    pub fn elements(&self) -> &[Reply] {
        match self {
            Reply::Array(e) | Reply::Set(e) => e,
            other => panic!("not an array: {other:?}"),
        }
    }

    /// The integer.
    #[track_caller]
    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(i) => *i,
            other => panic!("not an integer: {other:?}"),
        }
    }

    /// A field of a map, or of a flat array of names and values as RESP2 has it.
    pub fn field(&self, name: &str) -> Option<&Reply> {
        match self {
            Reply::Map(pairs) => pairs.iter().find(|(k, _)| k.text() == Some(name)).map(|(_, v)| v),
            Reply::Array(flat) => flat.chunks_exact(2).find(|kv| kv[0].text() == Some(name)).map(|kv| &kv[1]),
            _ => None,
        }
    }

    /// Whether it is `+OK`.
    pub fn is_ok(&self) -> bool {
        *self == Reply::Simple("OK".into())
    }
}

/// A connection that sends what it is told and reads what comes, nothing more.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub fn open(addr: impl ToSocketAddrs) -> io::Result<Self> {
        let addr = addr.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let stream = TcpStream::connect_timeout(&addr, SILENCE_MAX)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends one command.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        self.send_raw(&encode(args))
    }

    /// Sends one command and reads one reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        self.send(args)?;
        self.read()
    }

    /// Reads one reply.
    pub fn read(&mut self) -> io::Result<Reply> {
        read_reply(&mut self.stream, 0)
    }

    /// Reads one line, newline stripped: for JSON sessions.
    pub fn read_line(&mut self) -> io::Result<String> {
        read_line(&mut self.stream)
    }

    /// Whether the server closes the connection without another byte.
    pub fn is_closed_by_peer(&mut self) -> io::Result<bool> {
        Ok(self.stream.fill_buf()?.is_empty())
    }
}

/// A command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn broken(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LENGTH_MAX as u64).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection within a line"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|e| broken(e.to_string()))
}

fn read_reply(stream: &mut impl BufRead, depth: usize) -> io::Result<Reply> {
    if depth > DEPTH_MAX {
        return Err(broken(format!("nested deeper than {DEPTH_MAX}")));
    }
    let line = read_line(stream)?;
    let kind = *line.as_bytes().first().ok_or_else(|| broken("an empty line for a reply".into()))?;
    let rest = line.get(1..).ok_or_else(|| broken(format!("{line:?}")))?.to_owned();
    let number = || rest.parse::<i64>().map_err(|_| broken(format!("no number in {line:?}")));
    let length = || {
        let n = number()?;
        if (-1..=LENGTH_MAX).contains(&n) { Ok(n) } else { Err(broken(format!("length {n}"))) }
    };
    Ok(match kind {
        b'+' => Reply::Simple(rest),
        b'-' => Reply::Error(rest),
        b':' => Reply::Int(number()?),
        b'_' => Reply::Nil,
        b'#' => Reply::Bool(rest == "t"),
        b',' => Reply::Double(rest.parse().map_err(|_| broken(format!("no double in {line:?}")))?),
        b'$' | b'=' | b'!' => match length()? {
            -1 => Reply::Nil,
            n => {
                let mut bytes = vec![0; n as usize + 2];
                stream.read_exact(&mut bytes)?;
                if bytes.split_off(n as usize) != b"\r\n" {
                    return Err(broken(format!("a string of {n} bytes does not end in CRLF")));
                }
                match kind {
                    b'!' => Reply::Error(String::from_utf8_lossy(&bytes).into_owned()),
                    b'=' => Reply::Bulk(bytes.get(4..).unwrap_or_default().to_vec()),
                    _ => Reply::Bulk(bytes),
                }
            }
        },
        b'*' | b'~' | b'>' => match length()? {
            -1 => Reply::Nil,
            n => {
                let all = (0..n).map(|_| read_reply(stream, depth + 1)).collect::<io::Result<_>>()?;
                match kind {
                    b'*' => Reply::Array(all),
                    b'~' => Reply::Set(all),
                    _ => Reply::Push(all),
                }
            }
        },
        b'%' => Reply::Map(
            (0..length()?)
                .map(|_| Ok((read_reply(stream, depth + 1)?, read_reply(stream, depth + 1)?)))
                .collect::<io::Result<_>>()?,
        ),
        _ => return Err(broken(format!("no reply begins with {line:?}"))),
    })
}
