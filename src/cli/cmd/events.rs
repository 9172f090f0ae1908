//! `cachectl events`: what happened in the cluster, and who asked for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Ctx;
use crate::cli::args::EventsArgs;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::output::{Out, Tone, escape};
use crate::cli::time::rfc3339;
use crate::proto::event::{Event, Severity};
use crate::proto::net::watch::{LinkEvent, WatchLink};

/// How long the masters may take to answer at all; longer than an election.
const ASK: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(ctx: &Ctx, args: &EventsArgs) -> CmdResult {
    let reach = ctx.reach_running()?;
    let since_ms = args.since.map_or(0, |d| {
        let from = SystemTime::now().checked_sub(d).unwrap_or(UNIX_EPOCH);
        from.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    });
    let mut printer = Printer { out: ctx.out, since_ms, last: 0 };
    let view = link::status(&mut link::masters(&reach.masters, ASK)).await.map_err(unanswered)?;
    printer.print(&view.events)?;
    if !args.follow {
        if printer.last == 0 {
            ctx.out.say("no events");
        }
        return Ok(Exit::Done);
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut stream = WatchLink::start("cli", reach.masters);
    loop {
        tokio::select! {
            _ = &mut interrupt => return Ok(Exit::Detached),
            said = stream.recv() => match said {
                LinkEvent::View(view) => printer.print(&view.events)?,
                LinkEvent::Lost { addr, why, .. } if ctx.out.verbose => ctx.out.say(&format!("{addr}: {why}")),
                _ => {}
            },
        }
    }
}

/// Prints each event once, whichever master tells it.
struct Printer {
    out: Out,
    since_ms: u64,
    last: u64,
}

impl Printer {
    fn print(&mut self, events: &[Event]) -> Result<(), CliError> {
        let mut text = String::new();
        for e in events.iter().filter(|e| e.seq > self.last) {
            if self.last != 0 && e.seq > self.last + 1 {
                self.out.say(&format!("{} events were missed", e.seq - self.last - 1));
            }
            if e.at_ms >= self.since_ms {
                text.push_str(&line(&self.out, e)?);
            }
        }
        self.last = events.iter().map(|e| e.seq).fold(self.last, u64::max);
        if text.is_empty() { Ok(()) } else { self.out.raw(text.as_bytes()) }
    }
}

fn line(out: &Out, e: &Event) -> Result<String, CliError> {
    if out.json() {
        let doc = serde_json::to_string(e).map_err(|e| CliError::failed("BUG", e.to_string()))?;
        return Ok(format!("{doc}\n"));
    }
    let (word, tone) = match e.severity {
        Severity::Info => ("info ", Tone::Dim),
        Severity::Warn => ("warn ", Tone::Warn),
        Severity::Error => ("error", Tone::Bad),
    };
    // Seconds and milliseconds: what people compare with their own clock.
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(e.at_ms)).unwrap_or(UNIX_EPOCH);
    let stamp = rfc3339(at);
    let stamp = stamp.get(..23).unwrap_or(&stamp);
    let by = e.by.as_deref().map(|by| format!(" (asked for by {})", escape(by))).unwrap_or_default();
    Ok(format!("{} {} {}{by}\n", out.paint(Tone::Dim, &format!("{stamp}Z")), out.paint(tone, word), escape(&e.text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Color, Format};

    #[test]
    fn a_line_says_when_how_grave_what_and_who() {
        let out = Out::new(Format::Table, Color::Never, false, false);
        let e = Event {
            seq: 3,
            at_ms: 1_767_225_599_250,
            index: 9,
            severity: Severity::Warn,
            kind: "node-dead".into(),
            subject: "n2".into(),
            text: "n2 is dead\u{1b}[2J".into(),
            by: Some("cli".into()),
        };
        let text = line(&out, &e).unwrap();
        assert_eq!(text, "2025-12-31T23:59:59.250Z warn  n2 is dead\\x1b[2J (asked for by cli)\n");
        let far = line(&out, &Event { at_ms: u64::MAX, ..e }).unwrap();
        assert!(far.contains("n2 is dead"), "{far}");
    }
}
