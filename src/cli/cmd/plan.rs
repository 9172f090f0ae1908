//! What `add`, `remove` and `rebalance` share: the plan is shown, then applied as it was shown, then followed.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Ctx, follow};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered, unexpected};
use crate::cli::output::{Out, Table, Tone, escape};
use crate::cli::units::{show_count, show_ms, show_size};
use crate::proto::control::Message;
use crate::proto::net::client::{ClientError, MasterClient, Repeat};
use crate::proto::operation::{Accepted, Apply, PlanView, Role, Wish};

/// How long the masters may take to plan and to accept: an election, and a commit on a busy disk.
pub const ASK: Duration = Duration::from_secs(10);
/// How often a plan that nobody confirmed is shown anew; while another operation moves slots it would never hold still.
const STALE_MAX: usize = 2;

/// What such a command says of itself with `-o json`.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The document's version.
    pub schema: u32,
    /// The cluster's name.
    pub cluster: String,
    /// `planned` (`--dry-run`), `nothing-to-do`, `accepted` (`--no-wait`) or how the operation ended.
    pub state: String,
    /// The operation, if one was made.
    pub operation: Option<u64>,
    /// Nodes whose processes were started.
    pub started: Vec<String>,
    /// What it moves; none if there is nothing to do.
    pub plan: Option<PlanView>,
    /// Since the command began.
    pub elapsed_ms: u64,
}

/// A command on its way.
pub struct Errand<'a> {
    /// The command's.
    pub ctx: &'a Ctx,
    /// The cluster's name, for words.
    pub cluster: String,
    /// Its masters.
    pub masters: Vec<String>,
    /// Who asks them.
    pub client: MasterClient,
    /// Since when.
    pub begun: Instant,
    /// Nodes whose processes were started.
    pub started: Vec<String>,
}

/// What came of an APPLY.
#[derive(Debug)]
pub enum Applied {
    /// It will be done; none = there was nothing to do.
    Accepted(Option<u64>, PlanView),
    /// The ring changed since; this is the plan now.
    Stale(PlanView),
}

impl<'a> Errand<'a> {
    /// Begins one.
    pub fn new(ctx: &'a Ctx, cluster: String, masters: Vec<String>) -> Self {
        let client = link::masters(&masters, ASK);
        Self { ctx, cluster, masters, client, begun: Instant::now(), started: Vec::new() }
    }

    /// What the wish would do; none = nothing.
    pub async fn plan(&mut self, wish: &Wish) -> Result<Option<PlanView>, CliError> {
        match self.client.request(&Message::Plan(wish.clone()), Repeat::Safe).await {
            Ok(Message::Planned(plan)) => Ok(Some(*plan)),
            Ok(other) => Err(unanswered(unexpected(&other))),
            Err(ClientError::Refused(f)) if f.code == "NOTHING_TO_DO" => {
                self.ctx.out.say(&format!("nothing to do: {}", escape(&f.message)));
                Ok(None)
            }
            Err(e) => Err(unanswered(e)),
        }
    }

    /// Does what was planned, and nothing else.
    pub async fn apply(&mut self, plan: PlanView) -> Result<Applied, CliError> {
        let bound = (Some(plan.epoch), Some(plan.moves_digest.clone()));
        self.send(plan, bound).await
    }

