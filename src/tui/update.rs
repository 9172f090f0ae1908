//! `update(&mut Model, Msg) -> Vec<Effect>`: the only place where the model changes. No I/O, no clock.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::effect::Effect;
use super::escape::clean;
use super::event::{DemoEvent, LinkEvent, Msg};
use super::keys::{self, Action};
use super::layout::{self, Hit};
use super::link::Link;
use super::model::{Demo, Frozen, INPUT_MAX, Model, Overlay, Panel, Prompt, PromptKind, Screen, Tone};
use super::slots::{CELL_SLOTS, Copies, NOBODY};
use super::theme::Theme;
use super::{number, screen};
use crate::proto::slot::{SLOTS, Slot};

/// The longest text put on the clipboard, bytes: terminals drop longer OSC 52 strings, some at 8 KiB after base64.
const COPY_MAX: usize = 4096;
/// Steps of a starting demo that stay on the screen.
const DEMO_STEPS_MAX: usize = 6;
/// Rows that PgUp and PgDn move when the panel's height is not known to the model.
const PAGE: usize = 10;

/// Takes one message in.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Tick(now) => {
            model.now = now;
            if model.toast.as_ref().is_some_and(|t| t.until_ms <= now.mono_ms) {
                model.toast = None;
            }
            Vec::new()
        }
        Msg::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
        Msg::Key(key) => match model.prompt.take() {
            Some(prompt) => typed(model, prompt, key),
            None => pressed(model, key),
        },
        Msg::Mouse(mouse) => clicked(model, mouse),
        Msg::Paste(text) => {
            if let Some(prompt) = &mut model.prompt {
                append(&mut prompt.text, text.chars());
                prompt_changed(model);
            }
            Vec::new()
        }
        Msg::Resize(w, h) => {
            model.size = (w, h);
            Vec::new()
        }
        Msg::Repaint => vec![Effect::Repaint],
        Msg::Link(event) => {
            linked(model, event);
            Vec::new()
        }
        Msg::Demo(event) => demo(model, event),
        Msg::Terminate => vec![Effect::Quit],
    }
}

fn linked(model: &mut Model, event: LinkEvent) {
    match event {
        LinkEvent::Connected { addr } => model.link.on_connected(&addr),
        LinkEvent::View(view) => model.absorb(*view),
        LinkEvent::MasterHint(hint) => model.link.on_hint(&hint),
        LinkEvent::Lost { addr, why, next_try_ms } => model.link.on_lost(model.now.mono_ms, &addr, &why, next_try_ms),
    }
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

/// A key while a line is being typed.
fn typed(model: &mut Model, mut prompt: Prompt, key: KeyEvent) -> Vec<Effect> {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if ctrl => return vec![Effect::Quit],
        KeyCode::Char('u') if ctrl => prompt.text.clear(),
        KeyCode::Char('w') if ctrl => {
            let end = prompt.text.trim_end().rfind(' ').map_or(0, |i| i + 1);
            prompt.text.truncate(end);
        }
        KeyCode::Char('h') if ctrl => drop(prompt.text.pop()),
        KeyCode::Char(c) if !ctrl => append(&mut prompt.text, std::iter::once(c)),
        KeyCode::Backspace => drop(prompt.text.pop()),
        KeyCode::Enter => {
            model.prompt = None;
            return Vec::new();
        }
        KeyCode::Esc => {
            prompt.text = std::mem::take(&mut prompt.before);
            model.prompt = Some(prompt);
            prompt_changed(model);
            model.prompt = None;
            return Vec::new();
        }
        _ => {}
    }
    model.prompt = Some(prompt);
    prompt_changed(model);
    Vec::new()
}

fn append(text: &mut String, more: impl Iterator<Item = char>) {
    let room = INPUT_MAX.saturating_sub(text.chars().count());
    text.extend(more.filter(|c| !c.is_control()).take(room));
}

/// What is typed takes effect with every key.
fn prompt_changed(model: &mut Model) {
    let Some(prompt) = &model.prompt else { return };
    match prompt.kind {
        PromptKind::Filter => model.filter = prompt.text.clone(),
        PromptKind::WhichKey if prompt.text.is_empty() => model.ring.key = None,
        PromptKind::WhichKey => {
            model.ring.cursor = Slot::of_key(prompt.text.as_bytes()).0;
            model.ring.key = Some(prompt.text.clone());
        }
    }
}

fn pressed(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
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
        Action::Freeze => freeze(model),
        Action::Theme => {
            model.setup.theme = model.theme.name.next();
            model.theme = Theme::of(model.setup.theme);
            model.say(Tone::Done, format!("theme {}", model.setup.theme.word()));
        }
        Action::Back => back(model),
        Action::NextPanel => focus(model, true),
        Action::PreviousPanel => focus(model, false),
        Action::Go(screen) => {
            model.screen = screen;
            model.overlay = None;
        }
        Action::Copies => {
            model.ring.copies = match model.ring.copies {
                Copies::Primary => Copies::Backup,
                Copies::Backup => Copies::Primary,
            }
        }
        Action::Inspect => inspect(model),
        Action::Up => step(model, Step::By(-1)),
        Action::Down => step(model, Step::By(1)),
        Action::PageUp => step(model, Step::By(-(PAGE as isize))),
        Action::PageDown => step(model, Step::By(PAGE as isize)),
        Action::First => step(model, Step::First),
        Action::Last => step(model, Step::Last),
        Action::Left => sideways(model, -1),
        Action::Right => sideways(model, 1),
        // Disabled above with their reason.
        Action::ScaleOut
        | Action::ScaleIn
        | Action::SwitchMaster
        | Action::Pause
        | Action::Cancel
        | Action::Palette
        | Action::Logs => {}
    }
    Vec::new()
}

