//! Over how many of its data threads a node spreads its clients. A thread that has much to do does it in large batches: two that
//! share the work wake twice as often, for half as much each, and each waking costs more than a small command. So clients are
//! together on as few threads as can carry them. More threads take part where these are busy and cores of the machine idle, if
//! that proves to get more done; fewer where no core idles, if that proves to get as much done. [`Spread`] decides;
//! [`Meter`] looks; a connection moves by itself, between two commands.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::Job;
use super::shard::lock;

/// How often it is looked.
pub const PERIOD: Duration = Duration::from_millis(100);
/// So many looks in a row say the same before anything changes.
const LOOKS: u32 = 4;
/// Threads are busy above this part of their time each: more take part.
const BUSY: f64 = 0.7;
/// Cores that idle, at least, for that. Where less does, threads are in the way of others or of each other: one less takes part.
const IDLE_MIN: f64 = 0.5;
/// Fewer would be busy for less than this part of their time: likewise, and for that no proof is needed.
const SLACK: f64 = 0.45;
/// A change is kept up if the looks that follow, the first aside, see so many times as many commands a second as before.
const GAIN_OF_MORE: f64 = 1.1;
const GAIN_OF_FEWER: f64 = 0.98;
/// What is this far from it after two looks has failed already.
const HOPELESS: f64 = 0.9;
/// It is not tried again for so many looks (10 s), after each failure twice as many, up to 5 minutes.
const REST_MIN: u32 = 100;
const REST_MAX: u32 = 3000;

/// What was seen over a period. All but the rate in cores.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// What threads that take part used, in sum.
    pub busy: f64,
    /// What nobody on this machine used of the cores this process may run on.
    pub idle: f64,
    /// Commands a second.
    pub rate: f64,
}

/// Decides how many threads take part.
#[derive(Debug)]
pub struct Spread {
    threads: usize,
    active: usize,
    more: Reason,
    fewer: Reason,
    /// Looks in a row that said that fewer are enough.
    slack: u32,
    trial: Option<Trial>,
}

/// Why another number of threads may be better.
#[derive(Debug)]
struct Reason {
    /// Looks in a row that said so, and the commands a second they saw, in sum.
    looks: u32,
    sum: f64,
    /// Looks until it may be tried, and how many there will be after that if it fails.
    rest: u32,
    next_rest: u32,
}

/// Another number takes part than before, to see whether it helps.
#[derive(Debug)]
struct Trial {
    from: usize,
    /// Commands a second that prove it.
    needed: f64,
    looks: u32,
    sum: f64,
}

impl Reason {
    fn new() -> Self {
        Self { looks: 0, sum: 0.0, rest: 0, next_rest: REST_MIN }
    }

    /// Commands a second, once it was said often enough in a row.
    fn said(&mut self, says: bool, rate: f64) -> Option<f64> {
        self.rest = self.rest.saturating_sub(1);
        if !says || self.rest > 0 {
            (self.looks, self.sum) = (0, 0.0);
            return None;
        }
        self.looks += 1;
        self.sum += rate;
        let mean = self.sum / f64::from(self.looks);
        (self.looks >= LOOKS).then(|| {
            (self.looks, self.sum) = (0, 0.0);
            mean
        })
    }

    fn proved(&mut self, right: bool) {
        if right {
            self.next_rest = REST_MIN;
        } else {
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST_MAX);
        }
    }
}

impl Spread {
    /// One of so many takes part.
    pub fn new(threads: usize) -> Self {
        Self { threads, active: 1, more: Reason::new(), fewer: Reason::new(), slack: 0, trial: None }
    }

    /// A period went by; how many take part in the next.
    pub fn step(&mut self, load: Load) -> usize {
        match self.trial.take() {
            Some(trial) => self.judge(trial, load),
            None => self.look(load),
        }
        self.active
    }

    fn judge(&mut self, mut trial: Trial, load: Load) {
        // Clients are on their way during the first look.
        trial.sum += if trial.looks > 0 { load.rate } else { 0.0 };
        trial.looks += 1;
        let counted = trial.looks - 1;
        let mean = trial.sum / f64::from(counted.max(1));
        if counted == 0 || counted < LOOKS && mean >= trial.needed * HOPELESS {
            self.trial = Some(trial);
            return;
        }
        // Fewer that have time left do what there is to do.
        let enough = self.active < trial.from && load.busy < BUSY * self.active as f64;
        let right = mean >= trial.needed || enough;
        if self.active > trial.from { &mut self.more } else { &mut self.fewer }.proved(right);
        if !right {
            self.active = trial.from;
        }
    }

