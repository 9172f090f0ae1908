//! What the commands on keys share: the client, bytes from the command line, words for refusals.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Ctx;
use crate::cli::context;
use crate::cli::error::{CliError, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::output::escape_bytes;
use crate::proto::error::Failure;
use crate::proto::net::cache::{CacheClient, CacheError, TOTAL_WAIT, Waits};

/// A client of the cluster that is meant. A local cluster's nodes are on record, so that no master needs to run.
pub async fn client(ctx: &Ctx) -> Result<CacheClient, CliError> {
    let reach = ctx.reach_running()?;
    let nodes = if reach.nodes.is_empty() {
        let view = link::status(&mut link::masters(&reach.masters, TOTAL_WAIT)).await.map_err(unanswered)?;
        view.status.nodes.into_iter().map(|n| n.addr).collect()
    } else {
        reach.nodes
    };
    Ok(CacheClient::new(nodes, Waits::default()))
}

/// The bytes of a word of the command line.
pub fn bytes(word: &OsStr) -> &[u8] {
    word.as_bytes()
}

/// What a node refused, or that none answered.
pub fn refused(e: CacheError) -> CliError {
    let text = e.to_string();
    match &e {
        CacheError::Unreachable(_) => {
            CliError::Failed(Exit::NotOk, Failure::new("UNREACHABLE", text)).hint(context::nobody_answers())
        }
        CacheError::Unknown { .. } => {
            CliError::failed("INDETERMINATE", text).hint("read the key to see whether it was")
        }
        CacheError::Reply { .. } => CliError::failed("PROTOCOL", text).hint("is that a cachectl cluster?"),
        CacheError::Refused(_) => {
            let hint = match e.code() {
                Some("CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "LOADING") => {
                    return CliError::Failed(Exit::NotOk, Failure::new(e.code().unwrap_or("CLUSTERDOWN"), text))
                        .hint("`cachectl status` shows what does not serve");
                }
                Some("OOM") => "the node is full and has nothing to evict: give it more memory, or add nodes",
                Some("WRONGTYPE") => "the key holds another kind of value",
                _ => "nothing was changed",
            };
            let code = e.code().filter(|c| c.bytes().all(|b| b.is_ascii_uppercase())).unwrap_or("ERR").to_owned();
            // The code stands before the text; people read the text.
            let words = text.strip_prefix(&format!("{code} ")).unwrap_or(&text).to_owned();
            CliError::failed(&code, words).hint(hint)
        }
    }
}

/// A JSON object with a key, and whatever else is put in.
pub fn document(key: &OsStr) -> Map<String, Value> {
    let mut doc = Map::new();
    put_bytes(&mut doc, "key", bytes(key));
    doc
}

/// A field of text, or `…_b64` where the bytes are not UTF-8.
pub fn put_bytes(doc: &mut Map<String, Value>, field: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => doc.insert(field.into(), text.into()),
        Err(_) => doc.insert(format!("{field}_b64"), STANDARD.encode(bytes).into()),
    };
}

/// A number as the answer to a command on a key.
pub fn number(ctx: &Ctx, key: &OsStr, field: &str, n: i64) -> Result<Exit, CliError> {
    if ctx.out.json() {
        let mut doc = document(key);
        doc.insert(field.into(), n.into());
        ctx.out.document(&doc)?;
    } else {
        ctx.out.line(&n.to_string())?;
    }
    Ok(Exit::Done)
}

/// A key for words.
pub fn shown(key: &OsStr) -> String {
    escape_bytes(bytes(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_code_and_get_a_hint() {
        let e = refused(CacheError::Refused("ERR value is not an integer or out of range".into()));
        let CliError::Failed(exit, f) = e else { panic!() };
        assert_eq!((exit, f.code.as_str()), (Exit::Failed, "ERR"));
        assert_eq!(f.message, "value is not an integer or out of range");
        let CliError::Failed(exit, f) = refused(CacheError::Refused("CLUSTERDOWN Hash slot 3 not served".into()))
        else {
            panic!()
        };
        assert_eq!((exit, f.code.as_str()), (Exit::NotOk, "CLUSTERDOWN"));
        let CliError::Failed(_, f) = refused(CacheError::Refused("\u{1b}odd".into())) else { panic!() };
        assert_eq!(f.code, "ERR");
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        let mut doc = Map::new();
        put_bytes(&mut doc, "value", b"plain");
        put_bytes(&mut doc, "other", b"\xff\x00");
        assert_eq!(serde_json::to_string(&doc).unwrap(), r#"{"other_b64":"/wA=","value":"plain"}"#);
    }
}
