//! `:` commands: the words of the command line, completed from what the cluster has, with a history.

use super::dialog::handle::{begin, fill, show};
use super::dialog::{self, Deed, NO, YES};
use super::effect::Effect;
use super::jobs;
use super::keys::{self, Action};
use super::model::{Model, Screen, Sort, Tone};
use super::request::{KeyWish, ProcessAct};
use super::state::EventsState;
use super::theme::{Theme, ThemeName};
use super::update::{act, open_logs};
use crate::proto::event::Severity;

/// Commands remembered.
const HISTORY_MAX: usize = 100;
/// Candidates shown at a time.
pub const CANDIDATES_MAX: usize = 12;

/// What may follow a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arg {
    Nothing,
    Node,
    Master,
    Process,
    Operation,
    Theme,
    Sort,
    Severity,
    Free,
}

/// One command: its word, what may follow, and what it is for.
struct Command {
    word: &'static str,
    arg: Arg,
    help: &'static str,
}

const fn command(word: &'static str, arg: Arg, help: &'static str) -> Command {
    Command { word, arg, help }
}

/// All commands, as the command line names them where it has them.
const COMMANDS: &[Command] = &[
    command("overview", Arg::Nothing, "go to Overview"),
    command("ring", Arg::Nothing, "go to Ring"),
    command("migrations", Arg::Nothing, "go to Migrations"),
    command("masters", Arg::Nothing, "go to Masters"),
    command("events", Arg::Severity, "go to Events; all, warn or error"),
    command("keys", Arg::Nothing, "go to Keys"),
    command("add", Arg::Free, "scale out by so many nodes, or by a node on standby"),
    command("remove", Arg::Node, "drain a node and let it go"),
    command("switchover", Arg::Master, "hand leadership over"),
    command("rebalance", Arg::Nothing, "even shares out"),
    command("pause", Arg::Operation, "pause an operation"),
    command("resume", Arg::Operation, "let it go on"),
    command("cancel", Arg::Operation, "end it; what is committed stays"),
    command("forget", Arg::Node, "give up on a dead node"),
    command("get", Arg::Free, "look a key up"),
    command("where", Arg::Free, "which slot and which nodes a key lives at"),
    command("set", Arg::Free, "write a key"),
    command("del", Arg::Free, "delete a key"),
    command("inspect", Arg::Node, "everything about a node"),
    command("logs", Arg::Process, "the log of a process"),
    command("kill", Arg::Process, "kill a process (local)"),
    command("suspend", Arg::Process, "stop a process in its tracks (local)"),
    command("continue", Arg::Process, "let it go on (local)"),
    command("restart", Arg::Process, "end it and start it again (local)"),
    command("filter", Arg::Free, "show only rows that contain this"),
    command("sort", Arg::Sort, "sort the nodes"),
    command("theme", Arg::Theme, "change the colours"),
    command("write", Arg::Free, "write the events that are listed to a file"),
    command("freeze", Arg::Nothing, "hold the picture still, or let it go"),
    command("help", Arg::Nothing, "the keys of this screen"),
    command("quit", Arg::Nothing, "leave; the cluster keeps running"),
];

const THEMES: [ThemeName; 4] = [ThemeName::Dark, ThemeName::Light, ThemeName::Cvd, ThemeName::Mono];
const SORTS: [Sort; 7] = [Sort::Node, Sort::State, Sort::Age, Sort::Slots, Sort::Ops, Sort::Memory, Sort::P99];
const SEVERITIES: [(&str, Severity); 3] =
    [("all", Severity::Info), ("warn", Severity::Warn), ("error", Severity::Error)];

/// What the line may go on with: whole words, and a few words about each command.
pub fn candidates(model: &Model, typed: &str) -> Vec<(String, &'static str)> {
    let typed = typed.trim_start();
    let Some((word, rest)) = typed.split_once(' ') else {
        let fits = |c: &&Command| c.word.starts_with(typed);
        return COMMANDS.iter().filter(fits).map(|c| (c.word.to_owned(), c.help)).collect();
    };
    let Some(c) = COMMANDS.iter().find(|c| c.word == word) else { return Vec::new() };
    let mut words = arguments(model, c.arg);
    words.retain(|w| w.starts_with(rest.trim_start()));
    words.into_iter().map(|w| (w, "")).collect()
}

