//! Control connections: NDJSON lines over any byte stream, bounded and safe to use in `select!`.
//!
//! Reading yields typed messages ([`LineReader::recv`]) or raw lines ([`LineReader::next_line`]) for those who speak more
//! than [`Message`]. Both halves keep their state outside their futures, so that dropping one loses nothing.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::proto::control::{self, Incoming, LINE_MAX, Message};
use crate::proto::error::Failure;
use crate::proto::id::ClusterId;

/// How much one read asks for, bytes: a heartbeat fits many times, and an idle connection holds no more than this.
const READ_CHUNK: usize = 16 << 10;
/// A buffer that a long line has grown beyond this is given back once the line is out, bytes.
const KEEP_MAX: usize = 256 << 10;
/// Bytes queued and not yet written: two longest lines (a full view and what follows it). Beyond, the peer does not read.
pub const BACKLOG_MAX: usize = 2 * (LINE_MAX + 1);

/// Why a control connection ends.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No connection within the time given.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// More than [`LINE_MAX`] bytes without a newline.
    #[error("a line is longer than {LINE_MAX} bytes")]
    TooLong,
    /// The peer closed in the middle of a line; what came of it was not acted on.
    #[error("the connection ended in the middle of a line")]
    Truncated,
    /// A line that is no envelope.
    #[error("broken line: {0}")]
    Broken(Failure),
    /// The peer does not read: more than [`BACKLOG_MAX`] bytes wait for it.
    #[error("the peer does not read: more than {BACKLOG_MAX} bytes wait for it")]
    Backlog,
}

impl ConnError {
    /// What a server says before it closes; none where nobody is left to hear it.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            ConnError::Io(_) | ConnError::ConnectTimeout(_) | ConnError::Backlog => None,
            ConnError::TooLong => Some(Failure::new("LINE_TOO_LONG", self.to_string())),
            ConnError::Truncated => Some(Failure::new("BAD_LINE", self.to_string())),
            ConnError::Broken(f) => Some(f.clone()),
        }
    }
}

/// Reads lines from `R`, however they are cut.
pub struct LineReader<R> {
    inner: R,
    buf: BytesMut,
    /// Bytes of `buf` known to hold no newline.
    scanned: usize,
    line_max: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Reads from `inner`, lines of at most [`LINE_MAX`] bytes.
    pub fn new(inner: R) -> Self {
        Self::with_prefix(inner, b"")
    }

    /// As [`LineReader::new`], but `prefix` was read already (to tell protocols apart).
    pub fn with_prefix(inner: R, prefix: &[u8]) -> Self {
        Self { inner, buf: BytesMut::from(prefix), scanned: 0, line_max: LINE_MAX }
    }

    /// The next line as it came, without its newline (LF or CR LF). `None` at an orderly end. Cancel-safe.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, ConnError> {
        loop {
            if let Some(line) = self.buffered_line()? {
                return Ok(Some(line));
            }
            self.buf.reserve(READ_CHUNK);
            // Nothing is lost when this future is dropped at its only await: `read_buf` takes all or nothing.
            let n = self.inner.read_buf(&mut (&mut self.buf).limit(READ_CHUNK)).await?;
            if n == 0 {
                return if self.buf.is_empty() { Ok(None) } else { Err(ConnError::Truncated) };
            }
        }
    }

    /// The next message; blank lines (a person at `nc`) are skipped. An unknown type is an `Ok` with a failure in
    /// [`Incoming::message`]; an `Err` ends the connection, after [`ConnError::failure`] was sent. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Option<Incoming>, ConnError> {
        while let Some(line) = self.next_line().await? {
            if !line.trim_ascii().is_empty() {
                return control::decode(&line).map(Some).map_err(ConnError::Broken);
            }
        }
        Ok(None)
    }

    fn buffered_line(&mut self) -> Result<Option<Bytes>, ConnError> {
        let Some(at) = memchr::memchr(b'\n', &self.buf[self.scanned..]) else {
            self.scanned = self.buf.len();
            return if self.scanned > self.line_max { Err(ConnError::TooLong) } else { Ok(None) };
        };
        let end = self.scanned + at;
        self.scanned = 0;
        if end > self.line_max {
            return Err(ConnError::TooLong);
        }
        let mut line = self.buf.split_to(end + 1);
        if line.len() > KEEP_MAX {
            self.buf = BytesMut::from(&self.buf[..]);
        }
        let cr = usize::from(line[..end].last() == Some(&b'\r'));
        line.truncate(end - cr);
        Ok(Some(line.freeze()))
    }
}

