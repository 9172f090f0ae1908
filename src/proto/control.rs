//! Control messages: one JSON object a line, in an envelope (`machine`, `type`, `id`, `data`).
//!
//! A line is at most [`LINE_MAX`]; an unknown field is ignored; an unknown type gets an ERROR and the connection stays;
//! a broken line gets an ERROR and is closed.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::Failure;
use super::id::{ClusterId, HomeId, Incarnation, LeaderId, MasterId, NodeId, Ref};
use super::operation::{Accepted, Apply, PlanView, Wish};
use super::slot::Slot;
use super::stats::{CopyStats, NodeStats};
use super::status::{NodeState, WatchView};
use super::view::View;

/// The longest line, bytes: a full view of 16384 one-slot ranges fits.
pub const LINE_MAX: usize = 8 << 20;
/// The envelope's version.
pub const ENVELOPE_V: u32 = 1;

/// What every line holds. `D` is the payload's type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope<D> {
    /// [`ENVELOPE_V`].
    pub v: u32,
    /// The sender's name: `n1`, `m2`, `cli`, `tui`.
    pub machine: String,
    /// Whose cluster; absent before a first registration and from people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// Message type, upper case.
    #[serde(rename = "type")]
    pub kind: String,
    /// Echoed by the answer; 0 = no answer belongs to it.
    #[serde(default)]
    pub id: u64,
    /// The payload.
    pub data: D,
}

/// Everything that travels between masters, nodes and operators on control connections.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// node → leader every 250 ms.
    KeepAlive(KeepAlive),
    /// leader → node.
    KeepAliveAck(KeepAliveAck),
    /// node or operator → leader: join.
    AddCacheServer(AddCacheServer),
    /// The answer to it.
    Added(Added),
    /// leader → node, instead of ADDED: another life of this name came first.
    LastLife(LastLife),
    /// Ask for (empty `view`) or bring the configuration.
    RefreshIp(RefreshIp),
    /// any master → anyone: who leads.
    RefreshMaster(RefreshMaster),
    /// node → leader, repeated until the view shows it: a learner holds everything and is counted.
    LearnerReady(LearnerReady),
    /// node → leader: an ack_set member does not confirm or renew its lease.
    Complain(Complain),
    /// operator → any master: one view.
    StatusRequest(Empty),
    /// The answer.
    StatusView(Box<WatchView>),
    /// operator → any master: a stream of StatusView on this connection.
    Watch(Empty),
    /// operator → leader: stop everything by plan.
    ClusterStop(Empty),
    /// leader → node: stop serving and confirm. node → leader: confirmed.
    Stop(StopOrder),
    /// operator → leader: hand leadership over.
    SwitchMaster(SwitchMaster),
    /// operator → leader: give up on a dead node and answer for what it held.
    Forget(Forget),
    /// operator → leader: what an operation would do; nothing is done.
    Plan(Wish),
    /// The answer.
    Planned(Box<PlanView>),
    /// operator → leader: do it as it was planned.
    Apply(Apply),
    /// The answer.
    Accepted(Box<Accepted>),
    /// operator → leader: drain a node and let it go, which is APPLY without a plan. leader → node: you are a member of no
    /// slot, stop.
    ShutdownCache(ShutdownCache),
    /// primary → leader, repeated until the view shows it: all members confirmed, nothing is written any more.
    Relinquish(Relinquish),
    /// operator → leader: pause an operation.
    Pause(OperationId),
    /// operator → leader: let it go on.
    Resume(OperationId),
    /// operator → leader: end it; what is committed stays.
    Cancel(OperationId),
    /// Done, where nothing else is to say.
    Ok(Empty),
    /// It failed; nothing happened unless the text says otherwise.
    Error(Failure),
}

/// No payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// Who beats.
    pub node: Ref,
    /// The configuration it stands at.
    pub cfg_index: u64,
    /// The highest leader it has seen.
    #[serde(default)]
    pub leader: Option<LeaderId>,
    /// For the view only.
    pub stats: NodeStats,
}

/// The leader heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeepAliveAck {
    /// Who answers.
    pub leader: LeaderId,
    /// What the leader has applied: pull when above yours.
    pub cfg_index: u64,
}

