//! `cachectl ttl`: how long a key has left.

use super::{Ctx, kv};
use crate::cli::args::KeyArg;
use crate::cli::error::CmdResult;

/// Runs it: seconds, -1 without a deadline, -2 for a missing key, as Redis says it.
pub async fn run(ctx: &Ctx, args: &KeyArg) -> CmdResult {
    let ttl = kv::client(ctx).await?.ttl(kv::bytes(&args.key)).await.map_err(kv::refused)?;
    kv::number(ctx, &args.key, "ttl", ttl)
}
