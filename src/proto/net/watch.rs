//! The WATCH link: a task that keeps a stream of views open to whichever master can give one, for ever.
//!
//! ```text
//!   masters ──lines──▶ session ──▶ Seen (never a lower view, no event twice) ──▶ Mailbox (latest wins) ──▶ recv()
//! ```
//!
//! The reader may be as slow as it likes: what it did not fetch is merged, not queued. It gets the latest view, and every event
//! in sequence up to [`EVENTS_MAX`]; beyond, the gap shows in `seq`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::client::{ADDRS_MAX, CONNECT_WAIT, Masters, jitter};
use super::conn::Conn;
use super::plain;
use crate::proto::control::{Empty, Message, RefreshMaster};
use crate::proto::event::Event;
use crate::proto::status::WatchView;
use crate::proto::view::SlotRange;

/// A server says something at least once a second; after three such silences it is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// First pause after all known masters were tried in vain, and the longest; an election is over within the first few.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often the other masters are asked for a leader while this one streams without one.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Masters asked without a pause in between: all that are kept, and as many that they name.
const ASKED_MAX: usize = 2 * ADDRS_MAX;
/// Events held for a reader that does not read: an hour of a very bad day.
pub const EVENTS_MAX: usize = 4096;

/// What the link has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// A master accepted; views should follow.
    Connected {
        /// host:port.
        addr: String,
    },
    /// A view, never lower than one given out before.
    View(Box<WatchView>),
    /// Who leads, and who else is a master.
    MasterHint(RefreshMaster),
    /// A master is gone, or could not be reached.
    Lost {
        /// host:port.
        addr: String,
        /// In words, fit for a terminal.
        why: String,
        /// Until the next try, milliseconds; 0 = another master is tried at once.
        next_try_ms: u64,
    },
}

/// The reader's end. The link ends when it is dropped.
pub struct WatchLink {
    mailbox: Arc<Mailbox>,
    task: JoinHandle<()>,
}

impl WatchLink {
    /// Starts the link, on the current tokio runtime, to the masters at these host:port addresses, as `machine` (`tui`, `cli`).
    pub fn start(machine: &str, masters: impl IntoIterator<Item = String>) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let link = Link {
            machine: machine.to_owned(),
            masters: Masters::new(masters),
            seen: Seen::default(),
            mailbox: mailbox.clone(),
        };
        Self { mailbox, task: tokio::spawn(link.run()) }
    }

    /// The next thing it says. Cancel-safe.
    pub async fn recv(&mut self) -> LinkEvent {
        loop {
            if let Some(event) = self.try_recv() {
                return event;
            }
            self.mailbox.filled.notified().await;
        }
    }

    /// What it has said by now, if anything.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        self.mailbox.queue().pop_front()
    }
}

impl Drop for WatchLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Holds at most one of each kind of event, in the order of the latest.
#[derive(Default)]
struct Mailbox {
    queue: Mutex<VecDeque<LinkEvent>>,
    filled: Notify,
}

impl Mailbox {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<LinkEvent>> {
        // No code that holds it can panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut event: LinkEvent) {
        let mut queue = self.queue();
        let kind = std::mem::discriminant(&event);
        if let Some(i) = queue.iter().position(|e| std::mem::discriminant(e) == kind)
            && let (Some(LinkEvent::View(old)), LinkEvent::View(new)) = (queue.remove(i), &mut event)
            && old.status.cluster_id == new.status.cluster_id
        {
            new.slots = new.slots.take().or(old.slots);
            prepend(&mut new.events, old.events);
        }
        queue.push_back(event);
        drop(queue);
        self.filled.notify_one();
    }
}

/// Puts `earlier` before `events`; of too many the oldest go.
fn prepend(events: &mut Vec<Event>, mut earlier: Vec<Event>) {
    earlier.append(events);
    earlier.drain(..earlier.len().saturating_sub(EVENTS_MAX));
    *events = earlier;
}

/// What was given out so far: masters that lag behind must not turn the picture back.
#[derive(Default)]
struct Seen {
    cluster_id: String,
    /// (term, epoch).
    highest: (u64, u64),
    event: u64,
    /// From views of this stream that were held back.
    slots: Option<Vec<SlotRange>>,
    events: Vec<Event>,
}

