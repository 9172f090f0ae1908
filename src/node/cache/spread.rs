//! Over how many of its data threads a node spreads its clients. A thread that has much to do does it in large batches: two that
//! share the work wake twice as often, for half as much each, and each waking costs more than a small command. So clients are
//! together on as few threads as can carry them, more threads take part only while cores of the machine idle, and fewer where
//! threads wait for cores. [`Spread`] decides; [`Meter`] looks; a connection moves by itself, between two commands.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::Job;
use super::shard::lock;

/// How often it is looked.
pub const PERIOD: Duration = Duration::from_millis(250);
/// So many looks in a row say the same before anything changes.
const LOOKS: u32 = 2;
/// Threads are busy above this part of their time each: more take part.
const BUSY: f64 = 0.7;
/// Cores that idle, at least, for that.
const IDLE_MIN: f64 = 0.5;
/// Fewer would be busy for less than this part of their time: one less takes part.
const SLACK: f64 = 0.45;
/// Threads wait for a core for more than this part of their time, and less than that of a core idles: likewise.
const WAITING: f64 = 0.25;
const IDLE_NONE: f64 = 0.15;

/// What was seen over a period, all in cores.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// What threads that take part used, in sum.
    pub busy: f64,
    /// What they waited for a core, in sum.
    pub waited: f64,
    /// What nobody on this machine used of the cores this process may run on.
    pub idle: f64,
}

/// Decides how many threads take part.
#[derive(Debug)]
pub struct Spread {
    threads: usize,
    active: usize,
    /// Looks in a row that said: more, fewer.
    said: (u32, u32),
}

impl Spread {
    /// One of so many takes part.
    pub fn new(threads: usize) -> Self {
        Self { threads, active: 1, said: (0, 0) }
    }

    /// A period went by; how many take part in the next.
    pub fn step(&mut self, load: Load) -> usize {
        let active = self.active as f64;
        let more = self.active < self.threads && load.busy > BUSY * active && load.idle >= IDLE_MIN;
        let crowded = load.waited > WAITING * active && load.idle < IDLE_NONE;
        let fewer = self.active > 1 && (load.busy < SLACK * (active - 1.0) || crowded);
        let count = |says: bool, before: u32| if says { before + 1 } else { 0 };
        self.said = (count(more, self.said.0), count(fewer, self.said.1));
        if self.said.0 >= LOOKS {
            self.active = (self.active * 2).min(self.threads);
            self.said = (0, 0);
        } else if self.said.1 >= LOOKS {
            self.active -= 1;
            self.said = (0, 0);
        }
        self.active
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

#[derive(Clone)]
struct Seen {
    at: Instant,
    /// (ran, waited) of each thread, nanoseconds.
    threads: Vec<(u64, u64)>,
    /// Ticks.
    idle: u64,
}

impl Meter {
    /// For this process.
    pub fn new() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        Self { cpus: cpus(list), ticks_per_s: rustix::param::clock_ticks_per_second().max(1) as f64, last: None }
    }

    /// The load since the last look; `None` at the first one, and where the kernel does not tell.
    pub fn look(&mut self, doors: &Doors) -> Option<Load> {
        let tasks = lock(&doors.tasks).clone();
        let thread = |task: &Option<PathBuf>| ran_and_waited(&fs::read_to_string(task.as_ref()?).ok()?);
        let seen = Seen {
            at: Instant::now(),
            threads: tasks.iter().map(thread).collect::<Option<_>>()?,
            idle: idle_ticks(&fs::read_to_string("/proc/stat").ok()?, &self.cpus),
        };
        let last = self.last.replace(seen.clone())?;
        let ns = seen.at.duration_since(last.at).as_nanos().max(1) as f64;
        let used = |which: fn(&(u64, u64)) -> u64| {
            let pairs = seen.threads.iter().zip(&last.threads).take(doors.active());
            pairs.map(|(now, then)| which(now).saturating_sub(which(then))).sum::<u64>() as f64 / ns
        };
        let idle = seen.idle.saturating_sub(last.idle) as f64 / self.ticks_per_s * 1e9 / ns;
        Some(Load { busy: used(|t| t.0), waited: used(|t| t.1), idle })
    }
}

/// Of a `schedstat` file.
fn ran_and_waited(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_ascii_whitespace().map_while(|w| w.parse().ok());
    Some((words.next()?, words.next()?))
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
        let alone = Load { busy: 0.98, waited: 0.01, idle: 0.1 };
        assert_eq!(steps(&mut spread, 100, alone), 1);
        let room = Load { idle: 6.0, ..alone };
        assert_eq!(steps(&mut spread, LOOKS - 1, room), 1);
        assert_eq!(spread.step(alone), 1);
        assert_eq!(steps(&mut spread, LOOKS, room), 2);
        // One connection that keeps one thread busy is no reason for a third.
        assert_eq!(steps(&mut spread, 100, room), 2);
        assert_eq!(steps(&mut spread, LOOKS, Load { busy: 1.9, ..room }), 4);
        assert_eq!(steps(&mut spread, 100, Load { busy: 3.9, ..room }), 4);
    }

