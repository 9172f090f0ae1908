//! Random command lines that provoke every branch: few keys, odd numbers, wrong options, wrong arities.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Few, so that commands meet; most in one slot, so that commands of several keys work.
pub const KEYS: &[&[u8]] = &[b"{k}1", b"{k}2", b"{k}3", b"{k}", b"other", b"", b"bin\x00\xff\r\n"];

const VALUES: &[&[u8]] = &[
    b"",
    b"a",
    b"hello",
    b"0",
    b"1",
    b"-1",
    b"10",
    b"007",
    b"+5",
    b" 5",
    b"5 ",
    b"3.0e3",
    b"10.50",
    b"-0",
    b"0.1",
    b"inf",
    b"nan",
    b"9223372036854775806",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"1e400",
    b"1e-400",
    b"\x00\xff\r\n",
    b"the quick brown fox jumps over the lazy dog, and then some",
];

const NUMBERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"-3",
    b"5",
    b"-7",
    b"100",
    b"-100",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"-9223372036854775807",
    b"9223372036854775808",
    b"x",
    b"",
    b"1.5",
    b"01",
    b" 1",
];

/// Offsets that stay small, or are refused: a legal one near the limit would cost half a gigabyte.
const OFFSETS: &[&[u8]] =
    &[b"0", b"1", b"3", b"10", b"300", b"-1", b"536870912", b"536870911000", b"9223372036854775807", b"x", b""];

/// Arguments that are wrong or already past wherever a time is meant.
const ODD_TIMES: &[&[u8]] = &[
    b"0",
    b"-1",
    b"-100000",
    b"9223372036854775807",
    b"9223372036854775",
    b"-9223372036854775808",
    b"-9223372036854776",
    b"1",
    b"x",
    b"",
    b"1.5",
];

/// TTLs are set in steps of this, seconds, and none twice: comparisons of two (GT, LT) then never hang on the clocks.
const TTL_STEP_S: u64 = 10_000;

/// A seeded source of command lines.
pub struct Source {
    rng: StdRng,
    ttl_steps: Vec<u64>,
}

type Words = Vec<Vec<u8>>;

impl Source {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ttl_steps: Vec<u64> = (1..2000).collect();
        rand::seq::SliceRandom::shuffle(ttl_steps.as_mut_slice(), &mut rng);
        Self { rng, ttl_steps }
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from.choose(&mut self.rng).expect("a choice")
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    /// Up to `max` letters of an alphabet.
    pub fn word(&mut self, alphabet: &[u8], max: usize) -> Vec<u8> {
        let len = self.rng.random_range(0..=max);
        (0..len).map(|_| *alphabet.choose(&mut self.rng).expect("a letter")).collect()
    }

    fn key(&mut self) -> Vec<u8> {
        // Mostly of the one slot.
        let from = if self.chance(80) { &KEYS[..4] } else { KEYS };
        self.pick(from).to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        self.pick(VALUES).to_vec()
    }

    /// A span or point of time that is far off, wrong or past; in seconds or milliseconds, from now or from 1970.
    fn time(&mut self, seconds: bool, absolute: bool) -> Vec<u8> {
        // `1` as a span would run out during the test, on one side first.
        let odd = if absolute { ODD_TIMES } else { &ODD_TIMES[..7] };
        if self.chance(35) {
            return self.pick(odd).to_vec();
        }
        let step = self.ttl_steps.pop().expect("more steps than commands");
        let base_s = if absolute { cachectl::node::clock::wall_ms() / 1000 } else { 0 };
        let s = base_s + TTL_STEP_S * step;
        if seconds { s } else { s * 1000 }.to_string().into_bytes()
    }

    /// Text that `strtold` accepts, or nearly.
    pub fn float(&mut self) -> Vec<u8> {
        let digits = |rng: &mut StdRng, max: usize| -> String {
            (0..rng.random_range(0..=max)).map(|_| rng.random_range(b'0'..=b'9') as char).collect()
        };
        let rng = &mut self.rng;
        let mut text = String::from(if rng.random_ratio(1, 3) { "-" } else { "" });
        match rng.random_range(0..10) {
            0 => {
                text.push_str("0x");
                text.push_str(&format!("{:x}", rng.random::<u64>() >> rng.random_range(0..63)));
                if rng.random() {
                    text.push_str(&format!(".{:x}", rng.random::<u32>()));
                }
                if rng.random() {
                    text.push_str(&format!("p{}", rng.random_range(-70..70)));
                }
            }
            1 => text.push_str(&rng.random::<u64>().to_string()),
            2 => text.push_str(&format!(
                "{}",
                f64::from_bits(rng.random::<u64>() & !(0x7ff << 52) | (1023 + rng.random_range(0..40u64)) << 52)
            )),
            n => {
                let whole = if n < 5 { 4 } else { 22 };
                text.push_str(&digits(rng, whole));
                if rng.random() {
                    text.push('.');
                    text.push_str(&digits(rng, 25));
                }
                if rng.random_ratio(1, 4) {
                    let most = if rng.random_ratio(1, 5) { 5000 } else { 30 };
                    text.push_str(&format!("e{}", rng.random_range(-most..most)));
                }
            }
        }
        text.into_bytes()
    }

