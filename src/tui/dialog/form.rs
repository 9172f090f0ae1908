//! What each dialog asks, and what it says before it is asked: made from what the cluster is like when it opens.

use super::{Deed, Dialog, Input, Kind, NO, Stage};
use crate::proto::id::NodeId;
use crate::proto::operation::{OperationKind, Wish};
use crate::proto::slot::Slot;
use crate::proto::status::NodeState;
use crate::tui::escape::natural;
use crate::tui::model::{Model, Screen};
use crate::tui::number;
use crate::tui::request::ProcessAct;
use crate::tui::screen::masters::lag;

/// Labels of inputs: what a filled-in form is read by.
pub const HOW_MANY: &str = "new nodes";
/// See [`HOW_MANY`].
pub const NODE: &str = "node";
/// See [`HOW_MANY`].
pub const FORCE: &str = "do not drain";
/// See [`HOW_MANY`].
pub const LOSS: &str = "accept data loss";
/// See [`HOW_MANY`].
pub const MASTER: &str = "new leader";
/// See [`HOW_MANY`].
pub const TYPED: &str = "type its name";
/// See [`HOW_MANY`].
pub const KEY: &str = "key";
/// See [`HOW_MANY`].
pub const VALUE: &str = "value";
/// See [`HOW_MANY`].
pub const TTL: &str = "time to live";

/// Nodes added at once at most: more are asked for again.
pub const COUNT_MAX: usize = 50;

/// The dialog for a deed as it opens. Rebalancing has nothing to ask: its caller sends for the plan at once.
pub fn open(model: &Model, deed: Deed) -> Dialog {
    match &deed {
        Deed::ScaleOut => scale_out(model, deed),
        Deed::ScaleIn => scale_in(model, deed),
        Deed::Rebalance => {
            let mut d = Dialog::new(deed, Stage::Form);
            d.words = vec!["shares are evened out; nobody joins or leaves".to_owned()];
            d.wish = Some(wish(OperationKind::Rebalance, Vec::new()));
            d
        }
        Deed::Switch => switch(model, deed),
        Deed::Pause(id) => steer(model, *id, deed.clone(), "what is under way is finished, then it stands still"),
        Deed::Resume(id) => steer(model, *id, deed.clone(), "it goes on where it stopped"),
        Deed::Cancel(id) => {
            steer(model, *id, deed.clone(), "the batch in flight is finished; what is committed stays where it is")
        }
        Deed::Forget => forget(model, deed),
        Deed::Process(act, who) => process(model, *act, &who.clone(), deed),
        Deed::SetKey => set_key(model, deed),
        Deed::DeleteKey(key) => {
            let slot = Slot::of_key(key.as_bytes());
            let mut d = Dialog::new(deed.clone(), Stage::Confirm);
            let size = model.keys.found.as_ref().filter(|f| f.value.is_some()).map(|f| number::bytes(f.size));
            let what = size.map_or_else(|| "the key".to_owned(), |s| format!("the key and its {s}"));
            d.words = vec![format!("key {key}, slot {slot}"), format!("{what} are gone at once, at its backup too")];
            d
        }
    }
}

/// A wish without force.
pub fn wish(kind: OperationKind, nodes: Vec<NodeId>) -> Wish {
    Wish { kind, nodes, force: false, accept_data_loss: false }
}

/// Names for new nodes: the lowest numbers that nobody has who is still a member, as `cachectl add` names them.
pub fn new_names(model: &Model, count: usize) -> Vec<NodeId> {
    let taken = |id: &NodeId| {
        let nodes = model.live.iter().flat_map(|c| &c.status.nodes);
        nodes.filter(|n| n.state != NodeState::Left).any(|n| n.id == id.as_str())
    };
    (1u32..).filter_map(|i| NodeId::new(&format!("n{i}")).ok()).filter(|id| !taken(id)).take(count).collect()
}

