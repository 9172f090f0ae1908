//! A small reader of RESP2 and RESP3 replies, for comparing two of them.

use std::io::{self, BufRead};

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `+`, `-`, `:`, `,`, `#`, `(` or `_` with its line.
    Line(char, Vec<u8>),
    /// `$` or `=`; none = null.
    Bulk(char, Option<Vec<u8>>),
    /// `*`, `~`, `>`; none = null.
    List(char, Option<Vec<Value>>),
    /// `%`.
    Map(Vec<(Value, Value)>),
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads one reply.
pub fn read(from: &mut impl BufRead) -> io::Result<Value> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    let [tag, body @ .., b'\r', b'\n'] = line.as_slice() else {
        return Err(bad(&format!("no line: {:?}", line.escape_ascii().to_string())));
    };
    let tag = *tag as char;
    let n = || std::str::from_utf8(body).ok().and_then(|t| t.parse::<i64>().ok()).ok_or_else(|| bad("no length"));
    match tag {
        '+' | '-' | ':' | ',' | '#' | '(' | '_' => Ok(Value::Line(tag, body.to_vec())),
        '$' | '=' => {
            let Ok(len) = usize::try_from(n()?) else {
                return Ok(Value::Bulk(tag, None));
            };
            let mut bytes = vec![0; len + 2];
            from.read_exact(&mut bytes)?;
            if !bytes.ends_with(b"\r\n") {
                return Err(bad("bulk without end"));
            }
            bytes.truncate(len);
            Ok(Value::Bulk(tag, Some(bytes)))
        }
        '*' | '~' | '>' => {
            let Ok(len) = usize::try_from(n()?) else {
                return Ok(Value::List(tag, None));
            };
            Ok(Value::List(tag, Some((0..len).map(|_| read(from)).collect::<io::Result<_>>()?)))
        }
        '%' => {
            let len = usize::try_from(n()?).map_err(|_| bad("map length"))?;
            Ok(Value::Map((0..len).map(|_| Ok((read(from)?, read(from)?))).collect::<io::Result<_>>()?))
        }
        _ => Err(bad("unknown tag")),
    }
}

/// Reads a whole buffer as one reply; panics if it is not exactly one.
pub fn parse(mut bytes: &[u8]) -> Value {
    let shown = bytes.escape_ascii().to_string();
    let value = read(&mut bytes).unwrap_or_else(|e| panic!("{e}: {shown}"));
    assert!(bytes.is_empty(), "more than one reply: {shown}");
    value
}

impl Value {
    /// The bytes of a bulk string.
    pub fn bulk(&self) -> &[u8] {
        match self {
            Value::Bulk(_, Some(b)) => b,
            other => panic!("no bulk string: {other:?}"),
        }
    }

    /// The text of a bulk or verbatim string, without the format of the latter.
    pub fn text(&self) -> String {
        let bytes = self.bulk();
        let bytes = if matches!(self, Value::Bulk('=', _)) { &bytes[4..] } else { bytes };
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    /// The number of an integer.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Line(':', n) => std::str::from_utf8(n).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The elements of an array or set.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::List(_, Some(items)) => items,
            other => panic!("no list: {other:?}"),
        }
    }

    /// The pairs of a map, also of one told as an array.
    pub fn pairs(&self) -> Vec<(Value, Value)> {
        match self {
            Value::Map(pairs) => pairs.clone(),
            other => other.items().chunks(2).map(|p| (p[0].clone(), p[1].clone())).collect(),
        }
    }

    /// The same with all lists in one order, at every depth: for replies whose order means nothing.
    pub fn sorted(self) -> Value {
        match self {
            Value::List(tag, Some(items)) => {
                let mut items: Vec<Value> = items.into_iter().map(Value::sorted).collect();
                items.sort();
                Value::List(tag, Some(items))
            }
            Value::Map(pairs) => {
                let mut pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (k, v.sorted())).collect();
                pairs.sort();
                Value::Map(pairs)
            }
            other => other,
        }
    }
}
