//! The tasks that ask: one for each request, so that the screen waits for none of them. Each ends by itself within its limits.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::request::{KeyAnswer, KeyWish, Order, Refusal};
use super::state::Found;
use crate::proto::control::Message;
use crate::proto::net::cache::{CacheClient, CacheError, Route, Waits as CacheWaits};
use crate::proto::net::client::{ClientError, MasterClient, Repeat, Waits};
use crate::proto::value::Value;

/// Bytes of a value that are fetched: more than anyone reads, and less than a frame of the screen takes to draw.
const VALUE_MAX: u64 = 64 << 10;

/// Asks the leader.
pub async fn order(order: Order) -> Result<Box<Message>, Refusal> {
    let mut client = MasterClient::new("tui", order.masters, Waits::default());
    let repeat = if order.repeatable { Repeat::Safe } else { Repeat::Unsafe };
    client.request(&order.message, repeat).await.map(Box::new).map_err(|e| match e {
        ClientError::Refused(f) => {
            let hint = f.hint.map(|h| format!(" ({h})")).unwrap_or_default();
            Refusal { unknown: f.code == "UNKNOWN", code: f.code, text: format!("{}{hint}", f.message) }
        }
        ClientError::Unknown { .. } => Refusal { text: e.to_string(), unknown: true, ..Refusal::default() },
        e => Refusal { text: e.to_string(), ..Refusal::default() },
    })
}

/// Asks the node that has a key.
pub async fn key(seeds: Vec<String>, key: String, wish: KeyWish) -> Result<KeyAnswer, Refusal> {
    let mut client = CacheClient::new(seeds, CacheWaits::default());
    let key = key.as_bytes();
    let answer = match wish {
        KeyWish::Look => look(&mut client, key).await.map(KeyAnswer::Found),
        KeyWish::Set { value, ttl_ms } => {
            let ttl = ttl_ms.map(Duration::from_millis);
            client.set(key, value.as_bytes(), ttl).await.map(|()| KeyAnswer::Set)
        }
        KeyWish::Delete => client.del(key).await.map(KeyAnswer::Deleted),
    };
    answer.map_err(|e| Refusal {
        code: e.code().unwrap_or_default().to_owned(),
        unknown: matches!(e, CacheError::Unknown { .. }),
        text: e.to_string(),
    })
}

async fn look(client: &mut CacheClient, key: &[u8]) -> Result<Found, CacheError> {
    let int = |value: Value, addr: &str| value.int().ok_or_else(|| CacheError::Reply { addr: addr.to_owned() });
    let (ttl, addr) = client.call(&[b"PTTL", key], Route::Key(key), Repeat::Safe).await?;
    let ttl_ms = int(ttl, &addr)?;
    // Redis's word for "no such key".
    const MISSING: i64 = -2;
    if ttl_ms == MISSING {
        return Ok(Found { value: None, size: 0, ttl_ms, addr });
    }
    let (size, addr) = client.call(&[b"STRLEN", key], Route::Key(key), Repeat::Safe).await?;
    let size = u64::try_from(int(size, &addr)?).unwrap_or(0);
    let last = (VALUE_MAX - 1).to_string();
    let (value, addr) = client.call(&[b"GETRANGE", key, b"0", last.as_bytes()], Route::Key(key), Repeat::Safe).await?;
    let value = value.bytes().map(<[u8]>::to_vec).ok_or_else(|| CacheError::Reply { addr: addr.clone() })?;
    // What was written in between is told in the next reading; a size below what is here would be absurd.
    let size = size.max(value.len() as u64);
    Ok(Found { value: Some(value), size, ttl_ms, addr })
}

/// Writes a new file, readable by its owner; one that exists is left as it is.
pub fn write(path: &str, text: &str) -> Result<(), String> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(Path::new(path));
    file.and_then(|mut f| f.write_all(text.as_bytes())).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => "there is such a file already".to_owned(),
        _ => e.to_string(),
    })
}
