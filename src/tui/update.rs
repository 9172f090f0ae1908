//! `update(&mut Model, Msg) -> Vec<Effect>`: the only place where the model changes. No I/O, no clock.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};

use super::dialog::{Deed, handle};
use super::effect::Effect;
use super::escape::clean;
use super::event::{DemoEvent, LinkEvent, Msg};
use super::jobs;
use super::keys::{self, Action};
use super::layout::{self, Hit};
use super::link::Link;
use super::model::{Demo, Frozen, Logs, Model, Overlay, Panel, PromptKind, Screen, Tone};
use super::moving::{self, Step, step};
use super::prompt::{self, open as open_prompt};
use super::replay::{Played, Playing};
use super::request::{KeyWish, LocalAnswer, LocalWish, ProcessAct};
use super::slots::{CELL_SLOTS, Copies, NOBODY};
use super::theme::Theme;
use super::{number, screen};
use crate::proto::event::Severity;
use crate::proto::slot::Slot;

/// The longest text put on the clipboard, bytes: terminals drop longer OSC 52 strings, some at 8 KiB after base64.
const COPY_MAX: usize = 4096;
/// Steps of a starting demo that stay on the screen.
const DEMO_STEPS_MAX: usize = 6;
/// Rows that PgUp and PgDn move when the panel's height is not known to the model.
const PAGE: usize = 10;
/// An open log is read again this often, milliseconds.
const LOGS_EVERY_MS: u64 = 1_000;
/// Lines of a log kept.
const LOGS_MAX: usize = 500;
/// How far `[` and `]` go in a recording, milliseconds.
const JUMP_MS: i64 = 10_000;

/// Takes one message in.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Tick(now) => {
            model.now = now;
            if model.toast.as_ref().is_some_and(|t| t.until_ms <= now.mono_ms) {
                model.toast = None;
            }
            reread_logs(model)
        }
        Msg::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
        Msg::Key(key) => match model.prompt.take() {
            Some(prompt) => prompt::typed(model, prompt, key),
            None if model.dialog.is_some() => handle::pressed(model, key),
            None => pressed(model, key),
        },
        Msg::Mouse(mouse) => clicked(model, mouse),
        Msg::Paste(text) => {
            if let Some(prompt) = &mut model.prompt {
                prompt::append(&mut prompt.text, text.chars());
                prompt::changed(model);
            } else {
                handle::pasted(model, &text);
            }
            Vec::new()
        }
        Msg::Resize(w, h) => {
            model.size = (w, h);
            Vec::new()
        }
        Msg::Repaint => vec![Effect::Repaint],
        Msg::Link(event) => linked(model, event),
        Msg::Ordered(id, answer) => {
            if handle::answered(model, id, &answer) {
                return Vec::new();
            }
            jobs::ordered(model, id, answer)
        }
        Msg::Keyed(id, answer) => jobs::keyed(model, id, answer),
        Msg::Local(id, answer) => local(model, id, answer),
        Msg::Written(path, Ok(())) => {
            model.tell(Tone::Done, format!("written to {path}"));
            Vec::new()
        }
        Msg::Written(path, Err(why)) => {
            model.tell(Tone::Alert, format!("{path} was not written: {why}"));
            Vec::new()
        }
        Msg::Played(played) => {
            replayed(model, played);
            Vec::new()
        }
        Msg::Demo(event) => demo(model, event),
        Msg::Terminate => vec![Effect::Quit],
    }
}

fn linked(model: &mut Model, event: LinkEvent) -> Vec<Effect> {
    match event {
        LinkEvent::Connected { addr } => model.link.on_connected(&addr),
        LinkEvent::View(view) => {
            if model.absorb(*view) {
                seen(model);
                return jobs::viewed(model);
            }
        }
        LinkEvent::MasterHint(hint) => model.link.on_hint(&hint),
        LinkEvent::Lost { addr, why, next_try_ms } => model.link.on_lost(model.now.mono_ms, &addr, &why, next_try_ms),
    }
    Vec::new()
}

/// What is on the Events screen while one looks at its end is no longer unread.
fn seen(model: &mut Model) {
    if model.screen == Screen::Events && model.events.back == 0 && model.frozen.is_none() {
        let newest = model.live.as_ref().and_then(|c| c.events.back()).map_or(0, |e| e.seq);
        model.events.read = model.events.read.max(newest);
    }
}

