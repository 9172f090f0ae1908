//! What a node answers over HTTP on its peer port: metrics, whether it lives, whether it serves, and what is hot.

use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::heat::SAMPLE;
use super::node::Node;
use super::stats::CLASSES;
use crate::node::health::exposition::{Exposition, Type};
use crate::node::health::http::Request;
use crate::node::health::process::Process;
use crate::proto::status::NodeState;

/// Keys of `/hotkeys`.
const HOT_KEYS: usize = 20;

/// Answers one request.
pub fn answer(node: &Node, request: &Request) -> Vec<u8> {
    match request.path.as_str() {
        "/metrics" => {
            let mut e = Exposition::new(request.format);
            expose(node, &mut e);
            request.metrics(&e.finish())
        }
        // That it answers is the proof: this is the thread that beats and takes configurations in.
        "/healthz" => request.ok("ok\n"),
        "/readyz" => match ready(node) {
            Ok(()) => request.ok("ok\n"),
            Err(why) => request.unavailable(&format!("{why}\n")),
        },
        "/hotkeys" => request.json(&hot_keys(node)),
        "/heat" => {
            let slots: Vec<_> = node.heat.slots().into_iter().map(|(s, share)| json!([s, share])).collect();
            request.json(&format!("{}\n", json!({"schema": 1, "sampled_one_in": SAMPLE, "slots": slots})))
        }
        _ => request.not_found("there are /metrics, /healthz, /readyz, /hotkeys and /heat\n"),
    }
}

/// Whether it holds its share and serves it.
fn ready(node: &Node) -> Result<(), String> {
    if node.config.standalone {
        return Ok(());
    }
    if node.stopped.load(Ordering::Acquire) || *node.fenced.borrow() {
        return Err("it stops".into());
    }
    let view = node.view();
    if !view.is_live(&node.me) {
        return Err("no master has let it in yet".into());
    }
    match view.member(&node.me).map(|m| m.state) {
        Some(NodeState::Up) => Ok(()),
        Some(state) => Err(format!("its state is {state:?}").to_lowercase()),
        None => Err("it is no member".into()),
    }
}

/// Key names are no labels: there is no end to them, and scrapes are kept for long.
fn hot_keys(node: &Node) -> String {
    let keys: Vec<_> = node
        .heat
        .keys(HOT_KEYS)
        .into_iter()
        .map(|(key, share)| match String::from_utf8(key) {
            Ok(key) => json!({"key": key, "share": share}),
            Err(e) => json!({"key_b64": STANDARD.encode(e.as_bytes()), "share": share}),
        })
        .collect();
    format!("{}\n", json!({"schema": 1, "sampled_one_in": SAMPLE, "keys": keys}))
}

fn expose(node: &Node, e: &mut Exposition) {
    let (stats, c) = (node.stats(), &node.counters);
    let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed) as f64;
    Process::read().expose(e);
    e.family("cachectl_node_info", Type::Gauge, "Always 1; who this is.").sample(
        &[("id", node.me.id.as_str()), ("zone", &node.config.zone), ("cluster_id", &node.cluster().to_string())],
        1.0,
    );
    let ready_now = f64::from(u8::from(ready(node).is_ok()));
    e.family("cachectl_ready", Type::Gauge, "1 if it holds its share and serves it.").sample(&[], ready_now);
    e.family("cachectl_commands", Type::Counter, "Commands executed, by name.");
    for (spec, called) in node.calls.iter() {
        e.sample(&[("command", spec.name)], called.calls as f64);
    }
    e.family("cachectl_failed_commands", Type::Counter, "Commands answered with an error, by name.");
    for (spec, called) in node.calls.iter() {
        e.sample(&[("command", spec.name)], called.failed as f64);
    }
    e.family("cachectl_error_replies", Type::Counter, "Error replies, by their code.");
    for (code, n) in c.error_codes() {
        e.sample(&[("code", &code)], n as f64);
    }
    let classes: Vec<(&str, &super::stats::Histogram)> = CLASSES.iter().copied().zip(&c.classes).collect();
    e.histograms(
        "cachectl_command_duration_seconds",
        "From the read that brought a command to its execution's end, with what was read at once.",
        "class",
        &classes,
    );
    e.histograms(
        "cachectl_reply_hold_seconds",
        "How long replies waited until what they rest on was confirmed.",
        "outcome",
        &[("confirmed", &c.held)],
    );
    e.family("cachectl_keyspace_hits", Type::Counter, "Lookups that found their key.").sample(&[], stats.hits as f64);
    e.family("cachectl_keyspace_misses", Type::Counter, "Lookups that did not.").sample(&[], stats.misses as f64);
    e.family("cachectl_evicted_keys", Type::Counter, "Keys dropped for memory.").sample(&[], stats.evicted as f64);
    e.family("cachectl_expired_keys", Type::Counter, "Keys dropped at their deadline.")
        .sample(&[], stats.expired as f64);
    e.family("cachectl_connections", Type::Counter, "Client connections accepted.").sample(&[], read(&c.connections));
    e.family("cachectl_rejected_connections", Type::Counter, "Client connections refused above maxclients.")
        .sample(&[], read(&c.rejected));
    e.family("cachectl_connected_clients", Type::Gauge, "Client connections open.").sample(&[], stats.clients as f64);
    e.family("cachectl_waiting_clients", Type::Gauge, "Of these, such as wait for a confirmation or a slot.")
        .sample(&[], node.clients.waiting() as f64);
    e.family("cachectl_network_receive_bytes", Type::Counter, "Bytes read from clients.")
        .sample(&[], c.bytes_in.get() as f64);
    e.family("cachectl_network_transmit_bytes", Type::Counter, "Bytes sent to clients.")
        .sample(&[], c.bytes_out.get() as f64);
    e.family("cachectl_keys", Type::Gauge, "Keys held, by role.")
        .sample(&[("role", "primary")], stats.primary_keys as f64)
        .sample(&[("role", "backup")], stats.backup_keys as f64);
    e.family("cachectl_data_bytes", Type::Gauge, "Accounted bytes of keys, values and overhead, by role.")
        .sample(&[("role", "primary")], stats.primary_bytes as f64)
        .sample(&[("role", "backup")], stats.backup_bytes as f64);
    e.family("cachectl_memory_limit_bytes", Type::Gauge, "What --memory allows.")
        .sample(&[], stats.memory_limit as f64);
    let view = node.view();
    let count = |f: &dyn Fn(&crate::proto::view::SlotState) -> bool| view.slots.iter().filter(|s| f(s)).count() as f64;
    let primary = |s: &crate::proto::view::SlotState| s.primary.as_ref() == Some(&node.me);
    e.family("cachectl_slots", Type::Gauge, "Slots this node holds, by role.")
        .sample(&[("role", "primary")], count(&primary))
        .sample(&[("role", "backup")], count(&|s| !primary(s) && s.backups().any(|b| b.node == node.me)));
    e.family("cachectl_epoch", Type::Gauge, "Raft index of the configuration in force.")
        .sample(&[], view.cfg_index as f64);
    e.family("cachectl_replication_backlog_bytes", Type::Gauge, "Unconfirmed bytes towards the slowest peer.")
        .sample(&[], node.largest_backlog() as f64);
}