    /// One command line, as argument bytes.
    pub fn command(&mut self) -> Words {
        let mut words = self.sound_command();
        if self.chance(3) {
            words.pop();
        }
        if self.chance(3) {
            let extra = self.value();
            words.push(extra);
        }
        if words.is_empty() {
            words.push(b"PING".to_vec());
        }
        if self.chance(20) {
            words[0].make_ascii_uppercase();
        }
        words
    }

    fn sound_command(&mut self) -> Words {
        let w = |s: &str| s.as_bytes().to_vec();
        let key = self.key();
        match self.rng.random_range(0..34) {
            0 => vec![w("get"), key],
            1..=4 => self.set(key),
            5 => vec![w("getset"), key, self.value()],
            6 => vec![w("getdel"), key],
            7 => self.getex(key),
            8 => vec![w("setnx"), key, self.value()],
            9 => vec![w("setex"), key, self.time(true, false), self.value()],
            10 => vec![w("psetex"), key, self.time(false, false), self.value()],
            11 => self.several("mget", false),
            12 => self.several("mset", true),
            13 => self.several("msetnx", true),
            14 => vec![w("append"), key, self.value()],
            15 => vec![w("strlen"), key],
            16 => {
                let name = if self.chance(80) { "getrange" } else { "substr" };
                vec![w(name), key, self.pick(NUMBERS).to_vec(), self.pick(NUMBERS).to_vec()]
            }
            17 => vec![w("setrange"), key, self.pick(OFFSETS).to_vec(), self.value()],
            18 => vec![if self.chance(50) { w("incr") } else { w("decr") }, key],
            19 => {
                let name = if self.chance(50) { "incrby" } else { "decrby" };
                vec![w(name), key, self.pick(NUMBERS).to_vec()]
            }
            20 => {
                let by = if self.chance(50) { self.float() } else { self.value() };
                vec![w("incrbyfloat"), key, by]
            }
            21 => {
                let name = if self.chance(70) { "del" } else { "unlink" };
                self.several(name, false)
            }
            22 => self.several("exists", false),
            23 => self.several("touch", false),
            24 => vec![w("type"), key],
            25 => {
                let name = self.pick(&[b"ttl", b"pttl", b"expiretime", b"pexpiretime"]).to_vec();
                vec![name, key]
            }
            26..=28 => self.expire(key),
            29 => vec![w("persist"), key],
            30 => {
                let name = if self.chance(50) { "rename" } else { "renamenx" };
                vec![w(name), key, self.key()]
            }
            31 => self.copy(key),
            32 => {
                let what = self.pick(&[b"freq", b"refcount", b"nope"]).to_vec();
                vec![w("object"), what, key]
            }
            _ => vec![self.pick(&[b"nope", b"ping", b"echo", b"select"]).to_vec(), key],
        }
    }

    fn several(&mut self, name: &str, with_values: bool) -> Words {
        let mut words = vec![name.as_bytes().to_vec()];
        for _ in 0..self.rng.random_range(1..4) {
            let key = self.key();
            words.push(key);
            if with_values {
                let value = self.value();
                words.push(value);
            }
        }
        words
    }

    fn expire_option(&mut self) -> Words {
        let (name, seconds, absolute): (&[u8], bool, bool) =
            *[(&b"EX"[..], true, false), (b"px", false, false), (b"ExAt", true, true), (b"PXAT", false, true)]
                .choose(&mut self.rng)
                .expect("a choice");
        vec![name.to_vec(), self.time(seconds, absolute)]
    }

    fn set(&mut self, key: Vec<u8>) -> Words {
        let mut words = vec![b"set".to_vec(), key, self.value()];
        if self.chance(50) {
            for _ in 0..self.rng.random_range(1..4) {
                if self.chance(40) {
                    words.extend(self.expire_option());
                } else {
                    let option = self.pick(&[b"NX", b"xx", b"GET", b"get", b"KEEPTTL", b"persist", b"EX", b"nope"]);
                    words.push(option.to_vec());
                }
            }
        }
        words
    }

    fn getex(&mut self, key: Vec<u8>) -> Words {
        let mut words = vec![b"getex".to_vec(), key];
        match self.rng.random_range(0..5) {
            0 => {}
            1 => words.push(b"PERSIST".to_vec()),
            2 => words.push(b"keepttl".to_vec()),
            _ => words.extend(self.expire_option()),
        }
        words
    }

    fn expire(&mut self, key: Vec<u8>) -> Words {
        let (name, seconds, absolute): (&[u8], bool, bool) = *[
            (&b"expire"[..], true, false),
            (b"pexpire", false, false),
            (b"expireat", true, true),
            (b"pexpireat", false, true),
        ]
        .choose(&mut self.rng)
        .expect("a choice");
        let mut words = vec![name.to_vec(), key, self.time(seconds, absolute)];
        while self.chance(40) {
            words.push(self.pick(&[b"NX", b"xx", b"GT", b"lt", b"nope"]).to_vec());
        }
        words
    }

    fn copy(&mut self, key: Vec<u8>) -> Words {
        let mut words = vec![b"copy".to_vec(), key, self.key()];
        while self.chance(35) {
            match self.rng.random_range(0..4) {
                0 => words.push(b"nope".to_vec()),
                1 => words.extend([b"DB".to_vec(), self.pick(&[b"0", b"1", b"99", b"-1", b"x"]).to_vec()]),
                _ => words.push(b"REPLACE".to_vec()),
            }
        }
        words
    }
}
