//! What the data itself can do to a cluster: copies that race deletions, large values, slow links, clocks that jump.

use std::time::{Duration, Instant};

use cachectl::proto::slot::SLOTS;
use cachectl::proto::status::NodeState;
use cachectl::proto::value::Value;

use super::alone;
use super::client::{Client, Outcome};
use super::common::wait_for;
use super::fleet::{Fleet, MASTER_PORT, PEER_PORT, Plan, is, is_backed, node};
use super::load::{IMPATIENT, Shape};
use super::proxy::{Proxy, Slow};

const SOME: u64 = 300;

/// One node with everything, and one that is about to be copied to.
fn one_and_a_spare(flags: &'static [&'static str]) -> Fleet {
    let mut f = Fleet::start(Plan { nodes: 2, spare: 1, node_flags: flags, ..Plan::default() });
    f.kill("n2");
    f.wait("n2 given up", |v| is(v, "n2", NodeState::Dead) && v.status.slots.serving == SLOTS as u64);
    f
}

/// Slots that n3 is learner of, and slots that it is in sync of.
fn at_n3(f: &Fleet) -> (usize, usize) {
    let slots = f.slots();
    let count = |of: &dyn Fn(&cachectl::proto::view::SlotState) -> bool| slots.iter().filter(|s| of(s)).count();
    let is = |r: &cachectl::proto::view::Replica| r.node.id.as_str() == "n3";
    (count(&|s| s.learners.iter().any(is)), count(&|s| s.insync.iter().any(is)))
}

#[test]
fn s22_learner_restarted_between_ready_and_promote() {
    let _alone = alone();
    let mut f = one_and_a_spare(&[]);
    let load = f.load(Shape { clients: 4, value_len: 500, ..Shape::default() });
    load.wait_more(SOME * 4);
    let leader = f.leader();
    let followers: Vec<String> = f.masters().into_iter().filter(|m| *m != leader).collect();
    f.run("n3");
    wait_for("copies to begin", || (at_n3(&f).0 > 0).then_some(()));
    // Nothing can be committed any more: what is ready stays reported and not promoted.
    followers.iter().for_each(|m| f.pause(m));
    std::thread::sleep(Duration::from_millis(1500));
    let (waiting, promoted) = at_n3(&f);
    f.kill("n3");
    f.run("n3");
    followers.iter().for_each(|m| f.resume(m));
    let v = f.wait("n3 in sync, in its new life", |v| is(v, "n3", NodeState::Up) && is_backed(v));
    assert_eq!(v.status.slots.lost_total, 0);
    load.wait_more(SOME);
    // Whoever was promoted holds everything.
    f.kill("n1");
    f.wait("n3 alone", |v| is(v, "n1", NodeState::Dead) && v.status.slots.serving == SLOTS as u64);
    load.wait_more(SOME);
    let done = load.end();
    println!("{waiting} slots waited for PROMOTE, {promoted} had it; {}", done.line());
    assert!(waiting > 0, "the restart came too late to meet a learner");
    done.check(&mut f.client());
}

