//! Tests of the command decoder: properties over cuts, Redis's error texts, hostile input.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

type Command = Vec<Vec<u8>>;

/// Feeds `bytes` in pieces of the given lengths (the rest at the end), as a connection's read loop does.
fn drive(limits: Limits, bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> (Vec<Command>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(limits);
    let mut out = Vec::new();
    let mut buf: Vec<u8> = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.into_iter();
    loop {
        match decoder.next(&buf) {
            Err(e) => return (out, Some(e)),
            Ok(Some(n)) => {
                let args = decoder.args(&buf[..n]);
                assert!(!args.is_empty());
                out.push(args.iter_from(0).map(<[u8]>::to_vec).collect());
                buf.drain(..n);
            }
            Ok(None) => {
                assert!(decoder.need(buf.len()) >= 1);
                buf.drain(..decoder.discard());
                if rest.is_empty() {
                    return (out, None);
                }
                let n = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
                buf.extend_from_slice(&rest[..n]);
                rest = &rest[n..];
            }
        }
    }
}

fn whole(bytes: &[u8]) -> (Vec<Command>, Option<ProtocolError>) {
    drive(Limits::default(), bytes, [])
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let arg = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20),
        1 => prop::collection::vec(any::<u8>(), 90..130),
        1 => prop::collection::vec(prop::sample::select(&b"\r\n$*0123456789"[..]), 0..12),
    ];
    prop::collection::vec(prop::collection::vec(arg, 1..7), 0..6)
}

fn encode_all(commands: &[Command]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for c in commands {
        encode_command_into(&mut bytes, &c.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    bytes
}

/// Quotes one argument for an inline command.
fn quote(arg: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &b in arg {
        match b {
            b'"' | b'\\' => out.extend([b'\\', b]),
            b' '..=b'~' => out.push(b),
            _ => out.extend(format!("\\x{b:02x}").bytes()),
        }
    }
    out.push(b'"');
    out
}

proptest! {
    #[test]
    fn a_glance_sees_what_the_decoder_finds(commands in commands(), end in 0usize..2000) {
        let all = encode_all(&commands);
        let bytes = &all[..all.len().min(end)];
        let (found, _) = whole(bytes);
        let (mut at, mut seen) = (0, 0);
        let mut glancer = Glancer::default();
        while let Some(g) = glancer.glance(&bytes[at..]) {
            let args: Command = g.args(&bytes[at..]).iter_from(0).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(&args, &found[seen]);
            (at, seen) = (at + g.len, seen + 1);
        }
        // It stops at the first that is not whole, or has many arguments.
        prop_assert!(seen == found.len() || found[seen].len() > 5);
    }

    #[test]
    fn a_glance_at_garbage_says_what_the_decoder_says(tail in prop::collection::vec(any::<u8>(), 0..40), cut in 0usize..40, flip: u8, used: bool) {
        let mut bytes = encode_command(&[b"SET", b"key", b"value"]);
        bytes.truncate(cut);
        bytes.extend(tail);
        let at = usize::from(flip) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= flip;
        }
        // Whatever began how before.
        let mut glancer = Glancer::default();
        if used {
            let words: [&[u8]; 4] = [b"SET", b"other", b"value", b"NX"];
            glancer.glance(&encode_command(&words[..3 + usize::from(flip & 1)])).unwrap();
        }
        if let Some(g) = glancer.glance(&bytes) {
            let mut d = Decoder::default();
            prop_assert_eq!(d.next(&bytes), Ok(Some(g.len)));
            let args = |a: Args<'_>| a.iter_from(0).map(<[u8]>::to_vec).collect::<Vec<_>>();
            prop_assert_eq!(args(g.args(&bytes)), args(d.args(&bytes)));
        }
    }

    #[test]
    fn a_pipeline_decodes_the_same_however_it_is_cut(
        commands in commands(),
        cuts in prop::collection::vec(1usize..40, 0..200),
    ) {
        let bytes = encode_all(&commands);
        prop_assert_eq!(whole(&bytes), (commands.clone(), None));
        prop_assert_eq!(drive(Limits::default(), &bytes, cuts), (commands.clone(), None));
        prop_assert_eq!(drive(Limits::default(), &bytes, std::iter::repeat(1)), (commands, None));
    }

    #[test]
    fn inline_says_the_same_as_multibulk(commands in commands(), cuts in prop::collection::vec(1usize..20, 0..200)) {
        let mut bytes = Vec::new();
        for c in &commands {
            bytes.extend(c.iter().map(|a| quote(a)).collect::<Vec<_>>().join(&b' '));
            bytes.extend_from_slice(b"\r\n");
        }
        prop_assert_eq!(drive(Limits::default(), &bytes, cuts), (commands, None));
    }

    #[test]
    fn plain_words_need_no_quotes(words in prop::collection::vec("[!#-&(-~]{1,9}", 1..6), spaces in "[ \t]{1,3}") {
        prop_assume!(!words[0].starts_with('*'));
        let line = format!("{spaces}{}{spaces}\n", words.join(&spaces));
        let expected: Command = words.iter().map(|w| w.clone().into_bytes()).collect();
        prop_assert_eq!(whole(line.as_bytes()), (vec![expected], None));
    }

    #[test]
    fn garbage_ends_the_same_however_it_is_cut(
        pieces in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![
                "*", "$", "\r\n", "\r", "\n", "1", "0", "-1", "3", "12", "99999999999", " ", "\"", "'", "\\x4", "\\", "GET", "*1\r\n",
                "$3\r\n", "$0\r\n\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "*-5\r\n", "*01\r\n", "$+1\r\n", "PING\r\n",
            ]).prop_map(|s: &str| s.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..5),
        ], 0..40),
        cuts in prop::collection::vec(1usize..9, 0..200),
    ) {
        let bytes = pieces.concat();
        let small = Limits { inline_max: 24, ..Limits::default() };
        prop_assert_eq!(drive(small, &bytes, cuts), drive(small, &bytes, []));
    }
}

