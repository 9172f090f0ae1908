//! Dialogs: what is asked before anything in the cluster changes. A form, then the plan or the consequences, then a button
//! whose neighbour, Cancel, is the one that Enter finds first.
//!
//! ```text
//!   key ─▶ open ─▶ Form ─PLAN─▶ Asking ─PLANNED─▶ Plan ─APPLY─▶ a job (jobs.rs), bound to the plan's epoch and digest
//!                    └────────────▶ Confirm ───────────────────▶ an order, or a wish to a node or a process
//! ```

pub mod draw;
mod form;
pub mod handle;
pub mod plan;

pub use form::open;

use crate::proto::operation::{OperationKind, PlanView, Wish};
use crate::tui::request::ProcessAct;
use crate::tui::twin::Twin;

/// What a dialog is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Give new nodes a share.
    ScaleOut,
    /// Drain a node.
    ScaleIn,
    /// Even shares out.
    Rebalance,
    /// Hand leadership over.
    Switch,
    /// Pause an operation.
    Pause(u64),
    /// Let it go on.
    Resume(u64),
    /// End it.
    Cancel(u64),
    /// Give up on a dead node.
    Forget,
    /// Do something to a process.
    Process(ProcessAct, String),
    /// Write a key.
    SetKey,
    /// Delete a key.
    DeleteKey(String),
}

/// Where a dialog is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// What is wanted is being said; the button asks for a plan.
    Form,
    /// The plan is on its way: the request's number.
    Asking(u64),
    /// The plan is shown; the button applies it.
    Plan(Box<PlanView>),
    /// The consequences are shown; the button does it.
    Confirm,
}

/// How an input is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    Text,
    /// A number from 1 up.
    Count,
    /// One of these; Left and Right go through them.
    Choice(Vec<String>),
    /// Yes or no; Space changes it.
    Toggle,
    /// Exactly this, typed: the lock on what can hurt.
    Typed(String),
}

/// One line to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it is.
    pub label: &'static str,
    /// What was typed or chosen; a toggle holds `yes` or `no`.
    pub text: String,
    /// How.
    pub kind: Kind,
    /// What it means, in a few words.
    pub note: &'static str,
}

impl Input {
    fn new(label: &'static str, kind: Kind, text: impl Into<String>, note: &'static str) -> Self {
        Self { label, text: text.into(), kind, note }
    }

    /// Whether a toggle is on.
    pub fn on(&self) -> bool {
        self.text == YES
    }
}

/// What a toggle that is on holds.
pub const YES: &str = "yes";
/// What one that is off holds.
pub const NO: &str = "no";

/// An open dialog.
#[derive(Debug, Clone, PartialEq)]
pub struct Dialog {
    /// What it is about.
    pub deed: Deed,
    /// Where it is.
    pub stage: Stage,
    /// What is to fill in at this stage.
    pub inputs: Vec<Input>,
    /// Which input has the keys; beyond them: Cancel, then the button that does it.
    pub focus: usize,
    /// What happens, in lines.
    pub words: Vec<String>,
    /// Why it can't go on.
    pub error: Option<String>,
    /// Moves of the plan scrolled down by.
    pub scroll: usize,
    /// What an operation is wished for, once the form is filled in.
    pub wish: Option<Wish>,
    /// Whether the button that does it is there at all.
    pub can: bool,
}

impl Dialog {
    fn new(deed: Deed, stage: Stage) -> Self {
        Self {
            deed,
            stage,
            inputs: Vec::new(),
            focus: 0,
            words: Vec::new(),
            error: None,
            scroll: 0,
            wish: None,
            can: true,
        }
    }

    /// The place of Cancel among what has the keys.
    pub fn cancel(&self) -> usize {
        self.inputs.len()
    }

    /// The place of the button that does it.
    pub fn go(&self) -> usize {
        self.inputs.len() + 1
    }

    /// The input with this label.
    pub fn input(&self, label: &str) -> Option<&Input> {
        self.inputs.iter().find(|i| i.label == label)
    }

    fn text(&self, label: &str) -> &str {
        self.input(label).map_or("", |i| i.text.as_str())
    }

    fn is_on(&self, label: &str) -> bool {
        self.input(label).is_some_and(Input::on)
    }

    /// Why the button does nothing yet; none if it does.
    pub fn locked(&self) -> Option<String> {
        if !self.can {
            return Some("this can't be done from here".to_owned());
        }
        let typed = self.inputs.iter().find_map(|i| match &i.kind {
            Kind::Typed(word) if &i.text != word => Some(format!("type {word} to unlock this")),
            _ => None,
        });
        let nothing = match &self.stage {
            Stage::Plan(p) if p.moves.is_empty() && p.wish.kind != OperationKind::ScaleIn => {
                Some("nothing would move: there is nothing to do".to_owned())
            }
            Stage::Asking(_) => Some("the plan is on its way".to_owned()),
            _ => None,
        };
        typed.or(nothing)
    }

