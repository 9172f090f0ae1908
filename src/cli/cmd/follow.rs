//! Follows an operation to its end, with a gauge on a terminal.

use std::time::{Duration, Instant};

use super::Ctx;
use super::foreground::Stop;
use crate::cli::error::{CliError, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::output::escape;
use crate::cli::progress::Progress;
use crate::cli::units::{show_ms, show_size};
use crate::proto::net::client::ClientError;
use crate::proto::operation::OperationState;
use crate::proto::status::{OperationStatus, Status};

/// Between two looks; views of the leader change a few times a second.
const LOOK: Duration = Duration::from_millis(100);
/// How long one look may take.
const ASK: Duration = Duration::from_secs(3);
/// Without an answer for so long nobody follows any more: many elections would fit.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Returns the state it ended in; `Detached` after Ctrl-C. One that failed or was cancelled is an error.
pub async fn to_the_end(ctx: &Ctx, masters: &[String], id: u64) -> Result<(String, Exit), CliError> {
    let progress = Progress::gauge(&ctx.out);
    let mut client = link::masters(masters, ASK);
    // SIGTERM and a lost terminal let go as Ctrl-C does: the operation is the cluster's, not this command's.
    let mut stop = Stop::watch()?;
    let mut heard = Instant::now();
    loop {
        let seen = tokio::select! {
            () = stop.asked() => {
                drop(progress);
                ctx.out.say(&format!("let go of operation #{id}, which goes on; `cachectl ops show {id}` looks at it, `cachectl ops cancel {id}` ends it"));
                return Ok(("detached".into(), Exit::Detached));
            }
            seen = link::status(&mut client) => seen,
        };
        match seen {
            Ok(view) => {
                heard = Instant::now();
                match look(&view.status, id) {
                    Look::Going(op) => progress.show_of(op.slots_done, op.slots_total, &line(op)),
                    Look::Done => return Ok(("done".into(), Exit::Done)),
                    Look::Ended(op) => return Err(ended(op)),
                }
            }
            Err(e @ ClientError::Refused(_)) => return Err(unanswered(e)),
            Err(e) if heard.elapsed() >= SILENCE_MAX => return Err(unanswered(e)),
            Err(_) => progress.show(&format!("operation #{id}: no master answers; it goes on when one leads")),
        }
        tokio::time::sleep(LOOK).await;
    }
}

enum Look<'a> {
    Going(&'a OperationStatus),
    Done,
    Ended(&'a OperationStatus),
}

fn look(s: &Status, id: u64) -> Look<'_> {
    let Some(op) = s.operations.iter().find(|o| o.id == id) else {
        // Only the last that ended are shown: an open one always is.
        return Look::Done;
    };
    match OperationState::parse(&op.state) {
        Some(OperationState::Done) => Look::Done,
        Some(OperationState::Failed | OperationState::Cancelled) => Look::Ended(op),
        _ => Look::Going(op),
    }
}

fn ended(op: &OperationStatus) -> CliError {
    let why = op.reason.as_deref().map(|r| format!(": {}", escape(r))).unwrap_or_default();
    let done = format!("{} of {} slot moves are done and stay", op.slots_done, op.slots_total);
    let (code, word) =
        if op.state == "cancelled" { ("CANCELLED", "was cancelled") } else { ("OPERATION_FAILED", "failed") };
    CliError::failed(code, format!("operation #{} {word}{why}; {done}", op.id))
        .hint(format!("`cachectl ops show {}` shows it; `cachectl rebalance` evens out what is there", op.id))
}

/// An operation in a line: state, how far, how fast, how long still, why it waits.
pub fn line(op: &OperationStatus) -> String {
    let mut text = format!(
        "#{} {} {}  {}/{} slots",
        op.id,
        escape(&op.kind),
        escape(&op.nodes.join(", ")),
        op.slots_done,
        op.slots_total
    );
    if op.state != "running" {
        text.push_str(&format!("  {}", escape(&op.state)));
    }
    if op.rate_bytes_per_s > 0 {
        text.push_str(&format!("  {}/s", show_size(op.rate_bytes_per_s)));
    }
    if op.eta_ms > 0 {
        text.push_str(&format!("  eta {}", show_ms(op.eta_ms)));
    }
    if let Some(reason) = &op.reason {
        text.push_str(&format!("  {}", escape(reason)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{ctx, operation, status, view};
    use super::*;
    use crate::proto::net::fake::Fake;

    #[tokio::test]
    async fn it_is_followed_until_it_ends() {
        let mut looks = 0;
        let master = Fake::start(move |_, _| {
            looks += 1;
            view(&operation(4, if looks < 4 { "running" } else { "done" }, looks))
        })
        .await;
        let ended = to_the_end(&ctx(), std::slice::from_ref(&master.addr), 4).await.unwrap();
        assert_eq!(ended, ("done".to_owned(), Exit::Done));
        assert!(master.heard() >= 4);
        master.rule(|_, _| view(&operation(4, "cancelled", 3)));
        let CliError::Failed(exit, f) = to_the_end(&ctx(), std::slice::from_ref(&master.addr), 4).await.unwrap_err()
        else {
            panic!()
        };
        assert_eq!((exit, f.code.as_str()), (Exit::Failed, "CANCELLED"));
        assert!(f.message.contains("3 of 8"), "{f:?}");
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let s = status(&operation(4, "running", 3));
        assert_eq!(line(&s.operations[0]), "#4 scale-out n4  3/8 slots  4 B/s  eta 5ms");
        let s = status(&operation(4, "paused", 3));
        assert!(line(&s.operations[0]).contains("  paused"));
    }
}
