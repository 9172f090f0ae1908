//! Keys in a dialog, and the answers it waits for. Pure: what is to be done comes back as effects.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::form::{self, COUNT_MAX};
use super::{Deed, Dialog, Input, Kind, NO, Stage, YES};
use crate::proto::control::{Forget, Message, OperationId, SwitchMaster};
use crate::proto::id::{MasterId, NodeId};
use crate::proto::operation::{OperationKind, PlanView, Wish};
use crate::tui::effect::Effect;
use crate::tui::escape::clean;
use crate::tui::jobs::{self, Job};
use crate::tui::keys;
use crate::tui::model::{INPUT_MAX, Model, Tone};
use crate::tui::request::{KeyWish, LocalWish, Order, Refusal};
use crate::tui::slots::Copies;

/// Moves of a plan that PgUp and PgDn go over.
const PAGE: usize = 5;

/// Opens the dialog for a deed; one that has nothing to ask sends for its plan at once.
pub fn begin(model: &mut Model, deed: Deed) -> Vec<Effect> {
    let ask = deed == Deed::Rebalance;
    let dialog = form::open(model, deed);
    show(model, dialog, ask)
}

/// Opens a dialog that is filled in already.
pub fn show(model: &mut Model, dialog: Dialog, ask: bool) -> Vec<Effect> {
    model.overlay = None;
    model.dialog = Some(dialog);
    if ask { go(model) } else { Vec::new() }
}

/// Fills an input in, if the dialog has it and, where it is a choice, offers this.
pub fn fill(d: &mut Dialog, label: &str, text: &str) -> bool {
    let Some(input) = d.inputs.iter_mut().find(|i| i.label == label) else { return false };
    if let Kind::Choice(of) = &input.kind
        && !of.iter().any(|o| o == text)
    {
        return false;
    }
    input.text = text.to_owned();
    lock_follows_choice(d);
    true
}

/// A key while a dialog is open.
pub fn pressed(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    if ctrl && key.code == KeyCode::Char('c') {
        return vec![Effect::Quit];
    }
    let Some(d) = &mut model.dialog else { return Vec::new() };
    let places = d.inputs.len() + 2;
    let here = d.focus.min(places - 1);
    match key.code {
        KeyCode::Esc => return close(model),
        KeyCode::Tab | KeyCode::Down => d.focus = (here + 1) % places,
        KeyCode::BackTab | KeyCode::Up => d.focus = (here + places - 1) % places,
        KeyCode::PageDown => d.scroll = d.scroll.saturating_add(PAGE),
        KeyCode::PageUp => d.scroll = d.scroll.saturating_sub(PAGE),
        KeyCode::Enter => return entered(model, here),
        KeyCode::Left | KeyCode::Right => sideways(d, here, key.code == KeyCode::Right),
        _ => match d.inputs.get_mut(here) {
            Some(input) => {
                d.error = None;
                typed(input, &key, ctrl);
                lock_follows_choice(d);
            }
            None => return on_button(model, key.code),
        },
    }
    Vec::new()
}

/// Text that was pasted into a dialog.
pub fn pasted(model: &mut Model, text: &str) {
    let Some(d) = &mut model.dialog else { return };
    let here = d.focus;
    if let Some(input) = d.inputs.get_mut(here)
        && matches!(input.kind, Kind::Text | Kind::Typed(_))
    {
        append(&mut input.text, text.chars());
    }
}

fn append(text: &mut String, more: impl Iterator<Item = char>) {
    let room = INPUT_MAX.saturating_sub(text.chars().count());
    text.extend(more.filter(|c| !c.is_control()).take(room));
}

fn close(model: &mut Model) -> Vec<Effect> {
    model.dialog = None;
    Vec::new()
}