fn arguments(model: &Model, arg: Arg) -> Vec<String> {
    let Some(c) = &model.live else { return Vec::new() };
    let nodes = || c.status.nodes.iter().map(|n| n.id.clone());
    let masters = || c.status.masters.iter().map(|m| m.id.clone());
    match arg {
        Arg::Nothing | Arg::Free => Vec::new(),
        Arg::Node => nodes().collect(),
        Arg::Master => masters().collect(),
        Arg::Process => masters().chain(nodes()).collect(),
        Arg::Operation => model.operations().iter().map(|o| o.id.to_string()).collect(),
        Arg::Theme => THEMES.iter().map(|t| t.word().to_owned()).collect(),
        Arg::Sort => SORTS.iter().map(|s| s.word().to_owned()).collect(),
        Arg::Severity => SEVERITIES.iter().map(|(w, _)| (*w).to_owned()).collect(),
    }
}

/// What Tab makes of the line: as far as all candidates agree, and a blank behind the only one.
pub fn completed(model: &Model, typed: &str) -> String {
    let found = candidates(model, typed);
    let Some((first, _)) = found.first() else { return typed.to_owned() };
    let mut common = first.as_str();
    for (other, _) in &found {
        let same = common.char_indices().zip(other.chars()).find(|((_, a), b)| a != b).map(|((i, _), _)| i);
        common = &common[..same.unwrap_or_else(|| common.len().min(other.len()))];
    }
    let head = match typed.trim_start().split_once(' ') {
        Some((word, _)) => format!("{word} "),
        None => String::new(),
    };
    let blank = if found.len() == 1 && head.is_empty() { " " } else { "" };
    format!("{head}{common}{blank}")
}

/// Runs a line.
pub fn run(model: &mut Model, line: &str) -> Vec<Effect> {
    let line = line.trim();
    // Hints show whole lines of the shell: pasted here they mean the same.
    let line = line.strip_prefix("cachectl ").map_or(line, str::trim_start);
    if line.is_empty() {
        return Vec::new();
    }
    model.history.retain(|h| h != line);
    model.history.push(line.to_owned());
    let surplus = model.history.len().saturating_sub(HISTORY_MAX);
    model.history.drain(..surplus);
    let (word, rest) = line.split_once(' ').map_or((line, ""), |(w, r)| (w, r.trim()));
    // A beginning that only one command has is that command.
    let mut fits = COMMANDS.iter().filter(|c| c.word.starts_with(word));
    let exact = COMMANDS.iter().find(|c| c.word == word);
    let found = exact.or_else(|| fits.next().filter(|_| fits.next().is_none()));
    let Some(c) = found else {
        model.say(Tone::Alert, format!("no command {word:?}: Tab shows what there is"));
        return Vec::new();
    };
    match execute(model, c.word, rest) {
        Ok(effects) => effects,
        Err(why) => {
            model.say(Tone::Alert, format!("{}: {why}", c.word));
            Vec::new()
        }
    }
}

