//! One RESP connection to a cache node, with pipelining: what the cluster client, the benchmark and the tests speak through.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proto::resp::encode_command_into;
use crate::proto::value::{ReplyDecoder, ReplyError, Value};

/// How much one read asks for at least, bytes.
const READ_CHUNK: usize = 16 << 10;
/// The most that is reserved at once for a value on the way, bytes; the rest grows with what arrives.
const RESERVE_MAX: usize = 4 << 20;
/// A buffer grown beyond this is given back once it is empty, bytes.
const KEEP_MAX: usize = 256 << 10;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum RespError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No connection within the time given.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// What came is no reply.
    #[error("not a cache node: {0}")]
    Reply(#[from] ReplyError),
}

/// A connection. Commands go out in the order queued; replies come in that order.
pub struct RespConn {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    written: usize,
    decoder: ReplyDecoder,
}

impl RespConn {
    /// Connects to host:port; sets TCP_NODELAY.
    pub async fn connect(addr: &str, within: Duration) -> Result<Self, RespError> {
        let stream =
            timeout(within, TcpStream::connect(addr)).await.map_err(|_| RespError::ConnectTimeout(within))??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::new(), output: Vec::new(), written: 0, decoder: ReplyDecoder::new() })
    }

    /// Whether it is known to be of no more use: closed by the server, or with bytes that nobody asked for. Meant for a
    /// connection that was idle: a command sent into a closed one has an unknown outcome.
    pub fn is_stale(&mut self) -> bool {
        if !self.input.is_empty() || self.decoder.in_reply() {
            return true;
        }
        match self.stream.try_read(&mut [0; 1]) {
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    /// Queues a command.
    pub fn queue(&mut self, args: &[&[u8]]) {
        encode_command_into(&mut self.output, args);
    }

    /// Queues bytes as they are.
    pub fn queue_raw(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Writes all that is queued. Cancel-safe: the next call goes on where this one stopped. After an error the last command
    /// was not handed over whole, so the server cannot have run it.
    pub async fn flush(&mut self) -> Result<(), RespError> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                n => self.written += n,
            }
        }
        self.written = 0;
        self.output.clear();
        if self.output.capacity() > KEEP_MAX {
            self.output = Vec::new();
        }
        Ok(())
    }

    /// The next reply; pushes are skipped. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Value, RespError> {
        loop {
            let (used, value) = self.decoder.next(&self.input)?;
            self.input.advance(used);
            match value {
                Some(Value::Push(_)) => continue,
                Some(value) => {
                    if self.input.is_empty() && used > KEEP_MAX {
                        self.input = BytesMut::new();
                    }
                    return Ok(value);
                }
                None => {}
            }
            self.input.reserve(self.decoder.need().clamp(READ_CHUNK, RESERVE_MAX));
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(RespError::Closed);
            }
        }
    }

    /// Sends one command and waits for its reply. Nothing else may be under way.
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Value, RespError> {
        self.queue(args);
        self.flush().await?;
        self.recv().await
    }
}