/// Keys on a button, where nothing is typed.
fn on_button(model: &mut Model, code: KeyCode) -> Vec<Effect> {
    match code {
        KeyCode::Char('y') => {
            let Some(d) = &model.dialog else { return Vec::new() };
            let twin = d.twin(&model.setup.program, model.setup.local);
            model.say(Tone::Done, format!("sent to the clipboard: {twin}"));
            vec![Effect::Copy(twin)]
        }
        KeyCode::Char('v') => {
            model.ring.copies = match model.ring.copies {
                Copies::Primary => Copies::Backup,
                Copies::Backup => Copies::Primary,
            };
            Vec::new()
        }
        KeyCode::Char('j') => {
            if let Some(d) = &mut model.dialog {
                d.scroll = d.scroll.saturating_add(1);
            }
            Vec::new()
        }
        KeyCode::Char('k') => {
            if let Some(d) = &mut model.dialog {
                d.scroll = d.scroll.saturating_sub(1);
            }
            Vec::new()
        }
        KeyCode::Char('q') => close(model),
        _ => Vec::new(),
    }
}

fn typed(input: &mut Input, key: &KeyEvent, ctrl: bool) {
    match (&input.kind, key.code) {
        (Kind::Toggle, KeyCode::Char(' ')) => input.text = if input.on() { NO.into() } else { YES.into() },
        (Kind::Choice(of), KeyCode::Char(c)) => {
            // The last sign tells n1 from n2; of several the next one.
            let at = of.iter().position(|o| *o == input.text).unwrap_or(0);
            let next = (1..=of.len()).map(|i| &of[(at + i) % of.len()]).find(|o| o.ends_with(c));
            if let Some(next) = next {
                input.text.clone_from(next);
            }
        }
        (Kind::Toggle | Kind::Choice(_), _) => {}
        (_, KeyCode::Char('u')) if ctrl => input.text.clear(),
        (_, KeyCode::Backspace) => drop(input.text.pop()),
        (Kind::Count, KeyCode::Char(c)) if c.is_ascii_digit() && input.text.len() < 2 => input.text.push(c),
        (Kind::Count, _) => {}
        (Kind::Text | Kind::Typed(_), KeyCode::Char(c)) if !ctrl => append(&mut input.text, std::iter::once(c)),
        _ => {}
    }
}

fn sideways(d: &mut Dialog, here: usize, right: bool) {
    let (cancel, go) = (d.cancel(), d.go());
    let Some(input) = d.inputs.get_mut(here) else {
        d.focus = if here == cancel { go } else { cancel };
        return;
    };
    match &input.kind {
        Kind::Choice(of) if !of.is_empty() => {
            let at = of.iter().position(|o| *o == input.text).unwrap_or(0);
            let to = if right { at + 1 } else { at + of.len() - 1 };
            input.text = of[to % of.len()].clone();
            lock_follows_choice(d);
        }
        Kind::Toggle => input.text = if input.on() { NO.into() } else { YES.into() },
        Kind::Count => {
            let n: usize = input.text.parse().unwrap_or(1);
            let n = if right { n + 1 } else { n.saturating_sub(1) };
            input.text = n.clamp(1, COUNT_MAX).to_string();
        }
        _ => {}
    }
}

/// The name to type is that of the node chosen above it.
fn lock_follows_choice(d: &mut Dialog) {
    let Some(chosen) = d.input(form::NODE).map(|i| i.text.clone()) else { return };
    for input in &mut d.inputs {
        if let Kind::Typed(word) = &mut input.kind
            && *word != chosen
        {
            word.clone_from(&chosen);
            input.text.clear();
        }
    }
}

fn entered(model: &mut Model, here: usize) -> Vec<Effect> {
    let Some(d) = &mut model.dialog else { return Vec::new() };
    if here == d.cancel() {
        return close(model);
    }
    if here == d.go() || d.stage == Stage::Form {
        return go(model);
    }
    // What is filled in leads on to the next line, and from the last one to the button, never through it.
    let last = here + 1 >= d.inputs.len();
    match (&d.inputs[here].kind, d.locked()) {
        (Kind::Typed(_), Some(why)) => d.error = Some(why),
        _ => {
            d.error = None;
            d.focus = if last { d.go() } else { here + 1 };
        }
    }
    Vec::new()
}