    fn look(&mut self, load: Load) {
        let active = self.active as f64;
        let scarce = self.active < self.threads && load.busy > BUSY * active && load.idle >= IDLE_MIN;
        let crowded = self.active > 1 && load.idle < IDLE_MIN;
        let slack = self.active > 1 && load.busy < SLACK * (active - 1.0);
        self.slack = if slack { self.slack + 1 } else { 0 };
        let more = self.more.said(scarce, load.rate);
        let fewer = self.fewer.said(crowded, load.rate);
        let trial = |from, needed| Some(Trial { from, needed, looks: 0, sum: 0.0 });
        if self.slack >= LOOKS {
            self.slack = 0;
            self.active -= 1;
        } else if let Some(rate) = more {
            self.trial = trial(self.active, rate * GAIN_OF_MORE);
            self.active = (self.active * 2).min(self.threads);
        } else if let Some(rate) = fewer {
            self.trial = trial(self.active, rate * GAIN_OF_FEWER);
            self.active -= 1;
        }
    }
}

/// The ways to the data threads, and how many of them take part.
pub struct Doors {
    jobs: Vec<UnboundedSender<Job>>,
    active: AtomicUsize,
    /// Clients that went from one thread to another.
    moved: AtomicU64,
    /// Where the kernel tells what each thread used; none before it runs.
    tasks: Mutex<Vec<Option<PathBuf>>>,
}

impl Doors {
    /// All threads take part until told otherwise.
    pub fn new(jobs: Vec<UnboundedSender<Job>>) -> Self {
        let n = jobs.len();
        Self { jobs, active: AtomicUsize::new(n), moved: AtomicU64::new(0), tasks: Mutex::new(vec![None; n]) }
    }

    /// How many take part.
    #[inline]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// So many take part from now on, the first ones.
    pub fn set_active(&self, n: usize) {
        self.active.store(n.clamp(1, self.jobs.len()), Ordering::Relaxed);
    }

    /// The thread for a link of this number: of all threads, for it stays there.
    pub fn of_link(&self, n: usize) -> usize {
        n % self.jobs.len()
    }

    /// The thread that a client of this number belongs to now.
    pub fn home(&self, id: u64) -> usize {
        (id % self.active() as u64) as usize
    }

    /// How many clients went from one thread to another so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Hands a job to a thread; one that has ended drops it.
    pub fn send(&self, thread: usize, job: Job) {
        if let Job::Client(_) = job {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        // Whose thread has ended has ended with it.
        let _ = self.jobs[thread].send(job);
    }

    /// To be called on the thread itself.
    pub fn arrived(&self, thread: usize) {
        let task = fs::read_link("/proc/thread-self").ok();
        lock(&self.tasks)[thread] = task.map(|t| PathBuf::from("/proc").join(t).join("schedstat"));
    }
}

/// Reads what was used since it was read last.
pub struct Meter {
    cpus: Vec<usize>,
    ticks_per_s: f64,
    last: Option<Seen>,
}

struct Seen {
    at: Instant,
    /// How long each thread ran, nanoseconds.
    ran: Vec<u64>,
    /// Ticks.
    idle: u64,
    commands: u64,
}

impl Default for Meter {
    /// For this process.
    fn default() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        Self { cpus: cpus(list), ticks_per_s: rustix::param::clock_ticks_per_second().max(1) as f64, last: None }
    }
}

impl Meter {
    /// The load since the last look, with so many commands run till now; `None` at the first one, and where the kernel does not tell.
    pub fn look(&mut self, doors: &Doors, commands: u64) -> Option<Load> {
        let tasks = lock(&doors.tasks).clone();
        let thread = |task: &Option<PathBuf>| ran(&fs::read_to_string(task.as_ref()?).ok()?);
        let seen = Seen {
            at: Instant::now(),
            ran: tasks.iter().map(thread).collect::<Option<_>>()?,
            idle: idle_ticks(&fs::read_to_string("/proc/stat").ok()?, &self.cpus),
            commands,
        };
        let last = self.last.take();
        let seen = self.last.insert(seen);
        let last = last?;
        let ns = seen.at.duration_since(last.at).as_nanos().max(1) as f64;
        let pairs = seen.ran.iter().zip(&last.ran).take(doors.active());
        let busy = pairs.map(|(now, then)| now.saturating_sub(*then)).sum::<u64>() as f64 / ns;
        let idle = seen.idle.saturating_sub(last.idle) as f64 / self.ticks_per_s * 1e9 / ns;
        let rate = seen.commands.saturating_sub(last.commands) as f64 * 1e9 / ns;
        Some(Load { busy, idle, rate })
    }
}