/// Writes lines to `W`. What was queued stays queued when a future is dropped, so lines are never torn.
pub struct LineWriter<W> {
    inner: W,
    out: BytesMut,
    /// `out` held more than [`KEEP_MAX`] since it was last empty.
    grown: bool,
}

impl<W: AsyncWrite + Unpin> LineWriter<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, out: BytesMut::new(), grown: false }
    }

    /// Queues a message without writing.
    pub fn queue(
        &mut self,
        machine: &str,
        cluster_id: Option<ClusterId>,
        id: u64,
        message: &Message,
    ) -> Result<(), ConnError> {
        self.queue_bytes(&control::encode(machine, cluster_id, id, message))
    }

    /// Queues a line that holds no newline yet.
    pub fn queue_line(&mut self, line: &[u8]) -> Result<(), ConnError> {
        self.queue_bytes(line)?;
        self.out.put_u8(b'\n');
        Ok(())
    }

    fn queue_bytes(&mut self, bytes: &[u8]) -> Result<(), ConnError> {
        if self.out.len() + bytes.len() > BACKLOG_MAX {
            return Err(ConnError::Backlog);
        }
        self.out.extend_from_slice(bytes);
        self.grown |= self.out.len() > KEEP_MAX;
        Ok(())
    }

    /// Bytes queued and not yet handed to the system.
    pub fn backlog(&self) -> usize {
        self.out.len()
    }

    /// Writes all that is queued. Cancel-safe: the next call goes on where this one stopped. After an error the last line
    /// queued was not handed over whole, so the peer cannot have acted on it.
    pub async fn flush(&mut self) -> Result<(), ConnError> {
        while self.out.has_remaining() {
            if self.inner.write_buf(&mut self.out).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        if std::mem::take(&mut self.grown) {
            self.out = BytesMut::new();
        }
        Ok(self.inner.flush().await?)
    }

    /// Queues a message and writes all that is queued.
    pub async fn send(
        &mut self,
        machine: &str,
        cluster_id: Option<ClusterId>,
        id: u64,
        message: &Message,
    ) -> Result<(), ConnError> {
        self.queue(machine, cluster_id, id, message)?;
        self.flush().await
    }

    /// Queues a raw line (no newline in it) and writes all that is queued.
    pub async fn send_line(&mut self, line: &[u8]) -> Result<(), ConnError> {
        self.queue_line(line)?;
        self.flush().await
    }
}

/// Both halves of a control connection over TCP.
pub struct Conn {
    /// What comes in.
    pub reader: LineReader<OwnedReadHalf>,
    /// What goes out.
    pub writer: LineWriter<OwnedWriteHalf>,
}

