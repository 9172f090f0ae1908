//! Peer frames over a TCP connection: a bounded read buffer that yields whole frames, and the two-way greeting.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::node::health::http::{self, Request};
use crate::proto::frame::{self, BadFrame, Frame, Purpose};
use crate::proto::id::{ClusterId, Ref};

/// A greeting that takes longer than this is given up: the peer is stuck or is no peer.
pub const GREETING_MAX: Duration = Duration::from_secs(2);
/// The longest head of an HTTP request, bytes: a scraper's is a few hundred.
const HEAD_MAX: usize = 16 << 10;
/// What is read at once: several batches of small items, one chunk of a copy.
const READ_SIZE: usize = 64 << 10;

/// Bytes read and not yet taken as frames.
#[derive(Debug, Default)]
pub struct Inbox {
    buf: Vec<u8>,
    start: usize,
    before: usize,
}

impl Inbox {
    /// Reads what is there now into the buffer; 0 = the other side closed.
    pub fn try_fill(&mut self, stream: &TcpStream) -> io::Result<usize> {
        self.make_room();
        self.buf.reserve(READ_SIZE);
        stream.try_read_buf(&mut bytes::BufMut::limit(&mut self.buf, READ_SIZE))
    }

    /// Waits for bytes; an error at the end of the stream.
    pub async fn fill(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.make_room();
        self.buf.reserve(READ_SIZE);
        match stream.read_buf(&mut self.buf).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Takes bytes that came another way than by a socket.
    #[cfg(test)]
    pub fn feed(&mut self, bytes: &[u8]) {
        self.make_room();
        self.buf.extend_from_slice(bytes);
    }

    /// Puts the frame that [`Inbox::frame`] gave last back.
    pub fn untake(&mut self) {
        self.start = self.before;
    }

    /// What was read and not yet taken.
    pub fn unread(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// The whole frames that come next, without taking them, up to the first that is none.
    pub fn ahead(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            let (frame, len) = frame::take(&self.buf[at..]).ok()??;
            at += len;
            Some(frame)
        })
    }

    fn make_room(&mut self) {
        if self.start == self.buf.len() {
            self.buf.clear();
            if self.buf.capacity() > READ_SIZE * 16 {
                self.buf = Vec::new();
            }
        } else if self.start > 0 {
            self.buf.drain(..self.start);
        }
        self.start = 0;
    }

    /// The next whole frame, if there is one.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, BadFrame> {
        match frame::take(&self.buf[self.start..])? {
            Some((_, len)) => {
                let from = self.start;
                self.before = from;
                self.start += len;
                // Taken again to end the first borrow; heads are a few bytes.
                Ok(frame::take(&self.buf[from..])?.map(|(f, _)| f))
            }
            None => Ok(None),
        }
    }
}

/// Sends one frame now.
pub async fn send(stream: &mut TcpStream, frame: &Frame<'_>) -> io::Result<()> {
    let mut out = Vec::new();
    frame::put(&mut out, frame);
    stream.write_all(&out).await
}

/// The peer did not want us, or never answered.
pub fn refused(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, text.to_owned())
}

/// Dials and says HELLO; the answer is left to the caller.
pub async fn dial(addr: &str, hello: &Frame<'_>) -> io::Result<TcpStream> {
    let mut stream = timeout(GREETING_MAX, TcpStream::connect(addr)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    send(&mut stream, hello).await?;
    Ok(stream)
}

/// Waits for the first bytes: no frame is as long as `GET ` or any other verb would say. A head as text, or the answer to what
/// is not taken; none if a peer speaks.
pub async fn http(stream: &mut TcpStream, inbox: &mut Inbox) -> io::Result<Option<Result<Request, Vec<u8>>>> {
    timeout(GREETING_MAX, async {
        while inbox.unread().len() < 4 {
            inbox.fill(stream).await?;
        }
        if !inbox.unread()[..4].iter().all(|b| b.is_ascii_uppercase() || matches!(b, b' ' | b'/')) {
            return Ok(None);
        }
        loop {
            let head = inbox.unread();
            if let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") {
                let mut lines = head[..end].split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
                let first = lines.next().unwrap_or_default();
                if !http::is_http(first) {
                    return Err(refused("no HTTP"));
                }
                return Ok(Some(http::parse(first, lines)));
            }
            if head.len() > HEAD_MAX {
                return Err(refused("an endless HTTP head"));
            }
            inbox.fill(stream).await?;
        }
    })
    .await
    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Sends the last bytes of a connection and closes it behind them.
pub async fn farewell(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    timeout(GREETING_MAX, async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    })
    .await
    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Who dials, and what for.
pub struct Greeting {
    /// The dialler.
    pub from: Ref,
    /// What for.
    pub purpose: Purpose,
    /// What it saw acked.
    pub acked: u64,
}

/// Waits for HELLO and checks that this life of this cluster is meant; answers UNWELCOME otherwise.
pub async fn greet(stream: &mut TcpStream, inbox: &mut Inbox, me: &Ref, cluster: ClusterId) -> io::Result<Greeting> {
    stream.set_nodelay(true)?;
    let hello = timeout(GREETING_MAX, async {
        loop {
            match inbox.frame().map_err(io::Error::other)? {
                Some(Frame::Hello { cluster: c, from, to, purpose, acked }) => {
                    return Ok((c == cluster && to == *me && from != *me, Greeting { from, purpose, acked }));
                }
                Some(_) => return Err(refused("no HELLO")),
                None => {}
            }
            inbox.fill(stream).await?;
        }
    });
    let (wanted, greeting) = hello.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if !wanted {
        send(stream, &Frame::Unwelcome).await?;
        return Err(refused("another life or another cluster"));
    }
    Ok(greeting)
}