    /// The title.
    pub fn title(&self) -> String {
        match &self.deed {
            Deed::ScaleOut => "Scale out".to_owned(),
            Deed::ScaleIn => "Scale in".to_owned(),
            Deed::Rebalance => "Rebalance".to_owned(),
            Deed::Switch => "Switch master".to_owned(),
            Deed::Pause(id) => format!("Pause operation #{id}"),
            Deed::Resume(id) => format!("Resume operation #{id}"),
            Deed::Cancel(id) => format!("Cancel operation #{id}"),
            Deed::Forget => "Forget a dead node".to_owned(),
            Deed::Process(act, who) => {
                let verb = match act {
                    ProcessAct::Kill => "Kill",
                    ProcessAct::Pause => "Pause",
                    ProcessAct::Resume => "Resume",
                    ProcessAct::Restart => "Restart",
                };
                format!("{verb} the process {who}")
            }
            Deed::SetKey => "Set a key".to_owned(),
            Deed::DeleteKey(_) => "Delete a key".to_owned(),
        }
    }

    /// The word on the button that does it.
    pub fn verb(&self) -> &'static str {
        match (&self.stage, &self.deed) {
            (Stage::Form | Stage::Asking(_), _) => "Plan",
            (Stage::Plan(_), _) => "Apply",
            (_, Deed::Switch) => "Switch",
            (_, Deed::Pause(_)) => "Pause",
            (_, Deed::Resume(_)) => "Resume",
            // Not "Cancel": that button closes the dialog.
            (_, Deed::Cancel(_)) => "Stop it",
            (_, Deed::Forget) => "Forget",
            (_, Deed::Process(ProcessAct::Kill, _)) => "Kill",
            (_, Deed::Process(ProcessAct::Pause, _)) => "Pause",
            (_, Deed::Process(ProcessAct::Resume, _)) => "Resume",
            (_, Deed::Process(ProcessAct::Restart, _)) => "Restart",
            (_, Deed::SetKey) => "Set",
            (_, Deed::DeleteKey(_)) => "Delete",
            (_, Deed::ScaleOut | Deed::ScaleIn | Deed::Rebalance) => "Apply",
        }
    }

    /// The command line that does the same.
    pub fn twin(&self, program: &str, local: bool) -> String {
        let t = Twin::of(program);
        let chosen = |label: &str| self.text(label).to_owned();
        let op = |verb: &str, id: &u64| Twin::of(program).words(["ops", verb]).word(&id.to_string()).line();
        match &self.deed {
            Deed::ScaleOut => {
                let names: Vec<String> =
                    self.wish.iter().flat_map(|w| w.nodes.iter().map(|n| n.as_str().to_owned())).collect();
                match (local, names.len(), self.input(form::HOW_MANY)) {
                    (true, 0, Some(count)) => t.word("add").word(&count.text).line(),
                    (true, n, _) => t.word("add").word(&n.max(1).to_string()).line(),
                    (false, 0, _) => t.word("add").word(&chosen(form::NODE)).line(),
                    (false, ..) => t.word("add").words(names.iter().map(String::as_str)).line(),
                }
            }
            Deed::ScaleIn => {
                let (node, force, loss) = match &self.wish {
                    Some(w) => (w.nodes.first().map_or(String::new(), |n| n.to_string()), w.force, w.accept_data_loss),
                    None => (chosen(form::NODE), self.is_on(form::FORCE), self.is_on(form::LOSS)),
                };
                t.word("remove").word(&node).flag(force, "--force").flag(loss, "--accept-data-loss").line()
            }
            Deed::Rebalance => t.word("rebalance").line(),
            Deed::Switch => t.words(["switchover", "--to"]).word(&chosen(form::MASTER)).line(),
            Deed::Pause(id) => op("pause", id),
            Deed::Resume(id) => op("resume", id),
            Deed::Cancel(id) => op("cancel", id),
            Deed::Forget => t.word("forget").word(&chosen(form::NODE)).word("--accept-data-loss").line(),
            Deed::Process(act, who) => t.process(*act, who).line(),
            Deed::SetKey => {
                let (key, value, ttl) = (chosen(form::KEY), chosen(form::VALUE), chosen(form::TTL));
                let t = t.word("set");
                let t = if ttl.trim().is_empty() { t } else { t.word("--ttl").word(ttl.trim()) };
                t.flag(key.starts_with('-') || value.starts_with('-'), "--").word(&key).word(&value).line()
            }
            Deed::DeleteKey(key) => t.word("del").flag(key.starts_with('-'), "--").word(key).line(),
        }
    }
}