impl Conn {
    /// Takes a connected or accepted stream; sets TCP_NODELAY, since heartbeats are small and late ones cost a failover.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (r, w) = stream.into_split();
        Ok(Self { reader: LineReader::new(r), writer: LineWriter::new(w) })
    }

    /// Connects to host:port within `within`.
    pub async fn connect(addr: &str, within: Duration) -> Result<Self, ConnError> {
        let stream = tokio::time::timeout(within, TcpStream::connect(addr))
            .await
            .map_err(|_| ConnError::ConnectTimeout(within))??;
        Ok(Self::new(stream)?)
    }

    /// For tasks of their own.
    pub fn into_split(self) -> (LineReader<OwnedReadHalf>, LineWriter<OwnedWriteHalf>) {
        (self.reader, self.writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::control::Empty;
    use proptest::prelude::*;

    fn run<F: Future>(f: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
    }

    /// A stream that hands out exactly these pieces, with a pending poll before each.
    struct Pieces(std::collections::VecDeque<Vec<u8>>, bool);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            if let Some(mut p) = self.0.pop_front() {
                let n = p.len().min(buf.remaining());
                buf.put_slice(&p[..n]);
                if n < p.len() {
                    self.0.push_front(p.split_off(n));
                }
            }
            std::task::Poll::Ready(Ok(()))
        }
    }

    fn cut(bytes: &[u8], cuts: &[usize]) -> Pieces {
        let mut pieces = std::collections::VecDeque::new();
        let mut rest = bytes;
        for c in cuts {
            let n = (c % 7 + 1).min(rest.len());
            pieces.push_back(rest[..n].to_vec());
            rest = &rest[n..];
        }
        pieces.push_back(rest.to_vec());
        pieces.retain(|p| !p.is_empty());
        Pieces(pieces, false)
    }

    proptest! {
        #[test]
        fn lines_survive_any_cut_and_any_cancellation(
            lines in prop::collection::vec("[a-z{}\":]{0,40}", 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..80),
        ) {
            let mut bytes = Vec::new();
            for (i, l) in lines.iter().enumerate() {
                bytes.extend_from_slice(l.as_bytes());
                bytes.extend_from_slice(if i % 2 == 0 { b"\n" } else { b"\r\n" });
            }
            let got = run(async {
                let mut r = LineReader::new(cut(&bytes, &cuts));
                let mut got = Vec::new();
                loop {
                    // `biased` against the reader: its future is dropped at every pending poll.
                    tokio::select! {
                        biased;
                        line = r.next_line() => match line.unwrap() {
                            Some(l) => got.push(String::from_utf8(l.to_vec()).unwrap()),
                            None => break,
                        },
                        () = std::future::ready(()) => tokio::task::yield_now().await,
                    }
                }
                got
            });
            prop_assert_eq!(got, lines);
        }
    }

    #[test]
    fn a_line_too_long_is_refused_before_it_is_held() {
        run(async {
            let (a, mut b) = tokio::io::duplex(1 << 16);
            let mut r = LineReader::new(a);
            let writer = tokio::spawn(async move {
                let chunk = vec![b'x'; 1 << 16];
                while b.write_all(&chunk).await.is_ok() {}
            });
            let e = r.next_line().await.unwrap_err();
            assert_eq!(e.failure().unwrap().code, "LINE_TOO_LONG");
            assert!(r.buf.capacity() <= 2 * LINE_MAX + 2 * READ_CHUNK, "{}", r.buf.capacity());
            drop(r);
            writer.await.unwrap();
        });
    }

    #[test]
    fn the_longest_line_passes_and_its_memory_is_given_back() {
        run(async {
            let (a, mut b) = tokio::io::duplex(1 << 16);
            let writer = tokio::spawn(async move {
                b.write_all(&vec![b'x'; LINE_MAX]).await.unwrap();
                b.write_all(b"\nhello\n").await.unwrap();
            });
            let mut r = LineReader::new(a);
            assert_eq!(r.next_line().await.unwrap().unwrap().len(), LINE_MAX);
            assert_eq!(r.next_line().await.unwrap().unwrap(), "hello");
            assert!(r.buf.capacity() <= KEEP_MAX);
            assert!(r.next_line().await.unwrap().is_none());
            writer.await.unwrap();
        });
    }

    #[test]
    fn messages_pass_blank_lines_are_skipped_broken_ones_end_it() {
        run(async {
            let (a, b) = tokio::io::duplex(1 << 16);
            let (mut r, mut w) = (LineReader::new(a), LineWriter::new(b));
            w.send_line(b"").await.unwrap();
            w.send("cli", None, 7, &Message::Watch(Empty {})).await.unwrap();
            w.send_line(br#"{"v":1,"machine":"x","type":"DANCE","id":1,"data":{}}"#).await.unwrap();
            w.send_line(b"GET / HTTP/1.1").await.unwrap();
            let first = r.recv().await.unwrap().unwrap();
            assert_eq!((first.id, first.message), (7, Ok(Message::Watch(Empty {}))));
            assert_eq!(r.recv().await.unwrap().unwrap().message.unwrap_err().code, "UNKNOWN_TYPE");
            assert_eq!(r.recv().await.unwrap_err().failure().unwrap().code, "BAD_LINE");
            drop(w);
            assert!(r.recv().await.unwrap().is_none());
        });
    }

    #[test]
    fn an_end_inside_a_line_is_told_apart_from_an_orderly_one() {
        run(async {
            let mut r = LineReader::new(&b"{\"v\":1"[..]);
            assert!(matches!(r.recv().await, Err(ConnError::Truncated)));
        });
    }

    #[test]
    fn a_dropped_send_tears_no_line_and_the_backlog_is_bounded() {
        run(async {
            let (a, b) = tokio::io::duplex(64);
            let mut w = LineWriter::new(b);
            let long = vec![b'y'; 1000];
            let dropped = tokio::time::timeout(Duration::from_millis(5), w.send_line(&long)).await;
            assert!(dropped.is_err(), "64 bytes of pipe cannot take 1000");
            assert!(w.backlog() > 0);
            let reader = tokio::spawn(async move {
                let mut r = LineReader::new(a);
                let first = r.next_line().await.unwrap().unwrap().len();
                (first, r.next_line().await.unwrap().unwrap())
            });
            w.send_line(b"next").await.unwrap();
            assert_eq!(reader.await.unwrap(), (1000, Bytes::from_static(b"next")));

            let big = vec![b'z'; LINE_MAX];
            w.queue_line(&big).unwrap();
            w.queue_line(&big).unwrap();
            assert!(matches!(w.queue_line(&big), Err(ConnError::Backlog)));
        });
    }
}