fn open_prompt(model: &mut Model, kind: PromptKind, text: String) {
    model.overlay = None;
    model.prompt = Some(Prompt { kind, before: text.clone(), text });
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

fn focus(model: &mut Model, forward: bool) {
    let panels = layout::visible(model);
    let at = panels.iter().position(|p| *p == model.panel()).unwrap_or(0);
    let by = if forward { 1 } else { panels.len().saturating_sub(1) };
    let next = panels.get((at + by) % panels.len().max(1)).copied();
    match model.screen {
        Screen::Overview => model.overview.focus = next,
        Screen::Ring => model.ring.focus = next,
    }
}

/// How a selection moves.
#[derive(Clone, Copy)]
enum Step {
    By(isize),
    First,
    Last,
}

impl Step {
    fn from(self, at: usize, len: usize) -> usize {
        let last = len.saturating_sub(1);
        match self {
            Step::By(n) => at.saturating_add_signed(n).min(last),
            Step::First => 0,
            Step::Last => last,
        }
    }
}

fn step(model: &mut Model, step: Step) {
    if let Some(Overlay::Help { scroll }) = &mut model.overlay {
        // Drawing stops at the last line; the bound here keeps a held key from counting on.
        *scroll = step.from(usize::from(*scroll), keys::TABLE.len() * 2) as u16;
        return;
    }
    if model.shown().is_none() {
        return;
    }
    match model.panel() {
        Panel::Nodes => {
            let rows = model.rows();
            let at = step.from(model.selected_row(&rows), rows.len());
            model.overview.selected = rows.get(at).map(|n| n.id.clone());
            if let (Some(Overlay::Node { id }), Some(selected)) = (&mut model.overlay, &model.overview.selected) {
                id.clone_from(selected);
            }
        }
        Panel::Operations => {
            let n = model.operations().len();
            model.overview.operations_scroll = step.from(model.overview.operations_scroll, n);
        }
        Panel::Events => {
            let n = model.shown().map_or(0, |c| c.events.len());
            model.overview.events_scroll = step.from(model.overview.events_scroll, n);
        }
        Panel::Owners => {
            let owners = model.owners();
            let at = step.from(model.selected_owner(&owners), owners.len());
            select_owner(model, owners.get(at).copied());
        }
        Panel::Map => match step {
            Step::By(rows) => {
                let by = rows.signum() * (usize::from(layout::MAP_COLUMNS) * CELL_SLOTS) as isize;
                move_cursor(model, by);
            }
            Step::First => point(model, 0),
            Step::Last => point(model, SLOTS as u16 - 1),
        },
    }
}

fn select_owner(model: &mut Model, owner: Option<u16>) {
    let name = owner.and_then(|p| model.shown().map(|c| c.table.name(p).to_owned()));
    model.ring.selected = name;
}

/// Left and right: a cell of the map; by one slot when the map is not what moves.
fn sideways(model: &mut Model, by: isize) {
    match model.panel() {
        Panel::Map => move_cursor(model, by * CELL_SLOTS as isize),
        _ => move_cursor(model, by),
    }
}

fn move_cursor(model: &mut Model, by: isize) {
    // A ring has no end: past the last slot comes the first.
    let to = (i64::from(model.ring.cursor) + by as i64).rem_euclid(SLOTS as i64);
    point(model, to as u16);
}

fn point(model: &mut Model, slot: u16) {
    model.ring.cursor = slot;
    model.ring.key = None;
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
        Panel::Operations | Panel::Events => None,
    };
    match id.filter(|id| model.shown().is_some_and(|c| c.status.nodes.iter().any(|n| &n.id == id))) {
        Some(_) if matches!(model.overlay, Some(Overlay::Node { .. })) => model.overlay = None,
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
                model.overview.focus = Some(Panel::Nodes);
                let rows = model.rows();
                let first = screen::overview::first_row(model, &rows);
                if let Some(n) = rows.get(first + usize::from(row)) {
                    model.overview.selected = Some(n.id.clone());
                }
            }
            Some(Hit::Cell(cell)) => {
                model.ring.focus = Some(Panel::Map);
                point(model, cell.saturating_mul(CELL_SLOTS as u16));
            }
            Some(Hit::Owner(at)) => {
                model.ring.focus = Some(Panel::Owners);
                let owner = model.owners().get(at).copied();
                select_owner(model, owner);
            }
            None => {}
        },
        _ => {}
    }
    Vec::new()
}