/// A recording is somewhere else; if that is in its past, all that was shown is still to come.
fn replayed(model: &mut Model, played: Played) {
    if played.back {
        model.forget_cluster();
        model.link = Link::new(&model.setup.masters, model.setup.ascii);
        model.toast = None;
    }
    model.replay = Some(played);
}

/// An answer about processes of this machine: a log that is open, or something that was begun.
fn local(model: &mut Model, id: u64, answer: Result<LocalAnswer, String>) -> Vec<Effect> {
    let ascii = model.setup.ascii;
    if let Some(Overlay::Logs(logs)) = &mut model.overlay
        && logs.request == Some(id)
    {
        logs.request = None;
        match answer {
            Ok(LocalAnswer::Lines(lines)) => {
                let surplus = lines.len().saturating_sub(LOGS_MAX);
                let fresh: Vec<String> = lines.iter().skip(surplus).map(|l| clean(l, ascii)).collect();
                // Who reads further back is not moved by what is written meanwhile.
                if logs.back > 0 && logs.lines.len() < LOGS_MAX {
                    logs.back += fresh.len().saturating_sub(logs.lines.len());
                }
                logs.lines = fresh;
                logs.error = None;
            }
            Ok(LocalAnswer::Done(_)) => {}
            Err(why) => logs.error = Some(clean(&why, ascii)),
        }
        return Vec::new();
    }
    jobs::local(model, id, answer.map_err(|why| clean(&why, ascii)))
}

/// Opens the log of a process.
pub fn open_logs(model: &mut Model, who: &str) -> Vec<Effect> {
    let request = model.next_request();
    let asked_ms = model.now.mono_ms;
    model.overlay =
        Some(Overlay::Logs(Logs { who: who.to_owned(), request: Some(request), asked_ms, ..Logs::default() }));
    vec![Effect::Local { id: request, wish: LocalWish::Logs(who.to_owned()) }]
}

fn reread_logs(model: &mut Model) -> Vec<Effect> {
    let now = model.now.mono_ms;
    let due = |l: &Logs| l.request.is_none() && now.saturating_sub(l.asked_ms) >= LOGS_EVERY_MS;
    let who = match &model.overlay {
        Some(Overlay::Logs(l)) if due(l) => l.who.clone(),
        _ => return Vec::new(),
    };
    let id = model.next_request();
    if let Some(Overlay::Logs(l)) = &mut model.overlay {
        (l.request, l.asked_ms) = (Some(id), now);
    }
    vec![Effect::Local { id, wish: LocalWish::Logs(who) }]
}

fn demo(model: &mut Model, event: DemoEvent) -> Vec<Effect> {
    let ascii = model.setup.ascii;
    match event {
        DemoEvent::Progress(step) => {
            if !matches!(model.demo, Demo::Starting(_)) {
                model.demo = Demo::Starting(Vec::new());
            }
            if let Demo::Starting(steps) = &mut model.demo {
                steps.push(clean(&step, ascii));
                let surplus = steps.len().saturating_sub(DEMO_STEPS_MAX);
                steps.drain(..surplus);
            }
            Vec::new()
        }
        DemoEvent::Failed(why) => {
            model.demo = Demo::Failed(clean(&why, ascii));
            Vec::new()
        }
        DemoEvent::Started(masters) => {
            model.demo = Demo::Idle;
            model.link = Link::new(&masters, ascii);
            vec![Effect::Watch(masters)]
        }
    }
}

fn pressed(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    if model.setup.panic_key && key.code == KeyCode::F(12) {
        return vec![Effect::Panic];
    }
    let Some(binding) = keys::lookup(model, &key) else { return Vec::new() };
    act(model, binding.action)
}