impl Seen {
    fn stream_starts(&mut self) {
        self.slots = None;
    }

    /// The view to give out, or nothing if it is lower than one given out before.
    fn admit(&mut self, mut view: WatchView) -> Option<WatchView> {
        let status = &view.status;
        if status.cluster_id != self.cluster_id {
            // A master that knows of no cluster yet knows less than any other.
            let blank = status.cluster_id.bytes().all(|b| b == b'0');
            if blank && !self.cluster_id.is_empty() {
                return None;
            }
            *self = Self { cluster_id: status.cluster_id.clone(), ..Self::default() };
        }
        let last = self.event;
        view.events.retain(|e| e.seq > last);
        self.event = view.events.iter().map(|e| e.seq).fold(last, u64::max);
        prepend(&mut view.events, std::mem::take(&mut self.events));
        if view.slots.is_none() {
            view.slots = self.slots.take();
        }
        let at = (view.status.term, view.status.epoch);
        if at < self.highest {
            self.slots = view.slots;
            self.events = view.events;
            return None;
        }
        self.highest = at;
        self.slots = None;
        Some(view)
    }
}

/// Why a session ended.
enum End {
    /// This master leads.
    Follow(String),
    Lost(String),
}

/// What asking around found.
enum Found {
    Hint(RefreshMaster),
    /// This one leads.
    Leader(String),
}

type Probe = Pin<Box<dyn Future<Output = Option<Found>> + Send>>;

struct Link {
    machine: String,
    masters: Masters,
    seen: Seen,
    mailbox: Arc<Mailbox>,
}