    async fn send(
        &mut self,
        plan: PlanView,
        (epoch, moves_digest): (Option<u64>, Option<String>),
    ) -> Result<Applied, CliError> {
        let newest = self.newest().await?;
        let wish = plan.wish.clone();
        let apply = Apply { wish: wish.clone(), epoch, moves_digest };
        match self.client.request(&Message::Apply(apply), Repeat::Unsafe).await {
            Ok(Message::Accepted(accepted)) => {
                let Accepted { operation, plan } = *accepted;
                Ok(Applied::Accepted(operation, plan))
            }
            Ok(other) => Err(unanswered(unexpected(&other))),
            Err(ClientError::Refused(f)) if f.code == "NOTHING_TO_DO" => Ok(Applied::Accepted(None, plan)),
            Err(ClientError::Refused(f)) if f.code == "STALE_PLAN" => match self.plan(&wish).await? {
                Some(plan) => Ok(Applied::Stale(plan)),
                None => Ok(Applied::Accepted(None, plan)),
            },
            // The leader may have gone with the answer: an operation that was not there before is ours.
            Err(ClientError::Unknown { addr, why }) => {
                let status = link::status(&mut self.client).await.map_err(unanswered)?.status;
                let same =
                    |nodes: &[String]| nodes.iter().map(String::as_str).eq(wish.nodes.iter().map(|n| n.as_str()));
                let ours =
                    status.operations.iter().find(|o| o.id > newest && o.kind == wish.kind.as_str() && same(&o.nodes));
                match ours {
                    Some(op) => Ok(Applied::Accepted(Some(op.id), plan)),
                    None => Err(unanswered(ClientError::Unknown { addr, why })),
                }
            }
            Err(e) => Err(unanswered(e)),
        }
    }

    /// Does what was planned, and as often as the ring changed meanwhile what is planned then: for what asks nobody.
    pub async fn apply_latest(&mut self, mut plan: PlanView) -> Result<(Option<u64>, PlanView), CliError> {
        for _ in 0..STALE_MAX {
            match self.apply(plan).await? {
                Applied::Accepted(operation, plan) => return Ok((operation, plan)),
                Applied::Stale(now) => {
                    self.ctx.out.say("the ring changed meanwhile; the plan is now:");
                    self.show(&now)?;
                    plan = now;
                }
            }
        }
        // Another operation moves slots all the while; this one waits behind it, and is planned when its turn comes.
        match self.send(plan, (None, None)).await? {
            Applied::Accepted(operation, plan) => Ok((operation, plan)),
            Applied::Stale(_) => Err(stale()),
        }
    }

    /// The newest operation's number.
    async fn newest(&mut self) -> Result<u64, CliError> {
        let view = link::status(&mut self.client).await.map_err(unanswered)?;
        Ok(view.status.operations.iter().map(|o| o.id).max().unwrap_or(0))
    }

    /// The plan, for people: on stderr, since it is no answer yet. With `--dry-run` it is, and goes through [`Errand::tell`].
    pub fn show(&self, plan: &PlanView) -> Result<(), CliError> {
        if !self.ctx.out.json() {
            self.ctx.out.say(describe(&self.ctx.out, plan).trim_end());
        }
        Ok(())
    }

    /// `--dry-run`: the plan is the answer.
    pub fn planned(self, plan: Option<PlanView>) -> CmdResult {
        if let Some(plan) = plan.as_ref().filter(|_| !self.ctx.out.json()) {
            self.ctx.out.raw(describe(&self.ctx.out, plan).as_bytes())?;
            self.ctx.out.say("nothing was done (--dry-run)");
        }
        let state = if plan.is_some() { "planned" } else { "nothing-to-do" };
        self.tell(state, None, plan)?;
        Ok(Exit::Done)
    }

    /// Waits for an operation to end, unless nobody wants to; `Detached` after Ctrl-C.
    pub async fn wait(&self, operation: Option<u64>, no_wait: bool) -> Result<(String, Exit), CliError> {
        let Some(id) = operation else { return Ok(("nothing-to-do".into(), Exit::Done)) };
        if no_wait {
            self.ctx.out.say(&format!("operation #{id} is accepted; `cachectl ops show {id}` follows it"));
            return Ok(("accepted".into(), Exit::Done));
        }
        follow::to_the_end(self.ctx, &self.masters, id).await
    }