#[test]
fn errors_are_redis_texts() {
    let long = "1".repeat(70_000);
    let table: &[(&str, &str)] = &[
        ("*x\r\n", "Protocol error: invalid multibulk length"),
        ("*\r\n", "Protocol error: invalid multibulk length"),
        ("*1048577\r\n", "Protocol error: invalid multibulk length"),
        ("*20000000000000000000\r\n", "Protocol error: invalid multibulk length"),
        ("*03\r\n", "Protocol error: invalid multibulk length"),
        ("*+3\r\n", "Protocol error: invalid multibulk length"),
        (&format!("*{long}"), "Protocol error: too big mbulk count string"),
        ("*1\r\nfoo", "Protocol error: expected '$', got 'f'"),
        ("*1\r\n\u{7}", "Protocol error: expected '$', got '\\x07'"),
        ("*1\r\n$x\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
        ("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9223372036854775807\r\n", "Protocol error: invalid bulk length"),
        (&format!("*1\r\n${long}"), "Protocol error: too big bulk count string"),
        ("*1\r\n$1\r\nabc", "Protocol error: expected CRLF after bulk"),
        (&long, "Protocol error: too big inline request"),
        ("get \"k\r\n", "Protocol error: unbalanced quotes in request"),
        ("get 'k\r\n", "Protocol error: unbalanced quotes in request"),
        ("get \"k\"x\r\n", "Protocol error: unbalanced quotes in request"),
    ];
    for (input, text) in table {
        let (commands, error) = whole(input.as_bytes());
        assert_eq!((commands.len(), error.map(|e| e.to_string())), (0, Some((*text).to_owned())), "{input:.40?}");
    }
}

#[test]
fn the_largest_lengths_are_awaited_and_the_sum_is_bounded() {
    let mut d = Decoder::default();
    let head = b"*2\r\n$536870912\r\n";
    assert_eq!(d.next(head), Ok(None));
    assert_eq!(d.need(head.len()), NEED_MAX);
    assert_eq!(d.need(100 << 20), 100 << 20);
    assert_eq!(d.need(500 << 20), (12 << 20) + 2 + head.len());
    assert_eq!(whole(b"*1048576\r\n"), (vec![], None));

    let small = Limits { command_max: 64, ..Limits::default() };
    assert_eq!(drive(small, b"*1\r\n$60\r\n", []).1, Some(ProtocolError::CommandSize));
    let many = encode_command(&[b"MGET", b"0123456789", b"0123456789", b"0123456789", b"0123456789"]);
    assert_eq!(drive(small, &many, []).1, Some(ProtocolError::CommandSize));
}

#[test]
fn what_holds_no_command_is_skipped_and_can_be_dropped() {
    let bytes = b"\r\n\n*0\r\n*-1\r\n   \r\n\"\"\r\n*1\r\n$4\r\nPING\r\n";
    assert_eq!(whole(bytes).0, [vec![b"".to_vec()], vec![b"PING".to_vec()]]);

    let mut d = Decoder::default();
    let mut buf = Vec::new();
    for _ in 0..100_000 {
        buf.extend_from_slice(b"\r\n*0\r\n");
        assert_eq!(d.next(&buf), Ok(None));
        buf.drain(..d.discard());
        assert!(buf.is_empty());
    }
    buf.extend_from_slice(b"\r\nPI");
    assert_eq!(d.next(&buf), Ok(None));
    assert_eq!(d.discard(), 2);
    assert_eq!(d.next(b"PING\r\n"), Ok(Some(6)));
    assert_eq!(&d.args(b"PING\r\n")[0], b"PING");
}

#[test]
fn quoting_is_redis_quoting() {
    let table: &[(&str, &[&[u8]])] = &[
        (r#"set k "a b""#, &[b"set", b"k", b"a b"]),
        (r#"set k "\x00\xfF\n\r\t\b\a\"\\\q""#, &[b"set", b"k", b"\x00\xff\n\r\t\x08\x07\"\\q"]),
        (r#"set k "\xZ1""#, &[b"set", b"k", b"xZ1"]),
        (r"set k 'it\'s \n'", &[b"set", b"k", br"it's \n"]),
        (r#"set k"2" v"#, &[b"set", b"k2", b"v"]),
        (r#"get """#, &[b"get", b""]),
        ("get a\u{b}b", &[b"get", b"a\x0bb"]),
    ];
    for (line, expected) in table {
        let (commands, error) = whole(format!("{line}\r\n").as_bytes());
        assert_eq!(error, None, "{line}");
        assert_eq!(commands, [expected.iter().map(|a| a.to_vec()).collect::<Vec<_>>()], "{line}");
    }
}

#[test]
fn one_large_command_does_not_keep_its_memory() {
    let many: Vec<&[u8]> = vec![b"x"; 100_000];
    let bytes = encode_command(&many);
    let mut d = Decoder::default();
    assert_eq!(d.next(&bytes), Ok(Some(bytes.len())));
    assert_eq!(d.args(&bytes).len(), 100_000);
    assert_eq!(d.need(0), 1);
    let ping = encode_command(&[b"PING"]);
    assert_eq!(d.next(&ping), Ok(Some(ping.len())));
    assert!(d.ranges.capacity() <= KEEP_RANGES);
}

/// A count of a million arguments must not reserve room for them.
#[test]
fn promises_take_no_memory() {
    let mut d = Decoder::default();
    assert_eq!(d.next(b"*1048576\r\n$1\r\na\r\n"), Ok(None));
    assert!(d.ranges.capacity() <= 8);
}

/// Valid pipelines with bytes flipped, dropped, doubled and spliced: no panic, and every cut gives one verdict.
#[test]
fn mutations_neither_panic_nor_depend_on_the_cut() {
    for seed in 0..3_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let args: Command = (0..rng.random_range(1..5)).map(|_| vec![b'v'; rng.random_range(0..30)]).collect();
            encode_command_into(&mut bytes, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        for _ in 0..rng.random_range(1..6) {
            let i = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[i] ^= 1 << rng.random_range(0..8),
                1 => bytes[i] = *b"*$\r\n0-\"'"[rng.random_range(0..8)..].first().unwrap(),
                2 if bytes.len() > 1 => drop(bytes.remove(i)),
                _ => bytes.insert(i, rng.random()),
            }
        }
        let one = whole(&bytes);
        let cuts: Vec<usize> = (0..bytes.len()).map(|_| rng.random_range(1..8)).collect();
        assert_eq!(drive(Limits::default(), &bytes, cuts), one, "seed {seed}");
    }
}
