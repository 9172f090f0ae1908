//! Asks the masters: tries all that are known, follows REFRESH_MASTER to the leader, and repeats only what is safe.
//!
//! What may be repeated: a request that was never handed over whole, one that a master sent elsewhere (it did not run), and,
//! if the caller says that it is idempotent, one whose answer was lost. Else a lost answer is [`ClientError::Unknown`].

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep, timeout_at};

use super::conn::{Conn, ConnError};
use super::{is_addr, plain};
use crate::proto::control::{Incoming, Message, RefreshMaster};
use crate::proto::error::Failure;
use crate::proto::id::{ClusterId, LeaderId};

/// A master that takes longer to accept is tried again later: the others may answer at once.
pub const CONNECT_WAIT: Duration = Duration::from_millis(500);
/// A master that takes longer to answer counts as gone; longer than an entry takes to commit on a busy disk.
pub const TRY_WAIT: Duration = Duration::from_secs(3);
/// All tries together: an election (1 s), a slow one, and a retry fit.
pub const TOTAL_WAIT: Duration = Duration::from_secs(10);
/// Pause after every known master was asked in vain; half an election.
const ROUND_PAUSE: Duration = Duration::from_millis(250);
/// After so many rounds in which nobody could be connected to, the answer is "unreachable" without waiting longer.
const UNREACHABLE_ROUNDS: u32 = 3;
/// Addresses kept: five masters, some of which moved.
pub const ADDRS_MAX: usize = 16;

/// The ERROR code of a master that does not lead and has no better answer: nothing happened, ask another.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// The ERROR code of a master that proposed the request and can't tell whether it was committed.
pub const UNKNOWN: &str = "UNKNOWN";

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For one connection.
    pub connect: Duration,
    /// For one answer.
    pub per_try: Duration,
    /// For all tries together: none starts after it. One that may not be repeated and is under way keeps its `per_try`, since
    /// to cut it short would turn its outcome into an unknown one.
    pub total: Duration,
    /// Give up early once nobody can be connected to, rather than at `total`.
    pub fail_fast: bool,
}

impl Default for Waits {
    fn default() -> Self {
        Self { connect: CONNECT_WAIT, per_try: TRY_WAIT, total: TOTAL_WAIT, fail_fast: true }
    }
}

/// Whether a request may run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Twice does what once does: reads, and compare-and-swap commands.
    Safe,
    /// A lost answer is reported as [`ClientError::Unknown`].
    Unsafe,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody could be connected to. Nothing happened.
    #[error("no master can be reached: {0}")]
    Unreachable(Tried),
    /// Somebody was there, but no leader answered in time. Nothing happened, or the request may be repeated safely.
    #[error("no leader answered in time: {0}")]
    Timeout(Tried),
    /// The leader said no. Nothing happened unless the text says otherwise.
    #[error("{0}")]
    Refused(Failure),
    /// The request was handed over and its answer lost: it may or may not have happened.
    #[error("the outcome is unknown: {addr}: {why}")]
    Unknown {
        /// Who had it.
        addr: String,
        /// How its answer was lost.
        why: String,
    },
}

/// What became of each address in the last round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried(pub Vec<(String, String)>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no master is known");
        }
        for (i, (addr, why)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{addr} ({why})")?;
        }
        Ok(())
    }
}

/// The masters' addresses as far as known, the likeliest leader first. Shared with the WATCH link.
#[derive(Debug, Clone)]
pub(super) struct Masters {
    addrs: VecDeque<String>,
    leader: Option<LeaderId>,
}

impl Masters {
    pub(super) fn new(addrs: impl IntoIterator<Item = String>) -> Self {
        let mut known = Self { addrs: VecDeque::new(), leader: None };
        addrs.into_iter().for_each(|a| known.learn(a));
        known
    }

    /// The order to try in.
    pub(super) fn round(&self) -> Vec<String> {
        self.addrs.iter().cloned().collect()
    }