/// A node asks to be a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddCacheServer {
    /// Name and life.
    pub node: Ref,
    /// Its state directory.
    pub home: HomeId,
    /// Client address, host:port, as clients reach it.
    pub addr: String,
    /// Peer address, bound before this is sent.
    pub peer_addr: String,
    /// Failure domain.
    #[serde(default)]
    pub zone: String,
    /// Share of slots.
    pub weight: f64,
    /// Hold nothing until added by name.
    #[serde(default)]
    pub standby: bool,
    /// The life of this name that it follows, as LAST_LIFE said; none if it heard of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Incarnation>,
}

/// The last life of a name that the masters know. Who lives says that it follows that one; what a process said before it died,
/// and is read only now, ends nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLife {
    /// Name and life.
    pub node: Ref,
}

/// A member in the original design's `iplist`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpListEntry {
    /// Name.
    pub id: NodeId,
    /// Client address.
    pub addr: String,
    /// Life.
    pub incarnation: Incarnation,
    /// Where in its life.
    pub state: NodeState,
}

/// Registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// The cluster joined.
    pub cluster_id: ClusterId,
    /// The operation that gives it slots, if one was made.
    #[serde(default)]
    pub operation: Option<u64>,
    /// All members.
    pub iplist: Vec<IpListEntry>,
    /// Where it stands now.
    pub view: View,
}

/// Configuration asked for or brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefreshIp {
    /// In a request: what the asker has (0 = nothing), so that a delta may do.
    #[serde(default)]
    pub have: u64,
    /// All members, as the original design has it; in answers and pushes.
    #[serde(default)]
    pub iplist: Vec<IpListEntry>,
    /// In answers and pushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<View>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefreshMaster {
    /// None while nobody is known to lead.
    pub leader: Option<LeaderId>,
    /// The leader's address.
    pub addr: Option<String>,
    /// All masters: name, address.
    pub masters: Vec<(MasterId, String)>,
}

/// Slots whose learner is counted and holds everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnerReady {
    /// The primary that says so.
    pub primary: Ref,
    /// Which learner, of what.
    pub learner: Ref,
    /// slot, cver the primary stands at, since of the learner.
    pub slots: Vec<(Slot, u64, u64)>,
    /// What the primary copied to that node so far. Heartbeats say it too, but an operation may end before the next of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<CopyStats>,
}

/// A pair that stalls: the sender is primary, `about` its member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Complain {
    /// Who complains.
    pub from: Ref,
    /// About whom.
    pub about: Ref,
    /// For how long, milliseconds.
    pub for_ms: u64,
}

/// Stop serving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StopOrder {
    /// The configuration that orders it; a node behind it pulls first.
    pub cfg_index: u64,
    /// In a confirmation: who stopped.
    #[serde(default)]
    pub node: Option<Ref>,
}

/// Hand leadership over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwitchMaster {
    /// To whom; none = the most caught-up other one.
    #[serde(default)]
    pub to: Option<MasterId>,
}

/// Give up on a dead node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forget {
    /// Which.
    pub node: NodeId,
    /// What it held is lost on the operator's word, also if it still lives somewhere. Refused without.
    #[serde(default)]
    pub accept_data_loss: bool,
}

/// Planned scale-in of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownCache {
    /// Whom.
    pub node: NodeId,
    /// From the leader: the configuration that orders it; the node stops only if its own view agrees.
    #[serde(default)]
    pub cfg_index: u64,
}

/// Slots that their primary gives up to the target of their handover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relinquish {
    /// Who gives.
    pub primary: Ref,
    /// slot, cver of the handover as the primary sees it, final seq.
    pub slots: Vec<(Slot, u64, u64)>,
}

/// An operation, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationId {
    /// As `status` shows it.
    pub operation: u64,
}

macro_rules! kinds {
    ($($variant:ident = $name:literal),* $(,)?) => {
        impl Message {
            /// The word in `type`.
            pub fn kind(&self) -> &'static str {
                match self { $(Message::$variant(_) => $name,)* }
            }

            fn payload<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                match self { $(Message::$variant(d) => d.serialize(s),)* }
            }

            fn parse(kind: &str, data: &RawValue) -> Result<Message, Failure> {
                match kind {
                    $($name => serde_json::from_str(data.get())
                        .map(Message::$variant)
                        .map_err(|e| Failure::new("BAD_DATA", format!("{kind}: {e}"))),)*
                    other => Err(Failure::new("UNKNOWN_TYPE", format!("no message type {other:?}"))),
                }
            }
        }
    };
}

