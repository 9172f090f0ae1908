//! A cache node: primary and backup LRUs, clients, peers. This page starts its threads and ends its lives.
//!
//! Threads: **control** (this one: heartbeats, beacons, configurations) and up to `--threads` **data** threads (clients, links,
//! copies; [`spread`] says how many have clients). The data path never waits for the control path; both meet in [`node::Node`].

pub mod around;
pub mod beacon;
pub mod beat;
pub mod calls;
pub mod clients;
pub mod command;
pub mod copy;
pub mod effect;
pub mod heat;
pub mod host;
pub mod link;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod replica;
pub mod serve;
pub mod session;
pub mod shard;
pub mod slot;
pub mod spare;
pub mod spread;
pub mod stats;
pub mod store;
pub mod waiter;
pub mod wire;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info, warn};

use self::beat::{Ended, Masters};
use self::copy::Demand;
use self::node::Node;
use self::peer::PeerRef;
use self::serve::Guest;
use self::shard::lock;
use self::spread::{Doors, Meter, Spread};
use self::wire::Inbox;
use super::config::NodeConfig;
use super::home::Home;
use super::pages;
use crate::proto::frame::Purpose;
use crate::proto::id::{Incarnation, Ref};

/// Connections that wait for accept.
const BACKLOG: i32 = 1024;
/// Parked commands and held replies look at their clocks this often.
const SWEEP: Duration = Duration::from_millis(20);
/// Quotas, wall clock.
const HOUSEKEEPING: Duration = Duration::from_millis(100);
/// How often it is looked for keys past their deadline and for what was cleared.
const BACKGROUND: Duration = Duration::from_millis(100);
/// Keys deleted at their deadline per slice, so that a mass expiry never holds the shard for long.
const EXPIRE_SLICE: usize = 64;
/// Keys of cleared slots given back per slice, likewise.
const DISPOSE_SLICE: usize = 256;
/// Where clients are served, giving back rests between slices: a copy that ended leaves tens of thousands of keys at once, on all
/// nodes of a machine in the same moment. What is added pays for itself meanwhile.
const DISPOSE_REST: Duration = Duration::from_millis(1);
/// The same while slots are copied from or to this node: what a move clears would take a fifth of the CPU that the move itself needs.
const DISPOSE_REST_COPYING: Duration = Duration::from_millis(8);
/// After an accept that failed (out of descriptors): soon enough, without spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A confirmed planned stop gives its last answers so long to leave.
const PARTING: Duration = Duration::from_millis(100);
/// Clients that ask a drained node on and on are not waited for longer: they learn slot by slot, or nothing at all.
const LINGER_MAX: Duration = Duration::from_secs(20);
/// A client learns where slots are from MOVED, a plain one slot by slot, and asks for one that moved only now and then: so long
/// without a question, and those that are connected know it.
const LINGER_QUIET: Duration = Duration::from_secs(5);
/// Turns that connections get before it counts as quiet, also if this thread was not let run: to read, to answer, to spare.
const LAST_TURNS: usize = 3;

/// What the control thread hands to a data thread.
pub enum Job {
    /// Keep a link to this peer.
    Link(PeerRef),
    /// A peer dialled.
    Inbound { from: Ref, acked: u64, stream: std::net::TcpStream, inbox: Inbox },
    /// A client whose home is there now.
    Client(Box<Guest>),
}

