//! The command line of operators: scaling, operations, leadership, single processes.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::units::parse_duration;
use crate::proto::id::{MasterId, NodeId};

/// `add`
#[derive(Debug, Clone, Args)]
pub struct AddArgs {
    /// How many nodes a local cluster shall get, or which nodes shall get a share [default: 1]
    #[arg(value_name = "COUNT|NODE", value_parser = count_or_node)]
    pub what: Vec<CountOrNode>,
    /// Show what would move, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Return once it is accepted
    #[arg(long)]
    pub no_wait: bool,
}

/// What `add` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountOrNode {
    /// So many new ones.
    Count(usize),
    /// This one.
    Node(NodeId),
}

fn count_or_node(text: &str) -> Result<CountOrNode, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return super::nodes_count(text).map(CountOrNode::Count);
    }
    NodeId::new(text).map(CountOrNode::Node).map_err(|e| e.to_string())
}

/// `remove`
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// Which nodes
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<NodeId>,
    /// Show what would move, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Declare them dead instead of draining them
    #[arg(long)]
    pub force: bool,
    /// Go on also where the last copy of something goes
    #[arg(long)]
    pub accept_data_loss: bool,
    /// Return once it is accepted
    #[arg(long)]
    pub no_wait: bool,
}

/// `rebalance`
#[derive(Debug, Clone, Args)]
pub struct RebalanceArgs {
    /// Show what would move, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Return once it is accepted
    #[arg(long)]
    pub no_wait: bool,
}

/// `switchover`
#[derive(Debug, Clone, Args)]
pub struct SwitchoverArgs {
    /// The master that shall lead [default: the most caught-up other one]
    #[arg(long, value_name = "MASTER")]
    pub to: Option<MasterId>,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `ops`
#[derive(Debug, Clone, Args)]
pub struct OpsArgs {
    /// What to do; `ls` if nothing is said
    #[command(subcommand)]
    pub command: Option<OpsCommand>,
}

/// `ops …`
#[derive(Debug, Clone, Subcommand)]
pub enum OpsCommand {
    /// List the open operations and the last ten
    Ls,
    /// One operation: its steps, who gives what to whom, rate and time left
    Show(OpArg),
    /// Let an operation finish its batch and wait
    Pause(OpArg),
    /// Let a paused operation go on
    Resume(OpArg),
    /// End an operation; what it has moved stays moved
    Cancel(OpArg),
}

/// Which operation.
#[derive(Debug, Clone, Copy, Args)]
pub struct OpArg {
    /// Its number, as `ops ls` shows it
    #[arg(value_name = "ID", value_parser = operation_id)]
    pub id: u64,
}

fn operation_id(text: &str) -> Result<u64, String> {
    text.trim_start_matches('#').parse().map_err(|_| "an operation is named by its number, as in `ops show 17`".into())
}

/// `forget`
#[derive(Debug, Clone, Args)]
pub struct ForgetArgs {
    /// Which node
    #[arg(value_name = "NODE")]
    pub node: NodeId,
    /// What only it held is lost, also if it still lives somewhere
    #[arg(long)]
    pub accept_data_loss: bool,
}

/// `start`
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// Which: m1, n2, …
    #[arg(required = true)]
    pub who: Vec<String>,
    /// How long each may take until it takes part
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `stop`
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// Which: m1, n2, …
    #[arg(required = true)]
    pub who: Vec<String>,
    /// How long each may take to end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `restart`
#[derive(Debug, Clone, Args)]
pub struct RestartArgs {
    /// Which: m1, n2, …
    #[arg(required_unless_present = "rolling", conflicts_with = "rolling")]
    pub who: Vec<String>,
    /// All, one by one: nodes first, then masters, the leading one last; goes on when the cluster is ok
    #[arg(long)]
    pub rolling: bool,
    /// How long each may take to end, and then until the cluster is ok
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `chaos`
#[derive(Debug, Clone, Args)]
pub struct ChaosArgs {
    /// What to do to them
    #[command(subcommand)]
    pub command: ChaosCommand,
}

/// `chaos …`
#[derive(Debug, Clone, Subcommand)]
pub enum ChaosCommand {
    /// End them at once, as a crash would (SIGKILL); `start` or `up` starts them again
    Kill(WhoArgs),
    /// Stop their clocks, as a long pause of the machine would (SIGSTOP)
    Pause(WhoArgs),
    /// Let paused ones go on (SIGCONT)
    Resume(WhoArgs),
}

/// Which processes.
#[derive(Debug, Clone, Args)]
pub struct WhoArgs {
    /// Which: m1, n2, …
    #[arg(required = true)]
    pub who: Vec<String>,
}