kinds! {
    KeepAlive = "KEEP_ALIVE",
    KeepAliveAck = "KEEP_ALIVE_ACK",
    AddCacheServer = "ADD_CACHE_SERVER",
    Added = "ADDED",
    LastLife = "LAST_LIFE",
    RefreshIp = "REFRESH_IP",
    RefreshMaster = "REFRESH_MASTER",
    LearnerReady = "LEARNER_READY",
    Complain = "COMPLAIN",
    StatusRequest = "STATUS",
    StatusView = "VIEW",
    Watch = "WATCH",
    ClusterStop = "CLUSTER_STOP",
    Stop = "STOP",
    SwitchMaster = "SWITCH_MASTER",
    Forget = "FORGET",
    Plan = "PLAN",
    Planned = "PLANNED",
    Apply = "APPLY",
    Accepted = "ACCEPTED",
    ShutdownCache = "SHUTDOWN_CACHE",
    Relinquish = "RELINQUISH",
    Pause = "PAUSE",
    Resume = "RESUME",
    Cancel = "CANCEL",
    Ok = "OK",
    Error = "ERROR",
}

struct Payload<'a>(&'a Message);

impl Serialize for Payload<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.payload(s)
    }
}

/// A line that came in, its envelope checked, its payload typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The sender's name, as claimed.
    pub machine: String,
    /// Whose cluster, as claimed.
    pub cluster_id: Option<ClusterId>,
    /// To echo.
    pub id: u64,
    /// What it says; an unknown type or bad payload leaves the connection open.
    pub message: Result<Message, Failure>,
}

/// Writes one line, newline included.
pub fn encode(machine: &str, cluster_id: Option<ClusterId>, id: u64, message: &Message) -> Vec<u8> {
    let envelope = Envelope {
        v: ENVELOPE_V,
        machine: machine.to_owned(),
        cluster_id,
        kind: message.kind().to_owned(),
        id,
        data: Payload(message),
    };
    // Serialising our own types into memory cannot fail: no map has a non-string key.
    let mut line = serde_json::to_vec(&envelope).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads one line without its newline. An error here means the line is broken and the connection ends.
pub fn decode(line: &[u8]) -> Result<Incoming, Failure> {
    if line.len() > LINE_MAX {
        return Err(Failure::new("LINE_TOO_LONG", format!("a line is at most {LINE_MAX} bytes")));
    }
    let e: Envelope<&RawValue> = serde_json::from_slice(line).map_err(|e| Failure::new("BAD_LINE", e.to_string()))?;
    if e.v != ENVELOPE_V {
        return Err(Failure::new("BAD_VERSION", format!("envelope version {} is not {ENVELOPE_V}", e.v)));
    }
    Ok(Incoming { machine: e.machine, cluster_id: e.cluster_id, id: e.id, message: Message::parse(&e.kind, e.data) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_wire() {
        let m = Message::SwitchMaster(SwitchMaster { to: Some(MasterId::new("m2").unwrap()) });
        let line = encode("cli", Some(ClusterId(3)), 7, &m);
        assert_eq!(
            std::str::from_utf8(&line).unwrap(),
            "{\"v\":1,\"machine\":\"cli\",\"cluster_id\":\"0000000000000003\",\"type\":\"SWITCH_MASTER\",\"id\":7,\"data\":{\"to\":\"m2\"}}\n"
        );
        let back = decode(&line[..line.len() - 1]).unwrap();
        assert_eq!((back.id, back.message), (7, Ok(m)));
    }

    #[test]
    fn what_is_unknown_stays_what_is_broken_closes() {
        let unknown = decode(br#"{"v":1,"machine":"x","type":"DANCE","id":1,"data":{},"extra":1}"#).unwrap();
        assert_eq!(unknown.message.unwrap_err().code, "UNKNOWN_TYPE");
        let bad = decode(br#"{"v":1,"machine":"x","type":"KEEP_ALIVE","id":1,"data":{}}"#).unwrap();
        assert_eq!(bad.message.unwrap_err().code, "BAD_DATA");
        for broken in [&b"{"[..], b"[]", b"\xff", br#"{"v":2,"machine":"x","type":"OK","data":{}}"#] {
            assert!(decode(broken).is_err());
        }
    }
}