/// The button that does it.
fn go(model: &mut Model) -> Vec<Effect> {
    let Some(mut d) = model.dialog.take() else { return Vec::new() };
    let blocked = match d.deed {
        // What nodes and processes do needs no master.
        Deed::SetKey | Deed::DeleteKey(_) | Deed::Process(..) => keys::blocked_here(model),
        _ => keys::blocked(model),
    };
    if let Some(why) = blocked.or_else(|| d.locked()) {
        d.error = Some(why);
        model.dialog = Some(d);
        return Vec::new();
    }
    match d.stage.clone() {
        Stage::Form => match wished(model, &d) {
            Ok(wish) => ask_plan(model, d, wish),
            Err(why) => {
                d.error = Some(why);
                model.dialog = Some(d);
                Vec::new()
            }
        },
        Stage::Asking(_) => {
            model.dialog = Some(d);
            Vec::new()
        }
        Stage::Plan(plan) => jobs::apply(model, &plan),
        Stage::Confirm => match confirmed(model, &d) {
            Ok(effects) => effects,
            Err(why) => {
                d.error = Some(why);
                model.dialog = Some(d);
                Vec::new()
            }
        },
    }
}

/// What the filled-in form wishes for.
fn wished(model: &Model, d: &Dialog) -> Result<Wish, String> {
    let node = || NodeId::new(d.text(form::NODE)).map_err(|_| format!("{:?} is no node's name", d.text(form::NODE)));
    match &d.deed {
        Deed::ScaleOut => {
            let nodes = match d.input(form::HOW_MANY) {
                Some(count) => {
                    let n = count.text.parse().ok().filter(|n| (1..=COUNT_MAX).contains(n));
                    form::new_names(model, n.ok_or_else(|| format!("a number from 1 to {COUNT_MAX}"))?)
                }
                None => vec![node()?],
            };
            Ok(form::wish(OperationKind::ScaleOut, nodes))
        }
        Deed::ScaleIn => {
            let mut wish = form::wish(OperationKind::ScaleIn, vec![node()?]);
            wish.force = d.is_on(form::FORCE);
            wish.accept_data_loss = d.is_on(form::LOSS);
            Ok(wish)
        }
        _ => Ok(form::wish(OperationKind::Rebalance, Vec::new())),
    }
}

/// Sends for the plan of a wish.
pub fn ask_plan(model: &mut Model, mut d: Dialog, wish: Wish) -> Vec<Effect> {
    let order = order(model, Message::Plan(wish.clone()), true);
    d.stage = Stage::Asking(order.id);
    d.wish = Some(wish);
    // The form comes back if the plan is refused; meanwhile only Cancel does anything.
    d.focus = d.cancel();
    model.dialog = Some(d);
    vec![Effect::Order(order)]
}

/// An order to the leader, with a number of its own.
pub fn order(model: &mut Model, message: Message, repeatable: bool) -> Order {
    let masters = model.link.masters.iter().map(|m| m.addr.clone()).collect();
    Order { id: model.next_request(), masters, message: Box::new(message), repeatable }
}

