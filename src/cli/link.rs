//! Asking masters, in the words of commands.

use std::time::Duration;

use super::context;
use super::error::{CliError, Exit};
use crate::proto::control::{Empty, Message};
use crate::proto::error::Failure;
use crate::proto::net::client::{ClientError, MasterClient, Repeat, Waits};
use crate::proto::net::operator;
use crate::proto::status::WatchView;

/// A client that gives up after `total`, or sooner when nobody can be connected to.
pub fn masters(addrs: &[String], total: Duration) -> MasterClient {
    let waits = Waits { total, per_try: total, ..Waits::default() };
    MasterClient::new(operator::name(), addrs.iter().cloned(), waits)
}

/// A client that asks everybody once and comes back.
pub fn once(addrs: &[String], total: Duration) -> MasterClient {
    let waits = Waits { total, per_try: total, connect: total, fail_fast: true };
    MasterClient::new(operator::name(), addrs.iter().cloned(), waits)
}

/// The view of the cluster: the leader's, or a follower's when none leads.
pub async fn status(client: &mut MasterClient) -> Result<WatchView, ClientError> {
    match client.request(&Message::StatusRequest(Empty {}), Repeat::Safe).await? {
        Message::StatusView(view) => Ok(*view),
        other => Err(unexpected(&other)),
    }
}

/// An answer of a type that answers something else.
pub fn unexpected(m: &Message) -> ClientError {
    ClientError::Refused(Failure::new("PROTOCOL", format!("a master answered with {}", m.kind())))
}

/// Nobody answered, or somebody said no.
pub fn unanswered(e: ClientError) -> CliError {
    let text = e.to_string();
    match e {
        ClientError::Unreachable(_) => {
            CliError::Failed(Exit::NotOk, Failure::new("UNREACHABLE", text)).hint(context::nobody_answers())
        }
        ClientError::Timeout(_) => CliError::Failed(Exit::NotOk, Failure::new("NO_LEADER", text))
            .hint("`cachectl status` shows which masters are away; a majority of them must run"),
        ClientError::Refused(f) => f.into(),
        ClientError::Unknown { .. } => {
            CliError::failed("UNKNOWN", text).hint("it may have happened or not: `cachectl status` shows how it is now")
        }
    }
}
