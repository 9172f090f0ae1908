//! `cachectl where`: which slot a key is in, and who holds it.

use std::time::Duration;

use serde::Serialize;

use super::{Ctx, kv};
use crate::cli::args::KeyArg;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unexpected};
use crate::cli::output::{Table, Tone};
use crate::proto::control::{Message, RefreshIp};
use crate::proto::id::Ref;
use crate::proto::net::client::{ClientError, Repeat};
use crate::proto::slot::Slot;
use crate::proto::view::{Phase, View};

/// How long the masters may take before the nodes are asked, which know no backups.
const ASK: Duration = Duration::from_secs(3);

/// A holder of a slot.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Holder {
    /// Its name; empty where only an address is known.
    id: String,
    addr: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Place {
    slot: Slot,
    /// `serving`, `handover` or `orphan`.
    phase: Phase,
    primary: Option<Holder>,
    backup: Option<Holder>,
}

/// Runs it.
pub async fn run(ctx: &Ctx, args: &KeyArg) -> CmdResult {
    let slot = Slot::of_key(kv::bytes(&args.key));
    let reach = ctx.reach_running()?;
    let place = match view(&reach.masters).await {
        Ok(view) => place(&view, slot),
        Err(e) => {
            // Nodes serve on without masters, so a primary can still be found.
            ctx.out.say(&format!("{e}; the backup is not known"));
            from_nodes(ctx, slot, kv::bytes(&args.key)).await?
        }
    };
    if ctx.out.json() {
        let mut doc = kv::document(&args.key);
        let fields = serde_json::to_value(&place).map_err(|e| CliError::failed("BUG", e.to_string()))?;
        doc.extend(fields.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        ctx.out.document(&doc)?;
        return Ok(Exit::Done);
    }
    let mut t = Table::new(&["SLOT", "PHASE", "PRIMARY", "BACKUP"]);
    let shown =
        |h: &Option<Holder>| h.as_ref().map_or("none".into(), |h| format!("{} {}", h.id, h.addr).trim().to_owned());
    let (word, tone) = match place.phase {
        Phase::Serving => ("serving", Tone::Good),
        Phase::Handover => ("handover", Tone::Warn),
        Phase::Orphan => ("orphan", Tone::Bad),
    };
    t.row(&[
        (&slot.to_string(), Some(Tone::Strong)),
        (word, Some(tone)),
        (&shown(&place.primary), None),
        (&shown(&place.backup), None),
    ]);
    ctx.out.raw(t.render(&ctx.out, "").as_bytes())?;
    Ok(Exit::Done)
}

/// The whole configuration.
pub async fn view(masters: &[String]) -> Result<View, ClientError> {
    let ask = Message::RefreshIp(RefreshIp { have: 0, iplist: Vec::new(), view: None });
    match link::masters(masters, ASK).request(&ask, Repeat::Safe).await? {
        Message::RefreshIp(RefreshIp { view: Some(view), .. }) => Ok(view),
        other => Err(unexpected(&other)),
    }
}

fn place(view: &View, slot: Slot) -> Place {
    let holder = |r: &Ref| Holder {
        id: r.id.to_string(),
        addr: view.members.get(&r.id).map(|m| m.addr.clone()).unwrap_or_default(),
    };
    let Some(range) = view.slots.iter().find(|r| (r.first..=r.last).contains(&slot)) else {
        return Place { slot, phase: Phase::Orphan, primary: None, backup: None };
    };
    let backup = range.state.backups().next().map(|r| holder(&r.node));
    Place { slot, phase: range.state.phase, primary: range.state.primary.as_ref().map(holder), backup }
}

async fn from_nodes(ctx: &Ctx, slot: Slot, key: &[u8]) -> Result<Place, CliError> {
    let (_, primary) = kv::client(ctx).await?.locate(key).await.map_err(kv::refused)?;
    let members = ctx.reach()?.members;
    let primary = primary.map(|p| {
        let id = members.iter().flat_map(|m| m.active()).find(|m| m.addr == p.addr).map(|m| m.id.clone());
        Holder { id: id.unwrap_or_default(), addr: p.addr }
    });
    let phase = if primary.is_some() { Phase::Serving } else { Phase::Orphan };
    Ok(Place { slot, phase, primary, backup: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::id::{ClusterId, Incarnation, NodeId};
    use crate::proto::view::{Config, Replica};

    #[test]
    fn holders_are_found_in_the_view() {
        let node = |id: &str| Ref { id: NodeId::new(id).unwrap(), incarnation: Incarnation(1) };
        let mut c = Config::empty(ClusterId(1), 16);
        c.slots.update(5, |s| {
            s.phase = Phase::Serving;
            s.primary = Some(node("n2"));
            s.insync = ["n1", "n2"].map(|id| Replica { node: node(id), since: 1 }).to_vec();
        });
        let p = place(&c.full(), Slot(5));
        assert_eq!(p.primary.unwrap().id, "n2");
        assert_eq!(p.backup.unwrap().id, "n1");
        let none = place(&c.full(), Slot(6));
        assert_eq!((none.phase, none.primary, none.backup), (Phase::Orphan, None, None));
    }
}
