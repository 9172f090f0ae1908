//! CLUSTER, and what else Redis Cluster clients send about the cluster. What they are told comes from `topology`.

use super::context::{ConnCtx, NodeCtx};
use super::error::{ErrorReply, quoted};
use super::parse::int_arg;
use super::spec::{Spec, acl, flag};
use super::topology::redis_id;
use crate::node::cache::store::Role;
use crate::proto::reply::Reply;
use crate::proto::slot::{SLOTS, Slot};

const STALE: u16 = flag::STALE;
const NONDETERMINISTIC: &[&str] = &["nondeterministic_output"];

const fn sub(name: &'static str, arity: i16, body: super::context::NodeFn) -> Spec {
    Spec::node(name, arity, body).with(STALE, 0)
}

const SUBCOMMANDS: &[Spec] =
    &[
        sub("cluster|countkeysinslot", 3, countkeysinslot).doc(
            "cluster",
            "3.0.0",
            "<slot>",
            "How many keys a slot of this node holds.",
        ),
        sub("cluster|getkeysinslot", 4, getkeysinslot)
            .tips(NONDETERMINISTIC)
            .complexity("O(N) with N keys returned")
            .doc("cluster", "3.0.0", "<slot> <count>", "Up to <count> keys of a slot of this node."),
        sub("cluster|digest", 4, digest).tips(NONDETERMINISTIC).complexity("O(N) with N bytes in these slots").doc(
            "cluster",
            "7.0.0",
            "<first> <last>",
            "cachectl: what this node holds of each of these slots: slot, role, pterm, seq, keys, digest.",
        ),
        Spec::conn("cluster|help", 2, super::introspect::help).with(flag::LOADING | flag::STALE, 0).doc(
            "cluster",
            "5.0.0",
            "",
            "This text.",
        ),
        sub("cluster|info", 2, info).tips(NONDETERMINISTIC).doc(
            "cluster",
            "3.0.0",
            "",
            "The cluster in numbers, as this node knows it.",
        ),
        sub("cluster|keyslot", 3, keyslot).complexity("O(N) with N bytes of key").doc(
            "cluster",
            "3.0.0",
            "<key>",
            "The slot a key belongs to.",
        ),
        sub("cluster|links", 2, links).tips(NONDETERMINISTIC).doc(
            "cluster",
            "7.0.0",
            "",
            "Links of the gossip bus: none, there is no such bus.",
        ),
        sub("cluster|myid", 2, myid).doc("cluster", "3.0.0", "", "This node's id."),
        sub("cluster|nodes", 2, nodes).tips(NONDETERMINISTIC).complexity("O(N) with N nodes").doc(
            "cluster",
            "3.0.0",
            "",
            "One line a node: id, address, flags, epoch, slots.",
        ),
        Spec::node("cluster|replicas", 3, replicas).with(flag::ADMIN | flag::STALE, 0).tips(NONDETERMINISTIC).doc(
            "cluster",
            "5.0.0",
            "<node-id>",
            "Replicas of a node: none, backups are not announced.",
        ),
        sub("cluster|shards", 2, shards).tips(NONDETERMINISTIC).complexity("O(N) with N nodes").doc(
            "cluster",
            "7.0.0",
            "",
            "Every node with its slots.",
        ),
        Spec::node("cluster|slaves", 3, replicas).with(flag::ADMIN | flag::STALE, 0).tips(NONDETERMINISTIC).doc(
            "cluster",
            "3.0.0",
            "<node-id>",
            "The old name of REPLICAS.",
        ),
        sub("cluster|slots", 2, slots).tips(NONDETERMINISTIC).complexity("O(N) with N runs of slots").doc(
            "cluster",
            "3.0.0",
            "",
            "Every run of slots with its primary.",
        ),
    ];

