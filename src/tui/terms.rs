//! Who led when, and why each term ended, as the events tell it.

use std::collections::VecDeque;

use crate::proto::event::Event;

/// One leader's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Its number, if the event says it.
    pub number: Option<u64>,
    /// Who led.
    pub leader: String,
    /// From when, wall clock, milliseconds.
    pub from_ms: u64,
    /// Until when; none = still.
    pub to_ms: Option<u64>,
    /// Why it ended; none while it lasts.
    pub why: Option<String>,
}

/// The terms that events tell of, newest first.
pub fn terms(events: &VecDeque<Event>) -> Vec<Term> {
    let mut out: Vec<Term> = Vec::new();
    // What happened since the last election that explains the next one.
    let mut cause: Option<String> = None;
    for e in events {
        match e.kind.as_str() {
            "master-elected" => {
                if let Some(before) = out.last_mut() {
                    before.to_ms = Some(e.at_ms);
                    before.why = Some(cause.take().unwrap_or_else(|| silent(&before.leader, &e.subject)));
                }
                cause = None;
                let number = e.text.rsplit_once("term ").and_then(|(_, n)| leading_number(n));
                out.push(Term { number, leader: e.subject.clone(), from_ms: e.at_ms, to_ms: None, why: None });
            }
            "switchover" => {
                let by = e.by.as_ref().map(|by| format!(", asked for by {by}")).unwrap_or_default();
                cause = Some(format!("handed over to {}{by}", e.subject));
            }
            "stopped" => cause = Some("the cluster was stopped by plan".to_owned()),
            _ => {}
        }
    }
    out.reverse();
    out
}

/// A term that nobody ended by an order ends for one reason only: a majority no longer heard its leader.
fn silent(old: &str, new: &str) -> String {
    if old == new {
        format!("a majority did not hear {old} for a moment; it was elected again")
    } else {
        format!("a majority no longer heard {old}: it ended, stood still or was cut off")
    }
}

fn leading_number(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::event::Severity;

    fn event(at_ms: u64, kind: &str, subject: &str, text: &str) -> Event {
        Event {
            seq: at_ms,
            at_ms,
            index: at_ms,
            severity: Severity::Info,
            kind: kind.into(),
            subject: subject.into(),
            text: text.into(),
            by: (kind == "switchover").then(|| "tui".to_owned()),
        }
    }

    #[test]
    fn each_term_ends_for_a_reason() {
        let events = VecDeque::from([
            event(1, "master-elected", "m1", "m1 leads, term 1"),
            event(2, "switchover", "m2", "leadership goes from m1 to m2"),
            event(3, "master-elected", "m2", "m2 leads, term 2"),
            event(4, "node-joined", "n9", "n9 joined"),
            event(5, "master-elected", "m3", "m3 leads, term 18446744073709551616"),
            event(6, "master-elected", "m3", "m3 leads"),
        ]);
        let t = terms(&events);
        assert_eq!(t.iter().map(|t| t.number).collect::<Vec<_>>(), [None, None, Some(2), Some(1)]);
        assert_eq!((t[0].to_ms, t[0].why.as_deref()), (None, None));
        assert!(t[1].why.as_deref().unwrap().contains("elected again"));
        assert!(t[2].why.as_deref().unwrap().contains("no longer heard m2"));
        assert_eq!(t[3].why.as_deref(), Some("handed over to m2, asked for by tui"));
        assert_eq!((t[3].from_ms, t[3].to_ms), (1, Some(3)));
        assert!(terms(&VecDeque::new()).is_empty());
    }
}