    /// The document of `-o json`.
    pub fn tell(&self, state: &str, operation: Option<u64>, plan: Option<PlanView>) -> Result<(), CliError> {
        if !self.ctx.out.json() {
            return Ok(());
        }
        self.ctx.out.document(&Outcome {
            schema: 1,
            cluster: self.cluster.clone(),
            state: state.into(),
            operation,
            started: self.started.clone(),
            plan,
            elapsed_ms: self.elapsed_ms(),
        })
    }

    /// Since the command began.
    pub fn elapsed_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

/// The plan that was confirmed is not what would be done now.
pub fn stale() -> CliError {
    CliError::refused("STALE_PLAN", "the ring changed since the plan was made; nothing was done")
        .hint("look at the plan again, then repeat the command")
}

/// A plan as a table.
fn describe(out: &Out, plan: &PlanView) -> String {
    let w = &plan.wish;
    let nodes: Vec<&str> = w.nodes.iter().map(|n| n.as_str()).collect();
    let mut text = format!(
        "{} {}{}at epoch {}: {} slot moves, {} to copy{}\n",
        out.paint(Tone::Strong, w.kind.as_str()),
        escape(&nodes.join(", ")),
        if nodes.is_empty() { "" } else { " " },
        plan.epoch,
        plan.slots_total,
        show_size(plan.bytes),
        plan.estimate_ms.map(|ms| format!(", about {}", show_ms(ms))).unwrap_or_default()
    );
    if !plan.moves.is_empty() {
        let mut t = Table::new(&["FROM", "TO", "ROLE", ">SLOTS", ">KEYS", ">BYTES"]);
        for m in &plan.moves {
            let role = match m.role {
                Role::Primary => "primary",
                Role::Backup => "backup",
            };
            t.row(&[
                (m.from.as_ref().map_or("-", |n| n.as_str()), None),
                (m.to.as_str(), None),
                (role, None),
                (&m.slots.to_string(), None),
                (&show_count(m.keys as f64), None),
                (&show_size(m.bytes), None),
            ]);
        }
        text.push_str(&t.render(out, "  "));
    }
    for w in &plan.warnings {
        text.push_str(&format!("{} {}\n", out.paint(Tone::Warn, "warning:"), escape(w)));
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::context::{Said, Target};
    use crate::cli::output::{Color, Format};
    use crate::proto::error::Failure;
    use crate::proto::id::NodeId;
    use crate::proto::net::fake::{Fake, Say};
    use crate::proto::operation::{OperationKind, PlannedMove};
    use crate::proto::slot::Slot;
    use crate::proto::status::{Status, WatchView};

    pub fn ctx() -> Ctx {
        let target = Target { name: "x".into(), masters: Vec::new(), said: Said::Flag };
        Ctx { out: Out::new(Format::Table, Color::Never, true, false), target, color: Color::Never, yes: true }
    }

    pub fn plan(epoch: u64) -> PlanView {
        let n = |id: &str| NodeId::new(id).unwrap();
        PlanView {
            wish: Wish { kind: OperationKind::ScaleOut, nodes: vec![n("n4")], force: false, accept_data_loss: false },
            epoch,
            moves_digest: format!("{epoch:016x}"),
            moves: vec![PlannedMove {
                role: Role::Backup,
                from: Some(n("n1")),
                to: n("n4"),
                runs: vec![(Slot(0), Slot(4))],
                slots: 5,
                keys: 10_000,
                bytes: 1 << 20,
            }],
            slots_total: 5,
            bytes: 1 << 20,
            estimate_ms: Some(1500),
            warnings: vec!["zone \u{1b}[2J".into()],
        }
    }

    pub fn status(operations: &str) -> Status {
        serde_json::from_str(&format!(
            r#"{{"schema":1,"cluster":"x","cluster_id":"1","state":"ok","epoch":1,"term":1,"leader":"m1","masters":[],"nodes":[],
            "slots":{{"total":16384,"serving":16384,"solo":0,"orphan":0,"lost_total":0}},"operations":[{operations}]}}"#
        ))
        .unwrap()
    }