fn nodes_in(model: &Model, states: &[NodeState]) -> Vec<String> {
    let Some(c) = &model.live else { return Vec::new() };
    let mut out: Vec<String> =
        c.status.nodes.iter().filter(|n| states.contains(&n.state)).map(|n| n.id.clone()).collect();
    out.sort_by(|a, b| natural(a, b));
    out
}

/// A choice of these, the selected node if it is among them, else the first.
fn choice(model: &Model, label: &'static str, of: Vec<String>, note: &'static str) -> Input {
    let here = model.selected_process().filter(|id| of.contains(id));
    let first = here.or_else(|| of.first().cloned()).unwrap_or_default();
    Input::new(label, Kind::Choice(of), first, note)
}

fn scale_out(model: &Model, deed: Deed) -> Dialog {
    let mut d = Dialog::new(deed, Stage::Form);
    if model.setup.local {
        let name = new_names(model, 1).first().map_or_else(String::new, ToString::to_string);
        d.words =
            vec![format!("cache nodes are started on this machine, from {name} on, then given their share of slots")];
        d.inputs = vec![Input::new(HOW_MANY, Kind::Count, "1", "how many")];
        return d;
    }
    let standby = nodes_in(model, &[NodeState::Standby]);
    if standby.is_empty() {
        let masters: Vec<&str> = model.link.masters.iter().map(|m| m.addr.as_str()).take(3).collect();
        let name = new_names(model, 1).first().map_or_else(|| "n1".to_owned(), ToString::to_string);
        d.words = vec![
            "no node waits on standby. Start one where it shall run; it joins by itself:".to_owned(),
            String::new(),
            format!("  cachectl node --id {name} --listen HOST:7201 --peer-listen HOST:17201 \\"),
            format!("    --masters-addr {} --data DIR", masters.join(",")),
            String::new(),
            "with --standby it waits until it is added here".to_owned(),
        ];
        d.can = false;
        return d;
    }
    d.words = vec!["a node on standby gets its share of slots".to_owned()];
    d.inputs = vec![choice(model, NODE, standby, "which one")];
    d
}

fn scale_in(model: &Model, deed: Deed) -> Dialog {
    let mut d = Dialog::new(deed, Stage::Form);
    let nodes = nodes_in(
        model,
        &[NodeState::Up, NodeState::Suspect, NodeState::Joining, NodeState::Draining, NodeState::Standby],
    );
    d.can = !nodes.is_empty();
    d.words = vec!["its slots move to the others, then its process ends; nothing is lost".to_owned()];
    d.inputs = vec![
        choice(model, NODE, nodes, "which one goes"),
        Input::new(FORCE, Kind::Toggle, NO, "declare it dead: its backups take over at once"),
        Input::new(LOSS, Kind::Toggle, NO, "go on even where it holds the only copy"),
    ];
    d
}

fn switch(model: &Model, deed: Deed) -> Dialog {
    let mut d = Dialog::new(deed, Stage::Confirm);
    let Some(c) = &model.live else { return d };
    let leader = c.status.leader.clone().unwrap_or_default();
    let mut others: Vec<_> = c.status.masters.iter().filter(|m| m.id != leader && m.alive).collect();
    // The most caught-up one first: it leads soonest.
    others.sort_by(|a, b| b.last_log.cmp(&a.last_log).then_with(|| natural(&a.id, &b.id)));
    let best = others.first().map(|m| (m.id.clone(), lag(c, m)));
    let names: Vec<String> = others.iter().map(|m| m.id.clone()).collect();
    let Some((best, behind)) = best else {
        d.words = vec!["no other master is alive: leadership has nowhere to go".to_owned()];
        d.can = false;
        return d;
    };
    let chosen = model.selected_process().filter(|id| names.contains(id)).unwrap_or(best);
    let behind = behind.filter(|b| *b > 0).map_or(String::new(), |b| format!(", {b} entries behind"));
    d.words = vec![
        format!("{leader} hands the lead over{behind}; it stays a master"),
        "cache nodes serve on; changes wait for the moment in between".to_owned(),
    ];
    d.inputs = vec![Input::new(MASTER, Kind::Choice(names), chosen, "the most caught-up one first")];
    d.focus = d.cancel();
    d
}

