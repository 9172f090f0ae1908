//! Which nodes left by plan, as the masters know it: a removal may end long after the command that asked for it, and those asked for
//! in the TUI have none on this machine.

use std::time::Duration;

use super::state::{Home, Members, Role, Running};
use crate::cli::error::CliError;
use crate::cli::link;
use crate::proto::status::NodeState;

/// A cluster whose masters don't answer in this time has other troubles than a node too many.
const ASK: Duration = Duration::from_secs(2);

/// Records that they left, so that `up` does not revive them; what is recorded then. One that `stop` ended left too, but to come back.
pub async fn note(home: &Home, recorded: &Members, running: &Running) -> Result<Members, CliError> {
    let mut members = recorded.clone();
    let masters: Vec<String> = running.alive().filter(|p| p.role == Role::Master).map(|p| p.addr.clone()).collect();
    if masters.is_empty() || members.active().all(|m| running.process(&m.id).is_some_and(|p| p.identity.alive())) {
        return Ok(members);
    }
    let Ok(view) = link::status(&mut link::masters(&masters, ASK)).await else {
        return Ok(members);
    };
    for m in members.members.iter_mut().filter(|m| m.role == Role::Node && !m.stopped) {
        m.removed |= view.status.nodes.iter().any(|n| n.id == m.id && n.state == NodeState::Left);
    }
    if members != *recorded {
        home.put_members(&members)?;
    }
    Ok(members)
}
