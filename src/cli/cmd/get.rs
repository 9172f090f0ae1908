//! `cachectl get`: reads a key.

use std::io::IsTerminal;

use super::{Ctx, kv};
use crate::cli::args::KeyArg;
use crate::cli::error::{CmdResult, Exit};
use crate::cli::output::escape_bytes;

/// Runs it: exit 1 and an empty stdout if the key is missing.
pub async fn run(ctx: &Ctx, args: &KeyArg) -> CmdResult {
    let value = kv::client(ctx).await?.get(kv::bytes(&args.key)).await.map_err(kv::refused)?;
    let Some(mut value) = value else {
        ctx.out.say(&format!("no key {}", kv::shown(&args.key)));
        return Ok(Exit::Failed);
    };
    if ctx.out.json() {
        let mut doc = kv::document(&args.key);
        kv::put_bytes(&mut doc, "value", &value);
        ctx.out.document(&doc)?;
    } else if std::io::stdout().is_terminal() {
        // Whoever wrote the value must not steer this terminal.
        ctx.out.line(&escape_bytes(&value))?;
    } else {
        value.push(b'\n');
        ctx.out.raw(&value)?;
    }
    Ok(Exit::Done)
}