    pub fn operation(id: u64, state: &str, done: u64) -> String {
        format!(
            r#"{{"id":{id},"kind":"scale-out","state":"{state}","nodes":["n4"],"slots_total":8,"slots_done":{done},"keys_done":1,
            "bytes_done":2,"bytes_left":3,"rate_bytes_per_s":4,"eta_ms":5,"reason":null,"retries":0}}"#
        )
    }

    pub fn view(operations: &str) -> Say {
        Say::Answer(Message::StatusView(Box::new(WatchView {
            status: status(operations),
            slots: None,
            events: Vec::new(),
        })))
    }

    #[test]
    fn a_plan_says_who_gives_what_to_whom_and_nothing_hostile() {
        let text = describe(&Out::new(Format::Table, Color::Never, false, false), &plan(42));
        assert_eq!(
            text,
            "scale-out n4 at epoch 42: 5 slot moves, 1.0 MiB to copy, about 1.5s\n  \
             FROM  TO  ROLE    SLOTS   KEYS    BYTES\n  \
             n1    n4  backup      5  10.0k  1.0 MiB\n\
             warning: zone \\x1b[2J\n"
        );
    }

    #[tokio::test]
    async fn a_plan_that_nobody_confirmed_is_made_again_when_the_ring_changed() {
        let mut planned = 0;
        let master = Fake::start(move |_, m| match m {
            Message::StatusRequest(_) => view(""),
            Message::Plan(_) => {
                planned += 1;
                Say::Answer(Message::Planned(Box::new(plan(planned))))
            }
            Message::Apply(a) if a.epoch == Some(2) => {
                Say::Answer(Message::Accepted(Box::new(Accepted { operation: Some(9), plan: plan(2) })))
            }
            Message::Apply(a) if a.epoch.is_none() => {
                Say::Answer(Message::Accepted(Box::new(Accepted { operation: Some(10), plan: plan(7) })))
            }
            Message::Apply(_) => Say::Answer(Message::Error(Failure::new("STALE_PLAN", "no"))),
            other => panic!("{other:?}"),
        })
        .await;
        let ctx = ctx();
        let mut e = Errand::new(&ctx, "x".into(), vec![master.addr.clone()]);
        let first = e.plan(&plan(0).wish).await.unwrap().unwrap();
        assert_eq!(first.epoch, 1);
        let (op, now) = e.apply_latest(first).await.unwrap();
        assert_eq!((op, now.epoch), (Some(9), 2));
        // What a person confirmed is never replaced by something else.
        assert!(matches!(e.apply(plan(1)).await.unwrap(), Applied::Stale(p) if p.epoch == 3));
        // A ring that never holds still is no reason to do nothing, where nobody was asked.
        assert_eq!(e.apply_latest(plan(3)).await.unwrap().0, Some(10));
    }

    #[tokio::test]
    async fn an_answer_that_was_lost_is_looked_for_and_refusals_for_safety_exit_5() {
        let mut applied = false;
        let master = Fake::start(move |_, m| match m {
            Message::StatusRequest(_) if applied => {
                view(&[operation(3, "done", 8), operation(4, "running", 1)].join(","))
            }
            Message::StatusRequest(_) => view(&operation(3, "done", 8)),
            Message::Apply(_) => {
                applied = true;
                Say::Close
            }
            Message::Plan(_) => Say::Answer(Message::Error(Failure::new("LAST_NODE", "n1 is the last node"))),
            other => panic!("{other:?}"),
        })
        .await;
        let ctx = ctx();
        let mut e = Errand::new(&ctx, "x".into(), vec![master.addr.clone()]);
        assert!(matches!(e.apply(plan(1)).await.unwrap(), Applied::Accepted(Some(4), _)));
        let CliError::Failed(exit, f) = e.plan(&plan(1).wish).await.unwrap_err() else { panic!() };
        assert_eq!((exit, f.code.as_str()), (Exit::Refused, "LAST_NODE"));
    }
}
