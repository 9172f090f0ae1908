//! `cachectl del`: deletes keys, of whatever slots.

use super::{Ctx, kv};
use crate::cli::args::DelArgs;
use crate::cli::error::{CmdResult, Exit};

/// Runs it: prints how many of the keys there were.
pub async fn run(ctx: &Ctx, args: &DelArgs) -> CmdResult {
    let mut client = kv::client(ctx).await?;
    let mut deleted = 0u64;
    for key in &args.keys {
        match client.del(kv::bytes(key)).await {
            Ok(there) => deleted += u64::from(there),
            Err(e) => {
                // Those before it are gone, and the person should know.
                ctx.out.say(&format!("{deleted} deleted before {}", kv::shown(key)));
                return Err(kv::refused(e));
            }
        }
    }
    if ctx.out.json() {
        ctx.out.document(&serde_json::json!({"deleted": deleted}))?;
    } else {
        ctx.out.line(&deleted.to_string())?;
    }
    Ok(Exit::Done)
}
