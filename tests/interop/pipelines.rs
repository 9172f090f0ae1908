//! Pipelines that ask for more than a connection may hold, and backups that confirm nothing: every command is answered, and the
//! node neither grows nor falls silent.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use cachectl::proto::resp::encode_command;
use cachectl::proto::value::Value;
use rustix::process::Signal;

use super::common::{Cluster, PATIENCE, Raw, signal, wait_for};
use super::{NODES, cluster};

/// A connection to the node that serves this key.
fn at_primary(c: &Cluster, nodes: u16, key: &[u8]) -> (SocketAddr, Raw) {
    let at = |n| {
        let addr = c.node_addr(n);
        let mut raw = Raw::connect(addr).ok()?;
        matches!(raw.call(&[b"EXISTS", key]).ok()?, Value::Int(_)).then_some((addr, raw))
    };
    wait_for("a node that serves the key", || (1..=nodes).find_map(at))
}

/// More than a connection may hold of replies (1 MiB) in one pipeline, read at once or slowly, with the way in open or shut.
#[test]
fn replies_come_to_the_last_however_many_bytes_they_are() {
    let c = cluster();
    for (i, (gets, len)) in [(16, 100_000), (300, 10_000), (64, 64 << 10), (3, 3 << 20)].into_iter().enumerate() {
        for shut in [false, true] {
            let key = format!("pipelines:{i}");
            let value = vec![b'0' + i as u8; len];
            let (addr, mut raw) = at_primary(&c, NODES, key.as_bytes());
            assert_eq!(raw.call(&[b"SET", key.as_bytes(), &value]).unwrap(), Value::Simple("OK".into()));
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(&encode_command(&[b"GET", key.as_bytes()]).repeat(gets)).unwrap();
            if shut {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            let mut replies = Raw::over(stream, PATIENCE).unwrap();
            for n in 0..gets {
                if n == gets / 2 {
                    // The socket is full by now.
                    std::thread::sleep(Duration::from_millis(50));
                }
                let reply =
                    replies.reply().unwrap_or_else(|e| panic!("reply {n} of {gets} of {len} bytes, {shut}: {e}"));
                assert!(reply == Value::Bulk(value.clone()), "reply {n} of {gets}");
            }
        }
    }
}

/// The most memory that a process ever had, MiB.
fn peak_mib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? >> 10)
}

/// A backup that stands still confirms nothing, then is given up. What clients asked meanwhile is bounded, and they are served after.
#[test]
fn a_backup_that_stands_still_makes_its_primary_neither_grow_nor_fall_silent() {
    /// More bytes in all than the bound below.
    const GETS: usize = 400;
    const LEN: usize = 1 << 20;
    /// Of each of four who write: twice what may be unconfirmed.
    const BURSTS: usize = 32;
    let c = Cluster::up(&["--masters", "1", "--nodes", "2"]);
    let value = vec![b'v'; LEN];
    let key = (0..).map(|n| format!("{{{n}}}")).find(|k| {
        matches!(Raw::connect(c.node_addr(1)).and_then(|mut r| r.call(&[b"EXISTS", k.as_bytes()])), Ok(Value::Int(_)))
    });
    let key = key.unwrap();
    let (addr, mut raw) = at_primary(&c, 1, key.as_bytes());
    assert_eq!(raw.call(&[b"SET", key.as_bytes(), &value]).unwrap(), Value::Simple("OK".into()));
    let (n1, n2) = (c.pid("n1"), c.pid("n2"));
    signal(n2, Signal::STOP);
    // One write that nobody confirms, and much that waits behind it.
    let write = encode_command(&[b"SET", format!("{key}:w").as_bytes(), b"1"]);
    raw.send(&[write, encode_command(&[b"GET", key.as_bytes()]).repeat(GETS)].concat()).unwrap();
    // Others write what nobody takes.
    let burst = encode_command(&[b"SET", key.as_bytes(), &value]);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (mut stream, burst) = (TcpStream::connect(addr).unwrap(), burst.clone());
            std::thread::spawn(move || {
                stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                // Where nobody reads, this ends.
                let _ = (0..BURSTS).try_for_each(|_| stream.write_all(&burst));
                stream
            })
        })
        .collect();
    c.wait_status("n2 is given up", |s| s["slots"]["serving"] == 16_384 && s["slots"]["solo"] == 16_384);
    let writers: Vec<TcpStream> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    for n in 0..=GETS {
        match raw.reply().unwrap_or_else(|e| panic!("reply {n}: {e}")) {
            Value::Simple(_) if n == 0 => {}
            Value::Bulk(b) if n > 0 && b.len() == LEN => {}
            // On a machine so slow that it was parked for too long.
            Value::Error(e) => assert!(e.starts_with("CLUSTERDOWN") || e.starts_with("INDETERMINATE"), "{e}"),
            other => panic!("reply {n}: {other:?}"),
        }
    }
    let answers = Raw::connect(addr).and_then(|mut r| r.call(&[b"PING"]));
    assert_eq!(answers.unwrap(), Value::Simple("PONG".into()));
    // The backlog may be 64 MiB and one read of each, and what a queue of that size grew in.
    let peak = peak_mib(n1).unwrap();
    assert!(peak < 300, "{peak} MiB");
    drop(writers);
    signal(n2, Signal::CONT);
}