    fn learn(&mut self, addr: String) {
        if !is_addr(&addr) || self.addrs.contains(&addr) {
            return;
        }
        // The newest addresses are the likeliest to be right.
        if self.addrs.len() == ADDRS_MAX {
            self.addrs.pop_back();
        }
        self.addrs.push_back(addr);
    }

    /// This one is to be tried first.
    pub(super) fn prefer(&mut self, addr: &str) {
        self.addrs.retain(|a| a != addr);
        self.addrs.truncate(ADDRS_MAX - 1);
        self.addrs.push_front(addr.to_owned());
    }

    /// This one did not help: the others come first.
    pub(super) fn demote(&mut self, addr: &str) {
        if let Some(i) = self.addrs.iter().position(|a| a == addr) {
            self.addrs.remove(i);
            self.addrs.push_back(addr.to_owned());
        }
    }

    /// Nobody who was known helped, so a leader of a lower term is believed again: the cluster may be a new one.
    pub(super) fn forget_leader(&mut self) {
        self.leader = None;
    }

    /// Takes a hint in; returns the leader's address if the hint is not older than what is known.
    pub(super) fn hint(&mut self, hint: &RefreshMaster) -> Option<String> {
        for (_, addr) in &hint.masters {
            self.learn(addr.clone());
        }
        let (leader, addr) = (hint.leader.as_ref()?, hint.addr.as_ref()?);
        if !is_addr(addr) || self.leader.as_ref().is_some_and(|known| leader < known) {
            return None;
        }
        self.leader = Some(leader.clone());
        self.prefer(addr);
        Some(addr.clone())
    }
}

/// A client of the masters. One request at a time.
pub struct MasterClient {
    machine: String,
    cluster_id: Option<ClusterId>,
    masters: Masters,
    waits: Waits,
    next_id: u64,
    /// Kept for the next idempotent request.
    conn: Option<(String, Conn)>,
}

/// How one try ended.
enum Outcome {
    Answer(Box<Incoming>),
    /// It did not run; maybe somebody else is known to lead.
    Elsewhere(RefreshMaster),
    /// It did not run.
    NotRun {
        why: String,
        connected: bool,
    },
    /// It was handed over and its answer lost.
    Lost(String),
}

impl Outcome {
    fn not_run(why: impl fmt::Display) -> Self {
        Outcome::NotRun { why: plain(&why.to_string()), connected: true }
    }

    fn lost(why: impl fmt::Display) -> Self {
        Outcome::Lost(plain(&why.to_string()))
    }
}

impl MasterClient {
    /// Speaks as `machine` (`cli`, `n1`) to the masters at these host:port addresses.
    pub fn new(machine: &str, masters: impl IntoIterator<Item = String>, waits: Waits) -> Self {
        Self {
            machine: machine.to_owned(),
            cluster_id: None,
            masters: Masters::new(masters),
            waits,
            next_id: 1,
            conn: None,
        }
    }

    /// Speaks only with masters of this cluster.
    pub fn with_cluster(mut self, id: ClusterId) -> Self {
        self.cluster_id = Some(id);
        self
    }

    /// All addresses known by now, the likeliest leader first.
    pub fn masters(&self) -> Vec<String> {
        self.masters.round()
    }

