//! `cachectl set`: writes a key.

use std::io::Read;

use super::{Ctx, kv};
use crate::cli::args::SetArgs;
use crate::cli::error::{CliError, CmdResult, Exit};

/// The longest value taken from stdin, bytes: what the servers take.
const VALUE_MAX: u64 = 512 << 20;

/// Runs it.
pub async fn run(ctx: &Ctx, args: &SetArgs) -> CmdResult {
    let from_stdin;
    let value = if args.value == "-" {
        from_stdin = read_stdin()?;
        &from_stdin
    } else {
        kv::bytes(&args.value)
    };
    kv::client(ctx).await?.set(kv::bytes(&args.key), value, args.ttl).await.map_err(kv::refused)?;
    if ctx.out.json() {
        let mut doc = kv::document(&args.key);
        doc.insert("ok".into(), true.into());
        ctx.out.document(&doc)?;
    } else {
        ctx.out.line("OK")?;
    }
    Ok(Exit::Done)
}

fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut value = Vec::new();
    let read = std::io::stdin().lock().take(VALUE_MAX + 1).read_to_end(&mut value);
    read.map_err(|e| CliError::failed("STDIN", format!("cannot read the value from stdin: {e}")))?;
    if value.len() as u64 > VALUE_MAX {
        return Err(
            CliError::failed("TOO_LARGE", "the value on stdin is longer than 512 MiB").hint("cut it into several keys")
        );
    }
    Ok(value)
}
