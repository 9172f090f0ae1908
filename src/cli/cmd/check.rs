//! `cachectl check`: whether every slot is covered, and whether its backups hold what its primary holds.
//!
//! ```text
//!  masters: who holds what ──▶ each holder: (pterm, seq, digest) of its slots ──▶ equal place, equal digest?
//!                                     ▲                                              │ other places: writes run
//!                                     └────────────── again, those slots only ◀──────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;

use super::Ctx;
use super::whereis::view;
use crate::cli::args::CheckArgs;
use crate::cli::error::{CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::output::{Out, Table, Tone};
use crate::cli::progress::Progress;
use crate::cli::units::{show_count, show_ms};
use crate::proto::net::resp_conn::{RespConn, RespError};
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::value::Value;
use crate::proto::view::View;

/// Slots a node is asked for at once; it takes no more.
const RANGE: usize = 64;
/// How long a node may take to connect, and to answer for [`RANGE`] slots.
const ASK: Duration = Duration::from_secs(10);
/// How long the masters may take.
const ASK_MASTERS: Duration = Duration::from_secs(3);
/// Between two looks at slots that are being written.
const AGAIN: Duration = Duration::from_millis(50);
/// So many differences are listed for people; `-o json` has all.
const LISTED_MAX: usize = 20;

/// What a node says it holds of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Held {
    node: String,
    role: String,
    pterm: u64,
    seq: u64,
    keys: u64,
    digest: String,
}

/// A slot whose backup holds something else than its primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Difference {
    slot: Slot,
    primary: Held,
    backup: Held,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    schema: u32,
    cluster: String,
    /// `ok`, `differs`, `uncovered`, `solo` (some slots have no backup) or `unsettled`.
    state: &'static str,
    slots_total: u64,
    /// Slots without a primary.
    uncovered: u64,
    /// Slots with fewer backups than they should have.
    solo: u64,
    /// Slots whose primary and backups stood at the same place and were compared.
    compared: u64,
    /// Slots that changed, or whose holders did not answer, until the time was over.
    unsettled: u64,
    /// Keys in the primaries that were compared.
    keys: u64,
    differences: Vec<Difference>,
    /// Nodes that did not answer, and why.
    silent: BTreeMap<String, String>,
    elapsed_ms: u64,
}

/// Runs it.
pub async fn run(ctx: &Ctx, args: &CheckArgs) -> CmdResult {
    let reach = ctx.reach()?;
    let begun = Instant::now();
    let status = link::status(&mut link::masters(&reach.masters, ASK_MASTERS)).await.map_err(unanswered)?.status;
    let mut r = Report { schema: 1, cluster: status.cluster, slots_total: SLOTS as u64, ..Report::default() };
    r.solo = status.slots.solo;
    let progress = Progress::gauge(&ctx.out);
    let mut open: BTreeSet<Slot> = (0..SLOTS).map(|s| Slot(s as u16)).collect();
    // A difference counts once it was seen twice: the view may have been older than what the nodes said.
    let mut suspects: BTreeSet<Slot> = BTreeSet::new();
    let mut links = BTreeMap::new();
    loop {
        let view = view(&reach.masters).await.map_err(unanswered)?;
        r.differences.clear();
        r.uncovered = 0;
        r.silent.clear();
        let held = ask_all(&mut links, &view, &open, &mut r.silent).await;
        let mut settled = BTreeSet::new();
        for &slot in &open {
            match judge(&view, slot, &held) {
                Verdict::Uncovered => r.uncovered += 1,
                Verdict::Same(keys) => {
                    r.keys += keys;
                    settled.insert(slot);
                }
                Verdict::Differs(d) if suspects.contains(&slot) => r.differences.push(*d),
                Verdict::Differs(_) => {
                    suspects.insert(slot);
                }
                Verdict::Elsewhere => {
                    suspects.remove(&slot);
                }
            }
        }
        r.compared += settled.len() as u64;
        open.retain(|s| !settled.contains(s));
        let judged = r.differences.len() as u64 + r.uncovered;
        r.unsettled = open.len() as u64 - judged;
        if r.unsettled == 0 || begun.elapsed() >= args.timeout {
            break;
        }
        progress.show_of(r.compared, r.slots_total, &format!("{} slots still change", r.unsettled));
        tokio::time::sleep(AGAIN).await;
    }
    drop(progress);
    r.elapsed_ms = begun.elapsed().as_millis() as u64;
    let (state, exit) = match (r.differences.is_empty(), r.uncovered, r.unsettled) {
        (false, ..) => ("differs", Exit::NotOk),
        (true, 0, 0) if r.solo == 0 => ("ok", Exit::Done),
        (true, 0, 0) => ("solo", Exit::NotOk),
        (true, 0, _) => ("unsettled", Exit::TimedOut),
        _ => ("uncovered", Exit::NotOk),
    };
    r.state = state;
    if ctx.out.json() {
        ctx.out.document(&r)?;
    } else {
        ctx.out.raw(words(&ctx.out, &r).as_bytes())?;
    }
    Ok(exit)
}