fn steer(model: &Model, id: u64, deed: Deed, what: &str) -> Dialog {
    let mut d = Dialog::new(deed, Stage::Confirm);
    let op = model.live.as_ref().and_then(|c| c.status.operations.iter().find(|o| o.id == id));
    if let Some(o) = op {
        let done = o.slots_done.min(o.slots_total);
        let (done, total) = (number::exact(done), number::exact(o.slots_total));
        d.words.push(format!("{} {}: {done} of {total} slot moves are committed", o.kind, o.nodes.join(" ")));
    }
    d.words.push(what.to_owned());
    d
}

fn forget(model: &Model, deed: Deed) -> Dialog {
    let mut d = Dialog::new(deed, Stage::Confirm);
    let dead = nodes_in(model, &[NodeState::Dead]);
    if dead.is_empty() {
        d.words = vec!["no node is dead: there is nobody to give up on".to_owned()];
        d.can = false;
        return d;
    }
    let orphan = model.live.as_ref().map_or(0, |c| c.status.slots.orphan);
    d.words = vec![
        "slots that it alone held are handed out empty: what was in them is lost,".to_owned(),
        "even if it still lives somewhere. You answer for that.".to_owned(),
        format!("slots without a holder now: {}", number::exact(orphan)),
    ];
    let input = choice(model, NODE, dead, "which one");
    let name = input.text.clone();
    d.inputs = vec![input, Input::new(TYPED, Kind::Typed(name), "", "")];
    d.focus = 1;
    d
}

fn process(model: &Model, act: ProcessAct, who: &str, deed: Deed) -> Dialog {
    let mut d = Dialog::new(deed, Stage::Confirm);
    let master = model.live.as_ref().is_some_and(|c| c.status.masters.iter().any(|m| m.id == who));
    let leads = model.live.as_ref().is_some_and(|c| c.status.leader.as_deref() == Some(who));
    let then = match (act, master, leads) {
        (ProcessAct::Kill | ProcessAct::Pause, true, true) => {
            "it leads: the others elect another within about a second"
        }
        (ProcessAct::Kill | ProcessAct::Pause, true, false) => "it does not lead: the others go on without it",
        (ProcessAct::Kill, false, _) => "its backups take over within about a second; its memory is gone",
        (ProcessAct::Pause, false, _) => "it is suspect after 1.25 s and dead after 2.5 s",
        (ProcessAct::Resume, ..) => "it goes on; if it was declared dead meanwhile, it joins anew",
        (ProcessAct::Restart, true, _) => "it comes back with its log",
        (ProcessAct::Restart, false, _) => "it hands its slots over, ends, starts and gets slots again",
    };
    let signal = match act {
        ProcessAct::Kill => "SIGKILL: it gets no chance to say goodbye",
        ProcessAct::Pause => "SIGSTOP: it stands still until it is resumed",
        ProcessAct::Resume => "SIGCONT: it goes on",
        ProcessAct::Restart => "SIGTERM, then it is started again",
    };
    d.words = vec![signal.to_owned(), then.to_owned()];
    if act == ProcessAct::Kill {
        d.inputs = vec![Input::new(TYPED, Kind::Typed(who.to_owned()), "", "")];
    }
    d
}

fn set_key(model: &Model, deed: Deed) -> Dialog {
    let mut d = Dialog::new(deed, Stage::Confirm);
    let key = if model.screen == Screen::Keys { model.keys.key.clone() } else { String::new() };
    d.words = vec!["what is in it now is replaced, its time to live too".to_owned()];
    let filled = usize::from(!key.is_empty());
    d.inputs = vec![
        Input::new(KEY, Kind::Text, key, ""),
        Input::new(VALUE, Kind::Text, "", ""),
        Input::new(TTL, Kind::Text, "", "like 500ms, 10s, 5m; empty = for ever"),
    ];
    d.focus = filled;
    d
}