/// Runs a cache node until `shutdown` turns true or a planned stop; blocks.
pub fn run(config: NodeConfig, shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let home = Home::open(&config.data)?;
    let threads = config.threads.max(1);
    let clients = listeners(config.listen, threads).with_context(|| format!("can't listen on {}", config.listen))?;
    // Alone on its port: a refused connection there must mean that this process is gone (PROTOCOL 7).
    let peers = TcpListener::bind(config.peer_listen)
        .with_context(|| format!("can't listen for peers on {}", config.peer_listen))?;
    peers.set_nonblocking(true)?;
    if config.insecure_bind {
        warn!(listen = %config.listen, "listening beyond loopback without authentication (--insecure-bind)");
    }
    info!(id = %config.id, listen = %config.listen, peers = %config.peer_listen, memory = config.memory, "cache node starts");
    pages::forget_start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut masters = Masters::new(config.masters.clone());
    let mut former = None;
    loop {
        let me = Ref { id: config.id.clone(), incarnation: Incarnation::random() };
        info!(incarnation = %me.incarnation, "a life begins");
        let (new_peers, arrivals) = mpsc::unbounded_channel();
        let mut node = Node::new(me, config.clone(), new_peers);
        node.former = former;
        let node = Arc::new(node);
        let over = watch::Sender::new(false);
        let end = thread::scope(|scope| {
            let (senders, receivers): (Vec<_>, Vec<_>) = clients.iter().map(|_| mpsc::unbounded_channel()).unzip();
            let doors = Arc::new(Doors::new(senders));
            for ((n, listener), jobs) in clients.iter().enumerate().zip(receivers) {
                let listener = listener.try_clone()?;
                let (node, doors, over) = (node.clone(), doors.clone(), over.subscribe());
                thread::Builder::new()
                    .name(format!("data-{n}"))
                    .spawn_scoped(scope, move || data_thread(n, &node, &doors, listener, jobs, over))?;
            }
            let end = LocalSet::new().block_on(
                &runtime,
                control(&node, &home, &mut masters, peers.try_clone()?, arrivals, doors, shutdown.clone()),
            );
            over.send_replace(true);
            end
        })?;
        former = node.fenced_by().or_else(|| node.former.clone());
        match end {
            LifeEnd::Shutdown => return Ok(()),
            LifeEnd::Ended(Ended::Stopped | Ended::Drained) => return Ok(()),
            LifeEnd::Ended(e @ Ended::CantLeave(_)) => {
                warn!("{e}");
                return Ok(());
            }
            LifeEnd::Ended(e @ Ended::Refused(_)) => bail!(e),
            // Told to end: no new life begins.
            LifeEnd::Fenced if *shutdown.borrow() => return Ok(()),
            LifeEnd::Fenced => {}
        }
    }
}

enum LifeEnd {
    Shutdown,
    Fenced,
    Ended(Ended),
}