/// Does what a key or a click stands for.
pub fn act(model: &mut Model, action: Action) -> Vec<Effect> {
    if let Some(why) = keys::disabled(model, action) {
        model.say(Tone::Alert, why);
        return Vec::new();
    }
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::Repaint => return vec![Effect::Repaint],
        Action::Suspend => return vec![Effect::Suspend],
        Action::StartDemo => {
            model.demo = Demo::Starting(Vec::new());
            return vec![Effect::StartDemo];
        }
        Action::Copy => return copy(model),
        Action::Help => {
            model.overlay = match model.overlay {
                Some(Overlay::Help { .. }) => None,
                _ => Some(Overlay::Help { scroll: 0 }),
            }
        }
        Action::Filter => open_prompt(model, PromptKind::Filter, model.filter.clone()),
        Action::WhichKey => open_prompt(model, PromptKind::WhichKey, String::new()),
        Action::Sort => model.overview.sort = model.overview.sort.next(),
        Action::Reverse => model.overview.reverse = !model.overview.reverse,
        Action::Palette => open_prompt(model, PromptKind::Command, String::new()),
        Action::Freeze => freeze(model),
        Action::Theme => {
            model.setup.theme = model.theme.name.next();
            model.theme = Theme::of(model.setup.theme);
            model.say(Tone::Done, format!("theme {}", model.setup.theme.word()));
        }
        Action::Back => back(model),
        Action::NextPanel => moving::focus(model, true),
        Action::PreviousPanel => moving::focus(model, false),
        Action::Go(screen) => {
            model.screen = screen;
            model.overlay = None;
            seen(model);
        }
        Action::Copies => {
            (model.ring.copies, model.ring.heat) = match (model.ring.copies, model.ring.heat) {
                (Copies::Primary, false) => (Copies::Backup, false),
                (Copies::Backup, _) => (Copies::Primary, true),
                (Copies::Primary, true) => (Copies::Primary, false),
            }
        }
        Action::Inspect => inspect(model),
        Action::Up => step(model, Step::By(-1)),
        Action::Down => step(model, Step::By(1)),
        Action::PageUp => step(model, Step::By(-(PAGE as isize))),
        Action::PageDown => step(model, Step::By(PAGE as isize)),
        Action::First => step(model, Step::First),
        Action::Last => step(model, Step::Last),
        Action::Left => moving::sideways(model, -1),
        Action::Right => moving::sideways(model, 1),
        Action::Severity => {
            model.events.least = match model.events.least {
                Severity::Info => Severity::Warn,
                Severity::Warn => Severity::Error,
                Severity::Error => Severity::Info,
            };
            model.events.back = 0;
        }
        Action::Follow => {
            model.events.back = 0;
            seen(model);
        }
        Action::WriteEvents => {
            let at = model.now.wall_ms / 1000;
            let name = format!("cachectl-{}-events-{at}.ndjson", file_word(&model.cluster_name()));
            open_prompt(model, PromptKind::WriteTo, name);
        }
        Action::ValueView => {
            model.keys.view = model.keys.view.next();
            model.keys.scroll = 0;
        }
        Action::LookUp => open_prompt(model, PromptKind::LookUp, String::new()),
        Action::ReadAgain => {
            let key = model.keys.key.clone();
            return jobs::touch_key(model, &key, KeyWish::Look);
        }
        Action::Logs => {
            return match model.selected_process() {
                Some(who) => open_logs(model, &who),
                None => nothing_selected(model),
            };
        }
        Action::PlayPause => return vec![Effect::Play(Playing::Pause)],
        Action::StepBack => return vec![Effect::Play(Playing::Step { on: false })],
        Action::StepOn => return vec![Effect::Play(Playing::Step { on: true })],
        Action::JumpBack => return vec![Effect::Play(Playing::Jump(-JUMP_MS))],
        Action::JumpOn => return vec![Effect::Play(Playing::Jump(JUMP_MS))],
        Action::Slower => return vec![Effect::Play(Playing::Speed { up: false })],
        Action::Faster => return vec![Effect::Play(Playing::Speed { up: true })],
        Action::ScaleOut => return handle::begin(model, Deed::ScaleOut),
        Action::ScaleIn => return handle::begin(model, Deed::ScaleIn),
        Action::SwitchMaster => return handle::begin(model, Deed::Switch),
        Action::Rebalance => return handle::begin(model, Deed::Rebalance),
        Action::Forget => return handle::begin(model, Deed::Forget),
        Action::SetKey => return handle::begin(model, Deed::SetKey),
        Action::DeleteKey => {
            let key = model.keys.key.clone();
            return handle::begin(model, Deed::DeleteKey(key));
        }
        Action::Pause | Action::Cancel => {
            let Some((id, paused)) = model.meant_operation().map(|o| (o.id, o.state == "paused")) else {
                return Vec::new();
            };
            let deed = match (action, paused) {
                (Action::Cancel, _) => Deed::Cancel(id),
                (_, true) => Deed::Resume(id),
                (_, false) => Deed::Pause(id),
            };
            return handle::begin(model, deed);
        }
        Action::KillProcess => return process(model, ProcessAct::Kill),
        Action::PauseProcess => return process(model, ProcessAct::Pause),
        Action::ResumeProcess => return process(model, ProcessAct::Resume),
        Action::RestartProcess => return process(model, ProcessAct::Restart),
    }
    Vec::new()
}

