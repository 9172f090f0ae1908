//! The client protocol in JSON, for scripts: one object a line in, one object a line out, on the port that speaks RESP too.
//!
//! ```text
//! → {"v":1,"machine":"c","type":"SET","id":7,"data":{"key":"k","value":"v","ttl_ms":1000}}
//! ← {"v":1,"machine":"n1","type":"OK","id":7,"data":{}}
//! ```
//!
//! A request becomes the arguments of a Redis command ([`Request`]); its reply becomes the answer line ([`answer`]). Bytes
//! that are not UTF-8 travel as base64: `key_b64`, `value_b64`, and `{"b64":"…"}` within lists. The rules of control lines
//! hold: an unknown type or bad data gets an ERROR and the connection stays; a broken line gets an ERROR and is closed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::args::Args;
use super::control::{ENVELOPE_V, Empty, Envelope, LINE_MAX};
use super::error::Failure;
use super::value::{ReplyDecoder, Value};

/// The most keys, items or arguments of one request: scripts stay far below, and a list costs memory before it is judged.
pub const LIST_MAX: usize = 64 << 10;

/// Whether a connection whose first byte this is speaks JSON.
pub fn is_json(first: u8) -> bool {
    first == b'{'
}

/// Finds lines in a growing buffer without searching a byte twice. One per connection.
#[derive(Debug, Default)]
pub struct LineDecoder {
    scanned: usize,
}

impl LineDecoder {
    /// `Some(n)`: the first `n` bytes are a line, newline included, and the next call's buffer starts behind them. `None`:
    /// call again with more. An error ends the connection.
    pub fn next(&mut self, buf: &[u8]) -> Result<Option<usize>, Failure> {
        let window = &buf[..buf.len().min(LINE_MAX + 1)];
        let from = self.scanned.min(window.len());
        if let Some(i) = memchr::memchr(b'\n', &window[from..]) {
            self.scanned = 0;
            return Ok(Some(from + i + 1));
        }
        self.scanned = window.len();
        if window.len() > LINE_MAX {
            return Err(Failure::new("LINE_TOO_LONG", format!("a line is at most {LINE_MAX} bytes")));
        }
        Ok(None)
    }
}

/// A request that runs nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// To echo; 0 where the line was too broken to tell.
    pub id: u64,
    /// What to answer ([`answer_failure`]).
    pub failure: Failure,
    /// The line was broken: answer, then close.
    pub close: bool,
}

/// A Redis command that came as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// To echo.
    pub id: u64,
    bytes: Vec<u8>,
    ranges: Vec<(u32, u32)>,
}