impl Link {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        // Asked in this round; each once, so that hints at a dead leader don't keep it going.
        let mut asked: Vec<String> = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let addr = match next.take().or_else(|| self.unasked(&asked)) {
                Some(addr) => addr,
                None => {
                    let pause = jitter(backoff);
                    if asked.is_empty() {
                        self.lost("", "no master is known".to_owned(), pause);
                    }
                    sleep(pause).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    asked.clear();
                    self.masters.forget_leader();
                    continue;
                }
            };
            let mut viewed = false;
            let end = self.session(&addr, &mut viewed).await;
            if viewed {
                backoff = BACKOFF_MIN;
                asked.clear();
            }
            asked.push(addr.clone());
            match end {
                End::Follow(leader) if asked.len() < ASKED_MAX && !asked.contains(&leader) => next = Some(leader),
                End::Follow(leader) => self.moved_on(addr, format!("says that {leader} leads"), &asked, backoff),
                End::Lost(why) => self.moved_on(addr, why, &asked, backoff),
            }
        }
    }

    fn unasked(&self, asked: &[String]) -> Option<String> {
        self.masters.round().into_iter().find(|a| !asked.contains(a))
    }

    fn moved_on(&mut self, addr: String, why: String, asked: &[String], backoff: Duration) {
        self.masters.demote(&addr);
        let pause = if self.unasked(asked).is_some() { Duration::ZERO } else { backoff };
        self.lost(&addr, why, pause);
    }

    fn lost(&self, addr: &str, why: String, pause: Duration) {
        let next_try_ms = pause.as_millis() as u64;
        self.mailbox.put(LinkEvent::Lost { addr: addr.to_owned(), why: plain(&why), next_try_ms });
    }

    /// Streams from one master until it is gone or another one is better.
    async fn session(&mut self, addr: &str, viewed: &mut bool) -> End {
        let mut conn = match Conn::connect(addr, CONNECT_WAIT).await {
            Ok(conn) => conn,
            Err(e) => return End::Lost(e.to_string()),
        };
        self.mailbox.put(LinkEvent::Connected { addr: addr.to_owned() });
        self.seen.stream_starts();
        let watch = Message::Watch(Empty {});
        match timeout(SILENCE_MAX, conn.writer.send(&self.machine, None, 1, &watch)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return End::Lost(e.to_string()),
            Err(_) => return End::Lost("does not read".to_owned()),
        }
        // A master that says only what is known to be old is of no more use than a silent one.
        let mut useful = Instant::now();
        let mut probe: Option<Probe> = None;
        loop {
            let incoming = tokio::select! {
                incoming = timeout_at(useful + SILENCE_MAX, conn.reader.recv()) => incoming,
                found = finished(&mut probe) => {
                    probe = None;
                    let leader = match found {
                        Some(Found::Hint(hint)) => self.masters.hint(&hint),
                        Some(Found::Leader(leader)) => Some(leader),
                        None => None,
                    };
                    match leader {
                        Some(leader) if leader != addr => return End::Follow(leader),
                        _ => continue,
                    }
                }
            };
            let incoming = match incoming {
                Err(_) => return End::Lost(format!("nothing new for {} s", SILENCE_MAX.as_secs())),
                Ok(Err(e)) => return End::Lost(e.to_string()),
                Ok(Ok(None)) => return End::Lost("closed the connection".to_owned()),
                Ok(Ok(Some(incoming))) => incoming,
            };
            match incoming.message {
                Ok(Message::StatusView(view)) => {
                    let leaderless = view.status.leader.is_none();
                    let Some(view) = self.seen.admit(*view) else { continue };
                    (*viewed, useful) = (true, Instant::now());
                    self.mailbox.put(LinkEvent::View(Box::new(view)));
                    match leaderless {
                        false => {
                            probe = None;
                            self.masters.prefer(addr);
                        }
                        true if probe.is_none() => probe = Some(Box::pin(self.probe(addr))),
                        true => {}
                    }
                }
                Ok(Message::RefreshMaster(hint)) => {
                    let leader = self.masters.hint(&hint);
                    let named = hint.leader.is_some();
                    self.mailbox.put(LinkEvent::MasterHint(hint));
                    match leader {
                        Some(leader) if leader != addr => return End::Follow(leader),
                        None if named && !*viewed => {
                            return End::Lost("names a leader of an older term".to_owned());
                        }
                        _ => {}
                    }
                }
                Ok(Message::Error(failure)) => return End::Lost(failure.to_string()),
                // Newer servers may say more.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Asks the other masters, one by one, who leads; pauses first.
    fn probe(&self, here: &str) -> impl Future<Output = Option<Found>> + Send + use<> {
        let others: Vec<String> = self.masters.round().into_iter().filter(|a| a != here).collect();
        let machine = self.machine.clone();
        async move {
            sleep(jitter(PROBE_EVERY)).await;
            for addr in others {
                if let Ok(Some(found)) = timeout(SILENCE_MAX, who_leads(&machine, &addr)).await {
                    return Some(found);
                }
            }
            None
        }
    }
}

async fn who_leads(machine: &str, addr: &str) -> Option<Found> {
    let mut conn = Conn::connect(addr, CONNECT_WAIT).await.ok()?;
    conn.writer.send(machine, None, 1, &Message::StatusRequest(Empty {})).await.ok()?;
    match conn.reader.recv().await.ok()??.message.ok()? {
        Message::RefreshMaster(hint) => hint.leader.is_some().then_some(Found::Hint(hint)),
        Message::StatusView(view) => view.status.leader.is_some().then(|| Found::Leader(addr.to_owned())),
        _ => None,
    }
}

/// Waits for a probe, for ever if there is none.
async fn finished(probe: &mut Option<Probe>) -> Option<Found> {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::event::Severity;
    use crate::proto::id::{LeaderId, MasterId};
    use crate::proto::net::fake::{Fake, Say, refused_addr};
    use crate::proto::slot::Slot;
    use crate::proto::status::{Health, SlotTotals, Status};
    use crate::proto::view::SlotState;

    /// Longer than any machine should need; only a failing test waits so long.
    const GENEROUS: Duration = Duration::from_secs(60);

    fn view(term: u64, epoch: u64, leader: Option<&str>, events: &[u64]) -> WatchView {
        let event = |&seq: &u64| Event {
            seq,
            at_ms: 0,
            index: seq,
            severity: Severity::Info,
            kind: "node-joined".into(),
            subject: String::new(),
            text: String::new(),
            by: None,
        };
        WatchView {
            status: Status {
                schema: 1,
                cluster: "demo".into(),
                cluster_id: "00000000000000aa".into(),
                state: Health::Ok,
                epoch,
                term,
                leader: leader.map(str::to_owned),
                masters: vec![],
                nodes: vec![],
                slots: SlotTotals::default(),
                operations: vec![],
                warnings: vec![],
            },
            slots: None,
            events: events.iter().map(event).collect(),
        }
    }

    fn slots(n: u16) -> Option<Vec<SlotRange>> {
        Some(vec![SlotRange { first: Slot(0), last: Slot(n), state: SlotState::default() }])
    }

    fn seqs(v: &WatchView) -> Vec<u64> {
        v.events.iter().map(|e| e.seq).collect()
    }

    fn say(v: WatchView) -> Message {
        Message::StatusView(Box::new(v))
    }

    fn leads(term: u64, addr: &str) -> Message {
        let id = MasterId::new("m1").unwrap();
        Message::RefreshMaster(RefreshMaster {
            leader: Some(LeaderId { term, id: id.clone() }),
            addr: Some(addr.to_owned()),
            masters: vec![(id, addr.to_owned())],
        })
    }

    async fn until<T>(link: &mut WatchLink, mut pick: impl FnMut(LinkEvent) -> Option<T>) -> T {
        timeout(GENEROUS, async {
            loop {
                if let Some(t) = pick(link.recv().await) {
                    return t;
                }
            }
        })
        .await
        .expect("the link says what it should")
    }

    async fn epoch(link: &mut WatchLink, epoch: u64) -> Box<WatchView> {
        until(link, |e| match e {
            LinkEvent::View(v) if v.status.epoch == epoch => Some(v),
            _ => None,
        })
        .await
    }

    #[test]
    fn a_lower_view_is_held_back_but_nothing_of_it_is_lost() {
        let mut seen = Seen::default();
        assert_eq!(seqs(&seen.admit(view(2, 10, None, &[1, 2])).unwrap()), [1, 2]);
        seen.stream_starts();
        let mut lower = view(2, 9, None, &[1, 2, 3]);
        lower.slots = slots(9);
        assert_eq!(seen.admit(lower), None);
        assert_eq!(seen.admit(view(1, 99, None, &[4])), None);
        let v = seen.admit(view(2, 10, None, &[4, 5])).unwrap();
        assert_eq!((seqs(&v), v.slots), (vec![3, 4, 5], slots(9)));
        let v = seen.admit(view(3, 10, None, &[5])).unwrap();
        assert_eq!((seqs(&v), v.slots), (vec![], None));
    }

    #[test]
    fn another_cluster_starts_anew_and_a_blank_master_says_nothing() {
        let mut seen = Seen::default();
        let with_id = |id: &str, v: WatchView| WatchView { status: Status { cluster_id: id.into(), ..v.status }, ..v };
        assert!(seen.admit(with_id("", view(0, 0, None, &[]))).is_some());
        assert!(seen.admit(view(5, 50, None, &[7])).is_some());
        assert!(seen.admit(with_id("0000000000000000", view(9, 0, None, &[]))).is_none());
        let v = seen.admit(with_id("bb", view(1, 1, None, &[1]))).unwrap();
        assert_eq!(seqs(&v), [1]);
    }

    #[test]
    fn a_reader_that_does_not_read_gets_the_latest_and_every_event() {
        let mailbox = Mailbox::default();
        let put = |v: WatchView| mailbox.put(LinkEvent::View(Box::new(v)));
        put(WatchView { slots: slots(1), ..view(1, 1, None, &[1]) });
        mailbox.put(LinkEvent::Lost { addr: "a:1".into(), why: "x".into(), next_try_ms: 0 });
        mailbox.put(LinkEvent::Connected { addr: "b:1".into() });
        put(view(1, 2, None, &[2, 3]));
        mailbox.put(LinkEvent::Lost { addr: "b:1".into(), why: "y".into(), next_try_ms: 5 });
        let queue: Vec<LinkEvent> = mailbox.queue().drain(..).collect();
        let LinkEvent::View(v) = &queue[1] else { panic!("{queue:?}") };
        assert_eq!((v.status.epoch, seqs(v), &v.slots), (2, vec![1, 2, 3], &slots(1)));
        assert_eq!(queue[0], LinkEvent::Connected { addr: "b:1".into() });
        assert_eq!(queue[2], LinkEvent::Lost { addr: "b:1".into(), why: "y".into(), next_try_ms: 5 });

        for n in 0..EVENTS_MAX as u64 + 10 {
            put(view(1, 3, None, &[n]));
        }
        let Some(LinkEvent::View(v)) = mailbox.queue().pop_front() else { panic!("a view") };
        assert_eq!((v.events.len(), v.events[0].seq), (EVENTS_MAX, 10));
        assert!(mailbox.queue().is_empty());
    }

    #[tokio::test]
    async fn it_follows_the_leader_and_comes_back_for_ever() {
        let leader = Fake::start(|_, _| Say::Stream(vec![say(view(3, 7, Some("m1"), &[1]))])).await;
        let hint = leads(3, &leader.addr);
        let follower = Fake::start(move |_, _| Say::Answer(hint.clone())).await;
        let mut link = WatchLink::start("test", [refused_addr().await, follower.addr.clone()]);
        let first = until(&mut link, |e| match e {
            LinkEvent::Lost { next_try_ms, .. } => Some(next_try_ms),
            _ => None,
        });
        assert_eq!(first.await, 0, "another master is known");
        assert!(matches!(
            until(&mut link, |e| matches!(e, LinkEvent::MasterHint(_)).then_some(e)).await,
            LinkEvent::MasterHint(h) if h.addr.as_deref() == Some(&leader.addr)
        ));
        epoch(&mut link, 7).await;

        // The leader dies; the follower takes over at a higher term and tells of it in its own view.
        follower.rule(|_, _| Say::Stream(vec![say(view(4, 8, Some("m2"), &[2]))]));
        drop(leader);
        let v = epoch(&mut link, 8).await;
        assert_eq!((v.status.term, seqs(&v)), (4, vec![2]));
    }

    #[tokio::test]
    async fn a_view_lower_than_one_shown_is_never_shown() {
        let ahead = Fake::start(|_, _| Say::Stream(vec![say(view(3, 7, None, &[]))])).await;
        let behind = Fake::start(|_, _| {
            Say::Stream(vec![say(view(3, 5, None, &[])), say(view(2, 9, None, &[])), say(view(3, 8, None, &[]))])
        })
        .await;
        let mut link = WatchLink::start("test", [ahead.addr.clone(), behind.addr.clone()]);
        epoch(&mut link, 7).await;
        drop(ahead);
        let next = until(&mut link, |e| match e {
            LinkEvent::View(v) => Some(v.status.epoch),
            _ => None,
        });
        assert_eq!(next.await, 8);
    }

    #[tokio::test]
    async fn a_silent_master_is_dropped_for_another() {
        let silent = Fake::start(|_, _| Say::Nothing).await;
        let good = Fake::start(|_, _| Say::Stream(vec![say(view(1, 1, Some("m1"), &[]))])).await;
        let mut link = WatchLink::start("test", [silent.addr.clone(), good.addr.clone()]);
        let why = until(&mut link, |e| match e {
            LinkEvent::Lost { addr, why, .. } if addr == silent.addr => Some(why),
            _ => None,
        });
        assert_eq!(why.await, "nothing new for 3 s");
        epoch(&mut link, 1).await;
    }

    #[tokio::test]
    async fn a_follower_cut_off_is_left_once_another_master_knows_a_leader() {
        let leader = Fake::start(|_, m| match m {
            Message::StatusRequest(_) => Say::Answer(say(view(5, 20, Some("m2"), &[]))),
            _ => Say::Stream(vec![say(view(5, 20, Some("m2"), &[]))]),
        })
        .await;
        let cut_off = Fake::start(|_, _| Say::Repeat(say(view(4, 19, None, &[])))).await;
        let mut link = WatchLink::start("test", [cut_off.addr.clone(), leader.addr.clone()]);
        let mut lost = None;
        until(&mut link, |e| match e {
            LinkEvent::View(v) if v.status.leader.is_some() => Some(()),
            LinkEvent::Lost { why, .. } => {
                lost = Some(why);
                None
            }
            _ => None,
        })
        .await;
        assert_eq!(lost, None, "moving on to a leader is no loss");
    }

    #[tokio::test]
    async fn a_dropped_link_leaves_no_task() {
        let fake = Fake::start(|_, _| Say::Stream(vec![say(view(1, 1, Some("m1"), &[]))])).await;
        let mut link = WatchLink::start("test", [fake.addr.clone()]);
        epoch(&mut link, 1).await;
        let mailbox = Arc::downgrade(&link.mailbox);
        drop(link);
        timeout(GENEROUS, async {
            while mailbox.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the task ends");
    }
}