/// Nanoseconds a thread ran, of its `schedstat`: the first number.
fn ran(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Ticks that these CPUs were idle, of `/proc/stat`: its fourth and fifth number (nothing to do; nothing but disks to wait for).
fn idle_ticks(stat: &str, cpus: &[usize]) -> u64 {
    let of = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let cpu: usize = words.next()?.strip_prefix("cpu")?.parse().ok()?;
        let idle = words.skip(3).take(2).map_while(|w| w.parse::<u64>().ok()).sum::<u64>();
        cpus.contains(&cpu).then_some(idle)
    };
    stat.lines().filter_map(of).sum()
}

/// Of a list such as `0-3,8`.
fn cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::thread;

    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::node::cache::node::Node;
    use crate::node::cache::{data_thread, listeners};
    use crate::node::config::NodeConfig;
    use crate::proto::id::{Incarnation, NodeId, Ref};

    fn steps(spread: &mut Spread, n: u32, load: Load) -> usize {
        (0..n).map(|_| spread.step(load)).last().unwrap()
    }

    #[test]
    fn more_threads_take_part_only_where_cores_idle() {
        let mut spread = Spread::new(4);
        let alone = Load { busy: 0.98, idle: 0.4, rate: 100.0 };
        assert_eq!(steps(&mut spread, 100, alone), 1);
        let room = Load { idle: 6.0, ..alone };
        assert_eq!(steps(&mut spread, LOOKS - 1, room), 1);
        assert_eq!(spread.step(alone), 1);
        assert_eq!(steps(&mut spread, LOOKS, room), 2);
        // It helps. One connection that keeps one thread busy is no reason for a third.
        assert_eq!(steps(&mut spread, 100, Load { rate: 120.0, ..room }), 2);
        let both = Load { busy: 1.9, rate: 120.0, ..room };
        assert_eq!(steps(&mut spread, LOOKS, both), 4);
        assert_eq!(steps(&mut spread, 100, Load { busy: 3.9, rate: 240.0, ..room }), 4);
    }

    #[test]
    fn what_does_not_help_is_taken_back_and_tried_more_and_more_seldom() {
        let mut spread = Spread::new(2);
        let load = Load { busy: 1.0, idle: 0.5, rate: 100.0 };
        let (mut at, mut two) = (Vec::new(), 0);
        for n in 0..10_000 {
            let before = spread.active;
            let active = spread.step(load);
            if active > before {
                at.push(n);
            }
            two += active - 1;
        }
        let gaps: Vec<u32> = at.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.len() >= 5 && gaps.is_sorted() && gaps[0] >= REST_MIN, "{gaps:?}");
        assert!(two <= at.len() * (LOOKS as usize + 1), "{two} {at:?}");
    }

    #[test]
    fn fewer_do_where_they_wait_for_cores_or_for_work() {
        let mut spread = Spread::new(3);
        let mut rate = 100.0;
        let mut fill = |spread: &mut Spread| {
            for _ in 0..=2 * LOOKS {
                rate *= 1.1;
                let busy = spread.active as f64;
                spread.step(Load { busy, idle: 2.0, rate });
            }
            spread.active
        };
        fill(&mut spread);
        assert_eq!(fill(&mut spread), 3);
        // Two do as much as three; one does less.
        let mut crowded = |n| {
            for _ in 0..n {
                let rate = if spread.active == 1 { 80.0 } else { 100.0 };
                let busy = spread.active as f64 * 0.9;
                spread.step(Load { busy, idle: 0.0, rate });
            }
            spread.active
        };
        assert_eq!(crowded(2 * LOOKS + 1), 2);
        assert_eq!(crowded(LOOKS), 1);
        assert_eq!(crowded(LOOKS + 1), 2);
        assert_eq!(crowded(REST_MIN - 2), 2);
        fill(&mut spread);
        assert_eq!(fill(&mut spread), 3);
        let little = Load { busy: 0.6, idle: 3.0, rate: 100.0 };
        assert_eq!(steps(&mut spread, 2 * LOOKS, little), 2);
        assert_eq!(steps(&mut spread, 100, little), 2);
        assert_eq!(steps(&mut spread, LOOKS, Load::default()), 1);
    }

    #[test]
    fn a_steady_load_does_not_make_it_waver() {
        for tenths in 0..80 {
            let total = f64::from(tenths) / 10.0;
            let mut spread = Spread::new(8);
            let mut seen = Vec::new();
            for _ in 0..1000 {
                let busy = total.min(spread.active as f64);
                seen.push(spread.step(Load { busy, idle: 8.0 - busy + IDLE_MIN, rate: busy }));
            }
            assert!(total > *seen.last().unwrap() as f64 * 0.4 - 0.5 && (*seen.last().unwrap() as f64) >= total * 0.9);
            seen.dedup();
            assert!(seen.len() <= 13, "{total}: {seen:?}");
        }
    }

    #[test]
    fn the_kernels_words_are_read_right() {
        assert_eq!(cpus("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpus(""), Vec::<usize>::new());
        assert_eq!(ran("206176 82372 2\n"), Some(206_176));
        assert_eq!(ran("x"), None);
        let stat = "cpu  1 2 3 999 9 0\ncpu0 1 2 3 40 5 0 0\ncpu1 1 2 3 400 50 0\nintr 7 7 7 7 7 7\n";
        assert_eq!((idle_ticks(stat, &[0]), idle_ticks(stat, &[0, 1]), idle_ticks("", &[0])), (45, 495, 0));
    }

    #[test]
    fn what_a_thread_uses_is_seen() {
        let (tx, _rx) = tokio::sync::mpsc::unbounded_channel();
        let doors = Doors::new(vec![tx]);
        let mut meter = Meter::default();
        assert_eq!(meter.look(&doors, 0), None);
        doors.arrived(0);
        assert_eq!(meter.look(&doors, 0), None);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {}
        let load = meter.look(&doors, 0).expect("the kernel tells of threads");
        // On a machine that others use too it may have waited most of the time.
        assert!(load.busy > 0.0 && load.busy < 1.5 && load.idle >= 0.0, "{load:?}");
    }

    /// Writes pipelines of INCR and ECHO in pieces of any length and looks at every reply.
    fn talk(mut stream: TcpStream, client: u32, over: &AtomicUsize) -> u32 {
        let (mut n, mut seed) = (0u32, client);
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        while over.load(Ordering::Acquire) == 0 {
            let (mut out, mut want) = (Vec::new(), Vec::new());
            for _ in 0..=n % 7 {
                n += 1;
                write!(out, "INCR k{client}\r\n*2\r\n$4\r\nECHO\r\n$5\r\n{:05}\r\n", n % 100_000).unwrap();
                write!(want, ":{n}\r\n$5\r\n{:05}\r\n", n % 100_000).unwrap();
            }
            let mut rest = &out[..];
            while !rest.is_empty() {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (now, later) = rest.split_at(rest.len().min(1 + (seed >> 24) as usize));
                stream.write_all(now).unwrap();
                rest = later;
            }
            let mut got = vec![0; want.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&want));
        }
        n
    }

    #[test]
    fn clients_that_move_all_the_time_notice_nothing() {
        const THREADS: usize = 3;
        const MOVES: u64 = 300;
        let example = NodeConfig::example(NodeId::new("n1").unwrap());
        let config = NodeConfig { standalone: true, threads: THREADS, ..example };
        let me = Ref { id: config.id.clone(), incarnation: Incarnation(1) };
        let node = Arc::new(Node::new(me, config, mpsc::unbounded_channel().0));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::unbounded_channel()).unzip();
        let (doors, end, over) = (Arc::new(Doors::new(senders)), watch::Sender::new(false), AtomicUsize::new(0));
        // Port 0: each listener has a port of its own.
        let clients = listeners("127.0.0.1:0".parse().unwrap(), THREADS).unwrap();
        let addrs: Vec<_> = clients.iter().map(|l| l.local_addr().unwrap()).collect();
        thread::scope(|scope| {
            for ((n, listener), jobs) in clients.into_iter().enumerate().zip(receivers) {
                let (node, doors, end) = (&node, &doors, end.subscribe());
                scope.spawn(move || data_thread(n, node, doors, listener, jobs, end));
            }
            let over = &over;
            let talks: Vec<_> = (0..9u32)
                .map(|c| {
                    let stream = TcpStream::connect(addrs[c as usize % THREADS]).unwrap();
                    scope.spawn(move || talk(stream, c, over))
                })
                .collect();
            for n in 0.. {
                doors.set_active(1 + n % THREADS);
                thread::sleep(Duration::from_millis(5));
                if doors.moved() >= MOVES || talks.iter().any(|t| t.is_finished()) {
                    break;
                }
            }
            over.store(1, Ordering::Release);
            let said: Vec<u32> = talks.into_iter().map(|t| t.join().unwrap()).collect();
            end.send_replace(true);
            assert!(said.iter().all(|n| *n > 0), "{said:?}");
        });
        assert!(doors.moved() >= MOVES);
    }
}
