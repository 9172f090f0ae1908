//! Masters that die, stop, are cut off or run out of disk; and what passes between them and the nodes, mangled.

use std::time::Duration;

use cachectl::proto::control::{AddCacheServer, Message};
use cachectl::proto::id::{HomeId, Incarnation, NodeId, Ref};
use cachectl::proto::status::{Health, NodeState};

use super::alone;
use super::common::wait_for;
use super::fleet::{Fleet, MASTER_PORT, Plan, is, is_backed, node};
use super::load::Shape;
use super::proxy::{Mangle, Proxy};

const SOME: u64 = 300;

/// Nobody was declared dead: every node lives its first life.
fn assert_same_lives(f: &Fleet, before: &cachectl::proto::status::WatchView) {
    let now = f.wait_all();
    for n in f.nodes() {
        assert_eq!(node(&now, &n).incarnation, node(before, &n).incarnation, "{n} was declared dead");
    }
    assert!(f.events_of("node-dead").is_empty());
}

#[test]
fn s08_a_minority_leader_that_keeps_talking() {
    let _alone = alone();
    let f = Fleet::up();
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let old = f.leader();
    let others: Vec<String> = f.masters().into_iter().filter(|m| *m != old).collect();
    // Nodes and clients still hear it; only the other masters don't.
    f.net.cut(&[&old], &others.iter().map(String::as_str).collect::<Vec<_>>());
    let new = wait_for("the majority to elect", || {
        let v = others.iter().find_map(|m| f.view_of(m))?;
        v.status.leader.filter(|l| *l != old)
    });
    assert!(others.contains(&new));
    wait_for("the old one to know that it leads no more", || {
        let v = f.view_of(&old)?;
        (v.status.leader.as_deref() != Some(old.as_str())).then_some(())
    });
    load.wait_more(SOME);
    f.net.heal();
    assert_same_lives(&f, &before);

    // One way only: its heartbeats still reach the others, their answers don't reach it.
    let old = f.leader();
    for m in f.masters().iter().filter(|m| **m != old) {
        f.net.cut_one_way(m, &old);
    }
    std::thread::sleep(Duration::from_secs(3));
    load.wait_more(SOME);
    f.net.heal();
    assert_same_lives(&f, &before);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
    done.assert_undisturbed();
}

#[test]
fn s09_leader_paused_10_s() {
    let _alone = alone();
    let f = Fleet::up();
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let old = f.leader();
    f.pause(&old);
    let v = f.wait("another leader", |v| v.status.leader.as_ref().is_some_and(|l| *l != old));
    assert_eq!(v.status.state, Health::Degraded, "a master is away");
    std::thread::sleep(Duration::from_secs(9));
    f.resume(&old);
    assert_same_lives(&f, &before);
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
    done.assert_undisturbed();
}

#[test]
fn s10_a_single_master_paused_10_s() {
    let _alone = alone();
    let f = Fleet::start(Plan { masters: 1, ..Plan::default() });
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    f.pause("m1");
    std::thread::sleep(Duration::from_secs(10));
    f.resume("m1");
    // It judges nobody for the time it was itself away.
    std::thread::sleep(Duration::from_secs(3));
    assert_same_lives(&f, &before);
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
    done.assert_undisturbed();
}

#[test]
fn s11_all_masters_dead_for_30_s() {
    let _alone = alone();
    let mut f = Fleet::up();
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    f.kill_all(&["m1", "m2", "m3"]);
    std::thread::sleep(Duration::from_secs(30));
    load.wait_more(SOME);
    f.start_all();
    assert_same_lives(&f, &before);
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
    done.assert_undisturbed();
}

#[test]
fn s26_a_masters_log_disk_is_full_and_a_log_has_a_torn_tail() {
    let _alone = alone();
    let mut f = Fleet::prepare(Plan::default());
    let disks: Vec<Disk> = f.masters().iter().map(|m| Disk::mount(f.data(m))).collect();
    f.start_all();
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let old = f.leader();
    let full = &disks[f.masters().iter().position(|m| *m == old).expect("a master")];
    full.fill();
    // Every entry needs room: lives of a node that is on standby and never beats.
    let (mut life, mut last) = (0, None);
    while f.runs(&old) {
        life += 1;
        assert!(life < 5000, "{old} still runs on a full disk");
        last = stranger(&f, life, last);
    }
    assert_ne!(f.wait_end(&old), Some(0));
    let log = f.log(&old);
    assert!(log.contains("No space left") || log.contains("os error 28"), "it says why:\n{log}");
    f.wait("another leader", |v| v.status.leader.as_ref().is_some_and(|l| *l != old));
    load.wait_more(SOME);
    // With room it goes on from what it had.
    full.empty();
    f.run(&old);
    f.wait("all masters", |v| v.status.masters.iter().all(|m| m.alive));

    // Killed while it writes, and what it wrote last is cut short.
    let torn = f.masters().into_iter().find(|m| *m != f.leader()).expect("a follower");
    f.kill(&torn);
    let file = f.data(&torn).join("raft.redb");
    let whole = std::fs::read(&file).expect("its log");
    std::fs::write(&file, &whole[..whole.len() * 2 / 3]).expect("its log");
    f.run(&torn);
    assert_ne!(f.wait_end(&torn), Some(0));
    assert!(f.log(&torn).contains("is damaged"), "it says so:\n{}", f.log(&torn));
    // The others go on, and nothing was overwritten: with the file restored it is back.
    load.wait_more(SOME);
    std::fs::write(&file, &whole).expect("its log");
    f.run(&torn);
    f.wait("all masters", |v| v.status.masters.iter().all(|m| m.alive));
    load.wait_more(SOME);
    let now = f.wait("everybody", is_backed);
    for n in f.nodes() {
        assert_eq!(node(&now, &n).incarnation, node(&before, &n).incarnation, "{n} was declared dead");
    }
    let done = load.end();
    println!("{life} entries until the disk was full; {}", done.line());
    done.check(&mut f.client());
    done.assert_undisturbed();
    drop(f);
}