type Links = BTreeMap<String, RespConn>;
type All = BTreeMap<(Slot, String), Held>;

/// Asks every holder of an open slot for what it holds; nodes at once, each for range after range.
async fn ask_all(links: &mut Links, view: &View, open: &BTreeSet<Slot>, silent: &mut BTreeMap<String, String>) -> All {
    let mut wanted: BTreeMap<String, BTreeSet<Slot>> = BTreeMap::new();
    for &slot in open {
        let Some(range) = view.slots.iter().find(|r| (r.first..=r.last).contains(&slot)) else { continue };
        for node in range.state.insync.iter().map(|r| r.node.id.to_string()) {
            wanted.entry(node).or_default().insert(slot);
        }
    }
    let asked = wanted.into_iter().map(|(id, slots)| {
        let addr = view.members.iter().find(|(n, _)| n.as_str() == id).map(|(_, m)| m.addr.clone());
        (links.remove(&id), id, addr.unwrap_or_default(), slots)
    });
    let answers = join_all(asked.map(async |(link, id, addr, slots)| {
        let mut all = Vec::new();
        let mut link = link;
        let result = ask(&mut link, &addr, &id, &slots, &mut all).await;
        (id, link, all, result)
    }))
    .await;
    let mut held = All::new();
    for (id, link, all, result) in answers {
        match (result, link) {
            (Ok(()), Some(link)) => drop(links.insert(id.clone(), link)),
            (Err(e), _) => drop(silent.insert(id.clone(), e)),
            (Ok(()), None) => {}
        }
        held.extend(all.into_iter().map(|(slot, h)| ((slot, id.clone()), h)));
    }
    held
}

async fn ask(
    link: &mut Option<RespConn>,
    addr: &str,
    id: &str,
    slots: &BTreeSet<Slot>,
    all: &mut Vec<(Slot, Held)>,
) -> Result<(), String> {
    let failed = |e: RespError| e.to_string();
    let late = |_| "no answer in time".to_owned();
    let conn = match link {
        Some(conn) => conn,
        None => link.insert(RespConn::connect(addr, ASK).await.map_err(failed)?),
    };
    let mut from = 0;
    while let Some(&first) = slots.range(Slot(from)..).next() {
        let end = (first.ix() + RANGE - 1).min(SLOTS - 1);
        let last = *slots.range(first..=Slot(end as u16)).next_back().unwrap_or(&first);
        let (a, b) = (first.to_string(), last.to_string());
        let command: [&[u8]; 4] = [b"CLUSTER", b"DIGEST", a.as_bytes(), b.as_bytes()];
        let reply = tokio::time::timeout(ASK, conn.call(&command)).await.map_err(late)?.map_err(failed)?;
        if let Value::Error(e) = &reply {
            return Err(e.clone());
        }
        let rows = reply.items().and_then(|rows| rows.iter().map(|row| row_of(row, id)).collect::<Option<Vec<_>>>());
        let rows = rows.ok_or("an answer that is no CLUSTER DIGEST")?;
        all.extend(rows.into_iter().filter(|(slot, _)| slots.contains(slot)));
        if last.ix() + 1 == SLOTS {
            break;
        }
        from = last.0 + 1;
    }
    Ok(())
}

fn row_of(row: &Value, node: &str) -> Option<(Slot, Held)> {
    let [slot, role, pterm, seq, keys, digest] = row.items()? else { return None };
    let text = |v: &Value| Some(String::from_utf8_lossy(v.bytes()?).into_owned());
    let number = |v: &Value| u64::try_from(v.int()?).ok();
    let slot = u16::try_from(slot.int()?).ok().filter(|s| usize::from(*s) < SLOTS).map(Slot)?;
    Some((
        slot,
        Held {
            node: node.into(),
            role: text(role)?,
            pterm: number(pterm)?,
            seq: number(seq)?,
            keys: number(keys)?,
            digest: text(digest)?,
        },
    ))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody leads the slot.
    Uncovered,
    /// All of its holders hold the same so many keys.
    Same(u64),
    /// At the same place in the stream, and not the same.
    Differs(Box<Difference>),
    /// Not at the same place, or not answered for: look again.
    Elsewhere,
}

fn judge(view: &View, slot: Slot, held: &All) -> Verdict {
    let state = view.slots.iter().find(|r| (r.first..=r.last).contains(&slot)).map(|r| &r.state);
    let Some((state, primary)) = state.and_then(|s| Some((s, s.primary.as_ref()?))) else {
        return Verdict::Uncovered;
    };
    let of = |id: &str, role: &str| held.get(&(slot, id.to_owned())).filter(|h| h.role == role);
    let Some(p) = of(primary.id.as_str(), "primary") else { return Verdict::Elsewhere };
    for b in state.backups() {
        match of(b.node.id.as_str(), "backup") {
            Some(b) if (b.pterm, b.seq) != (p.pterm, p.seq) => return Verdict::Elsewhere,
            Some(b) if (b.keys, &b.digest) != (p.keys, &p.digest) => {
                return Verdict::Differs(Box::new(Difference { slot, primary: p.clone(), backup: b.clone() }));
            }
            Some(_) => {}
            None => return Verdict::Elsewhere,
        }
    }
    Verdict::Same(p.keys)
}