    /// Sends a request to the leader and returns its answer.
    pub async fn request(&mut self, message: &Message, repeat: Repeat) -> Result<Message, ClientError> {
        let end = Instant::now() + self.waits.total;
        let (mut deaf_rounds, mut heard) = (0, false);
        let mut last = Tried::default();
        loop {
            let mut tried = Tried::default();
            let mut anyone = false;
            let mut round: VecDeque<String> = self.masters.round().into();
            while let Some(addr) = round.pop_front() {
                if Instant::now() >= end {
                    break;
                }
                match self.ask(&addr, message, repeat, end).await {
                    Outcome::Answer(answer) => {
                        self.masters.prefer(&addr);
                        return match answer.message {
                            Ok(Message::Error(f)) | Err(f) => Err(ClientError::Refused(f)),
                            Ok(other) => Ok(other),
                        };
                    }
                    Outcome::Elsewhere(hint) => {
                        anyone = true;
                        let leader = self.masters.hint(&hint);
                        let why = match &hint.leader {
                            Some(l) => format!("says that {} leads", l.id),
                            None => "knows no leader".to_owned(),
                        };
                        tried.0.push((addr, why));
                        // Each address once a round, so that masters who name each other, or a dead one, don't keep it going.
                        if let Some(leader) = leader.filter(|l| tried.0.iter().all(|(a, _)| a != l)) {
                            round.retain(|a| a != &leader);
                            round.push_front(leader);
                        }
                    }
                    Outcome::NotRun { why, connected } => {
                        anyone |= connected;
                        self.masters.demote(&addr);
                        tried.0.push((addr, why));
                    }
                    Outcome::Lost(why) => {
                        anyone = true;
                        self.masters.demote(&addr);
                        if repeat == Repeat::Unsafe {
                            return Err(ClientError::Unknown { addr, why });
                        }
                        tried.0.push((addr, why));
                    }
                }
            }
            heard |= anyone;
            deaf_rounds = if anyone { 0 } else { deaf_rounds + 1 };
            if !tried.0.is_empty() {
                last = tried;
            }
            self.masters.forget_leader();
            let pause = jitter(ROUND_PAUSE);
            let give_up = self.waits.fail_fast && deaf_rounds >= UNREACHABLE_ROUNDS;
            if give_up || last.0.is_empty() || Instant::now() + pause >= end {
                return Err(if heard { ClientError::Timeout(last) } else { ClientError::Unreachable(last) });
            }
            sleep(pause).await;
        }
    }

    async fn ask(&mut self, addr: &str, message: &Message, repeat: Repeat, end: Instant) -> Outcome {
        let until = Instant::now() + self.waits.per_try;
        // A kept connection may have been closed by now, which shows only as a lost answer.
        if let Some((_, mut conn)) = self.conn.take().filter(|(a, _)| a == addr && repeat == Repeat::Safe) {
            match self.exchange(&mut conn, message, end.min(until)).await {
                Outcome::Lost(_) | Outcome::NotRun { .. } => {}
                heard => {
                    self.conn = Some((addr.to_owned(), conn));
                    return heard;
                }
            }
        }
        let mut conn = match Conn::connect(addr, self.waits.connect.min(end - Instant::now())).await {
            Ok(conn) => conn,
            Err(e) => return Outcome::NotRun { why: e.to_string(), connected: false },
        };
        let until = Instant::now() + self.waits.per_try;
        let until = if repeat == Repeat::Safe { until.min(end) } else { until };
        let outcome = self.exchange(&mut conn, message, until).await;
        if matches!(outcome, Outcome::Answer(_) | Outcome::Elsewhere(_)) {
            self.conn = Some((addr.to_owned(), conn));
        }
        outcome
    }