fn execute(model: &mut Model, word: &str, rest: &str) -> Result<Vec<Effect>, String> {
    if let Some(screen) = Screen::ALL.into_iter().find(|s| s.title().to_lowercase() == word) {
        if screen == Screen::Events && !rest.is_empty() {
            let found = SEVERITIES.iter().find(|(w, _)| *w == rest).ok_or("all, warn or error")?;
            model.events = EventsState { least: found.1, ..model.events.clone() };
        }
        return Ok(act(model, Action::Go(screen)));
    }
    Ok(match word {
        "add" => guarded(model, Action::ScaleOut, |model| {
            let mut d = dialog::open(model, Deed::ScaleOut);
            if !rest.is_empty() {
                let label = d.inputs.first().map_or("", |i| i.label);
                if !fill(&mut d, label, rest) {
                    return Err(format!("{rest:?} can't be added from here"));
                }
            }
            let ask = !rest.is_empty();
            Ok(show(model, d, ask))
        })?,
        "remove" => guarded(model, Action::ScaleIn, |model| with_choice(model, Deed::ScaleIn, "node", rest))?,
        "switchover" => {
            guarded(model, Action::SwitchMaster, |model| with_choice(model, Deed::Switch, "new leader", rest))?
        }
        "forget" => guarded(model, Action::Forget, |model| with_choice(model, Deed::Forget, "node", rest))?,
        "rebalance" => act(model, Action::Rebalance),
        "pause" | "resume" | "cancel" => {
            let action = if word == "cancel" { Action::Cancel } else { Action::Pause };
            let id = match rest {
                "" => model.meant_operation().map(|o| o.id).ok_or("no operation is open")?,
                id => id.trim_start_matches('#').parse().map_err(|_| format!("{id:?} is no operation's number"))?,
            };
            guarded(model, action, |model| {
                let deed = match word {
                    "pause" => Deed::Pause(id),
                    "resume" => Deed::Resume(id),
                    _ => Deed::Cancel(id),
                };
                Ok(begin(model, deed))
            })?
        }
        "get" | "where" if rest.is_empty() => return Err("which key?".to_owned()),
        "get" | "where" => {
            model.screen = Screen::Keys;
            jobs::touch_key(model, rest, KeyWish::Look)
        }
        "set" => guarded(model, Action::SetKey, |model| {
            let mut d = dialog::open(model, Deed::SetKey);
            let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
            if !key.is_empty() {
                fill(&mut d, "key", key);
                fill(&mut d, "value", value.trim_start());
                d.focus = if value.is_empty() { 1 } else { d.cancel() };
            }
            Ok(show(model, d, false))
        })?,
        "del" if rest.is_empty() => return Err("which key?".to_owned()),
        "del" => guarded(model, Action::SetKey, |model| Ok(begin(model, Deed::DeleteKey(rest.to_owned()))))?,
        "inspect" => {
            model.overlay = Some(super::model::Overlay::Node { id: rest.to_owned() });
            Vec::new()
        }
        "logs" => guarded(model, Action::Logs, |model| Ok(open_logs(model, rest)))?,
        "kill" | "suspend" | "continue" | "restart" => {
            let (action, what) = match word {
                "kill" => (Action::KillProcess, ProcessAct::Kill),
                "suspend" => (Action::PauseProcess, ProcessAct::Pause),
                "continue" => (Action::ResumeProcess, ProcessAct::Resume),
                _ => (Action::RestartProcess, ProcessAct::Restart),
            };
            if !arguments(model, Arg::Process).iter().any(|p| p == rest) {
                return Err(format!("no process {rest:?}"));
            }
            guarded(model, action, |model| Ok(begin(model, Deed::Process(what, rest.to_owned()))))?
        }
        "filter" => {
            rest.clone_into(&mut model.filter);
            Vec::new()
        }
        "sort" => {
            model.overview.sort = SORTS.into_iter().find(|s| s.word() == rest).ok_or("Tab shows the columns")?;
            Vec::new()
        }
        "theme" => {
            let name: ThemeName = rest.parse()?;
            model.setup.theme = if name == ThemeName::Auto { ThemeName::Dark } else { name };
            model.theme = Theme::of(model.setup.theme);
            Vec::new()
        }
        "write" if rest.is_empty() => act(model, Action::WriteEvents),
        "write" => vec![Effect::Write { path: rest.to_owned(), text: super::screen::events::as_lines(model) }],
        "freeze" => act(model, Action::Freeze),
        "help" => act(model, Action::Help),
        "quit" => act(model, Action::Quit),
        _ => return Err("not known".to_owned()),
    })
}

fn with_choice(model: &mut Model, deed: Deed, label: &str, chosen: &str) -> Result<Vec<Effect>, String> {
    let mut d = dialog::open(model, deed);
    if !chosen.is_empty() {
        let (name, flags): (Vec<&str>, Vec<&str>) = chosen.split_whitespace().partition(|w| !w.starts_with("--"));
        if !fill(&mut d, label, name.first().copied().unwrap_or_default()) {
            return Err(format!("{chosen:?} is not among those it can be done to"));
        }
        for (flag, input) in [("--force", "do not drain"), ("--accept-data-loss", "accept data loss")] {
            fill(&mut d, input, if flags.contains(&flag) { YES } else { NO });
        }
    }
    Ok(show(model, d, false))
}

/// What the key table says of an action holds for its command too.
fn guarded(
    model: &mut Model,
    action: Action,
    then: impl FnOnce(&mut Model) -> Result<Vec<Effect>, String>,
) -> Result<Vec<Effect>, String> {
    match keys::disabled(model, action) {
        Some(why) => Err(why),
        None => then(model),
    }
}