pub(super) const COMMANDS: &[Spec] = &[
    Spec::conn("asking", 1, asking).with(flag::FAST, acl::CONNECTION).doc(
        "cluster",
        "3.0.0",
        "",
        "Accepted; ownership moves at once here, so nobody is asked to ask.",
    ),
    Spec::container("cluster", SUBCOMMANDS).doc("cluster", "3.0.0", "", "About the cluster."),
    Spec::conn("readonly", 1, readonly).with(flag::LOADING | flag::STALE | flag::FAST, acl::CONNECTION).doc(
        "cluster",
        "3.0.0",
        "",
        "Accepted; backups answer MOVED all the same.",
    ),
    Spec::conn("readwrite", 1, readwrite).with(flag::LOADING | flag::STALE | flag::FAST, acl::CONNECTION).doc(
        "cluster",
        "3.0.0",
        "",
        "Takes READONLY back.",
    ),
];

fn asking(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.conn.asking = true;
    c.out.ok();
    Ok(())
}

fn readonly(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.conn.readonly = true;
    c.out.ok();
    Ok(())
}

fn readwrite(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.conn.readonly = false;
    c.out.ok();
    Ok(())
}

fn info(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.verbatim(c.host.cluster().info());
    Ok(())
}

fn nodes(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.verbatim(c.host.cluster().nodes());
    Ok(())
}

fn slots(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.raw(c.host.cluster().slots(c.out.proto()));
    Ok(())
}

fn shards(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.raw(c.host.cluster().shards(c.out.proto()));
    Ok(())
}

fn links(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.array(0);
    Ok(())
}

fn myid(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.bulk(redis_id(&c.host.cluster().me().id).as_bytes());
    Ok(())
}

fn keyslot(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.int(i64::from(Slot::of_key(&c.args[2]).0));
    Ok(())
}

fn replicas(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let asked = &c.args[2];
    let view = c.host.cluster();
    let known = view.config().members.keys().chain([&view.me().id]).any(|id| redis_id(id).as_bytes() == asked);
    if !known {
        return Err(ErrorReply::of(&[b"ERR Unknown node ", quoted(asked, asked.len())]));
    }
    c.out.array(0);
    Ok(())
}

fn slot_number(n: i64) -> Option<Slot> {
    u16::try_from(n).ok().filter(|&n| usize::from(n) < SLOTS).map(Slot)
}

fn countkeysinslot(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let slot = slot_number(int_arg(&c.args[2])?).ok_or(ErrorReply::text("ERR Invalid slot"))?;
    let mut keys = 0;
    c.host.with_shard(c.host.shard_of(slot), &mut |store| {
        if matches!(store.role(slot), Role::Primary { .. }) {
            keys = store.slot_stats(slot).keys;
        }
    });
    c.out.int(keys as i64);
    Ok(())
}

/// So many slots one CLUSTER DIGEST reads at most: it holds a loop turn up.
pub const DIGEST_SLOTS_MAX: usize = 64;

fn digest(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let (first, last) = (int_arg(&c.args[2])?, int_arg(&c.args[3])?);
    let range = slot_number(first).zip(slot_number(last)).filter(|(f, l)| f <= l && l.ix() - f.ix() < DIGEST_SLOTS_MAX);
    let (first, last) = range.ok_or(ErrorReply::text("ERR Invalid range of slots: at most 64 of them"))?;
    c.out.array(last.ix() - first.ix() + 1);
    for slot in (first.0..=last.0).map(Slot) {
        let held = c.host.held(slot);
        c.out.array(6);
        c.out.int(i64::from(slot.0));
        c.out.bulk(held.role.as_bytes());
        for n in [held.pterm, held.seq, held.keys] {
            c.out.int(n as i64);
        }
        c.out.bulk(format!("{:016x}", held.digest).as_bytes());
    }
    Ok(())
}

fn getkeysinslot(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let (slot, count) = (int_arg(&c.args[2])?, int_arg(&c.args[3])?);
    let (slot, count) = slot_number(slot)
        .zip(usize::try_from(count).ok())
        .ok_or(ErrorReply::text("ERR Invalid slot or number of keys"))?;
    let (now, proto) = (c.host.now(), c.out.proto());
    let (mut body, mut n) = (Vec::new(), 0);
    c.host.with_shard(c.host.shard_of(slot), &mut |store| {
        super::scan::keys_of_slot(store, slot, now, &mut |key| {
            if n < count {
                Reply::new(&mut body, proto).bulk(key);
                n += 1;
            }
            n < count
        });
    });
    c.out.array(n);
    c.out.raw(&body);
    Ok(())
}