fn process(model: &mut Model, act: ProcessAct) -> Vec<Effect> {
    match model.selected_process() {
        Some(who) => handle::begin(model, Deed::Process(act, who)),
        None => nothing_selected(model),
    }
}

fn nothing_selected(model: &mut Model) -> Vec<Effect> {
    model.say(Tone::Alert, "nothing is selected");
    Vec::new()
}

/// A name as part of a file's name.
fn file_word(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect()
}

fn freeze(model: &mut Model) {
    if model.frozen.take().is_none() {
        model.frozen = model.live.clone().map(|cluster| Frozen { cluster, at: model.now });
    }
}

/// One thing less, the topmost first.
fn back(model: &mut Model) {
    if model.overlay.take().is_some() || model.frozen.take().is_some() {
        return;
    }
    if !model.filter.is_empty() {
        model.filter.clear();
    } else if model.ring.key.take().is_none() && model.toast.take().is_none() {
        model.screen = Screen::default();
    }
}

fn inspect(model: &mut Model) {
    let id = match model.panel() {
        Panel::Nodes => {
            let rows = model.rows();
            rows.get(model.selected_row(&rows)).map(|n| n.id.clone())
        }
        Panel::Owners => {
            let owners = model.owners();
            let at = model.selected_owner(&owners);
            owners.get(at).and_then(|p| model.shown().map(|c| c.table.name(*p).to_owned()))
        }
        Panel::Map => model.shown().and_then(|c| {
            let holder = c.table.brief(Slot(model.ring.cursor)).holder(model.ring.copies);
            (holder != NOBODY).then(|| c.table.name(holder).to_owned())
        }),
        _ => None,
    };
    if matches!(model.overlay, Some(Overlay::Node { .. })) {
        model.overlay = None;
        return;
    }
    match id.filter(|id| model.shown().is_some_and(|c| c.status.nodes.iter().any(|n| &n.id == id))) {
        Some(id) => model.overlay = Some(Overlay::Node { id }),
        None => model.say(Tone::Alert, "no node is selected"),
    }
}

fn copy(model: &mut Model) -> Vec<Effect> {
    let Some(mut text) = screen::copied(model) else {
        model.say(Tone::Alert, "nothing is selected");
        return Vec::new();
    };
    while text.len() > COPY_MAX {
        text.pop();
    }
    let kind = if text.len() < 60 { text.clone() } else { number::bytes(text.len() as u64) };
    model.say(Tone::Done, format!("sent to the clipboard: {kind}"));
    vec![Effect::Copy(text)]
}

fn clicked(model: &mut Model, mouse: MouseEvent) -> Vec<Effect> {
    match mouse.kind {
        MouseEventKind::ScrollUp => step(model, Step::By(-1)),
        MouseEventKind::ScrollDown => step(model, Step::By(1)),
        MouseEventKind::Down(MouseButton::Left) => match layout::hit(model, mouse.column, mouse.row) {
            Some(Hit::Tab(screen)) => return act(model, Action::Go(screen)),
            Some(Hit::Node(row)) => {
                model.focus[Screen::Overview.place()] = Some(Panel::Nodes);
                let rows = model.rows();
                let first = screen::overview::first_row(model, &rows);
                if let Some(n) = rows.get(first + usize::from(row)) {
                    model.overview.selected = Some(n.id.clone());
                }
            }
            Some(Hit::Cell(cell)) => {
                model.focus[Screen::Ring.place()] = Some(Panel::Map);
                moving::point(model, cell.saturating_mul(CELL_SLOTS as u16));
            }
            Some(Hit::Owner(at)) => {
                model.focus[Screen::Ring.place()] = Some(Panel::Owners);
                let owner = model.owners().get(at).copied();
                moving::select_owner(model, owner);
            }
            Some(Hit::Row(row)) => {
                let panel = model.screen.panels().first().copied();
                model.focus[model.screen.place()] = panel;
                step(model, Step::First);
                step(model, Step::By(row as isize));
            }
            None => {}
        },
        _ => {}
    }
    Vec::new()
}