impl Request {
    /// Reads one line, with or without its newline. `None`: it is blank.
    pub fn parse(line: &[u8]) -> Result<Option<Request>, Refusal> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let broken = |failure| Refusal { id: 0, failure, close: true };
        if line.len() > LINE_MAX {
            return Err(broken(Failure::new("LINE_TOO_LONG", format!("a line is at most {LINE_MAX} bytes"))));
        }
        let head: Head<'_> =
            serde_json::from_slice(line).map_err(|e| broken(Failure::new("BAD_LINE", e.to_string())))?;
        if head.v != ENVELOPE_V {
            let text = format!("envelope version {} is not {ENVELOPE_V}", head.v);
            return Err(broken(Failure::new("BAD_VERSION", text)));
        }
        let mut request = Request { id: head.id, bytes: Vec::new(), ranges: Vec::new() };
        let data = head.data.map_or("{}", RawValue::get);
        match request.fill(&head.kind, data) {
            Ok(()) => Ok(Some(request)),
            Err(failure) => Err(Refusal { id: head.id, failure, close: false }),
        }
    }

    /// The command's arguments, its name first.
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges)
    }

    fn push(&mut self, arg: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(arg);
        self.ranges.push((start, self.bytes.len() as u32));
    }

    fn push_int(&mut self, n: i64) {
        self.push(itoa::Buffer::new().format(n).as_bytes());
    }

    fn fill(&mut self, kind: &str, data: &str) -> Result<(), Failure> {
        let bad = |what: &str| Failure::new("BAD_DATA", format!("{kind}: {what}"));
        let data: Data<'_> = serde_json::from_str(data).map_err(|e| bad(&e.to_string()))?;
        let key = || key_of(&data.key, &data.key_b64).map_err(bad);
        let value = || value_of(data.value, &data.value_b64).map_err(bad);
        match kind {
            "GET" | "TTL" | "PTTL" | "PERSIST" | "STRLEN" | "TYPE" => {
                self.push(kind.as_bytes());
                self.push(&key()?);
            }
            "INCR" | "DECR" if data.by.is_none() => {
                self.push(kind.as_bytes());
                self.push(&key()?);
            }
            "INCR" | "DECR" | "INCRBY" | "DECRBY" => {
                self.push(if kind.starts_with("INCR") { b"INCRBY" } else { b"DECRBY" });
                self.push(&key()?);
                self.push_int(data.by.ok_or_else(|| bad("needs by"))?);
            }
            "APPEND" => {
                self.push(b"APPEND");
                self.push(&key()?);
                self.push(&value()?);
            }
            "EXPIRE" => {
                self.push(b"PEXPIRE");
                self.push(&key()?);
                self.push_int(data.ttl_ms.ok_or_else(|| bad("needs ttl_ms"))?);
            }
            "SET" => {
                self.push(b"SET");
                self.push(&key()?);
                self.push(&value()?);
                if let Some(ms) = data.ttl_ms {
                    self.push(b"PX");
                    self.push_int(ms);
                }
                for (word, wanted) in [(&b"NX"[..], data.nx), (b"XX", data.xx), (b"KEEPTTL", data.keepttl)] {
                    if wanted {
                        self.push(word);
                    }
                }
            }
            "DEL" | "EXISTS" | "MGET" => {
                self.push(kind.as_bytes());
                if data.key.is_some() || data.key_b64.is_some() {
                    self.push(&key()?);
                }
                for k in data.keys.iter().flat_map(|l| &l.0) {
                    self.push(&k.bytes().map_err(bad)?);
                }
                if self.ranges.len() == 1 {
                    return Err(bad("needs key, key_b64 or keys"));
                }
            }
            "MSET" => {
                self.push(b"MSET");
                for item in data.items.iter().flat_map(|l| &l.0) {
                    self.push(&key_of(&item.key, &item.key_b64).map_err(bad)?);
                    self.push(&value_of(item.value, &item.value_b64).map_err(bad)?);
                }
                if self.ranges.len() == 1 {
                    return Err(bad("needs items"));
                }
            }
            "PING" => self.push(b"PING"),
            "CALL" => {
                for a in data.args.iter().flat_map(|l| &l.0) {
                    self.push(&a.bytes().map_err(bad)?);
                }
                if self.ranges.is_empty() {
                    return Err(bad("needs args"));
                }
            }
            other => {
                let text = format!("no message type {other:?}");
                return Err(Failure::new("UNKNOWN_TYPE", text)
                    .hint("CALL with data.args runs any command that Redis clients may"));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    v: u32,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    id: u64,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    key_b64: Option<String>,
    #[serde(default)]
    keys: Option<List<Item>>,
    #[serde(default, borrow)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    value_b64: Option<String>,
    #[serde(default, borrow)]
    items: Option<List<Pair<'a>>>,
    #[serde(default)]
    args: Option<List<Item>>,
    #[serde(default)]
    ttl_ms: Option<i64>,
    #[serde(default)]
    by: Option<i64>,
    #[serde(default)]
    nx: bool,
    #[serde(default)]
    xx: bool,
    #[serde(default)]
    keepttl: bool,
}

#[derive(Deserialize)]
struct Pair<'a> {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    key_b64: Option<String>,
    #[serde(default, borrow)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    value_b64: Option<String>,
}

/// An element of `keys` or `args`: text, a whole number, or `{"b64":"…"}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    Int(i64),
    Bytes { b64: String },
}

impl Item {
    fn bytes(&self) -> Result<Cow<'_, [u8]>, &'static str> {
        match self {
            Item::Text(s) => Ok(Cow::Borrowed(s.as_bytes())),
            Item::Int(n) => Ok(Cow::Owned(n.to_string().into_bytes())),
            Item::Bytes { b64 } => from_b64(b64).map(Cow::Owned),
        }
    }
}