#[test]
fn s30_duplicated_delayed_reordered_control_messages() {
    let _alone = alone();
    let mut f = Fleet::prepare(Plan::default());
    let mut proxies = Vec::new();
    // Between every node and every master, and among the masters.
    for from in f.nodes().into_iter().chain(f.masters()) {
        for to in f.masters().into_iter().filter(|to| *to != from) {
            let at = f.host(&to).at(MASTER_PORT);
            proxies.push(Proxy::lines(f.host(&from), at, f.host("c2"), f.plan.seed + proxies.len() as u64));
        }
    }
    f.start_all();
    f.wait_ok();
    for p in &proxies {
        p.mangle(Mangle { duplicate: 0.3, reorder: 0.2, delay: Duration::from_millis(60) });
    }
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    f.kill("n2");
    f.wait("n2 given up", |v| is(v, "n2", NodeState::Dead) && is_backed(v));
    f.run("n2");
    load.wait_more(SOME);
    let old = f.leader();
    f.kill(&old);
    f.wait("another leader", |v| v.status.leader.as_ref().is_some_and(|l| *l != old));
    load.wait_more(SOME);
    f.run(&old);
    let v = f.wait_all();
    assert_eq!(v.status.slots.lost_total, 0);
    for n in ["n1", "n3"] {
        let deaths = f.events_of("node-dead").into_iter().filter(|e| e.subject == n).count();
        assert_eq!(deaths, 0, "{n} lived on");
    }
    let (doubled, swapped) = proxies.iter().map(Proxy::counts).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert!(doubled > 100 && swapped > 50, "{doubled} lines duplicated, {swapped} reordered");
    let done = load.end();
    println!("{doubled} lines duplicated, {swapped} reordered; {}", done.line());
    done.check(&mut f.client());
}

#[test]
fn s31_leader_killed_between_two_refresh_ip_then_all_masters() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { nodes: 4, ..Plan::default() });
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    // n1 hears nothing of the masters; the others get the new configuration.
    for m in f.masters() {
        f.net.cut_one_way(&m, "n1");
    }
    f.kill("n4");
    f.wait("n4 given up", |v| is(v, "n4", NodeState::Dead));
    f.kill_all(&["m1", "m2", "m3"]);
    f.net.heal();
    // Who has the view hands it on: every slot serves, with nobody to ask.
    let mut c = f.client();
    for i in 0..200 {
        let key = format!("all{i}");
        wait_for("every slot to take a write", || {
            matches!(c.set(&key, b"v"), super::client::Outcome::Answer(_)).then_some(())
        });
    }
    load.wait_more(SOME);
    f.start_all_but("n4");
    let v = f.wait("the masters back", is_backed);
    assert_eq!(v.status.slots.lost_total, 0);
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut c);
}

/// A standby node that never was, in another life each time: an entry of the log.
/// Takes the last life that the masters know, and returns it as it is then.
fn stranger(f: &Fleet, life: u64, mut last: Option<Incarnation>) -> Option<Incarnation> {
    let node = Ref { id: NodeId::new("stranger").expect("a name"), incarnation: Incarnation(life) };
    let message = Message::AddCacheServer(AddCacheServer {
        node,
        home: HomeId(1),
        addr: "10.77.1.250:1".into(),
        peer_addr: "10.77.1.250:2".into(),
        zone: String::new(),
        weight: 1.0,
        standby: true,
        follows: last,
    });
    for m in f.masters() {
        match f.ask_from("c2", "stranger", &m, &message) {
            Some(Message::Added(_)) => last = Some(Incarnation(life)),
            Some(Message::LastLife(other)) => last = Some(other.node.incarnation),
            _ => {}
        }
    }
    last
}

/// A small disk of its own.
struct Disk {
    at: std::path::PathBuf,
}

impl Disk {
    fn mount(at: std::path::PathBuf) -> Disk {
        std::fs::create_dir_all(&at).expect("a directory");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&at).status();
        assert!(mounted.expect("mount of util-linux").success(), "mounting needs root");
        Disk { at }
    }

    /// To the last byte.
    fn fill(&self) {
        use std::io::Write;
        let mut f = std::fs::File::create(self.at.join("filler")).expect("a file");
        let block = [0u8; 4096];
        while f.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.at.join("filler")).expect("the filler");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.at).status());
    }
}
