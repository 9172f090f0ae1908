//! One client connection: read what is there, run all whole commands (`session.rs`), write once.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tokio::net::TcpStream;

use super::Job;
use super::around::{others_first, warm_wanted};
use super::command::error;
use super::node::Node;
use super::session::Session;
use super::shard::lock;
use super::spread::Doors;
use super::waiter::Ear;
use crate::proto::reply::Reply;

/// Serves one connection, which arrived at this thread, until either side ends it or its home is another thread.
pub async fn serve(node: Arc<Node>, doors: Arc<Doors>, thread: usize, stream: TcpStream) {
    let name = |a: io::Result<std::net::SocketAddr>| a.map(|a| a.to_string()).unwrap_or_default();
    let (addr, laddr) = (name(stream.peer_addr()), name(stream.local_addr()));
    node.counters.connections.fetch_add(1, Ordering::Relaxed);
    let now_ms = node.turn().now.mono_ms;
    let max = lock(&node.settings).maxclients;
    let Some((state, client)) = node.clients.admit(max, addr, laddr, stream.as_raw_fd(), now_ms) else {
        node.counters.rejected.fetch_add(1, Ordering::Relaxed);
        let mut out = Vec::new();
        Reply::new(&mut out, Default::default()).error_bytes(error::MAX_CLIENTS.bytes());
        let _ = stream.try_write(&out);
        return;
    };
    let _ = stream.set_nodelay(true);
    let session = Session::new(node.clone(), state, client);
    stay(&doors, thread, stream, session).await;
}

/// A connection on its way to another thread.
pub struct Guest {
    stream: std::net::TcpStream,
    session: Session,
}

impl Guest {
    /// Serves it on this thread, where it has arrived.
    pub async fn stay(self: Box<Self>, doors: Arc<Doors>, thread: usize) {
        let Self { stream, session } = *self;
        if let Ok(stream) = TcpStream::from_std(stream) {
            stay(&doors, thread, stream, session).await;
        }
    }
}

async fn stay(doors: &Doors, thread: usize, stream: TcpStream, session: Session) {
    let mut connection = Connection { stream, session, ear: Ear::default(), thread, spread: 0 };
    let end = connection.run(doors).await;
    let Connection { stream, session, .. } = connection;
    // Whatever else ended it, there is nobody left to tell.
    if let (Ok(Some(home)), Ok(stream)) = (end, stream.into_std()) {
        doors.send(home, Job::Client(Box::new(Guest { stream, session })));
    }
}

struct Connection {
    stream: TcpStream,
    session: Session,
    ear: Ear,
    /// Where it is.
    thread: usize,
    /// Over how many threads clients were spread when it was looked last.
    spread: usize,
}

impl Connection {
    /// Until either side ends it, or until its home is another thread.
    async fn run(&mut self, doors: &Doors) -> io::Result<Option<usize>> {
        let mut eof = false;
        loop {
            let turn = self.session.core.node.turn();
            if !self.session.turn(turn) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // Replies to a pipeline leave when the other connections' are made: who waits for several of them is woken once, and not
            // for each while the next is made.
            if self.session.core.answers_many() {
                others_first().await;
            }
            let core = &mut self.session.core;
            let full = !core.keeps_back() && core.flush(&self.stream)?;
            let idle = core.is_idle();
            if core.client.kill.load(Ordering::Acquire) {
                return Ok(None);
            }
            // Nobody sends or wakes it for what it has read already.
            if !full && self.session.goes_on() {
                others_first().await;
                continue;
            }
            let core = &mut self.session.core;
            if (core.closing || eof) && !full && idle {
                return Ok(None);
            }
            // Between two commands it can go elsewhere.
            if doors.active() != self.spread && idle && !full {
                self.spread = doors.active();
                let home = doors.home(core.state.id);
                if home != self.thread {
                    self.session.give_back();
                    return Ok(Some(home));
                }
            }
            let read = !eof && core.reads();
            self.session.give_back();
            eof |= self.wait(read, full).await? == Event::End;
            if self.session.wants() {
                others_first().await;
                warm_wanted(&self.session.core.node);
            }
        }
    }

    /// Waits until there is something to read (and reads it), room to write, or somebody who wakes this connection.
    async fn wait(&mut self, read: bool, write: bool) -> io::Result<Event> {
        let Self { stream, session, ear, .. } = self;
        poll_fn(|cx| {
            if ear.hears(&session.core.client.waiter, cx) || write && stream.poll_write_ready(cx)?.is_ready() {
                return Poll::Ready(Ok(Event::Other));
            }
            if !read {
                return Poll::Pending;
            }
            session.poll_read(stream, cx).map_ok(|n| if n == 0 { Event::End } else { Event::Other })
        })
        .await
    }
}

/// What a connection waited for.
#[derive(PartialEq, Eq)]
enum Event {
    /// Nothing more comes.
    End,
    /// Anything else.
    Other,
}