/// Does what needs no plan.
fn confirmed(model: &mut Model, d: &Dialog) -> Result<Vec<Effect>, String> {
    jobs::room(model)?;
    Ok(match &d.deed {
        Deed::Switch => {
            let to = d.text(form::MASTER).to_owned();
            let id = MasterId::new(&to).map_err(|_| format!("{to:?} is no master's name"))?;
            let from = model.live.as_ref().and_then(|c| c.status.leader.clone()).unwrap_or_default();
            let order = order(model, Message::SwitchMaster(SwitchMaster { to: Some(id) }), true);
            let job = Job::Switching { request: order.id, from, to, since_ms: model.now.mono_ms };
            model.jobs.push(job);
            vec![Effect::Order(order)]
        }
        Deed::Pause(id) => steer(model, Message::Pause(OperationId { operation: *id }), format!("op #{id} is paused")),
        Deed::Resume(id) => steer(model, Message::Resume(OperationId { operation: *id }), format!("op #{id} goes on")),
        Deed::Cancel(id) => steer(model, Message::Cancel(OperationId { operation: *id }), format!("op #{id} ends")),
        Deed::Forget => {
            let name = d.text(form::NODE).to_owned();
            let node = NodeId::new(&name).map_err(|_| format!("{name:?} is no node's name"))?;
            steer(model, Message::Forget(Forget { node, accept_data_loss: true }), format!("{name} is given up"))
        }
        Deed::Process(act, who) => {
            let request = model.next_request();
            let job = Job::Touching { request, what: format!("{} {who}", act.word()) };
            model.jobs.push(job);
            vec![Effect::Local { id: request, wish: LocalWish::Act(*act, who.clone()) }]
        }
        Deed::SetKey => {
            let key = d.text(form::KEY).to_owned();
            if key.is_empty() {
                return Err("a key has at least one character".to_owned());
            }
            let ttl_ms = duration_ms(d.text(form::TTL))?;
            jobs::touch_key(model, &key, KeyWish::Set { value: d.text(form::VALUE).to_owned(), ttl_ms })
        }
        Deed::DeleteKey(key) => jobs::touch_key(model, key, KeyWish::Delete),
        Deed::ScaleOut | Deed::ScaleIn | Deed::Rebalance => Vec::new(),
    })
}

fn steer(model: &mut Model, message: Message, done: String) -> Vec<Effect> {
    let order = order(model, message, true);
    model.jobs.push(Job::Ordering { request: order.id, done });
    vec![Effect::Order(order)]
}

/// `500ms`, `10s`, `5m`, `2h`, bare = seconds; empty = none.
fn duration_ms(text: &str) -> Result<Option<u64>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).filter(|ms| *ms > 0);
    ms.map(Some).ok_or_else(|| format!("{text:?} is no time: try 500ms, 10s, 5m"))
}

/// The answer to a request for a plan. Returns false if no dialog waits for it.
pub fn answered(model: &mut Model, id: u64, answer: &Result<Box<Message>, Refusal>) -> bool {
    let ascii = model.setup.ascii;
    let Some(d) = model.dialog.as_mut().filter(|d| d.stage == Stage::Asking(id)) else { return false };
    match answer {
        Ok(message) => match &**message {
            Message::Planned(plan) => planned(d, plan, ascii),
            other => refused(d, format!("{} is no plan", other.kind())),
        },
        Err(r) => refused(d, clean(&r.text, ascii)),
    }
    true
}

fn refused(d: &mut Dialog, why: String) {
    d.stage = Stage::Form;
    d.error = Some(why);
    d.focus = d.cancel();
}

fn planned(d: &mut Dialog, plan: &PlanView, ascii: bool) {
    let mut plan = plan.clone();
    plan.warnings.truncate(WARNINGS_MAX);
    plan.warnings.iter_mut().for_each(|w| *w = clean(w, ascii));
    plan.moves.truncate(MOVES_MAX);
    let name = plan.wish.nodes.first().map(ToString::to_string);
    d.inputs = match (&d.deed, name) {
        (Deed::ScaleIn, Some(name)) => vec![Input::new(form::TYPED, Kind::Typed(name), "", "")],
        _ => Vec::new(),
    };
    // The lock first, where there is one; else Cancel.
    d.focus = 0;
    d.scroll = 0;
    d.stage = Stage::Plan(Box::new(plan));
}

/// Warnings of a plan that are shown.
const WARNINGS_MAX: usize = 8;
/// Moves of a plan that are kept: every two of 100 nodes in both roles would be more than anyone reads.
const MOVES_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_command_line_reads_them() {
        for (text, ms) in [("", None), ("10", Some(10_000)), ("500ms", Some(500)), (" 5m ", Some(300_000))] {
            assert_eq!(duration_ms(text), Ok(ms));
        }
        for bad in ["0", "x", "5d", "-1", "99999999999999999999s"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }
}
