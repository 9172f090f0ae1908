//! Nanoseconds per command of the client-protocol codecs. `cargo bench --bench codec`; the best of several rounds is printed,
//! since anything slower was something else that ran.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cachectl::proto::json::Request;
use cachectl::proto::resp::{Decoder, encode_command, encode_command_into};
use cachectl::proto::value::ReplyDecoder;

/// Rounds, and the least time of one.
const ROUNDS: u32 = 20;
const ROUND: Duration = Duration::from_millis(50);
/// Commands in one read buffer: what a pipelining client sends at once.
const PIPELINE: usize = 256;

/// Runs `work`, which handles `n` commands, and prints the time of one.
fn measure(name: &str, n: usize, mut work: impl FnMut()) {
    // As a test (`cargo test --all-targets`) it only has to run.
    let rounds = if std::env::args().any(|a| a == "--bench") { ROUNDS } else { 0 };
    work();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let (start, mut times) = (Instant::now(), 0u32);
        while start.elapsed() < ROUND {
            work();
            times += 1;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (f64::from(times) * n as f64));
    }
    println!("{name:<36} {best:>8.1} ns");
}

fn pipeline(command: impl Fn(usize) -> Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..PIPELINE {
        let args = command(i);
        encode_command_into(&mut bytes, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    bytes
}

/// Decodes everything in `bytes`, touching each command's name and first argument as dispatch does.
fn decode(decoder: &mut Decoder, mut bytes: &[u8]) -> usize {
    let mut commands = 0;
    while let Ok(Some(n)) = decoder.next(bytes) {
        let args = decoder.args(&bytes[..n]);
        black_box((args.get(0), args.get(1)));
        bytes = &bytes[n..];
        commands += 1;
    }
    commands
}

fn main() {
    let key = |i: usize| format!("key:{i:012}").into_bytes();
    let get = pipeline(|i| vec![b"GET".to_vec(), key(i)]);
    let set = pipeline(|i| vec![b"SET".to_vec(), key(i), vec![b'x'; 100]]);
    let set_px = pipeline(|i| vec![b"SET".to_vec(), key(i), vec![b'x'; 1000], b"PX".to_vec(), b"60000".to_vec()]);
    let mget = pipeline(|i| std::iter::once(b"MGET".to_vec()).chain((0..20).map(|j| key(i + j))).collect());
    let inline: Vec<u8> = (0..PIPELINE).flat_map(|i| [&b"GET "[..], &key(i), b"\r\n"].concat()).collect();

    let mut d = Decoder::default();
    for (name, bytes) in [
        ("GET, 16-byte key", &get),
        ("SET, 100-byte value", &set),
        ("SET PX, 1000-byte value", &set_px),
        ("MGET, 20 keys", &mget),
        ("inline GET", &inline),
    ] {
        assert_eq!(decode(&mut d, bytes), PIPELINE);
        measure(name, PIPELINE, || {
            black_box(decode(&mut d, black_box(bytes)));
        });
    }

    // One command that arrives in three reads.
    let one = encode_command(&[b"SET", &key(1), &[b'x'; 100]]);
    measure("SET, in three pieces", 1, || {
        for end in [12, 60, one.len()] {
            black_box(d.next(black_box(&one[..end])).ok());
        }
    });

    measure("encode SET, 100-byte value", 1, || {
        black_box(encode_command(&[b"SET", black_box(b"key:000000000001"), &[b'x'; 100]]));
    });

    let replies = [&b"+OK\r\n"[..], b"$100\r\n", &[b'x'; 100], b"\r\n"].concat();
    let mut r = ReplyDecoder::new();
    measure("reply: OK and a 100-byte bulk", 2, || {
        let mut at = 0;
        while let Ok((n, Some(value))) = r.next(black_box(&replies[at..])) {
            at += n;
            black_box(value);
        }
    });

    let line =
        br#"{"v":1,"machine":"c","type":"SET","id":7,"data":{"key":"key:000000000001","value":"v","ttl_ms":1000}}"#;
    measure("JSON SET", 1, || {
        black_box(Request::parse(black_box(line)).ok());
    });
}