fn listeners(addr: SocketAddr, threads: usize) -> std::io::Result<Vec<TcpListener>> {
    (0..threads)
        .map(|_| {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            // Several threads share the port, and the kernel spreads connections over them.
            socket.set_reuse_port(threads > 1)?;
            socket.bind(&addr.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

async fn control(
    node: &Arc<Node>,
    home: &Home,
    masters: &mut Masters,
    peers: TcpListener,
    mut arrivals: mpsc::UnboundedReceiver<PeerRef>,
    doors: Arc<Doors>,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<LifeEnd> {
    spawn_local(housekeeping(node.clone()));
    spawn_local(sweep(node.clone()));
    if node.config.threads > 1 {
        spawn_local(spread_clients(node.clone(), doors.clone()));
    }
    spawn_local(accept_peers(node.clone(), tokio::net::TcpListener::from_std(peers)?, doors.clone()));
    let starter = {
        let node = node.clone();
        async move {
            while let Some(peer) = arrivals.recv().await {
                debug!(peer = %peer.node, addr = peer.addr, "a new peer");
                spawn_local(beacon::run(node.clone(), peer.clone()));
                doors.send(doors.of_link(peer.group.into()), Job::Link(peer));
            }
        }
    };
    spawn_local(starter);
    let mut fenced = node.fenced.subscribe();
    let standalone = node.config.standalone;
    tokio::select! {
        () = leave(node, &mut shutdown) => Ok(LifeEnd::Shutdown),
        _ = fenced.wait_for(|f| *f) => Ok(LifeEnd::Fenced),
        end = beat::run(node.clone(), home.id, masters), if !standalone => {
            sleep(PARTING).await;
            Ok(LifeEnd::Ended(end))
        }
    }
}

/// Told to end: asks to be drained and waits for that, but not for ever. What is not handed over by then is as after a death.
async fn leave(node: &Node, shutdown: &mut watch::Receiver<bool>) {
    // An error is as good as the word: whoever could have said it is gone.
    let _ = shutdown.wait_for(|s| *s).await;
    let member = node.view().is_live(&node.me);
    if node.config.standalone || !member || node.stopped.load(Ordering::Acquire) {
        return;
    }
    info!(timeout = ?node.config.drain_timeout, "asking to be drained");
    node.leaving.send_replace(true);
    sleep(node.config.drain_timeout).await;
    warn!("not drained in time");
}

/// Wakes those who wait while anybody does; a node that nobody uses is not woken for that.
async fn sweep(node: Arc<Node>) {
    loop {
        node.clients.some_wait().await;
        sleep(SWEEP).await;
        node.judge_backlog();
        node.clients.nudge_all();
    }
}

async fn housekeeping(node: Arc<Node>) {
    let mut tick = interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut second = Duration::ZERO;
    let (mut commands, mut seconds) = (0, 0);
    loop {
        tick.tick().await;
        node.follow_wall_clock();
        node.settle_quotas();
        node.fit_own();
        node.pace();
        node.peers().iter().for_each(|p| node.fit(p));
        second += HOUSEKEEPING;
        if second >= Duration::from_secs(1) {
            let n = node.counters.commands.get();
            let rate = n.saturating_sub(commands) as f64 / second.as_secs_f64();
            commands = n;
            second = Duration::ZERO;
            node.ops_per_s.store(rate.to_bits(), Ordering::Relaxed);
            node.counters.classes.iter().for_each(|c| c.second());
            seconds += 1;
            node.heat.second(seconds, || node.serves());
        }
    }
}

/// Says over how many data threads clients are spread.
async fn spread_clients(node: Arc<Node>, doors: Arc<Doors>) {
    let mut tick = interval(spread::PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut spread, mut meter) = (Spread::new(node.config.threads), Meter::default());
    let mut before = 0;
    loop {
        tick.tick().await;
        // Nobody looks at a node that does nothing.
        let commands = node.counters.commands.get();
        if std::mem::replace(&mut before, commands) == commands && doors.active() == 1 {
            continue;
        }
        // Where the kernel does not tell, all take part.
        if let Some(load) = meter.look(&doors, commands) {
            let active = spread.step(load);
            if active != doors.active() {
                debug!(active, ?load, moved = doors.moved(), "clients are spread anew");
                doors.set_active(active);
            }
        }
    }
}

async fn accept_peers(node: Arc<Node>, listener: tokio::net::TcpListener, doors: Arc<Doors>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                spawn_local(greet(node.clone(), stream, doors.clone()));
            }
            Err(e) if matches!(e.raw_os_error(), Some(9 | 22)) => {
                // EBADF, EINVAL: the listener is lost, and with it the proof that this process lives.
                error!(error = %e, "the peer listener is lost");
                std::process::abort();
            }
            Err(e) => {
                warn!(error = %e, "can't accept peers");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn greet(node: Arc<Node>, mut stream: TcpStream, doors: Arc<Doors>) {
    let mut inbox = Inbox::default();
    match wire::http(&mut stream, &mut inbox).await {
        Ok(None) => {}
        Ok(Some(request)) => {
            let answer = request.map_or_else(|refused| refused, |r| metrics::answer(&node, &r));
            return drop(wire::farewell(&mut stream, &answer).await);
        }
        Err(e) => return debug!(error = %e, "a peer said nothing"),
    }
    let greeting = match wire::greet(&mut stream, &mut inbox, &node.me, node.cluster()).await {
        Ok(g) => g,
        Err(e) => return debug!(error = %e, "a peer was not welcome"),
    };
    match greeting.purpose {
        Purpose::Beacon => {
            beacon::serve(node, greeting.from, stream, inbox).await;
        }
        Purpose::Data => {
            let Ok(stream) = stream.into_std() else { return };
            let thread = doors.of_link(greeting.from.incarnation.0 as usize);
            doors.send(thread, Job::Inbound { from: greeting.from, acked: greeting.acked, stream, inbox });
        }
    }
}

fn data_thread(
    n: usize,
    node: &Arc<Node>,
    doors: &Arc<Doors>,
    listener: TcpListener,
    jobs: mpsc::UnboundedReceiver<Job>,
    mut over: watch::Receiver<bool>,
) {
    stats::count_apart(n + 1);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            error!(error = %e, "can't start a data thread");
            std::process::abort();
        }
    };
    doors.arrived(n);
    LocalSet::new().block_on(&runtime, async {
        if n == 0 {
            spawn_local(expire(node.clone()));
            spawn_local(give_back(node.clone()));
        }
        spawn_local(run_jobs(node.clone(), doors.clone(), n, jobs));
        tokio::select! {
            e = accept_clients(node, doors, n, listener) => {
                error!(error = %e, "the client listener is lost");
                std::process::abort();
            }
            () = ended(node, &mut over) => {}
        }
    });
}

/// Resolves when this life's connections may be closed. One that was drained goes on saying where its slots are until nobody
/// asks any more: a client whose command it had read no more could not know what became of it.
async fn ended(node: &Node, over: &mut watch::Receiver<bool>) {
    // An error is as good as the word: whoever could have said it is gone.
    let _ = over.wait_for(|o| *o).await;
    if !node.is_drained() {
        return;
    }
    let asked = || node.counters.bytes_in.get();
    let begun = Instant::now();
    loop {
        let before = asked();
        let quiet = if node.clients.count() > 0 { LINGER_QUIET } else { PARTING };
        sleep(quiet).await;
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
        }
        if asked() == before || begun.elapsed() >= LINGER_MAX {
            return;
        }
    }
}

async fn accept_clients(node: &Arc<Node>, doors: &Arc<Doors>, n: usize, listener: TcpListener) -> std::io::Error {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(l) => l,
        Err(e) => return e,
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                spawn_local(serve::serve(node.clone(), doors.clone(), n, stream));
            }
            Err(e) if matches!(e.raw_os_error(), Some(9 | 22)) => return e,
            Err(e) => {
                warn!(error = %e, "can't accept clients");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn run_jobs(node: Arc<Node>, doors: Arc<Doors>, n: usize, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let paced = copy::Paced::default();
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Link(peer) => {
                spawn_local(link::run(node.clone(), peer.clone()));
                spawn_local(copy::run(node.clone(), peer, paced.clone()));
            }
            Job::Inbound { from, acked, stream, inbox } => {
                let Ok(stream) = TcpStream::from_std(stream) else { continue };
                spawn_local(replica::serve(node.clone(), from, acked, stream, inbox));
            }
            Job::Client(guest) => {
                spawn_local(guest.stay(doors.clone(), n));
            }
        }
    }
}

/// Deletes keys at their deadline, a slice at a time.
async fn expire(node: Arc<Node>) {
    let mut tick = interval(BACKGROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for shard in &node.shards {
            while lock(shard).expire(node.turn(), EXPIRE_SLICE) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Gives back what was cleared, a slice at a time.
async fn give_back(node: Arc<Node>) {
    let mut tick = interval(BACKGROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut demand, mut copies) = (Demand::default(), Demand::default());
    loop {
        tick.tick().await;
        for shard in &node.shards {
            while lock(shard).store.dispose(DISPOSE_SLICE) {
                let now = tokio::time::Instant::now();
                if copies.is_there(node.counters.copies.load(Ordering::Relaxed), now) {
                    sleep(DISPOSE_REST_COPYING).await;
                } else if demand.is_there(node.counters.commands.get(), now) {
                    sleep(DISPOSE_REST).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