#[test]
fn s23_del_expiry_and_eviction_racing_the_copy() {
    let _alone = alone();
    let mut f = one_and_a_spare(&["--memory", "16mb"]);
    let mut c = f.client().patient(Duration::from_secs(15));
    // More than fits: the oldest are evicted, before the copy and while it runs.
    let keys: Vec<String> = (0..24_000).map(|i| format!("k{i}")).collect();
    let value = "v".repeat(800);
    let put = |c: &mut Client, keys: &[String], px: &str| {
        let commands: Vec<Vec<Vec<u8>>> = keys
            .iter()
            .map(|k| {
                let mut args = vec![b"SET".to_vec(), k.clone().into_bytes(), value.clone().into_bytes()];
                if !px.is_empty() {
                    args.extend([b"PX".to_vec(), px.into()]);
                }
                args
            })
            .collect();
        c.call_all(&commands)
    };
    put(&mut c, &keys[..20_000], "");
    let expiring: Vec<String> = (0..2000).map(|i| format!("e{i}")).collect();
    put(&mut c, &expiring, "1500");
    f.run("n3");
    wait_for("copies to begin", || (at_n3(&f).0 > 0).then_some(()));
    // Deletions all over the copy, and more evictions.
    let mut deleted = Vec::new();
    for (n, part) in keys[10_000..20_000].chunks(1000).enumerate() {
        let some: Vec<String> = part.iter().step_by(3).cloned().collect();
        let commands: Vec<Vec<Vec<u8>>> = some.iter().map(|k| vec![b"DEL".to_vec(), k.clone().into_bytes()]).collect();
        c.call_all(&commands);
        deleted.extend(some);
        put(&mut c, &keys[20_000 + n * 400..20_000 + (n + 1) * 400], "");
    }
    let raced = at_n3(&f);
    f.wait("n3 in sync", |v| is(v, "n3", NodeState::Up) && is_backed(v));
    std::thread::sleep(Duration::from_millis(1600));
    let all: Vec<String> = keys.iter().chain(&expiring).cloned().collect();
    let before = c.get_all(&all);
    let v = f.wait("figures", |v| v.status.leader.is_some());
    let (evicted, expired) = (node(&v, "n1").evicted, node(&v, "n1").expired);
    f.kill("n1");
    f.wait("n3 alone", |v| is(v, "n1", NodeState::Dead) && v.status.slots.serving == SLOTS as u64);
    let after = c.get_all(&all);
    let risen: Vec<&String> = all
        .iter()
        .zip(before.iter().zip(&after))
        .filter(|(_, (b, a))| b.is_none() && a.is_some())
        .map(|(k, _)| k)
        .collect();
    let lost = before.iter().zip(&after).filter(|(b, a)| b.is_some() && a.is_none()).count();
    let dead = before.iter().filter(|b| b.is_none()).count();
    println!(
        "{} keys: {dead} gone ({} deleted, {evicted} evicted, {expired} expired), copy at {raced:?}",
        all.len(),
        deleted.len()
    );
    assert!(risen.is_empty(), "{} rose from the dead: {:?}", risen.len(), &risen[..risen.len().min(5)]);
    assert_eq!(lost, 0, "what was there is there");
    assert!(evicted > 0, "memory was full");
    assert!(c.get_all(&deleted).iter().all(Option::is_none));
    assert!(c.get_all(&expiring).iter().all(Option::is_none));
}

#[test]
fn s24_values_of_64_mib_while_leases_run() {
    let _alone = alone();
    let f = Fleet::start(Plan { node_flags: &["--memory", "1gb"], ..Plan::default() });
    let before = f.wait_ok();
    let load = f.load(Shape { clients: 4, rest: Duration::from_millis(5), ..Shape::default() });
    load.wait_more(SOME);
    let mut c = f.client().patient(Duration::from_secs(60));
    let value: Vec<u8> = (0..64u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for n in ["n1", "n2", "n3"] {
        let key = f.key_at(n, None);
        let began = Instant::now();
        // The first try may only learn where the key is; what is uncertain is simply written again.
        wait_for("a large value to be acknowledged", || match c.set(&key, &value) {
            Outcome::Answer(Value::Simple(_)) => Some(()),
            other => {
                println!("{n}: {other:?}");
                None
            }
        });
        let wrote = began.elapsed();
        assert!(c.get(&key).as_deref() == Some(&value[..]), "{n}: not what was written");
        println!("{n}: written and backed after {wrote:?}, read after {:?}", began.elapsed());
    }
    load.wait_more(SOME);
    let now = f.wait_all();
    for n in f.nodes() {
        assert_eq!(node(&now, &n).incarnation, node(&before, &n).incarnation, "{n} was declared dead");
    }
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut c);
    // Whoever is behind such a value on a slow machine may lose patience; nobody is refused.
    assert!(done.errors.keys().all(|e| e == IMPATIENT), "clients were disturbed: {:?}", done.errors);
}