    #[test]
    fn fewer_do_where_they_wait_for_cores_or_for_work() {
        let mut spread = Spread::new(3);
        let room = Load { busy: 2.9, waited: 0.1, idle: 2.0 };
        assert_eq!(steps(&mut spread, 2 * LOOKS, room), 3);
        let crowded = Load { busy: 1.2, waited: 1.1, idle: 0.0 };
        assert_eq!(steps(&mut spread, 2 * LOOKS, crowded), 1);
        assert_eq!(steps(&mut spread, 100, crowded), 1);
        assert_eq!(steps(&mut spread, 2 * LOOKS, room), 3);
        assert_eq!(steps(&mut spread, LOOKS, Load { busy: 0.6, waited: 0.0, idle: 3.0 }), 2);
        assert_eq!(steps(&mut spread, 100, Load { busy: 0.6, waited: 0.0, idle: 3.0 }), 2);
        assert_eq!(steps(&mut spread, LOOKS, Load::default()), 1);
    }

    #[test]
    fn a_steady_load_does_not_make_it_waver() {
        for tenths in 0..80 {
            let total = f64::from(tenths) / 10.0;
            let mut spread = Spread::new(8);
            let mut seen = Vec::new();
            for _ in 0..200 {
                let busy = total.min(spread.active as f64);
                seen.push(spread.step(Load { busy, waited: 0.0, idle: 8.0 - busy }));
            }
            seen.dedup();
            assert!(seen.len() <= 6, "{total}: {seen:?}");
        }
    }

    #[test]
    fn the_kernels_words_are_read_right() {
        assert_eq!(cpus("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpus(""), Vec::<usize>::new());
        assert_eq!(ran_and_waited("206176 82372 2\n"), Some((206_176, 82_372)));
        assert_eq!(ran_and_waited("x"), None);
        let stat = "cpu  1 2 3 999 9 0\ncpu0 1 2 3 40 5 0 0\ncpu1 1 2 3 400 50 0\nintr 7 7 7 7 7 7\n";
        assert_eq!((idle_ticks(stat, &[0]), idle_ticks(stat, &[0, 1]), idle_ticks("", &[0])), (45, 495, 0));
    }

    #[test]
    fn what_a_thread_uses_is_seen() {
        let (tx, _rx) = tokio::sync::mpsc::unbounded_channel();
        let doors = Doors::new(vec![tx]);
        let mut meter = Meter::new();
        assert_eq!(meter.look(&doors), None);
        doors.arrived(0);
        assert_eq!(meter.look(&doors), None);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {}
        let load = meter.look(&doors).expect("the kernel tells of threads");
        // On a machine that others use too it may have waited most of the time.
        assert!(load.busy > 0.0 && load.busy + load.waited < 1.5 && load.idle >= 0.0, "{load:?}");
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