/// A list of at most [`LIST_MAX`] elements, refused as soon as there is one more.
struct List<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Bounded<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {LIST_MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if list.len() == LIST_MAX {
                        return Err(serde::de::Error::invalid_length(LIST_MAX + 1, &self));
                    }
                    list.push(element);
                }
                Ok(List(list))
            }
        }
        d.deserialize_seq(Bounded(PhantomData))
    }
}

const BOTH: &str = "a field and its _b64 form exclude each other";

fn key_of<'a>(plain: &'a Option<String>, b64: &Option<String>) -> Result<Cow<'a, [u8]>, &'static str> {
    match (plain, b64) {
        (Some(s), None) => Ok(Cow::Borrowed(s.as_bytes())),
        (None, Some(s)) => from_b64(s).map(Cow::Owned),
        (Some(_), Some(_)) => Err(BOTH),
        (None, None) => Err("needs key or key_b64"),
    }
}

/// A value is text or a number, whose digits are kept as they came.
fn value_of(plain: Option<&RawValue>, b64: &Option<String>) -> Result<Vec<u8>, &'static str> {
    match (plain.map(RawValue::get), b64) {
        (Some(s), None) if s.starts_with('"') => serde_json::from_str::<String>(s)
            .map(String::into_bytes)
            .map_err(|_| "value is not valid text; use value_b64"),
        (Some(s), None) if s.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Ok(s.as_bytes().to_vec()),
        (Some(_), None) => Err("value is text or a number"),
        (None, Some(s)) => from_b64(s),
        (Some(_), Some(_)) => Err(BOTH),
        (None, None) => Err("needs value or value_b64"),
    }
}

fn from_b64(text: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD.decode(text).map_err(|_| "not base64 (standard alphabet, padded)")
}

/// The answer to a request, from its command's reply.
pub fn answer(machine: &str, id: u64, reply: &Value) -> Vec<u8> {
    match reply {
        Value::Error(text) => line(machine, id, "ERROR", &ErrorData::of(text)),
        Value::Simple(s) if s == "OK" => line(machine, id, "OK", &Empty {}),
        Value::Int(n) => line(machine, id, "INTEGER", &Single("value", reply, Some(*n))),
        Value::Array(_) | Value::Set(_) | Value::Push(_) | Value::Map(_) => {
            line(machine, id, "ARRAY", &Single("values", reply, None))
        }
        Value::Bulk(b) | Value::Verbatim(_, b) if std::str::from_utf8(b).is_err() => {
            line(machine, id, "VALUE", &B64 { value_b64: STANDARD.encode(b) })
        }
        _ => line(machine, id, "VALUE", &Single("value", reply, None)),
    }
}

/// As [`answer`], from the bytes of one reply. The bytes are the server's own; were they no reply, the answer says so.
pub fn answer_resp(machine: &str, id: u64, reply: &[u8]) -> Vec<u8> {
    match ReplyDecoder::new().next(reply) {
        Ok((_, Some(value))) => answer(machine, id, &value),
        _ => answer_failure(machine, id, &Failure::new("INDETERMINATE", "the command's reply can't be shown as JSON")),
    }
}

/// The answer to a [`Refusal`].
pub fn answer_failure(machine: &str, id: u64, failure: &Failure) -> Vec<u8> {
    line(machine, id, "ERROR", failure)
}

fn line(machine: &str, id: u64, kind: &str, data: &impl Serialize) -> Vec<u8> {
    let envelope = |data| Envelope {
        v: ENVELOPE_V,
        machine: machine.to_owned(),
        cluster_id: None,
        kind: kind.to_owned(),
        id,
        data,
    };
    // Our own types into memory: no map has a non-string key, so this cannot fail.
    let mut line = serde_json::to_vec(&envelope(data)).unwrap_or_default();
    if line.len() > LINE_MAX {
        let text = "the command was executed; its reply is longer than a line may be: ask for less, or in RESP";
        return answer_failure(machine, id, &Failure::new("REPLY_TOO_LONG", text));
    }
    line.push(b'\n');
    line
}

#[derive(Serialize)]
struct B64 {
    value_b64: String,
}

/// One field that holds a reply; `.2` is a number to be written as such.
struct Single<'a>(&'static str, &'a Value, Option<i64>);

impl Serialize for Single<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(1))?;
        match self.2 {
            Some(n) => map.serialize_entry(self.0, &n)?,
            None => map.serialize_entry(self.0, &Part(self.1))?,
        }
        map.end()
    }
}