#[test]
fn s25_a_link_with_200_ms_delay_and_5_percent_loss() {
    let _alone = alone();
    let mut f = Fleet::prepare(Plan::default());
    let mut proxies = Vec::new();
    let via = f.host("c2").clone();
    for m in f.masters() {
        proxies.push(Proxy::bytes(f.host("n1"), f.host(&m).at(MASTER_PORT), &via, f.plan.seed));
    }
    for n in ["n2", "n3"] {
        proxies.push(Proxy::bytes(f.host("n1"), f.host(n).at(PEER_PORT), &via, f.plan.seed));
        proxies.push(Proxy::bytes(f.host(n), f.host("n1").at(PEER_PORT), &via, f.plan.seed));
    }
    f.start_all();
    f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    // There and back it is 200 ms.
    for p in &proxies {
        p.slow(Slow { delay: Duration::from_millis(100), loss: 0.05 });
    }
    let acked = load.acked();
    std::thread::sleep(Duration::from_secs(8));
    let slowly = load.acked() - acked;
    for p in &proxies {
        p.slow(Slow::default());
    }
    assert!(slowly > 100, "only {slowly} operations in 8 s: a slow link is no dead one");
    let v = f.wait_all();
    assert_eq!(v.status.slots.lost_total, 0);
    load.wait_more(SOME);
    let done = load.end();
    println!("{slowly} operations acknowledged in 8 s over the slow link; {}", done.line());
    done.check(&mut f.client());
}

#[test]
fn s29_wall_clock_moved_an_hour_either_way() {
    let _alone = alone();
    let mut f = Fleet::prepare(Plan::default());
    let library = ["x86_64", "aarch64"]
        .map(|a| format!("/usr/lib/{a}-linux-gnu/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|p| std::path::Path::new(p).exists())
        .expect("libfaketime (apt-get install libfaketime)");
    for p in f.masters().into_iter().chain(f.nodes()) {
        let file = f.clock_file(&p);
        std::fs::write(&file, "+0").expect("a clock");
        let set = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let env = vec![
            set("LD_PRELOAD", &library),
            set("FAKETIME_TIMESTAMP_FILE", &file.to_string_lossy()),
            set("FAKETIME_CACHE_DURATION", "1"),
            // Only the wall clock moves.
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            set("DONT_FAKE_MONOTONIC", "1"),
            set("NO_FAKE_STAT", "1"),
        ];
        f.env.insert(p, env);
    }
    f.start_all();
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let mut c = f.client();
    let wall = |c: &mut Client, n: &str| -> i64 {
        let at = f.node_addr(n);
        let said = c.ask_node(at, &[b"TIME"]).expect("TIME");
        let bytes = said.items().and_then(|i| i[0].bytes()).map(<[u8]>::to_vec).expect("seconds");
        String::from_utf8_lossy(&bytes).parse().expect("a number")
    };
    let here =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    for (nodes, masters) in [("+3600", "-3600"), ("-3600", "+3600"), ("+0", "+0")] {
        let (long, short): (Vec<String>, Vec<String>) =
            (0..60).map(|i| (format!("long{nodes}{i}"), format!("short{nodes}{i}"))).unzip();
        let put = |keys: &[String], px: &str| -> Vec<Vec<Vec<u8>>> {
            keys.iter()
                .map(|k| [b"SET", k.as_bytes(), b"v", b"PX", px.as_bytes()].map(<[u8]>::to_vec).to_vec())
                .collect()
        };
        c.call_all(&put(&long, "600000"));
        let began = Instant::now();
        c.call_all(&put(&short, "4000"));
        // Two nodes jump, one stays; so do masters.
        for (p, to) in [("n1", nodes), ("n2", nodes), ("m1", masters), ("m2", masters)] {
            std::fs::write(f.clock_file(p), to).expect("a clock");
        }
        let offset: i64 = nodes.parse().expect("seconds");
        wait_for("the clock to have moved", || ((wall(&mut c, "n1") - here() - offset).abs() < 60).then_some(()));
        assert!((wall(&mut c, "n3") - here()).abs() < 60, "this one stayed");
        if began.elapsed() < Duration::from_millis(3000) {
            assert!(c.get_all(&short).iter().all(Option::is_some), "an hour is not 4 seconds");
        }
        std::thread::sleep(Duration::from_millis(4500).saturating_sub(began.elapsed()));
        assert!(c.get_all(&short).iter().all(Option::is_none), "4 seconds are 4 seconds");
        assert!(c.get_all(&long).iter().all(Option::is_some));
        load.wait_more(SOME);
    }
    let now = f.wait_all();
    for n in f.nodes() {
        assert_eq!(node(&now, &n).incarnation, node(&before, &n).incarnation, "{n} was declared dead");
    }
    assert_eq!(now.status.term, before.status.term, "nobody was elected for it");
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut c);
    done.assert_undisturbed();
}