    async fn exchange(&mut self, conn: &mut Conn, message: &Message, until: Instant) -> Outcome {
        let id = self.next_id;
        self.next_id += 1;
        match timeout_at(until, conn.writer.send(&self.machine, self.cluster_id, id, message)).await {
            Ok(Ok(())) => {}
            // The line was not handed over whole, and half a line is never acted on.
            Ok(Err(e)) => return Outcome::not_run(e),
            Err(_) => return Outcome::not_run("does not read"),
        }
        loop {
            let incoming = match timeout_at(until, conn.reader.recv()).await {
                Err(_) => return Outcome::lost("no answer in time"),
                Ok(Ok(None)) => return Outcome::lost("closed the connection before it answered"),
                Ok(Err(ConnError::Io(e))) => return Outcome::lost(e),
                Ok(Err(e)) => return Outcome::lost(format!("not a master: {e}")),
                Ok(Ok(Some(incoming))) => incoming,
            };
            if let (Some(ours), Some(theirs)) = (self.cluster_id, incoming.cluster_id)
                && ours != theirs
            {
                let why = format!("belongs to another cluster, {theirs}");
                return match incoming.message {
                    Ok(Message::Error(_) | Message::RefreshMaster(_)) => Outcome::not_run(why),
                    _ => Outcome::lost(why),
                };
            }
            let ours = incoming.id == id;
            match &incoming.message {
                // Pushed, or the answer to a request given up before.
                Ok(Message::RefreshMaster(hint)) if !ours => {
                    self.masters.hint(hint);
                }
                _ if !ours => {}
                Ok(Message::RefreshMaster(hint)) if !matches!(message, Message::RefreshMaster(_)) => {
                    return Outcome::Elsewhere(hint.clone());
                }
                Ok(Message::Error(f)) if f.code == NOT_LEADER => return Outcome::not_run(f),
                Ok(Message::Error(f)) if f.code == UNKNOWN => return Outcome::lost(f),
                _ => return Outcome::Answer(Box::new(incoming)),
            }
        }
    }
}

