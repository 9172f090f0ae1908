//! A line being typed at the bottom of the screen: a filter, a key, a command, a file's name.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::effect::Effect;
use super::jobs;
use super::model::{INPUT_MAX, Model, Prompt, PromptKind, Screen};
use super::palette;
use super::request::KeyWish;
use super::screen;
use crate::proto::slot::Slot;

/// Opens a prompt with a text to begin with.
pub fn open(model: &mut Model, kind: PromptKind, text: String) {
    model.overlay = None;
    model.prompt = Some(Prompt { kind, before: text.clone(), text, back: 0 });
}

/// A key while a line is being typed.
pub fn typed(model: &mut Model, mut prompt: Prompt, key: KeyEvent) -> Vec<Effect> {
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
        KeyCode::Tab if prompt.kind == PromptKind::Command => prompt.text = palette::completed(model, &prompt.text),
        KeyCode::Up if prompt.kind == PromptKind::Command => recall(model, &mut prompt, true),
        KeyCode::Down if prompt.kind == PromptKind::Command => recall(model, &mut prompt, false),
        KeyCode::Enter => {
            model.prompt = None;
            return entered(model, &prompt);
        }
        KeyCode::Esc => {
            prompt.text = std::mem::take(&mut prompt.before);
            model.prompt = Some(prompt);
            changed(model);
            model.prompt = None;
            return Vec::new();
        }
        _ => {}
    }
    model.prompt = Some(prompt);
    changed(model);
    Vec::new()
}

/// Adds what was typed or pasted, within bounds and without controls.
pub fn append(text: &mut String, more: impl Iterator<Item = char>) {
    let room = INPUT_MAX.saturating_sub(text.chars().count());
    text.extend(more.filter(|c| !c.is_control()).take(room));
}

/// What is typed takes effect with every key.
pub fn changed(model: &mut Model) {
    let Some(prompt) = &model.prompt else { return };
    match prompt.kind {
        PromptKind::Filter => model.filter = prompt.text.clone(),
        PromptKind::WhichKey if prompt.text.is_empty() => model.ring.key = None,
        PromptKind::WhichKey => {
            model.ring.cursor = Slot::of_key(prompt.text.as_bytes()).0;
            model.ring.key = Some(prompt.text.clone());
        }
        // These take effect with Enter.
        PromptKind::Command | PromptKind::LookUp | PromptKind::WriteTo => {}
    }
}

fn entered(model: &mut Model, prompt: &Prompt) -> Vec<Effect> {
    match prompt.kind {
        PromptKind::Filter | PromptKind::WhichKey => Vec::new(),
        PromptKind::Command => palette::run(model, &prompt.text),
        PromptKind::LookUp if prompt.text.is_empty() => Vec::new(),
        PromptKind::LookUp => {
            model.screen = Screen::Keys;
            jobs::touch_key(model, &prompt.text, KeyWish::Look)
        }
        PromptKind::WriteTo if prompt.text.is_empty() => Vec::new(),
        PromptKind::WriteTo => {
            vec![Effect::Write { path: prompt.text.clone(), text: screen::events::as_lines(model) }]
        }
    }
}

/// An older command, or a newer one; past the newest, an empty line.
fn recall(model: &Model, prompt: &mut Prompt, older: bool) {
    let n = model.history.len();
    prompt.back = if older { (prompt.back + 1).min(n) } else { prompt.back.saturating_sub(1) };
    prompt.text = match prompt.back {
        0 => String::new(),
        back => model.history.get(n - back).cloned().unwrap_or_default(),
    };
}