#[derive(Serialize)]
struct ErrorData<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<&'a str>,
}

impl<'a> ErrorData<'a> {
    fn of(text: &'a str) -> Self {
        let (code, message) = text.split_once(' ').unwrap_or((text, ""));
        let (slot, addr) = match (code, message.split_once(' ')) {
            ("MOVED" | "ASK", Some((slot, addr))) => (slot.parse().ok(), Some(addr)),
            _ => (None, None),
        };
        Self { code, message, slot, addr }
    }
}

/// A reply or a part of one as a JSON value: bytes that are not UTF-8 as `{"b64":"…"}`, maps flat as in RESP2.
struct Part<'a>(&'a Value);

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => s.serialize_none(),
            Value::Simple(t) | Value::BigNumber(t) => s.serialize_str(t),
            Value::Error(t) => {
                let mut map = s.serialize_map(Some(1))?;
                map.serialize_entry("error", &ErrorData::of(t))?;
                map.end()
            }
            Value::Int(n) => s.serialize_i64(*n),
            Value::Bool(b) => s.serialize_bool(*b),
            // JSON has no infinities; Redis's words for them.
            Value::Double(d) if !d.is_finite() => s.collect_str(d),
            Value::Double(d) => s.serialize_f64(*d),
            Value::Bulk(b) | Value::Verbatim(_, b) => match std::str::from_utf8(b) {
                Ok(t) => s.serialize_str(t),
                Err(_) => {
                    let mut map = s.serialize_map(Some(1))?;
                    map.serialize_entry("b64", &STANDARD.encode(b))?;
                    map.end()
                }
            },
            Value::Array(v) | Value::Set(v) | Value::Push(v) => s.collect_seq(v.iter().map(Part)),
            Value::Map(pairs) => {
                let mut seq = s.serialize_seq(Some(2 * pairs.len()))?;
                for (k, v) in pairs {
                    seq.serialize_element(&Part(k))?;
                    seq.serialize_element(&Part(v))?;
                }
                seq.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::proto::resp::{Decoder, encode_command};

    fn args(kind: &str, data: &str) -> Result<Vec<String>, Refusal> {
        let line = format!(r#"{{"v":1,"machine":"c","type":"{kind}","id":7,"data":{data}}}"#);
        let r = Request::parse(line.as_bytes())?.unwrap();
        assert_eq!(r.id, 7);
        Ok(r.args().iter_from(0).map(|a| a.escape_ascii().to_string()).collect())
    }

    #[test]
    fn requests_become_commands() {
        let table = [
            ("GET", r#"{"key":"k"}"#, "GET k"),
            ("GET", r#"{"key_b64":"/w=="}"#, r"GET \xff"),
            ("SET", r#"{"key":"k","value":"v","ttl_ms":1000}"#, "SET k v PX 1000"),
            ("SET", r#"{"key":"k","value_b64":"AAE=","nx":true}"#, r"SET k \x00\x01 NX"),
            ("SET", r#"{"key":"k","value":-1.50,"xx":true,"keepttl":true,"new":[]}"#, "SET k -1.50 XX KEEPTTL"),
            ("SET", r#"{"key":"","value":"a\u00e9\n"}"#, r"SET  a\xc3\xa9\n"),
            ("DEL", r#"{"key":"k"}"#, "DEL k"),
            ("DEL", r#"{"keys":["a",{"b64":"/w=="},5]}"#, r"DEL a \xff 5"),
            ("EXISTS", r#"{"keys":["a","b"]}"#, "EXISTS a b"),
            ("MGET", r#"{"keys":["a","b"]}"#, "MGET a b"),
            (
                "MSET",
                r#"{"items":[{"key":"a","value":"1"},{"key_b64":"/w==","value_b64":"/w=="}]}"#,
                r"MSET a 1 \xff \xff",
            ),
            ("TTL", r#"{"key":"k"}"#, "TTL k"),
            ("PTTL", r#"{"key":"k"}"#, "PTTL k"),
            ("EXPIRE", r#"{"key":"k","ttl_ms":5}"#, "PEXPIRE k 5"),
            ("PERSIST", r#"{"key":"k"}"#, "PERSIST k"),
            ("INCR", r#"{"key":"k"}"#, "INCR k"),
            ("INCR", r#"{"key":"k","by":-3}"#, "INCRBY k -3"),
            ("INCRBY", r#"{"key":"k","by":3}"#, "INCRBY k 3"),
            ("DECR", r#"{"key":"k"}"#, "DECR k"),
            ("DECR", r#"{"key":"k","by":3}"#, "DECRBY k 3"),
            ("APPEND", r#"{"key":"k","value":"v"}"#, "APPEND k v"),
            ("STRLEN", r#"{"key":"k"}"#, "STRLEN k"),
            ("TYPE", r#"{"key":"k"}"#, "TYPE k"),
            ("PING", "{}", "PING"),
            ("CALL", r#"{"args":["SET","k",{"b64":"/w=="},"EX",9]}"#, r"SET k \xff EX 9"),
        ];
        for (kind, data, expected) in table {
            assert_eq!(args(kind, data).unwrap().join(" "), expected, "{kind} {data}");
        }
        let bare = Request::parse(b"{\"v\":1,\"type\":\"PING\"}\r\n").unwrap().unwrap();
        assert_eq!((bare.id, &bare.args()[0]), (0, &b"PING"[..]));
        assert_eq!(Request::parse(b" \r\n"), Ok(None));
    }

    #[test]
    fn what_is_unknown_stays_what_is_broken_closes() {
        let stay = [
            ("DANCE", "{}", "UNKNOWN_TYPE"),
            ("GET", "{}", "BAD_DATA"),
            ("GET", "[]", "BAD_DATA"),
            ("GET", r#"{"key":5}"#, "BAD_DATA"),
            ("GET", r#"{"key":"a","key_b64":"/w=="}"#, "BAD_DATA"),
            ("GET", r#"{"key_b64":"/w"}"#, "BAD_DATA"),
            ("GET", r#"{"key":"\ud800"}"#, "BAD_DATA"),
            ("SET", r#"{"key":"k"}"#, "BAD_DATA"),
            ("SET", r#"{"key":"k","value":null}"#, "BAD_DATA"),
            ("SET", r#"{"key":"k","value":{"a":1}}"#, "BAD_DATA"),
            ("SET", r#"{"key":"k","value":"v","ttl_ms":"5"}"#, "BAD_DATA"),
            ("INCRBY", r#"{"key":"k"}"#, "BAD_DATA"),
            ("EXPIRE", r#"{"key":"k"}"#, "BAD_DATA"),
            ("DEL", r#"{"keys":[]}"#, "BAD_DATA"),
            ("MSET", "{}", "BAD_DATA"),
            ("CALL", "{}", "BAD_DATA"),
        ];
        for (kind, data, code) in stay {
            let r = args(kind, data).unwrap_err();
            assert_eq!((r.id, r.failure.code.as_str(), r.close), (7, code, false), "{kind} {data}");
        }
        let long = format!(r#"{{"keys":[{}""]}}"#, r#""","#.repeat(LIST_MAX));
        assert_eq!(args("DEL", &long).unwrap_err().failure.code, "BAD_DATA");
        for line in [&b"{"[..], b"[]", b"\xff", br#"{"v":2,"type":"PING"}"#, br#"{"v":1}"#, b"GET k"] {
            let r = Request::parse(line).unwrap_err();
            assert!(r.close && r.id == 0, "{r:?}");
        }
    }

    #[test]
    fn replies_become_answers() {
        let table = [
            ("+OK\r\n", r#""type":"OK","id":7,"data":{}"#),
            ("+PONG\r\n", r#""type":"VALUE","id":7,"data":{"value":"PONG"}"#),
            ("$-1\r\n", r#""type":"VALUE","id":7,"data":{"value":null}"#),
            ("_\r\n", r#""type":"VALUE","id":7,"data":{"value":null}"#),
            ("$3\r\na\"\n\r\n", r#""type":"VALUE","id":7,"data":{"value":"a\"\n"}"#),
            (":-5\r\n", r#""type":"INTEGER","id":7,"data":{"value":-5}"#),
            (",1.5\r\n", r#""type":"VALUE","id":7,"data":{"value":1.5}"#),
            ("*3\r\n$1\r\na\r\n$-1\r\n:2\r\n", r#""type":"ARRAY","id":7,"data":{"values":["a",null,2]}"#),
            ("%1\r\n+k\r\n*1\r\n+v\r\n", r#""type":"ARRAY","id":7,"data":{"values":["k",["v"]]}"#),
            (
                "-MOVED 1 127.0.0.1:7201\r\n",
                r#""type":"ERROR","id":7,"data":{"code":"MOVED","message":"1 127.0.0.1:7201","slot":1,"addr":"127.0.0.1:7201"}"#,
            ),
            ("-ERR no\r\n", r#""type":"ERROR","id":7,"data":{"code":"ERR","message":"no"}"#),
            (
                "*1\r\n-ERR no\r\n",
                r#""type":"ARRAY","id":7,"data":{"values":[{"error":{"code":"ERR","message":"no"}}]}"#,
            ),
            (
                "junk",
                r#""type":"ERROR","id":7,"data":{"code":"INDETERMINATE","message":"the command's reply can't be shown as JSON"}"#,
            ),
        ];
        for (resp, expected) in table {
            let line = answer_resp("n1", 7, resp.as_bytes());
            let expected = format!("{{\"v\":1,\"machine\":\"n1\",{expected}}}\n");
            assert_eq!(String::from_utf8(line).unwrap(), expected, "{resp:?}");
        }
        let bytes = answer("n1", 7, &Value::Bulk(vec![0xff]));
        assert!(String::from_utf8(bytes).unwrap().contains(r#""data":{"value_b64":"/w=="}"#));
        let bytes = answer("n1", 7, &Value::Array(vec![Value::Bulk(vec![0xff])]));
        assert!(String::from_utf8(bytes).unwrap().contains(r#""data":{"values":[{"b64":"/w=="}]}"#));
        let long = answer("n1", 7, &Value::Bulk(vec![b'a'; LINE_MAX]));
        assert!(String::from_utf8(long).unwrap().contains("REPLY_TOO_LONG"));
    }

    #[test]
    fn lines_are_found_once_and_bounded() {
        let mut d = LineDecoder::default();
        assert_eq!(d.next(b"{\"v\""), Ok(None));
        assert_eq!(d.next(b"{\"v\":1}\n{"), Ok(Some(8)));
        assert_eq!(d.next(b"{"), Ok(None));
        assert_eq!(d.next(b"{}\n"), Ok(Some(3)));
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(d.next(&long[..LINE_MAX]), Ok(None));
        assert_eq!(d.next(&long).unwrap_err().code, "LINE_TOO_LONG");
    }

    proptest! {
        #[test]
        fn json_says_the_same_as_resp(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6)) {
            let parts: Vec<Value> = words.iter().cloned().map(Value::Bulk).collect();
            // What an answer may hold, a request may hold.
            let list = serde_json::to_string(&parts.iter().map(Part).collect::<Vec<_>>()).unwrap();
            let line = format!(r#"{{"v":1,"type":"CALL","data":{{"args":{list}}}}}"#);
            let request = Request::parse(line.as_bytes()).unwrap().unwrap();
            let bytes = encode_command(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut d = Decoder::default();
            prop_assert_eq!(d.next(&bytes), Ok(Some(bytes.len())));
            let args = d.args(&bytes);
            prop_assert!(args.iter_from(0).eq(request.args().iter_from(0)));
        }
    }

    #[test]
    fn mutations_do_not_panic() {
        let seedling =
            br#"{"v":1,"machine":"c","type":"MSET","id":7,"data":{"items":[{"key":"a","value":-1.5},{"key_b64":"/w==","value":"\u00e9"}]}}"#;
        let mut refused = 0;
        for seed in 0..5_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bytes = seedling.to_vec();
            for _ in 0..rng.random_range(1..4) {
                let i = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[i] ^= 1 << rng.random_range(0..8),
                    1 => drop(bytes.remove(i)),
                    _ => bytes.insert(i, b"\"{}[]:,\\0-"[rng.random_range(0..10)]),
                }
            }
            match Request::parse(&bytes) {
                Ok(Some(r)) => assert!(!r.args().is_empty()),
                Ok(None) => {}
                Err(r) => refused += usize::from(!r.failure.message.is_empty()),
            }
        }
        assert!(refused > 1000, "{refused}");
    }
}
