//! `cachectl incr`: adds one to a number.

use super::{Ctx, kv};
use crate::cli::args::KeyArg;
use crate::cli::error::CmdResult;

/// Runs it: prints the new value.
pub async fn run(ctx: &Ctx, args: &KeyArg) -> CmdResult {
    let n = kv::client(ctx).await?.incr(kv::bytes(&args.key), 1).await.map_err(kv::refused)?;
    kv::number(ctx, &args.key, "value", n)
}