fn words(out: &Out, r: &Report) -> String {
    let (tone, word) = match r.state {
        "ok" => (Tone::Good, "ok"),
        other => (Tone::Bad, other),
    };
    let mut text = format!(
        "{} {}: {}/{} slots covered, {} without backup; {} compared ({} keys), {} differ, {} unsettled ({})\n",
        out.paint(Tone::Strong, &r.cluster),
        out.paint(tone, word),
        r.slots_total - r.uncovered,
        r.slots_total,
        r.solo,
        r.compared,
        show_count(r.keys as f64),
        r.differences.len(),
        r.unsettled,
        show_ms(r.elapsed_ms)
    );
    if !r.differences.is_empty() {
        let mut t = Table::new(&["SLOT", "PRIMARY", ">KEYS", "DIGEST", "BACKUP", ">KEYS", "DIGEST"]);
        for d in r.differences.iter().take(LISTED_MAX) {
            t.row(&[
                (&d.slot.to_string(), Some(Tone::Bad)),
                (&d.primary.node, None),
                (&d.primary.keys.to_string(), None),
                (&d.primary.digest, None),
                (&d.backup.node, None),
                (&d.backup.keys.to_string(), None),
                (&d.backup.digest, None),
            ]);
        }
        text.push_str(&t.render(out, "  "));
        if r.differences.len() > LISTED_MAX {
            text.push_str(&format!("  and {} more: -o json has all\n", r.differences.len() - LISTED_MAX));
        }
    }
    for (node, why) in &r.silent {
        let line = format!("{node} does not answer: {why}");
        text.push_str(&format!("{} {}\n", out.paint(Tone::Warn, "warning:"), crate::cli::output::escape(&line)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Color, Format};
    use crate::proto::id::{ClusterId, Incarnation, NodeId, Ref};
    use crate::proto::view::{Config, Phase, Replica};

    fn cluster() -> View {
        let node = |id: &str| Ref { id: NodeId::new(id).unwrap(), incarnation: Incarnation(1) };
        let mut c = Config::empty(ClusterId(1), 16);
        c.slots.update(5, |s| {
            s.phase = Phase::Serving;
            s.primary = Some(node("n2"));
            s.insync = ["n1", "n2"].map(|id| Replica { node: node(id), since: 1 }).to_vec();
        });
        c.full()
    }

    fn row(node: &str, role: &str, seq: u64, digest: &str) -> ((Slot, String), Held) {
        let v = Value::Array(vec![
            Value::Int(5),
            Value::Bulk(role.into()),
            Value::Int(9),
            Value::Int(seq as i64),
            Value::Int(1),
            Value::Bulk(digest.into()),
        ]);
        let (slot, held) = row_of(&v, node).unwrap();
        ((slot, node.into()), held)
    }

    #[test]
    fn only_equal_places_are_compared() {
        let look = |rows: &[((Slot, String), Held)]| judge(&cluster(), Slot(5), &rows.iter().cloned().collect());
        let p = row("n2", "primary", 4, "aa");
        assert_eq!(look(&[p.clone(), row("n1", "backup", 4, "aa")]), Verdict::Same(1));
        assert_eq!(look(&[p.clone(), row("n1", "backup", 3, "bb")]), Verdict::Elsewhere);
        assert_eq!(look(&[p.clone(), row("n1", "learner", 4, "aa")]), Verdict::Elsewhere);
        assert_eq!(look(std::slice::from_ref(&p)), Verdict::Elsewhere);
        assert!(matches!(look(&[p, row("n1", "backup", 4, "bb")]), Verdict::Differs(d) if d.backup.digest == "bb"));
        assert_eq!(judge(&cluster(), Slot(6), &All::new()), Verdict::Uncovered);
        assert!(row_of(&Value::Array(vec![Value::Int(5)]), "n1").is_none());
    }

    #[test]
    fn a_difference_is_listed_with_both_sides() {
        let (_, primary) = row("n2", "primary", 4, "aa");
        let (_, backup) = row("n1", "backup", 4, "bb");
        let r = Report {
            cluster: "x".into(),
            state: "differs",
            slots_total: 16384,
            differences: vec![Difference { slot: Slot(5), primary, backup }],
            silent: BTreeMap::from([("n3".into(), "gone\u{1b}".into())]),
            ..Report::default()
        };
        let text = words(&Out::new(Format::Table, Color::Never, false, false), &r);
        let row: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row, ["5", "n2", "1", "aa", "n1", "1", "bb"], "{text}");
        assert!(text.contains("gone\\x1b"), "{text}");
    }
}