/// Between half and all of `d`, so that many clients do not come back at once.
pub(super) fn jitter(d: Duration) -> Duration {
    d.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::control::{Empty, SwitchMaster};
    use crate::proto::id::MasterId;
    use crate::proto::net::fake::{Fake, Say, refused_addr};

    fn switch() -> Message {
        Message::SwitchMaster(SwitchMaster { to: None })
    }

    fn done() -> Say {
        Say::Answer(Message::Ok(Empty {}))
    }

    fn leads(term: u64, addr: &str) -> RefreshMaster {
        let id = MasterId::new("m1").unwrap();
        RefreshMaster {
            leader: Some(LeaderId { term, id: id.clone() }),
            addr: Some(addr.to_owned()),
            masters: vec![(id, addr.to_owned())],
        }
    }

    fn client(masters: &[&str]) -> MasterClient {
        let long = Duration::from_secs(20);
        let waits = Waits { connect: long, per_try: long, total: long, fail_fast: true };
        MasterClient::new("test", masters.iter().map(|a| (*a).to_owned()), waits)
    }

    #[tokio::test]
    async fn a_redirect_is_followed_and_remembered() {
        let leader = Fake::start(|_, _| done()).await;
        let hint = leads(3, &leader.addr);
        let follower = Fake::start(move |_, _| Say::Answer(Message::RefreshMaster(hint.clone()))).await;
        let mut c = client(&[&refused_addr().await, &follower.addr]);
        assert_eq!(c.request(&switch(), Repeat::Unsafe).await.unwrap(), Message::Ok(Empty {}));
        assert_eq!(c.request(&switch(), Repeat::Unsafe).await.unwrap(), Message::Ok(Empty {}));
        assert_eq!((leader.heard(), follower.heard()), (2, 1));
        assert_eq!(c.masters()[0], leader.addr);
    }

    #[tokio::test]
    async fn a_master_without_a_leader_is_asked_again() {
        let mut asked = 0;
        let fake = Fake::start(move |_, _| {
            asked += 1;
            match asked {
                1 => Say::Answer(Message::RefreshMaster(RefreshMaster { leader: None, addr: None, masters: vec![] })),
                2 => Say::Answer(Message::Error(Failure::new(NOT_LEADER, "not now"))),
                _ => done(),
            }
        })
        .await;
        assert_eq!(client(&[&fake.addr]).request(&switch(), Repeat::Unsafe).await.unwrap(), Message::Ok(Empty {}));
        assert_eq!(fake.heard(), 3);
    }

    #[tokio::test]
    async fn a_lost_answer_is_unknown_unless_it_may_be_repeated() {
        for lose in [Say::Close, Say::Nothing, Say::Answer(Message::Error(Failure::new(UNKNOWN, "no quorum")))] {
            let mut asked = 0;
            let say = lose.clone();
            let fake = Fake::start(move |_, _| {
                asked += 1;
                if asked == 1 { say.clone() } else { done() }
            })
            .await;
            let mut c = client(&[&fake.addr]);
            c.waits.per_try = Duration::from_millis(300);
            let e = c.request(&switch(), Repeat::Unsafe).await.unwrap_err();
            assert!(matches!(e, ClientError::Unknown { .. }), "{lose:?}: {e}");
            assert_eq!(fake.heard(), 1, "{lose:?}");

            let say = lose.clone();
            let mut asked = 0;
            let fake = Fake::start(move |_, _| {
                asked += 1;
                if asked == 1 { say.clone() } else { done() }
            })
            .await;
            let mut c = client(&[&fake.addr]);
            c.waits.per_try = Duration::from_millis(300);
            assert_eq!(c.request(&switch(), Repeat::Safe).await.unwrap(), Message::Ok(Empty {}));
            // More than two only where this machine needs 300 ms for an answer.
            assert!(fake.heard() >= 2, "{lose:?}");
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_does_no_harm() {
        // Answers, then closes.
        let fake = Fake::start(|_, _| Say::Last(Message::Ok(Empty {}))).await;
        let mut c = client(&[&fake.addr]);
        for repeat in [Repeat::Safe, Repeat::Safe, Repeat::Unsafe, Repeat::Unsafe] {
            assert_eq!(c.request(&switch(), repeat).await.unwrap(), Message::Ok(Empty {}));
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_soon_and_a_refusal_at_once() {
        let e = client(&[&refused_addr().await]).request(&switch(), Repeat::Safe).await.unwrap_err();
        assert!(matches!(&e, ClientError::Unreachable(t) if t.0.len() == 1), "{e}");
        let e = client(&[]).request(&switch(), Repeat::Safe).await.unwrap_err();
        assert_eq!(e.to_string(), "no master can be reached: no master is known");

        let fake = Fake::start(|_, _| Say::Answer(Message::Error(Failure::new("UNSAFE", "last node")))).await;
        let e = client(&[&fake.addr]).request(&switch(), Repeat::Safe).await.unwrap_err();
        assert!(matches!(&e, ClientError::Refused(f) if f.code == "UNSAFE"), "{e}");
    }

    #[tokio::test]
    async fn masters_that_only_name_each_other_end_in_a_timeout() {
        let a = Fake::start(|_, _| Say::Nothing).await;
        let (to_a, own) = (leads(5, &a.addr), a.addr.clone());
        let b = Fake::start(move |_, _| Say::Answer(Message::RefreshMaster(to_a.clone()))).await;
        a.rule({
            let to_b = leads(6, &b.addr);
            move |_, _| Say::Answer(Message::RefreshMaster(to_b.clone()))
        });
        let mut c = client(&[&own]);
        c.waits.total = Duration::from_millis(700);
        let e = c.request(&switch(), Repeat::Unsafe).await.unwrap_err();
        assert!(matches!(&e, ClientError::Timeout(t) if t.0.len() == 2), "{e}");
    }

    #[test]
    fn addresses_are_bounded_and_hints_of_lower_terms_ignored() {
        let mut m = Masters::new((0..100).map(|i| format!("127.0.0.1:{i}")));
        assert_eq!(m.round().len(), ADDRS_MAX);
        assert!(m.hint(&leads(5, "127.0.0.1:7101")).is_some());
        assert!(m.hint(&leads(4, "127.0.0.1:7102")).is_none());
        assert_eq!(m.round()[0], "127.0.0.1:7101");
        assert!(m.hint(&leads(9, "evil\u{1b}[2J:1")).is_none());
        m.forget_leader();
        assert!(m.hint(&leads(4, "127.0.0.1:7102")).is_some());
        assert_eq!((m.round().len(), m.round()[0].as_str()), (ADDRS_MAX, "127.0.0.1:7102"));
    }
}
